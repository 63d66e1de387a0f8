from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlopskit import open_feature_store
from mlopskit.errors import ConfigError, InvalidInput, NotFound, StorageError, Unsupported
from mlopskit.features import FeatureService, FeatureView
from mlopskit.features.local import LocalFeatureStore
from mlopskit.features.online import OnlineStore
from mlopskit.testing import FeatureStoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class TestLocalFeatureStore(FeatureStoreContract):
    @pytest.fixture
    def tool(self, tmp_path: Path) -> Iterator[LocalFeatureStore]:
        with LocalFeatureStore(tmp_path / "store") as store:
            yield store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalFeatureStore]:
    with LocalFeatureStore(tmp_path / "store", batch_rows=10) as store:
        yield store


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def asked(*keys: Any) -> pa.Table:
    return pa.table({"k": list(keys), "event_timestamp": [NOON] * len(keys)})


def values(store: LocalFeatureStore, *keys: Any, name: str = "v") -> list[Any]:
    found = store.get_historical_features(asked(*keys), [f"{name}:x"])
    return found["x"].to_pylist()  # type: ignore[no-any-return]  # pyarrow


def online(store: LocalFeatureStore, *keys: Any) -> list[Any]:
    return store.get_online_features({"k": list(keys)}, ["v:x"]).to_dict()["x"]


# Sources.


def test_a_source_is_a_file_a_folder_or_a_pattern(store: LocalFeatureStore, tmp_path: Path) -> None:
    folder = tmp_path / "events [1]"
    write(folder / "a.parquet", k=[1], event_timestamp=[NOON], x=["a"])
    write(folder / "deep/b.parquet", k=[2], event_timestamp=[NOON], x=["b"])
    write(folder / "_temporary/c.parquet", k=[3], event_timestamp=[NOON], x=["c"])
    (folder / "notes.txt").write_text("not a table")
    for source, found in (
        (folder, ["a", "b", None]),
        (folder / "a.parquet", ["a", None, None]),
        (tmp_path / "events*/**/*.parquet", ["a", "b", "c"]),
        (tmp_path / "*/a.parquet", ["a", None, None]),
    ):
        store.apply(FeatureView("v", ["k"], ["x"], source))
        assert values(store, 1, 2, 3) == found, source


def test_a_part_of_a_path_may_be_a_column(store: LocalFeatureStore, tmp_path: Path) -> None:
    for k in (1, 2):
        write(tmp_path / f"hive/k={k}/e.parquet", event_timestamp=[NOON], x=[k * 10])
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "hive"))
    assert values(store, 2, 1, 3) == [20, 10, None]
    # A file that is named itself has the columns that are in it, wherever it lies.
    write(tmp_path / "x=7/e.parquet", event_timestamp=[NOON], k=[1], x=[5])
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "x=7/e.parquet"))
    assert values(store, 1) == [5]


def test_files_may_differ_in_the_width_of_a_type_and_not_in_the_type(
    store: LocalFeatureStore, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    write(folder / "a.parquet", k=pa.array([1], pa.int32()), event_timestamp=[NOON], x=[1])
    write(folder / "b.parquet", x=[0.5], event_timestamp=[NOON], k=[2], more=["ignored"])
    store.apply(FeatureView("v", ["k"], ["x"], folder))
    assert values(store, 1, 2) == [1.0, 0.5]
    write(folder / "c.parquet", k=[3], event_timestamp=[NOON], x=["text"])
    with pytest.raises(InvalidInput, match="disagree"):
        values(store, 1)
    write(folder / "c.parquet", k=[3], event_timestamp=[NOON])
    with pytest.raises(InvalidInput, match=r"c\.parquet.*lacks the column 'x'"):
        values(store, 1)


def test_what_is_no_parquet_is_a_storage_error(store: LocalFeatureStore, tmp_path: Path) -> None:
    (tmp_path / "v.parquet").write_bytes(b"PAR1 and then nothing of the kind PAR1")
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "v.parquet"))
    with pytest.raises(StorageError, match="cannot be read as Parquet"):
        values(store, 1)
    (tmp_path / "empty").mkdir()
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "empty"))
    with pytest.raises(NotFound, match="empty"):
        values(store, 1)


