"""``mlopskit run show`` and ``mlopskit run export``."""

from __future__ import annotations

import csv
import json
import math
import os
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.cli.test_output import on_terminal

import mlopskit as mk
from mlopskit.cli.sparkline import sparkline
from mlopskit.tracking import RunRecord
from mlopskit.tracking.export import export_run, read_params
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
NOTES = "mine\nand \x1b[31myours"


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    """Track a run that has a little of everything."""
    (tmp_path / "weights.bin").write_bytes(b"\0\1")
    with (
        mk.load() as kit,
        kit.tracker.start_run(
            "e", name="ü run", params=PARAMS, tags={"team": "blue"}, group="g", notes=NOTES
        ) as run,
    ):
        for step, value in enumerate(VALUES):
            run.log_metrics({"loss": value, "system/cpu_percent": 50.0 + step}, step=step)
        run.log_artifact(
            tmp_path / "weights.bin",
            "model/w.bin",
            type="model",
            aliases=["best"],
            metadata={"auc": math.nan},
        )
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
    assert ["notes", "mine\\nand \\x1b[31myours"] in records
    loss = next(record for record in records if record and record[0] == "loss")
    assert loss[1] == "▁ █▁█"
    assert loss[2:] == ["0.5", "9007199254740993", "-0.0", "inf", "4"]
    order = [record[:1] for record in records]
    assert order.index(["cpu_percent"]) > order.index(["team"])
    assert any(record[:2] == ["data", "training"] for record in records)
    assert any(record[:4] == ["model/w.bin", "model", "2", "best"] for record in records)
    assert any(record[:1] == ["far.bin"] and "s3://bucket/far" in record for record in records)
    assert any(record[:3] == ["model/w.bin", "best", run_id] for record in records)


def test_the_extremes_of_a_metric_are_exact(cli: Callable[..., Done]) -> None:
    with mk.load() as kit, kit.tracker.start_run() as run:
        for step, value in enumerate([2**53 + 1, 2**70, math.nan, 10**400]):
            run.log_metrics({"tokens": value}, step=step)

    done = cli("run", "show", run.id)

    (tokens,) = [record for record in done.records if record and record[0] == "tokens"]
    assert tokens[-4:] == [str(10**400), str(2**53 + 1), str(10**400), "3"]


def test_a_terminal_shows_lines_whole_and_notes_as_they_were_written(run_id: str) -> None:
    with mk.load() as kit, kit.tracker.start_run(run_id=run_id, resume=True) as run:
        run.log_metrics({"a/metric/of/a/name/" + "that/is/folded/" * 5: 1 / 3 * 1e-9})
        for step in range(100):
            run.log_metrics({"slow": step}, step=step)
        for at in range(11):
            run.log_text("x" * 200, f"text/{at}.txt")

    seen = {columns: on_terminal("run", "show", run_id, columns=columns) for columns in (80, 120)}

    assert sparkline(range(100), 12) in seen[80]
    assert sparkline(range(100), 24) in seen[120]
    for each in seen.values():
        assert "\r\nmine\r\nand \\x1b[31myours\r\n" in each
        assert "text/10.txt" in each, "ten files that were logged one by one"


