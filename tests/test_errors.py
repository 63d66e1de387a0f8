from __future__ import annotations

import re

import pytest

from mlopskit import errors

pytestmark = pytest.mark.core

CLASSES = {name: getattr(errors, name) for name in errors.__all__}


def test_the_tree_at_the_top_of_the_page_is_the_tree() -> None:
    drawn = re.findall(r"^( *)[*+-] (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert {name for _, name in drawn} == set(CLASSES)

    path: list[str] = []
    for indent, name in drawn:
        path[len(indent) // 2 - 1 :] = [name]
        if len(path) > 1:
            assert path[-2] in {base.__name__ for base in CLASSES[name].__bases__}, name


def test_everything_is_a_mlopskit_error() -> None:
    assert all(issubclass(each, errors.MlopskitError) for each in CLASSES.values())


def test_an_unknown_name_is_told_the_nearest_right_one() -> None:
    assert str(errors.UnknownBackend("tracking", "mlfow", ["local", "mlflow"])) == (
        "No tracking backend is called 'mlfow'. Did you mean 'mlflow'? Installed: local, mlflow."
    )
    assert "Did you mean 'port'?" in str(errors.UnknownOption("option", "prot", ["host", "port"]))
    assert "Did you mean" not in str(errors.NotFound("run", "zzz", ["abc"]))


def test_a_missing_package_comes_with_the_line_that_installs_it() -> None:
    error = errors.MissingDependency(
        "The tracking backend 'mlflow'", "mlflow", "pip install 'mlopskit[mlflow]'"
    )

    assert str(error).endswith("Install it with: pip install 'mlopskit[mlflow]'")


def test_a_name_of_ten_thousand_characters_does_not_drown_the_reason() -> None:
    error = errors.InvalidName("run", "x" * 10_000, "it is longer than 250 characters")

    assert len(str(error)) < 200
    assert str(error).endswith("cannot name a run: it is longer than 250 characters.")


def test_a_long_list_of_what_there_is_is_cut_and_counted() -> None:
    error = errors.NotFound("run", "x", [f"run{i:03}" for i in range(500)])

    assert "run011 and 488 more" in str(error)


@pytest.mark.parametrize(
    ("kind", "name", "known", "said"),
    [
        ("run", "x", [], "There is no run 'x'."),
        ("version of 'churn'", 9, ["1", "10", "2"], "There is no version 9 of 'churn'. There is: "),
        ("alias of 'a of b'", "x", [], "There is no alias 'x' of 'a of b'."),
        ('version of "it\'s"', 2, [], 'There is no version 2 of "it\'s".'),
        ("gate in 'gates.py'", "auc", [], "There is no gate 'auc' in 'gates.py'."),
        ("version of 'c' in the stage", "s", [], "There is no version of 'c' in the stage 's'."),
        ("file of gates", "g.py", [], "There is no file of gates 'g.py'."),
    ],
    ids=str,
)
def test_what_is_not_there_is_told_as_it_is_said(
    kind: str, name: object, known: list[str], said: str
) -> None:
    assert str(errors.NotFound(kind, name, known)).startswith(said)


def test_numbers_are_listed_in_their_order_and_none_is_near_another() -> None:
    error = errors.NotFound("version of 'churn'", 11, ["1", "10", "2"])

    assert str(error) == "There is no version 11 of 'churn'. There is: 1, 2, 10."
