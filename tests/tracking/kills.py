"""Kills programs that log, and syncs that deliver, at random points; then counts what is there.

``python tests/tracking/kills.py --kills 1000`` ends with 0 if no acknowledged record was lost and
none is there twice. Programs are forked from a process that has imported everything, so that a kill
takes milliseconds; what it kills is a process of its own, with its own threads, journal and files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 25
KINDS = ("step", "param", "tag", "file")


def main() -> int:
    """Kill as often as asked, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="local")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    warm_up(given.backend)
    found = {"killed": 0, "runs": 0, "acknowledged": 0, "lost": 0, "doubled": 0, "wrong": 0}
    begun = time.monotonic()
    while found["killed"] < given.kills:
        with tempfile.TemporaryDirectory(prefix="mlopskit-kills-") as folder:
            block(Path(folder), given.backend, given.kills, found, chance)
        print(f"{time.monotonic() - begun:6.0f} s  {json.dumps(found)}", flush=True)
    bad = found["lost"] + found["doubled"] + found["wrong"]
    print("nothing lost, nothing doubled" if not bad else "NOT all is as it was acknowledged")
    return 1 if bad else 0


def warm_up(backend: str) -> None:
    """Import what a program imports, so that what is forked has it; nothing is opened."""
    with tempfile.TemporaryDirectory() as folder:
        assert opened(Path(folder), backend).tracker.target
    run_to_end(lambda: log_once(backend))


