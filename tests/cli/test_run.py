"""``mlopskit run show`` and ``mlopskit run export``."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

import mlopskit as mk
from mlopskit.cli.sparkline import sparkline
from mlopskit.tracking.export import read_params
from mlopskit.tracking.values import to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

PARAMS: dict[str, Any] = {
    "nan": math.nan,
    "inf": [-math.inf, {"deep": math.inf}],
    "big": 2**70,
    "one": 1.0,
    "tuple": (1, (2, None)),
    "keys": {1: "a", 2.5: "b"},
    "marked": {"$": "float", "v": "nan"},
    "text": "ü\n\x00\udc80",
}
VALUES = [0.5, math.nan, math.inf, -0.0, 2**53 + 1]


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    """Track a run that has a little of everything."""
    (tmp_path / "weights.bin").write_bytes(b"\0\1")
    with (
        mk.load() as kit,
        kit.tracker.start_run(
            "e", name="ü run", params=PARAMS, tags={"team": "blue"}, group="g", notes="mine"
        ) as run,
    ):
        for step, value in enumerate(VALUES):
            run.log_metrics({"loss": value, "system/cpu_percent": 50.0 + step}, step=step)
        run.log_artifact(tmp_path / "weights.bin", "model/w.bin", type="model", aliases=["best"])
        run.log_reference("s3://bucket/far", "far.bin")
        run.log_dataset(tmp_path / "weights.bin", "data", role="training")
        run.use_artifact("model/w.bin:best")
    return run.id


def test_a_run_is_shown_with_its_lines(cli: Callable[..., Done], run_id: str) -> None:
    done = cli("run", "show", run_id[:8])

    assert done.code == 0, done.err
    assert done.out.startswith("ü run\n")
    records = done.records
    assert ["group", "g"] in records
    assert ["notes", "mine"] in records
    loss = next(record for record in records if record and record[0] == "loss")
    assert loss[1] == "▁ █▁█"
    assert loss[-4:] == ["9007199254740993", "-0.0", "inf", "4"]
    order = [record[:1] for record in records]
    assert order.index(["cpu_percent"]) > order.index(["team"])
    assert any(record[:2] == ["data", "training"] for record in records)
    assert any(record[:4] == ["model/w.bin", "model", "2", "best"] for record in records)
    assert any(record[:1] == ["far.bin"] and "s3://bucket/far" in record for record in records)
    assert any(record[:3] == ["model/w.bin", "best", run_id] for record in records)


def test_json_has_all_of_it(cli: Callable[..., Done], run_id: str) -> None:
    said = json.loads(cli("run", "show", run_id, "--json").out)

    assert said["series"]["loss"]["steps"] == [0, 1, 2, 3, 4]
    assert said["series"]["loss"]["values"][1:3] == ["NaN", "Infinity"]
    assert [each["name"] for each in said["artifacts"]] == ["far.bin", "model/w.bin"]
    assert said["inputs"][0]["alias"] == "best"


def test_an_id_that_is_ambiguous_or_nobodys_is_told(cli: Callable[..., Done]) -> None:
    with mk.load() as kit:
        for last in "ab":
            kit.tracker.start_run(run_id="12345678" + "0" * 23 + last).finish()

    both = cli("run", "show", "12345678")
    none = cli("run", "show", "feedfeed")
    hostile = cli("run", "show", "x' or '1")

    assert both.code == none.code == hostile.code == 1
    assert "one run that begins with '12345678'" in both.err
    assert "0a" in both.err
    assert "no run 'feedfeed'" in none.err


def test_an_export_needs_no_mlopskit_to_read(
    cli: Callable[..., Done], run_id: str, tmp_path: Path
) -> None:
    done = cli("run", "export", run_id, "--to", str(tmp_path / "out"))

    folder = tmp_path / "out" / run_id
    assert (done.code, done.out) == (0, f"{folder}\n")
    said = json.loads(
        (folder / "run.json").read_text(encoding="utf-8", errors="surrogatepass"),
        parse_constant=pytest.fail,  # NaN and infinities are no JSON.
    )
    assert (said["format"], said["run"]["name"], said["run"]["notes"]) == (1, "ü run", "mine")
    assert said["run"]["datasets"][0]["name"] == "data"
    assert said["artifacts"][0]["uri"] == "s3://bucket/far"
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["key"] == "loss"]
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["value"] for row in rows] == ["0.5", "nan", "inf", "-0.0", "9007199254740993"]
    assert all(row["timestamp"].endswith("+00:00") for row in rows)
    assert (folder / "artifacts" / "model" / "w.bin").read_bytes() == b"\0\1"
    params = read_params(folder)
    assert {key: to_json(each) for key, each in params.items()} == {
        key: to_json(each) for key, each in PARAMS.items()
    }


def test_an_export_replaces_nothing_unasked(
    cli: Callable[..., Done], run_id: str, tmp_path: Path
) -> None:
    arguments = ("run", "export", "--experiment", "e", "--to", str(tmp_path), "--no-artifacts")
    first, second = cli(*arguments), cli(*arguments)
    third = cli(*arguments, "--force", "--json")

    assert (first.code, second.code, third.code) == (0, 1, 0)
    assert "is there already" in second.err
    assert json.loads(third.out) == {"exported": [str(tmp_path / run_id)]}
    assert not (tmp_path / run_id / "artifacts").exists()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    assert cli("run", "export").code == 2


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▄"),
        ([1.0, 1.0], "▄▄"),
        ([0.0, 1.0], "▁█"),
        ([0.0, math.nan, 1.0], "▁ █"),
        ([math.inf, 0.0, 1.0, -math.inf], "█▁█▁"),
        ([-1.7e308, 0.0, 1.7e308], "▁▅█"),
        ([math.nan, math.nan], "  "),
    ],
)
def test_a_sparkline_goes_as_its_values_do(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_a_sparkline_has_room_for_the_end_and_any_terminal() -> None:
    assert len(sparkline(list(range(1000)), 24)) == 24
    assert sparkline([*range(1000), 0.0], 10)[-1] == "▁"
    assert sparkline([0.0, 1.0], encoding="ascii") == "_#"
