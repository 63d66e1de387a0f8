from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit import Kit
from mlopskit.errors import ConfigError, Conflict, IntegrityError, NotFound, StorageError
from mlopskit.registry.entities import Lineage
from mlopskit.registry.local import LocalRegistry
from mlopskit.registry.stages import StageGraph
from mlopskit.registry.tables import FINAL, KEPT
from mlopskit.storage import Blobs
from mlopskit.testing import RegistryContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

pytestmark = pytest.mark.core


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    with LocalRegistry(home) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


class TestLocalRegistry(RegistryContract):
    @pytest.fixture
    def registry(self, home: Path) -> Iterator[Registry]:
        with LocalRegistry(home) as opened:
            yield opened


def bytes_of(home: Path) -> list[Path]:
    return sorted(path for path in (home / "blobs").rglob("*") if path.is_file())


def blob(home: Path, content: bytes) -> Path:
    (found,) = [path for path in bytes_of(home) if path.read_bytes() == content]
    return found


def test_it_is_the_default_and_lives_in_the_home(tmp_path: Path, source: Path) -> None:
    with Kit(home=str(tmp_path / "home")) as kit:
        kit.registry.register("churn", source)

    assert (tmp_path / "home" / "registry" / "registry.db").is_file()


def test_stages_and_the_actor_come_from_the_configuration(tmp_path: Path, source: Path) -> None:
    line = {"backend": "local", "stages": ["dev", "live"], "actor": "ci"}
    with Kit(home=str(tmp_path / "home"), registry=line) as kit:
        assert kit.registry.register("churn", source).stage == "dev"
        assert kit.registry.promote("churn", 1, "live")
        assert {entry.by for entry in kit.registry.history("churn")} == {"ci"}