def test_a_terminal_shows_a_folder_of_many_files_as_one_line(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for at in range(11):
        (tmp_path / "many" / f"{at}.txt").write_text("x" * 200)
    with mk.load() as kit, kit.tracker.start_run() as run:
        run.log_artifact(tmp_path / "many", "many")

    seen = on_terminal("run", "show", run.id, columns=100)

    assert "many/ (11 files)" in seen
    assert "2.1 KiB" in seen
    assert "10.txt" not in seen


def test_a_line_is_drawn_in_what_the_output_can_say(
    process: Callable[..., Done], run_id: str
) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = process("run", "show", run_id, environ=environ)

    assert done.code == 0, done.err
    (loss,) = [each.split() for each in done.out.splitlines() if each.startswith("loss")]
    assert loss[1:3] == ["_", "#_#"]


def test_json_has_all_of_it(cli: Callable[..., Done], run_id: str) -> None:
    said = json.loads(cli("run", "show", run_id, "--json").out)

    assert said["series"]["loss"]["steps"] == [0, 1, 2, 3, 4]
    assert said["series"]["loss"]["values"][1:3] == ["NaN", "Infinity"]
    assert [each["name"] for each in said["artifacts"]] == ["far.bin", "model/w.bin"]
    assert said["inputs"][0]["alias"] == "best"
    assert said["url"] is None


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
    assert hostile.err.startswith("Error: There is no run")


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
    assert (said["format"], said["run"]["name"], said["run"]["notes"]) == (1, "ü run", NOTES)
    assert said["run"]["datasets"][0]["name"] == "data"
    assert said["artifacts"][0]["uri"] == "s3://bucket/far"
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["key"] == "loss"]
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["value"] for row in rows] == ["0.5", "nan", "inf", "-0.0", "9007199254740993"]
    assert all(row["timestamp"].endswith("+00:00") for row in rows)
    assert (folder / "artifacts" / "model" / "w.bin").read_bytes() == b"\0\1"
    plain = said["run"]["params"]
    assert plain["inf"] == ["-Infinity", {"deep": "Infinity"}]
    assert plain["tuple"] == [1, [2, None]]
    assert plain["keys"] == {"1": "a", "2.5": "b"}
    assert plain["big"] == 2**70
    assert said["run"]["inputs"][0]["files"][0]["metadata"] == {"auc": "NaN"}
    assert "owner" not in said["run"]
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
    assert json.loads(third.out) == {"exported": [str(tmp_path / run_id)], "failed": {}}
    assert not (tmp_path / run_id / "artifacts").exists()
    assert leftovers(tmp_path) == []
    assert cli("run", "export").code == 2
    assert cli("run", "export", "--experiment", "none").err == "No run matches.\n"


def test_an_export_never_replaces_what_is_no_export(
    cli: Callable[..., Done], run_id: str, tmp_path: Path
) -> None:
    (tmp_path / run_id).mkdir()
    (tmp_path / run_id / "thesis.txt").write_text("mine")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / run_id).symlink_to(tmp_path / run_id)

    forced = [
        cli("run", "export", run_id, "--to", str(to), "--force")
        for to in (tmp_path, tmp_path / "link")
    ]

    assert [done.code for done in forced] == [1, 1]
    assert "no export to replace" in forced[0].err
    assert (tmp_path / run_id / "thesis.txt").read_text() == "mine"
    assert leftovers(tmp_path) == []


def test_an_export_that_fails_leaves_nothing_and_does_not_stop_the_others(
    cli: Callable[..., Done], run_id: str, tmp_path: Path
) -> None:
    with mk.load() as kit:
        with kit.tracker.start_run("e") as other:
            other.log_text("whole", "a.txt")
        blobs = [
            path
            for path in kit.tracker.context.home.rglob("*")
            if path.is_file() and path.read_bytes() == b"\0\1"
        ]
    for blob in blobs:
        blob.chmod(0o600)
        blob.write_bytes(b"\1\1")

    done = cli("run", "export", run_id, other.id, "--to", str(tmp_path / "out"), "--json")

    assert done.code == 1
    said = json.loads(done.out)
    assert said["exported"] == [str(tmp_path / "out" / other.id)]
    assert list(said["failed"]) == [run_id]
    assert "model/w.bin" in done.err or "sha256" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [other.id]


def test_a_text_that_utf8_cannot_hold_is_exported_as_json_escapes_it(tmp_path: Path) -> None:
    params = {"text": "ü \udc80 \\udc80"}
    run = RunRecord(id="0" * 32, name="r", experiment="e", status="finished", params=params)

    export_run(cast("Any", OneRun(run)), run.id, tmp_path / "out")

    assert json.loads((tmp_path / "out" / "run.json").read_bytes())["run"]["params"] == params
    assert read_params(tmp_path / "out") == params


class OneRun:
    """A tracker of other people's runs, as far as an export asks it."""

    def __init__(self, run: RunRecord) -> None:
        self._run = run

    def get_run(self, id: str) -> RunRecord:
        return self._run

    def list_artifacts(self, id: str) -> list[Any]:
        return []


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".*.*")]


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
