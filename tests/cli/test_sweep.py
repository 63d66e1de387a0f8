"""``mlopskit sweep`` runs what a sweep file describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

pytest.importorskip("optuna")
pytest.importorskip("yaml")

FILE = """
program: train.py
method: random
metric: {name: loss}
parameters:
  x: {min: 0.0, max: 1.0}
  kind: {values: [a, b]}
run_cap: 3
"""
PROGRAM = """
import sys
given = dict(word.removeprefix("--").split("=") for word in sys.argv[1:])
assert given["kind"] in "ab"
print("beginning", flush=True)
print("loss=9 step=1")
print(f"loss: {float(given['x']) / 2}")
"""


@pytest.fixture(autouse=True)
def project() -> None:
    Path("sweep.yaml").write_text(FILE)
    Path("train.py").write_text(PROGRAM)
    Path("endless.yaml").write_text(FILE.replace("run_cap: 3", ""))
    Path("broken_here.py").write_text("raise ValueError('no data')")
    Path("mine_here.py").write_text("def objective(trial):\n    return trial.params['x']\n")


def test_the_program_of_the_file_is_run_for_each_trial(cli: Callable[..., Done]) -> None:
    done = cli("sweep", "sweep.yaml", "--seed", "1", "--json", "--report", "page.html")

    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["counts"] == {"complete": 3, "pruned": 0, "failed": 0}
    for trial in said["trials"]:
        assert trial["value"] == trial["params"]["x"] / 2
    assert "<svg" in Path("page.html").read_text()


def test_a_function_may_be_the_objective(cli: Callable[..., Done]) -> None:
    done = cli(
        "sweep", "sweep.yaml", "--objective", "mine_here:objective", "--trials", "4", "--name", "s"
    )
    assert done.code == 0, done.err
    assert "4 complete" in done.out
    again = cli(
        "sweep",
        "sweep.yaml",
        "--objective",
        "mine_here:objective",
        "--trials",
        "5",
        "--name",
        "s",
        "--json",
    )
    assert len(json.loads(again.out)["trials"]) == 5


def test_a_command_may_be_given(cli: Callable[..., Done]) -> None:
    code = "import sys, json; print('loss =', json.loads(sys.argv[1])['x'])"
    command = f'${{interpreter}} -c "{code}" ${{args_json}}'
    done = cli("sweep", "sweep.yaml", "--command", command, "--json")

    assert done.code == 0, done.err
    assert all(each["value"] == each["params"]["x"] for each in json.loads(done.out)["trials"])


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("false", "false ended with 1; its output is in run"),
        ("echo nothing", "echo printed no line loss=NUMBER; its output is in run"),
    ],
)
def test_programs_that_fail_are_counted_and_told_in_one_line_each(
    cli: Callable[..., Done], caplog: pytest.LogCaptureFixture, command: str, why: str
) -> None:
    done = cli("sweep", "sweep.yaml", "--command", command)

    assert done.code == 1
    assert "3 failed" in done.out
    told = [each for each in caplog.records if why in each.getMessage()]
    assert [each.getMessage()[:16] for each in told] == [
        f"Trial {n} failed: "[:16] for n in range(3)
    ]
    assert all(each.exc_info is None for each in told)


def test_the_failing_program_of_the_file_is_named(
    cli: Callable[..., Done], caplog: pytest.LogCaptureFixture
) -> None:
    Path("train.py").write_text("raise SystemExit(3)")

    assert cli("sweep", "sweep.yaml", "--trials", "1").code == 1
    assert "Trial 0 failed: train.py ended with 3; its output is in run" in caplog.text


def test_a_program_that_does_not_exist_is_refused_before_any_trial(
    cli: Callable[..., Done],
) -> None:
    unknown = cli("sweep", "sweep.yaml", "--command", "no-such-program-at-all")
    Path("train.py").unlink()
    missing = cli("sweep", "sweep.yaml")

    assert (unknown.code, missing.code) == (2, 2)
    assert "no program 'no-such-program-at-all'" in unknown.err
    assert "no 'train.py', the program of the file" in missing.err
    assert json.loads(cli("runs", "--json").out)["runs"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml"], "nothing.yaml"),
        (["sweep.yaml", "--objective", "mine_here"], "MODULE:FUNCTION"),
        (["sweep.yaml", "--objective", "nowhere:f"], "nowhere"),
        (["sweep.yaml", "--command", "run ${magic}"], "magic"),
        (["sweep.yaml", "--objective", "a:b", "--command", "c"], "not both"),
        (["sweep.yaml", "--objective", "broken_here:f"], "ValueError: no data."),
        (["sweep.yaml", "--command", ""], "--command is empty"),
        (["sweep.yaml", "--command", "python 'x"], "cannot be read: No closing quotation."),
        (["sweep.yaml", "--trials", "many"], "'many' is no whole number from 1 on."),
        (["sweep.yaml", "--trials", "0"], "'0' is no whole number from 1 on."),
        (["sweep.yaml", "--seed", "-1"], "'-1' is no whole number from 0 on."),
        (["endless.yaml"], "endless.yaml has no run_cap, and its method goes on for ever"),
        (["endless.yaml"], "such as --trials 20."),
        (["sweep.yaml", "--report", "nowhere/page.html"], "There is no folder"),
    ],
    ids=str,
)
def test_mistakes_are_told(cli: Callable[..., Done], arguments: list[str], said: str) -> None:
    done = cli("sweep", *arguments)

    assert done.code in (1, 2)
    assert said in done.err
    assert json.loads(cli("runs", "--json").out)["runs"] == []
