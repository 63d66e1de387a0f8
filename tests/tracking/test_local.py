"""The embedded tracker keeps the contract, and what only it promises."""

from __future__ import annotations

import math
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit import filters
from mlopskit.errors import StorageError
from mlopskit.testing.tracking import Line, TrackerContract
from mlopskit.tool import Context
from mlopskit.tracking import local_questions as questions
from mlopskit.tracking.local import LocalTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.core


class TestLocalTracker(TrackerContract):
    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        return {"backend": "local", "location": str(tmp_path / "store"), "flush_timeout_s": 60}


class TestLocalTrackerWithBytesElsewhere(TrackerContract):
    """The same, with the bytes of artifacts at an address that fsspec reaches."""

    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        pytest.importorskip("fsspec")
        return {
            "backend": "local",
            "location": str(tmp_path / "store"),
            "artifacts": f"local://{tmp_path}/elsewhere",
            "flush_timeout_s": 60,
        }


def opened(folder: Path) -> LocalTracker:
    tracker = LocalTracker(folder / "store")
    tracker.context = Context(home=folder)
    return tracker


def test_a_store_of_layout_1_is_brought_to_this_one(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with closing(sqlite3.connect(tmp_path / "store" / "tracking.db")) as old, old:
        old.executescript(LAYOUT_1)
        old.execute("pragma user_version = 1")
        old.execute(
            "insert into run values (7, ?, 'n', 'e', 'finished', null, 1000, 2000, '')", ("a" * 32,)
        )
        old.execute("insert into param values (7, 'lr', '0.1')")
        old.execute("insert into tag values (7, 't', '\"x\"')")
        old.execute("insert into series values (1, 7, 'loss', 4, '9223372036854775808', null)")
        old.executemany(
            "insert into point values (1, ?, ?, ?, ?)",
            [
                (0, 5, 1000, 0.5),
                (1, 3, 1001, "-0.0"),
                (2, 4, 1002, "9007199254740993"),
                (3, "9223372036854775808", 1003, None),
            ],
        )
        old.execute("insert into series values (2, 7, 'empty', 0, 0, null)")
        old.execute("insert into artifact values (7, 'x.txt', 1, 'sha256:x', 'text')")
        old.execute("insert into delivered values ('a.b', 77)")
    tracker = opened(tmp_path)

    record = tracker.get_run("a" * 32)
    history = tracker.get_metric_history("a" * 32, "loss")

    assert (record.name, record.status, record.params, record.tags) == (
        "n",
        "finished",
        {"lr": 0.1},
        {"t": "x"},
    )
    assert list(history.steps) == [5, 3, 4, 2**63]
    assert repr(list(history.values)) == repr([0.5, -0.0, 9007199254740993, math.nan])
    assert list(history.timestamps) == [1000, 1001, 1002, 1003]
    assert record.last_steps["loss"] == 2**63
    assert [(each.name, each.logged_as) for each in tracker.list_artifacts("a" * 32)] == [
        ("x.txt", "x.txt")
    ]
    assert len(tracker.search_runs("params.lr = 0.1")) == 1
    with tracker.start_run(run_id="a" * 32, resume=True) as run:
        run.log_metric("loss", 1.0)
    assert len(tracker.get_metric_history("a" * 32, "loss")) == 5
    tracker.close()


def test_a_store_of_a_later_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with closing(sqlite3.connect(tmp_path / "store" / "tracking.db")) as later, later:
        later.execute("pragma user_version = 99")
    tracker = opened(tmp_path)

    with pytest.raises(StorageError, match="layout 99"):
        tracker.search_runs()
    tracker.close()


VALUES: list[Any] = [0, 1, 1.0, True, -0.5, 2**53, 2**53 + 1, math.nan, math.inf, "1", "a", "A", ""]
LITERALS = ["0", "1", "-0.5", "9007199254740993", "nan", "inf", "'1'", "'a'", "true", "''"]
FIELDS = [
    *("params.x", "params.deep.y", "metrics.m", "metrics.n", "tags.t"),
    *("name", "experiment", "group", "status", "started_at"),
]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTracker]:
    """A store of runs that have all kinds of values, or none."""
    chance = random.Random(0)
    tracker = opened(tmp_path_factory.mktemp("many"))
    numbers = [each for each in VALUES if not isinstance(each, str)]
    for _ in range(120):
        with tracker.start_run(
            chance.choice("ab"),
            name=chance.choice(["a", "A", "1", "b%"]),
            group=chance.choice([None, "a", "b"]),
        ) as run:
            if chance.random() < 0.8:
                run.log_params({"x": chance.choice(VALUES)})
            if chance.random() < 0.5:
                run.log_params({"deep": {"y": chance.choice(VALUES)}})
            if chance.random() < 0.8:
                run.log_metric("m", chance.choice(numbers))
            if chance.random() < 0.5:
                run.log_metric("n", chance.choice([0.0, -0.0, 1.0, math.nan]))
            if chance.random() < 0.5:
                run.set_tags({"t": chance.choice(["a", "1", ""])})
    yield tracker
    tracker.close()