def test_a_relative_source_is_seen_from_where_it_was_applied(
    store: LocalFeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here/v.parquet", k=[1], event_timestamp=[NOON], x=["here"])
    monkeypatch.chdir(tmp_path / "here")
    store.apply(FeatureView("v", ["k"], ["x"], "v.parquet"))
    monkeypatch.chdir(tmp_path)
    assert values(store, 1) == ["here"]
    assert store.get_view("v").source == "v.parquet"


def test_rows_without_a_key_or_a_time_are_left_out_and_counted(
    store: LocalFeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    early = NOON - SECOND
    write(tmp_path / "v.parquet", k=[1, None, 1], event_timestamp=[early, NOON, None], x=[1, 2, 3])
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "v.parquet"))
    with caplog.at_level(logging.WARNING, "mlopskit"):
        assert values(store, 1, None) == [1, None]
    assert "2 null keys or times" in caplog.text
    assert store.materialize(early, NOON) == {"v": 1}
    assert online(store, 1) == [1]


def test_categories_and_narrow_numbers_join(store: LocalFeatureStore, tmp_path: Path) -> None:
    keys = pa.array(["a", "b", "a"]).dictionary_encode()
    write(
        tmp_path / "v.parquet",
        k=keys,
        event_timestamp=[NOON, NOON, NOON + SECOND],
        x=pa.array(["red", "blue", "red"]).dictionary_encode(),
    )
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "v.parquet"))
    store.push("v", [{"k": "c", "event_timestamp": NOON, "x": "green"}])
    assert values(store, "b", "c", "a") == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("stored", "pushed", "kind", "read"),
    [
        (pa.array([1], pa.int32()), 2, pa.int32(), [1, 2]),
        (pa.array([1], pa.int32()), 2**40, pa.float64(), [1.0, 2.0**40]),
        (pa.array([1], pa.int64()), 2.5, pa.float64(), [1.0, 2.5]),
        (pa.array([0.5], pa.float32()), 0.25, pa.float32(), [0.5, 0.25]),
        (pa.array([0.5], pa.float32()), 0.1, pa.float64(), [0.5, 0.1]),
        (pa.array(["a"], pa.large_string()), "b", pa.large_string(), ["a", "b"]),
        (pa.array([[1.0]], pa.list_(pa.float32())), [2.0], pa.list_(pa.float32()), [[1.0], [2.0]]),
        (pa.array([True]), None, pa.bool_(), [True, None]),
        (
            pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ms")),
            NOON,
            pa.timestamp("ms"),
            [NOON.replace(tzinfo=None)] * 2,
        ),
    ],
)
def test_pushed_values_take_the_type_of_the_source_if_they_fit_it(
    store: LocalFeatureStore, tmp_path: Path, stored: Any, pushed: Any, kind: Any, read: list[Any]
) -> None:
    write(tmp_path / "v.parquet", k=[1], event_timestamp=[NOON], x=stored)
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "v.parquet"))
    store.push("v", [{"k": 2, "event_timestamp": NOON, "x": pushed}])
    found = store.get_historical_features(asked(1, 2), ["v:x"])["x"]
    assert found.type == kind
    assert found.to_pylist() == read


def test_pushed_values_of_another_type_than_the_source_are_named(
    store: LocalFeatureStore, tmp_path: Path
) -> None:
    write(tmp_path / "v.parquet", k=[1], event_timestamp=[NOON], x=[2**53 + 1])
    store.apply(FeatureView("v", ["k"], ["x"], tmp_path / "v.parquet"))
    store.push("v", [{"k": 2, "event_timestamp": NOON, "x": "two"}])
    with pytest.raises(InvalidInput, match="'x' of the view 'v' is int64 in its source"):
        values(store, 1)


# Materialize.


def many(tmp_path: Path, rows: int = 95) -> FeatureView:
    write(
        tmp_path / "many.parquet",
        k=list(range(rows)),
        event_timestamp=[NOON + i * SECOND for i in range(rows)],
        x=[i * 10 for i in range(rows)],
    )
    return FeatureView("v", ["k"], ["x"], tmp_path / "many.parquet")