def test_everything_is_readable_by_its_owner_only(
    home: Path, registry: Registry, source: Path
) -> None:
    registry.register("churn", source)
    for path in [home, *home.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_another_process_reads_what_was_registered(
    home: Path, registry: Registry, source: Path
) -> None:
    made = registry.register("churn", source, metrics={"auc": 0.5})
    with LocalRegistry(home) as other:
        assert other.get_version("churn", 1) == made


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
@pytest.mark.parametrize("what", ["file", "manifest"])
def test_damaged_bytes_are_never_handed_out(
    home: Path, registry: Registry, source: Path, tmp_path: Path, damage: str, what: str
) -> None:
    made = registry.register("churn", source)
    if what == "file":
        path = blob(home, b"weights")
    else:
        path = home / "blobs" / made.digest[7:9] / made.digest[7:]
    content = path.read_bytes()
    path.chmod(0o600)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"S" if damage == "changed" else b""))

    with pytest.raises(IntegrityError):
        registry.download("churn", 1, tmp_path / "out")
    with pytest.raises(IntegrityError):
        registry.load("churn", 1, trusted=True)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_an_extra_file_is_noticed(
    registry: LocalRegistry, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("churn", source)
    fetch = registry._fetch

    def generous(version: Any, manifest: Any, folder: Path) -> None:
        fetch(version, manifest, folder)
        (folder / "extra.py").write_text("import os")

    monkeypatch.setattr(registry, "_fetch", generous)
    with pytest.raises(IntegrityError, match=r"extra\.py"):
        registry.download("churn", 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_history_cannot_be_rewritten(registry: LocalRegistry, source: Path) -> None:
    registry.register("churn", source)
    for statement in ("delete from history", "update history set by = 'someone else'"):
        with pytest.raises(Exception, match="append-only"):
            registry.native.execute(statement)
    assert len(registry.history("churn")) == 1


def test_a_clock_that_jumps_back_keeps_the_order(
    registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("churn", source)
    monkeypatch.setattr("mlopskit.registry.tables.time.time_ns", lambda: 10**18)
    registry.promote("churn", 1, "production")

    first, second = registry.history("churn")
    assert second.at >= first.at
    assert registry.at("churn", "production", second.at).version == 1


MANY = """
import sys
from mlopskit.registry.local import LocalRegistry
from mlopskit.storage import Blobs

print("ready", flush=True)
sys.stdin.readline()
with LocalRegistry(sys.argv[1]) as registry:
    for _ in range(10):
        registry.register("churn", sys.argv[2])
"""


def test_processes_number_versions_without_gaps(home: Path, source: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, str(home), str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:  # On a store that does not exist yet, all at once.
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()

    assert [worker.returncode for worker in workers] == [0] * 4
    with LocalRegistry(home) as registry:
        versions = [each.version for each in registry.list_versions("churn")]
        assert versions == list(range(1, 41))
        assert len(registry.history("churn")) == 40


def test_threads_leave_one_version_in_production(registry: Registry, source: Path) -> None:
    for _ in range(8):
        registry.register("churn", source)
    outcomes: list[str] = []

    def work(number: int) -> None:
        try:
            registry.promote("churn", number, "production")
            outcomes.append("promoted")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stages = [each.stage for each in registry.list_versions("churn")]
    assert stages.count("production") == 1
    assert stages.count("archived") == outcomes.count("promoted") - 1


def test_a_registry_is_used_on_both_sides_of_a_fork(registry: Registry, source: Path) -> None:
    registry.register("churn", source)
    child = os.fork()
    if child == 0:
        try:
            registry.register("churn", source)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert registry.register("churn", source).version == 3


# What turns the tables into those of the first layout.
EARLIER = (
    "drop trigger history_is_kept",
    "drop trigger history_is_final",
    "drop table attachments",
    "alter table models drop column description",
    "alter table models drop column tags",
    "alter table versions drop column lineage",
    "alter table history drop column details",
    *(
        f"alter table {table} drop column seal"
        for table in ("models", "versions", "aliases", "history")
    ),
    KEPT,
    FINAL,
    "pragma user_version = 1",
)
KILLED = """
import os, sys
from pathlib import Path
from mlopskit.registry.local import LocalRegistry
from mlopskit.storage import Blobs

home, source, after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
calls = 0

def hook(event, arguments):
    # Every opening, renaming and statement is a place to die at.
    global calls
    if event in ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "tempfile.mkstemp"):
        calls += 1
        if calls == after:
            os.kill(os.getpid(), 9)

with LocalRegistry(home) as registry:
    registry.register("churn", source, tags={"n": "1"})
    sys.addaudithook(hook)
    registry.native.set_trace_callback(lambda text: hook("open", ()))
    registry.register("churn", source, tags={"n": "2"})
    print("done", flush=True)
"""


def test_a_killed_register_leaves_a_whole_version_or_none(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 1000)
    (source / "b").write_bytes(b"b" * 1000)
    seen: list[int] = []
    for after in range(1, 200, 3):
        home = tmp_path / f"home{after}"
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(home), str(source), str(after)],
            capture_output=True,
            text=True,
        )
        with LocalRegistry(home) as registry:
            versions = registry.list_versions("churn")
            seen.append(len(versions))
            assert len(registry.history("churn")) == len(versions)
            for version in versions:
                out = tmp_path / f"out{after}.{version.version}"
                assert (registry.download("churn", version.version, out) / "b").stat().st_size
            following = registry.register("churn", source)
            assert following.version == len(versions) + 1
        if "done" in done.stdout:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr

    assert "done" in done.stdout
    assert seen[0] == 1
    assert seen[-1] == 2


def test_a_killed_download_leaves_nothing_that_looks_whole(
    home: Path, registry: Registry, tmp_path: Path
) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    (source / "b").write_bytes(b"b")
    registry.register("churn", source)
    program = (
        "import os, sys\n"
        "from mlopskit.registry import blobs\n"
        "from mlopskit.registry.local import LocalRegistry\n"
        "blobs.check_folder = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "LocalRegistry(sys.argv[1]).download('churn', 1, sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(home), str(tmp_path / "out")])

    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(list(registry.download("churn", 1, tmp_path / "out").iterdir())) == 2


def test_a_failing_disk_leaves_no_version(
    registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("churn", source)
    source.write_bytes(b"other weights")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            registry.register("churn", source)
    assert [each.version for each in registry.list_versions("churn")] == [1]
    assert registry.register("churn", source).version == 2


def test_a_broken_write_moves_nothing(
    registry: LocalRegistry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        registry.register("churn", source)
        if number == 1:
            registry.promote("churn", 1, "production")
    registry.native.execute(
        "create trigger broken before update on versions when new.stage = 'production' "
        "begin select raise(fail, 'disk I/O error'); end"
    )
    with pytest.raises(Exception, match="disk I/O error"):
        registry.promote("churn", 2, "production")

    assert [each.stage for each in registry.list_versions("churn")] == ["production", "none"]
    assert len(registry.history("churn")) == 3


def test_one_stage_may_hold_several(home: Path, source: Path) -> None:
    stages = StageGraph(limits={"production": 2})
    with LocalRegistry(home, stages=stages) as registry:
        for number in (1, 2, 3):
            registry.register("churn", source)
            registry.promote("churn", number, "production")

        found = [each.stage for each in registry.list_versions("churn")]
        assert found == ["archived", "production", "production"]
        assert registry.get_version("churn", "production").version == 3
        assert registry.rollback("churn", "production").version == 2
        assert registry.rollback("churn", "production").version == 1


def test_an_emptied_stage_is_rolled_back_to_its_last_holder(
    registry: Registry, source: Path
) -> None:
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    registry.promote("churn", 1, "archived")
    with pytest.raises(NotFound):
        registry.get_version("churn", "production")

    assert registry.rollback("churn", "production").stage == "production"


def test_the_moves_can_be_narrowed(home: Path, source: Path) -> None:
    moves = {"none": ["staging"], "staging": ["production"], "archived": ["staging"]}
    with LocalRegistry(home, stages={"transitions": moves}) as registry:
        registry.register("churn", source)
        with pytest.raises(Conflict, match="It can go to: staging"):
            registry.promote("churn", 1, "production")
        assert registry.promote("churn", 1, "staging")
        assert registry.promote("churn", 1, "production")


@pytest.mark.parametrize(
    "stages",
    [
        ["one"],
        ["a", "a"],
        ["a", "../b"],
        {"order": ["a", "b"], "limits": {"c": 1}},
        {"order": ["a", "b"], "limits": {"b": 1}, "displaced_to": "b"},
        {"limits": {"production": 0}},
        {"transitions": {"none": ["nowhere"]}},
        {"oder": ["a", "b"]},
        7,
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(stages: Any) -> None:
    with pytest.raises(ConfigError, match="stages="):
        LocalRegistry(stages=stages)


def test_the_manifest_lists_every_file_with_its_digest(
    home: Path, registry: Registry, source: Path
) -> None:
    made = registry.register("churn", source)
    manifest = json.loads((home / "blobs" / made.digest[7:9] / made.digest[7:]).read_text())

    (file,) = manifest["files"]
    assert (file["path"], file["size"]) == ("weights.bin", 7)
    assert manifest["flavor"] == made.flavor == "file"
    assert manifest["python"].count(".") == 2


def test_a_registry_of_the_first_layout_is_brought_to_this_one(
    home: Path, registry: LocalRegistry, source: Path
) -> None:
    registry.register("churn", source, tags={"team": "a"})
    registry.promote("churn", 1, "production", why="first")
    before = registry.list_versions("churn"), registry.history("churn")
    registry.close()
    with sqlite3.connect(home / "registry.db", isolation_level=None) as connection:
        for statement in EARLIER:
            connection.execute(statement)
    connection.close()

    with LocalRegistry(home) as later:
        (version,) = later.list_versions("churn")
        assert version == before[0][0].model_copy(update={"lineage": Lineage()})
        assert later.history("churn") == before[1]
        later.update_model("churn", description="x")
        with pytest.raises(Exception, match="append-only"):
            later.native.execute("delete from history")
        assert later.register("churn", source).version == 2


def test_nothing_is_collected_while_somebody_registers(
    home: Path, registry: LocalRegistry, source: Path, tmp_path: Path
) -> None:
    """A registration that has stored its bytes, and not yet said so, holds the collector up."""
    registry.register("other", source)
    source.write_bytes(b"new weights")
    ready, go = tmp_path / "ready", tmp_path / "go"
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from mlopskit.registry import ledger\n"
        "from mlopskit.registry.local import LocalRegistry\n"
        "add = ledger.Ledger.add\n"
        "def slow(*given):\n"
        f"    Path({str(ready)!r}).touch()\n"
        f"    while not Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        "    return add(*given)\n"
        "ledger.Ledger.add = slow\n"
        "LocalRegistry(sys.argv[1]).register('churn', sys.argv[2])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(home), str(source)])
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.01)
    collecting = threading.Thread(
        target=registry.gc, kwargs={"window": timedelta(0), "dry_run": False}
    )
    collecting.start()
    collecting.join(0.5)
    assert collecting.is_alive()
    go.touch()
    assert process.wait(60) == 0
    collecting.join(60)
    assert (registry.download("churn", 1, tmp_path / "out") / "weights.bin").is_file()


def test_a_manifest_that_is_missing_keeps_everything(
    home: Path, registry: LocalRegistry, source: Path
) -> None:
    made = registry.register("churn", source)
    registry.register("other", source, metrics={"auc": 1})
    registry.delete_model("other", consent=True)
    blob = home / "blobs" / made.digest[7:9] / made.digest[7:]
    blob.unlink()
    before = sorted((home / "blobs").rglob("*"))
    with pytest.raises(IntegrityError, match="missing"):
        registry.gc(window=timedelta(0), dry_run=False)
    assert sorted((home / "blobs").rglob("*")) == before


def test_what_a_killed_registration_left_is_collected(
    home: Path, registry: LocalRegistry, source: Path
) -> None:
    registry.register("churn", source)
    (home / "blobs" / ".0123.part").write_bytes(b"half")
    orphan, size = Blobs(home / "blobs").put(b"orphan")

    planned = registry.gc()
    assert [(each.digest, each.size) for each in planned.removed] == [(orphan, size)]
    assert (home / "blobs" / ".0123.part").exists()
    registry.gc(dry_run=False)
    assert not (home / "blobs" / ".0123.part").exists()
    assert registry.gc().removed == ()