def a_filter(chance: random.Random, depth: int = 0) -> str:
    """Make up a filter."""
    kind = chance.random()
    if depth < 3 and kind < 0.4:
        word = chance.choice([" and ", " or "])
        return "(" + word.join(a_filter(chance, depth + 1) for _ in range(2)) + ")"
    if depth < 3 and kind < 0.5:
        return f"not {a_filter(chance, depth + 1)}"
    field = chance.choice(FIELDS)
    if kind < 0.6:
        return f"{field} is {chance.choice(['', 'not '])}null"
    if kind < 0.7:
        return f"{field} in ({', '.join(chance.sample(LITERALS, 2))})"
    if kind < 0.75:
        return f"{field} like '{chance.choice(['a%', '%', '_'])}'"
    return f"{field} {chance.choice(['=', '!=', '<', '<=', '>', '>='])} {chance.choice(LITERALS)}"


@pytest.mark.parametrize("seed", range(40))
def test_what_sql_finds_and_sorts_is_what_the_filter_says(many: LocalTracker, seed: int) -> None:
    chance = random.Random(seed)
    every = list(many.scan_runs(None, None))
    for _ in range(25):
        text = a_filter(chance)
        field = chance.choice(FIELDS)
        order = filters.parse_order([f"{field} {chance.choice(['asc', 'desc'])}"])
        where = filters.parse(text)
        assert where is not None

        found = many.scan_runs(None, where, order)
        asked = [run.id for run in found if filters.matches(where, run)]

        right = [run for run in every if filters.matches(where, run)]
        if many.sorts(order):
            assert asked == [run.id for run in filters.ordered(right, order)], (text, order)
        else:
            assert asked == [run.id for run in right], text


def test_a_filter_uses_the_index(many: LocalTracker) -> None:
    where = questions.condition(filters.parse("metrics.m < 0.5"))
    plan = many.native.execute(
        f"explain query plan select number from run where {where.text}", where.given
    ).fetchall()

    assert any("series_number" in row[3] for row in plan)


def test_a_file_that_two_runs_have_goes_with_the_last_of_them(tmp_path: Path) -> None:
    tracker = opened(tmp_path)
    runs = []
    for _ in range(2):
        with tracker.start_run("e") as run:
            run.log_text("same", "x.txt")
        runs.append(run)
    blobs = tmp_path / "store" / "blobs"

    tracker.delete_run(runs[0].id)
    left = [path for path in blobs.rglob("*") if path.is_file()]
    tracker.delete_experiment("e")

    assert len(left) == 1
    assert [path for path in blobs.rglob("*") if path.is_file()] == []
    tracker.close()


LAYOUT_1 = """
create table run (
    number integer primary key autoincrement, id text not null unique, name text not null,
    experiment text not null, status text not null, parent_id text, started_ms integer not null,
    ended_ms integer, owner text not null
);
create index run_experiment on run (experiment, number);
create table param (
    run integer not null references run on delete cascade, key text not null, value not null,
    primary key (run, key)
) without rowid;
create table tag (
    run integer not null references run on delete cascade, key text not null, value not null,
    primary key (run, key)
) without rowid;
create table series (
    id integer primary key, run integer not null references run on delete cascade,
    key text not null, points integer not null, last_step not null, last_value, unique (run, key)
);
create table point (
    series integer not null references series on delete cascade, place integer not null,
    step not null, time_ms integer not null, value, primary key (series, place)
) without rowid;
create table artifact (
    run integer not null references run on delete cascade, name text not null,
    size integer not null, digest text not null, type text not null, primary key (run, name)
) without rowid;
create index artifact_digest on artifact (digest);
create table delivered (source text primary key, position integer not null) without rowid;
"""