KILLED = """
import os, signal, sys
from datetime import datetime
from mlopskit.features.local import LocalFeatureStore
from mlopskit.features.online import OnlineStore

real, left = OnlineStore.put_batch, [3]

def put_batch(*arguments):
    real(*arguments)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

OnlineStore.put_batch = put_batch
LocalFeatureStore(sys.argv[1], batch_rows=10).materialize("2024-01-01", "2025-01-01")
"""


@pytest.mark.parametrize("changed", [False, True])
def test_a_killed_materialize_goes_on_where_it_stopped(
    store: LocalFeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    view = many(tmp_path)
    store.apply(view)
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "store")], check=False)
    assert died.returncode == -signal.SIGKILL
    assert store.stats("v").online_rows == 30
    assert store.stats("v").materialized_until is None
    if changed:  # Then what was done counts no more.
        many(tmp_path, 105)
    # What is pushed meanwhile must not hide what was not done yet.
    later = NOON + 1000 * SECOND
    store.push("v", {"k": [5, 29, 31], "x": [1, 2, 3], "event_timestamp": [later] * 3})
    written = []
    real = OnlineStore.put_batch

    def counted(self: OnlineStore, *arguments: Any) -> None:
        written.append(len(arguments[1].keys))
        real(self, *arguments)

    monkeypatch.setattr(OnlineStore, "put_batch", counted)
    store.materialize("2024-01-01", "2025-01-01")
    assert sum(written) == (105 if changed else 65)
    assert max(written) == 10
    expected = {**{i: i * 10 for i in range(95)}, 5: 1, 29: 2, 31: 3}
    assert online(store, *range(95)) == list(expected.values())
    assert store.stats("v").materialized_until == datetime(2025, 1, 1, tzinfo=UTC)
    written.clear()
    store.materialize("2024-01-01", "2025-01-01")
    assert sum(written) == (105 if changed else 95), "a finished one begins anew"


def test_events_pushed_offline_are_materialized_too(store: LocalFeatureStore) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    store.push(
        "v", {"k": [1, 1], "x": [1, 2], "event_timestamp": [NOON, NOON - SECOND]}, to="offline"
    )
    assert online(store, 1) == [None]
    assert store.materialize(NOON - SECOND, NOON) == {"v": 1}
    assert online(store, 1) == [1]


# Processes, threads, forks.


def started(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments])


