"""W&B's own SDK works against the loopback server."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.programs import launched

from mlopskit.testing.wandb_filters import matches
from mlopskit.testing.wandb_server import KEY, WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

wandb = pytest.importorskip("wandb")
pytestmark = [pytest.mark.network, pytest.mark.timeout(240)]

BEGIN = """
import math, sys, threading
import wandb
quick = wandb.Settings(
    console="off", silent=True, x_disable_stats=True, x_file_stream_transmit_interval=0.2,
    x_file_stream_retry_wait_min_seconds=0.2, x_file_stream_retry_wait_max_seconds=0.5,
    x_graphql_retry_wait_min_seconds=0.2, x_graphql_retry_wait_max_seconds=0.5,
)
def begin(**more):
    return wandb.init(project="churn", entity="team", settings=quick, reinit="create_new", **more)
"""


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running
        assert running.unknown == []


@pytest.fixture
def program(server: WandbServer, tmp_path: Path) -> Callable[..., str]:
    """Run a program of W&B's SDK against the server; return what it printed."""

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + textwrap.dedent(code), *arguments],
            env={**os.environ, **server.environment(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture
def api(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """W&B's public API, in this process."""
    for name, value in server.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return wandb.Api(overrides={"base_url": server.url}, api_key=KEY, timeout=20)


def test_runs_arrive_whole(program: Callable[..., str], server: WandbServer, api: Any) -> None:
    program(
        """
        one = begin(id="one", name="first", config={"lr": 0.1, "opt": {"name": "adam", "n": [1]}},
                    tags=["a"], notes="n", group="g", job_type="train")
        two = begin(id="two")
        for step in range(3000):
            one.log({"loss": step * 0.5})
        for value in (math.nan, math.inf, -math.inf):
            two.log({"odd": value})
        two.finish(exit_code=1)
        one.config.update({"late": "ü"})
        one.finish()
        """
    )

    rows = server.rows("one")
    assert [row["loss"] for row in rows] == [step * 0.5 for step in range(3000)]
    odd = [row["odd"] for row in server.rows("two")]
    assert odd == ["NaN", "Infinity", "-Infinity"] or math.isnan(odd[0])
    one, two = api.run("team/churn/one"), api.run("team/churn/two")
    assert (one.state, two.state) == ("finished", "failed")
    assert one.config == {"lr": 0.1, "opt": {"name": "adam", "n": [1]}, "late": "ü"}
    assert (one.name, one.tags, one.notes, one.group, one.job_type) == (
        *("first", ["a"], "n", "g"),
        "train",
    )
    assert one.summary["loss"] == 2999 * 0.5
    assert len(list(one.scan_history())) == len(list(one.scan_history(keys=["loss"]))) == 3000
    assert len(one.history(samples=10, pandas=False)) == 10


def test_a_run_is_resumed_as_the_sdk_says(program: Callable[..., str], server: WandbServer) -> None:
    said = program(
        """
        run = begin(id="r"); run.log({"a": 1}); run.finish()
        run = begin(id="r", resume="must"); print(run.resumed, run.step)
        run.log({"a": 2}); run.finish()
        run = begin(id="r", resume="allow"); run.log({"a": 3}); run.finish()
        for how, id in (("must", "missing"), ("never", "r")):
            try:
                begin(id=id, resume=how); print("no error")
            except wandb.errors.UsageError as exc:
                print("refused")
        """
    )

    assert said.split("\n")[1:3] == ["refused", "refused"]
    assert [row["a"] for row in server.rows("r")] == [1, 2, 3]
    assert [row["_step"] for row in server.rows("r")] == [0, 1, 2]


def test_the_public_api_asks_and_changes(program: Callable[..., str], api: Any) -> None:
    program(
        """
        for number in range(5):
            config = {"n": number, "deep": {"x": number}}
            run = begin(id=f"r{number}", config=config, group="ab"[number % 2])
            if number < 4:
                run.log({"loss": 1.0 / (number + 1)})
            run.finish()
        """
    )

    def ids(**asked: Any) -> list[str]:
        return [run.id for run in api.runs("team/churn", per_page=2, **asked)]

    assert ids(order="+created_at") == ["r0", "r1", "r2", "r3", "r4"]
    assert ids(order="+summary_metrics.loss") == ["r3", "r2", "r1", "r0", "r4"]
    assert set(ids(filters={"config.n": {"$gte": 3}})) == {"r3", "r4"}
    assert set(ids(filters={"$or": [{"group": "a"}, {"summary_metrics.loss": 0.5}]})) == {
        *("r0", "r1", "r2", "r4"),
    }
    assert len(api.runs("team/churn", filters={"group": "b"})) == 2
    run = api.run("team/churn/r1")
    run.tags, run.notes, run.config["new"] = ["x"], "changed", 2
    run.summary["best"] = 1
    run.update()
    again = api.run("team/churn/r1")
    assert (again.tags, again.notes, again.config["new"]) == (["x"], "changed", 2)
    assert [each.name for each in api.projects("team")] == ["churn"]
    api.run("team/churn/r0").delete()
    api.flush()
    assert "r0" not in ids()


def test_files_and_media_come_back(
    program: Callable[..., str], server: WandbServer, api: Any, tmp_path: Path
) -> None:
    pytest.importorskip("numpy")
    program(
        """
        import numpy as np
        run = begin(id="m")
        open("saved.txt", "w").write("hello")
        run.save("saved.txt")
        run.log({"image": wandb.Image(np.zeros((4, 4, 3), dtype=np.uint8), caption="c"),
                 "table": wandb.Table(columns=["a"], data=[[1]]), "page": wandb.Html("<p>"),
                 "spread": wandb.Histogram([1, 2, 3])})
        run.finish()
        """
    )

    run = api.run("team/churn/m")
    names = [file.name for file in run.files()]
    assert "saved.txt" in names
    with run.file("saved.txt").download(root=str(tmp_path / "got")) as file:
        assert file.read() == "hello"
    (row,) = server.rows("m")
    assert (row["image"]["_type"], row["image"]["caption"]) == ("image-file", "c")
    assert row["image"]["path"] in names
    assert row["table"]["_type"] == "table-file"
    assert row["page"]["_type"] == "html-file"
    assert row["spread"]["_type"] == "histogram"


def test_artifacts_have_versions_aliases_and_users(
    program: Callable[..., str], api: Any, tmp_path: Path
) -> None:
    said = program(
        """
        run = begin(id="maker")
        for content, aliases in (("one", ["best"]), ("one", []), ("two", ["best", "new"])):
            open("f.txt", "w").write(content)
            artifact = wandb.Artifact("data", "dataset", metadata={"k": content})
            artifact.add_file("f.txt", policy="mutable")
            artifact.add_reference("s3://bucket/key", checksum=False)
            run.log_artifact(artifact, aliases=aliases).wait()
        run.finish()
        user = begin(id="user")
        used = user.use_artifact("data:v0")
        print(open(used.download() + "/f.txt").read())
        link = user.link_artifact(used, "team/registry/good")
        user.finish()
        user = begin(id="user", resume="must")
        print(open(user.use_artifact("data:best").download() + "/f.txt").read())
        user.finish()
        """
    )

    assert said.split() == ["one", "two"]
    versions = api.artifacts("dataset", "team/churn/data")
    assert [(each.version, each.metadata["k"]) for each in versions] == [
        ("v1", "two"),
        ("v0", "one"),
    ]
    best = api.artifact("team/churn/data:best")
    assert (best.version, set(best.aliases)) == ("v1", {"best", "new", "latest"})
    assert best.logged_by().id == "maker"
    assert [run.id for run in best.used_by()] == ["user"]
    assert [each.version for each in api.run("team/churn/user").used_artifacts()] == ["v0", "v1"]
    assert api.artifact("team/registry/good:v0").digest == versions[1].digest
    assert [each.name for each in api.artifact_types("team/churn")] == ["dataset"]
    best.aliases.append("prod")
    best.save()
    assert api.artifact("team/churn/data:prod").version == "v1"
    api.artifact("team/churn/data:v0").delete(delete_aliases=True)
    assert [each.version for each in api.artifacts("dataset", "team/churn/data")] == ["v1"]


def test_offline_runs_are_synced_once(
    program: Callable[..., str], server: WandbServer, tmp_path: Path
) -> None:
    program(
        """
        run = begin(id="off", mode="offline", config={"lr": 0.1})
        for step in range(100):
            run.log({"loss": step})
        open("f.txt", "w").write("kept")
        artifact = wandb.Artifact("data", "dataset")
        artifact.add_file("f.txt")
        run.log_artifact(artifact)
        run.finish()
        """
    )
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")

    for _ in range(2):
        done = subprocess.run(
            [str(Path(sys.executable).parent / "wandb"), "sync", str(folder)],
            env={**os.environ, **server.environment(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    assert [row["loss"] for row in server.rows("off")] == list(range(100))
    assert server.runs["off"]["config"]["lr"]["value"] == 0.1
    (artifact,) = (each for each in server.artifacts.values() if each["type"] == "dataset")
    assert artifact["state"] == "COMMITTED"


def test_a_sweep_hands_out_parameters(program: Callable[..., str], server: WandbServer) -> None:
    said = program(
        """
        found = []
        def train():
            run = wandb.init(settings=quick)
            found.append((run.config["x"], run.config["kind"]))
            run.log({"y": 1})
            run.finish()
        space = {"x": {"min": 0.0, "max": 1.0}, "kind": {"values": ["a", "b"]}}
        config = {"method": "random", "parameters": space}
        sweep = wandb.sweep(config, project="churn", entity="team")
        wandb.agent(sweep, function=train, count=2, project="churn", entity="team")
        import json
        print("found", json.dumps(found))
        """
    )

    found = json.loads(said.rpartition("found ")[2])
    assert len(found) == 2
    assert all(0 <= x <= 1 and kind in "ab" for x, kind in found)
    assert len({x for x, _ in found}) == 2
    (sweep,) = server.sweeps.values()
    assert [server.runs[each]["state"] for each in sweep["runs"]] == ["finished", "finished"]


@pytest.mark.parametrize("kind", ["error", "busy", "refuse", "hang", "drop", "late"])
def test_rows_arrive_once_whatever_goes_wrong(
    program: Callable[..., str], server: WandbServer, kind: Any
) -> None:
    server.fail(kind, match="file_stream", seconds=0.5)

    program(
        """
        run = begin(id="f")
        import time
        for step in range(30):
            run.log({"loss": step})
            time.sleep(0.02)
        run.finish()
        """
    )

    assert server.fault("file_stream") is None  # It has happened.
    assert [row["loss"] for row in server.rows("f")] == list(range(30))
    assert server.runs["f"]["state"] == "finished"


def test_a_server_that_was_away_gets_the_rest(server: WandbServer, tmp_path: Path) -> None:
    code = """
    run = begin(id="away")
    run.log({"loss": 0})
    print("begun", flush=True)
    sys.stdin.readline()
    for step in range(1, 30):
        run.log({"loss": step})
    run.finish()
    """
    with launched(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code)],
        env={**os.environ, **server.environment(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "begun\n"
        server.stop()
        process.stdin.write("go on\n")
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        server.start()
        assert process.wait(120) == 0

    assert [row["loss"] for row in server.rows("away")] == list(range(30))


@pytest.mark.parametrize(
    ("wanted", "right"),
    [
        ({}, True),
        ({"config.lr": 0.1}, True),
        ({"config.lr.value": {"$gt": 0.05, "$lt": 0.2}}, True),
        ({"config.deep.x": 1}, True),
        ({"config.none": {"$exists": False}}, True),
        ({"config.none": None}, True),
        ({"config.lr": {"$gt": "text"}}, False),
        ({"summary_metrics.loss": {"$in": [1, 2]}}, True),
        ({"summary_metrics.loss": {"$nin": [1, 2]}}, False),
        ({"tags": "a"}, True),
        ({"tags": {"$in": ["z", "a"]}}, True),
        ({"tags": {"$nin": ["a"]}}, False),
        ({"displayName": {"$regex": "^na"}}, True),
        ({"displayName": {"$not": {"$regex": "^na"}}}, False),
        ({"$or": [{"jobType": "x"}, {"group": "g"}]}, True),
        ({"$nor": [{"jobType": "x"}, {"group": "g"}]}, False),
        ({"$and": [{"jobType": "train"}, {"state": {"$ne": "failed"}}]}, True),
    ],
    ids=str,
)
def test_filters_of_mongodb(wanted: dict[str, Any], right: bool) -> None:
    run = {
        "config": {"lr": {"value": 0.1}, "deep": {"value": {"x": 1}}},
        "summary": {"loss": 1},
        "tags": ["a", "b"],
        "display": "name",
        "job": "train",
        "group": "g",
        "state": "finished",
    }

    assert matches(run, wanted) is right


def test_a_wrong_key_is_refused(server: WandbServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + "begin(id='x')"],
        env={**os.environ, **server.environment(tmp_path), "WANDB_API_KEY": "b" * 40},
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert server.runs == {}