def log_once(backend: str) -> None:
    """Log something to a store of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(Path(folder), backend) as kit,
        kit.tracker.start_run() as run,
    ):
        run.log_text("x", "x.txt")


def opened(folder: Path, backend: str) -> Kit:
    """Open the store of a block."""
    line: dict[str, Any] = {"backend": backend, "flush_timeout_s": 60}
    line["location"] = f"sqlite:///{folder}/m.db" if backend == "mlflow" else str(folder / "store")
    return Kit(tracking=line, home=folder / "home")


def block(
    folder: Path, backend: str, kills: int, found: dict[str, int], chance: random.Random
) -> None:
    """Kill some programs and syncs that share one store, and see what is there afterwards."""
    run_to_end(opened(folder, backend).tracker.ping)
    logged: dict[str, dict[str, Any]] = {}
    for _ in range(min(BLOCK, kills - found["killed"])):
        seed = chance.random()
        pid, pipe = forked(partial(log, folder, backend, seed))
        first = b""
        if chance.random() < 0.8:  # Else it may die before its run has begun.
            first = pipe.readline()
        kill_after(pid, chance.expovariate(1 / 0.04))
        found["killed"] += 1
        for line in (first + pipe.read()).split(b"\n")[:-1]:
            take(json.loads(line), logged)
        pipe.close()
        for _ in range(chance.choice([0, 0, 1, 2])):
            syncs = [forked(partial(sync, folder, backend)) for _ in range(2)]
            for other, end in syncs:
                if chance.random() < 0.7:
                    kill_after(other, chance.expovariate(1 / 0.02))
                    found["killed"] += 1
                else:
                    os.waitpid(other, 0)
                end.close()
    compare(read_back(folder, backend, list(logged)), logged, found)


def log(folder: Path, backend: str, seed: float, tell: Callable[[Any], None]) -> None:
    """Log without end, and acknowledge each record once its call has returned."""
    chance = random.Random(seed)
    run = opened(folder, backend).tracker.start_run("e", params={"seed": seed})
    tell(["run", run.id, seed])
    for step in range(10**9):
        run.log_metrics({"loss": step * 0.5, "other": -1.0}, step=step)
        tell(["step", run.id, step])
        if chance.random() < 0.02:
            run.log_params({f"p{step}": [step, None]})
            tell(["param", run.id, step])
        if chance.random() < 0.02:
            run.set_tags({f"t{step}": "x" * chance.randrange(1000)})
            tell(["tag", run.id, step])
        if chance.random() < 0.01:
            run.log_text(f"text {step}", f"a/{step}.txt")
            tell(["file", run.id, step])
        if chance.random() < 0.01:
            run.flush()


def sync(folder: Path, backend: str, tell: Callable[[Any], None]) -> None:
    """Deliver what dead programs left, and say so."""
    tell(opened(folder, backend).tracker.sync().delivered)


def read_back(folder: Path, backend: str, runs: list[str]) -> dict[str, Any]:
    """Sync to the end in a process of its own, and return what the store holds."""

    def read(tell: Callable[[Any], None]) -> None:
        tracker = opened(folder, backend).tracker
        report = tracker.sync()
        tell({"pending": report.pending, "damaged": report.damaged, "refused": report.rejected})
        for run_id in runs:
            record = tracker.get_run(run_id)
            history: list[int] = []
            values: list[float] = []
            if "loss" in record.metrics:
                points = tracker.get_metric_history(run_id, "loss")
                history = [int(each) for each in points.steps]
                values = [float(each) for each in points.values]
            files = {}
            for each in tracker.list_artifacts(run_id):
                path = tracker.download_artifact(run_id, each.name, folder / "got" / run_id)
                files[each.name] = path.read_text()
            shutil.rmtree(folder / "got", ignore_errors=True)
            tell(
                {
                    "id": run_id,
                    "status": record.status,
                    "steps": history,
                    "right": values == [step * 0.5 for step in history],
                    "params": dict(record.params),
                    "tags": list(record.tags),
                    "files": files,
                }
            )
        # What was never begun is swept a minute later.
        journals = (folder / "home/tracking/journal").iterdir()
        left = [path.name for path in journals if path.suffix != ".new"]
        tell({"left": left})

    pid, pipe = forked(read)
    lines = [json.loads(line) for line in pipe.read().split(b"\n")[:-1]]
    os.waitpid(pid, 0)
    pipe.close()
    return {"head": lines[0], "runs": {each["id"]: each for each in lines[1:-1]}, **lines[-1]}


def take(said: list[Any], logged: dict[str, dict[str, Any]]) -> None:
    """Remember one acknowledgement."""
    kind, run, what = said
    if kind == "run":
        logged[run] = {"seed": what, "step": [], "param": [], "tag": [], "file": []}
    else:
        logged[run][kind].append(what)


def compare(
    there: dict[str, Any], logged: dict[str, dict[str, Any]], found: dict[str, int]
) -> None:
    """Count what is missing, and what is there twice or otherwise than it was logged."""
    if any(there["head"].values()) or there.get("left"):
        print("left over:", there["head"], there.get("left"), file=sys.stderr)
        found["wrong"] += 1
    for run, said in logged.items():
        found["runs"] += 1
        stored = there["runs"].get(run)
        if stored is None:
            found["lost"] += 1 + sum(len(said[kind]) for kind in KINDS)
            continue
        found["acknowledged"] += sum(len(said[kind]) for kind in KINDS)
        steps = stored["steps"]
        found["doubled"] += len(steps) - len(set(steps))
        found["lost"] += len(set(said["step"]) - set(steps))
        # One more may have been written when the kill came before it was acknowledged.
        if set(steps) - set(said["step"]) - {len(said["step"])}:
            found["wrong"] += 1
        found["wrong"] += steps != sorted(steps) or not stored["right"]
        found["wrong"] += stored["status"] != "lost"
        found["wrong"] += stored["params"].get("seed") != said["seed"]
        for step in said["param"]:
            found["lost"] += stored["params"].get(f"p{step}") != [step, None]
        for step in said["tag"]:
            found["lost"] += f"t{step}" not in stored["tags"]
        for step in said["file"]:
            found["lost"] += stored["files"].get(f"a/{step}.txt") != f"text {step}"


def forked(work: Callable[[Callable[[Any], None]], None]) -> tuple[int, Any]:
    """Run something in a process of its own; return its id, and what it tells, as lines of JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _as_child(lambda: work(lambda said: _tell(writing, said)))
    os.close(writing)
    return pid, os.fdopen(reading, "rb")


def run_to_end(work: Callable[[], None]) -> None:
    """Run something in a process of its own, and wait for it."""
    pid, pipe = forked(lambda tell: work())
    os.waitpid(pid, 0)
    pipe.close()


def kill_after(pid: int, seconds: float) -> None:
    """Kill a process at once, whatever it is doing then."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _tell(end: int, said: Any) -> None:
    line = json.dumps(said).encode() + b"\n"
    while line:
        line = line[os.write(end, line) :]


def _as_child(work: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        work()
        code = 0
    except BaseException as exc:  # noqa: BLE001 - said, and this process ends here
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