def test_processes_apply_to_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    code = """
        import sys
        from mlopskit.features import FeatureService, FeatureView
        from mlopskit.features.local import LocalFeatureStore

        store = LocalFeatureStore(sys.argv[1])
        for i in range(10):
            name = f"v{sys.argv[2]}-{i}"
            store.apply(FeatureView(name, ["k"], ["x"]), FeatureService(name, [f"{name}:x"]))
    """
    processes = [started(code, str(tmp_path / "store"), str(n)) for n in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    with LocalFeatureStore(tmp_path / "store") as store:
        assert len(store.list_views()) == len(store.list_services()) == 40


def test_processes_push_at_once_and_the_newest_event_stays(tmp_path: Path) -> None:
    code = """
        import sys
        from datetime import datetime, timedelta
        from mlopskit.features.local import LocalFeatureStore

        store, me = LocalFeatureStore(sys.argv[1]), int(sys.argv[2])
        for i in range(100):
            n = i * 37 % 100 * 3 + me
            at = datetime(2024, 1, 1) + timedelta(seconds=n)
            store.push("v", [{"k": k, "x": n, "event_timestamp": at} for k in range(5)])
    """
    with LocalFeatureStore(tmp_path / "store") as store:
        store.apply(FeatureView("v", ["k"], ["x"]))
        processes = [started(code, str(tmp_path / "store"), str(n)) for n in range(3)]
        assert [process.wait() for process in processes] == [0] * 3
        assert online(store, *range(5)) == [299] * 5
        assert store.stats("v").pushed_rows == 1500
        times = [datetime(2024, 1, 1) + timedelta(seconds=n) for n in range(300)]  # noqa: DTZ001 - naive is UTC
        frame = pa.table({"k": [3] * 300, "event_timestamp": times})
        found = store.get_historical_features(frame, ["v:x"])
        assert found["x"].to_pylist() == list(range(300))


def test_a_fork_uses_the_store_of_its_parent(store: LocalFeatureStore) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    store.push("v", [{"k": 1, "x": 1, "event_timestamp": NOON}])
    pid = os.fork()
    if pid == 0:
        try:
            store.push("v", [{"k": 2, "x": 2, "event_timestamp": NOON}])
            os._exit(0 if online(store, 1, 2) == [1, 2] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert online(store, 1, 2) == [1, 2]


def test_threads_join_history_at_once(store: LocalFeatureStore, tmp_path: Path) -> None:
    store.apply(many(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda k: values(store, k, 0), [0] * 8):
            assert found == [0, 0]


# The store itself.


def test_what_is_stored_is_there_for_the_next_process(tmp_path: Path) -> None:
    view = FeatureView("v", ["k"], ["x"], ttl=60)
    with LocalFeatureStore(tmp_path / "store") as store:
        store.apply(view, FeatureService("s", ["v:x"]))
        store.push("v", [{"k": "a", "x": 1, "event_timestamp": NOON}])
    with pytest.raises(StorageError, match="closed"):
        store.list_views()
    with LocalFeatureStore(tmp_path / "store") as again:
        assert again.list_views() == [view]
        found = again.get_online_features([{"k": "a"}], "s", now=NOON)
        assert found.to_dict() == {"k": ["a"], "x": [1]}


def test_files_are_for_their_owner_alone(store: LocalFeatureStore, tmp_path: Path) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    for path in (tmp_path / "store").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_it_opens_from_a_config_line(tmp_path: Path) -> None:
    with open_feature_store(f"local:{tmp_path / 'fs'}", require={"push_offline"}) as store:
        store.apply(FeatureView("v", ["k"], ["x"]))
        assert (tmp_path / "fs/features.db").is_file()
    with open_feature_store() as store:
        assert store.list_views() == []
        assert store.context.home.is_absolute()
        assert (store.context.home / "features/features.db").is_file()
    with pytest.raises(Unsupported, match="windows"):
        open_feature_store(f"local:{tmp_path / 'fs'}", require={"windows"})
    with pytest.raises(ConfigError, match=r"batch_row.*batch_rows"):
        open_feature_store(f"local:{tmp_path / 'fs'}", batch_row=1)
    with pytest.raises(InvalidInput, match="batch_rows=0"):
        open_feature_store(f"local:{tmp_path / 'fs'}", batch_rows=0)


def test_other_keys_make_it_another_view(store: LocalFeatureStore) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    store.push("v", [{"k": 1, "x": 1, "event_timestamp": NOON}])
    store.apply(FeatureView("v", ["j"], ["x"]))
    assert store.stats("v").online_rows == 0
    assert store.stats("v").pushed_rows == 0
    assert store.get_online_features([{"j": 1}], ["v:x"]).statuses("v:x") == ["MISSING"]


def test_many_keys_are_read_in_one_question(store: LocalFeatureStore) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    keys = list(range(700))
    store.push("v", {"k": keys, "x": keys, "event_timestamp": [NOON] * 700})
    assert online(store, *reversed(keys), -1) == [*reversed(keys), None]


def test_a_full_disk_is_a_storage_error_and_leaves_what_was(
    store: LocalFeatureStore,
) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    store.push("v", [{"k": 1, "x": "old", "event_timestamp": NOON}])
    pages = store.native.execute("pragma page_count").fetchone()[0]
    store.native.execute(f"pragma max_page_count = {pages}")
    big = {"k": list(range(99)), "x": ["x" * 5000] * 99, "event_timestamp": [NOON + SECOND] * 99}
    with pytest.raises(StorageError, match="full"):
        store.push("v", big)
    assert online(store, 0, 1) == [None, "old"]
    store.native.execute("pragma max_page_count = 100000")
    store.push("v", big)
    assert online(store, 1) == ["x" * 5000]


def test_a_broken_record_is_a_storage_error(store: LocalFeatureStore) -> None:
    store.apply(FeatureView("v", ["k"], ["x"]))
    store.push("v", [{"k": 1, "x": 1, "event_timestamp": NOON}])
    store.native.execute("update online set data = x'c1'")
    with pytest.raises(StorageError, match="record of features"):
        online(store, 1)
    store.native.execute("update views set definition = ?", (json.dumps({"name": "v"}),))
    with pytest.raises(StorageError, match="broken definition"):
        store.list_views()
