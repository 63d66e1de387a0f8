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


@pytest.mark.parametrize("command", ["false", "echo nothing", "no-such-program-at-all"])
def test_programs_that_fail_are_counted(cli: Callable[..., Done], command: str) -> None:
    done = cli("sweep", "sweep.yaml", "--command", command)

    assert done.code == 1
    assert "3 failed" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml"], "nothing.yaml"),
        (["sweep.yaml", "--objective", "mine_here"], "MODULE:FUNCTION"),
        (["sweep.yaml", "--objective", "nowhere:f"], "nowhere"),
        (["sweep.yaml", "--command", "run ${magic}"], "magic"),
        (["sweep.yaml", "--objective", "a:b", "--command", "c"], "not both"),
    ],
    ids=str,
)
def test_mistakes_are_told(cli: Callable[..., Done], arguments: list[str], said: str) -> None:
    done = cli("sweep", *arguments)

    assert done.code in (1, 2)
    assert said in done.err
