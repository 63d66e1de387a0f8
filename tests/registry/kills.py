"""Kills programs that register, promote and collect, at random points; then checks the registry.

``python tests/registry/kills.py --kills 500`` ends with 0 if after every kill the registry was
whole: everything acknowledged is there, nothing is half there, the stages are what the history
says, and every byte is right. Programs are forked from a process that has imported everything, so
that a kill takes milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlopskit.errors import MlopskitError
from mlopskit.registry import moves
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.registry import Registry

BLOCK = 20
NAMES = ("churn", "late")
SPARE = ("none", "archived")


def main() -> int:
    """Kill as often as asked, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    found = {"killed": 0, "acknowledged": 0, "versions": 0, "wrong": 0}
    begun = time.monotonic()
    while found["killed"] < given.kills:
        with tempfile.TemporaryDirectory(prefix="mlopskit-kills-") as folder:
            block(Path(folder), min(BLOCK, given.kills - found["killed"]), found, chance)
        print(f"{time.monotonic() - begun:6.0f} s  {json.dumps(found)}", flush=True)
    print("whole after every kill" if not found["wrong"] else "NOT whole after every kill")
    return 1 if found["wrong"] else 0


def block(folder: Path, kills: int, found: dict[str, int], chance: random.Random) -> None:
    """Kill programs that share one registry, two at a time, and check it after each kill."""
    acknowledged: list[list[Any]] = []
    for _ in range(kills):
        programs = [forked(partial(work, folder, chance.random())) for _ in range(2)]
        first, other = programs
        time.sleep(chance.expovariate(1 / 0.05))
        os.kill(first[0], signal.SIGKILL)
        found["killed"] += 1
        checked = forked(partial(check, folder, acknowledged))  # While the other one goes on.
        time.sleep(chance.expovariate(1 / 0.02))
        os.kill(other[0], signal.SIGKILL)
        for pid, pipe in programs:
            os.waitpid(pid, 0)
            acknowledged += [json.loads(line) for line in pipe.read().split(b"\n")[:-1]]
            pipe.close()
        _report(checked, found)
        _report(forked(partial(check, folder, acknowledged)), found)
    found["acknowledged"] += len(acknowledged)
    found["versions"] += sum(1 for what, *_ in acknowledged if what == "registered")


def work(folder: Path, seed: float, tell: Callable[[Any], None]) -> None:
    """Change the registry without end, and acknowledge each change once its call has returned."""
    chance = random.Random(seed)
    registry = LocalRegistry(folder / "registry", actor=f"program {os.getpid()}")
    source = folder / f"source-{os.getpid()}"
    source.mkdir()
    while True:
        name = chance.choice(NAMES)
        act = chance.choices(
            ("register", "promote", "alias", "rollback", "delete", "collect"),
            weights=(10, 4, 3, 1, 2, 1),
        )[0]
        try:
            change(registry, name, act, source, chance, tell)
        except MlopskitError:
            continue  # There is nothing to promote yet, or the other one was quicker.


def change(
    registry: Registry,
    name: str,
    act: str,
    source: Path,
    chance: random.Random,
    tell: Callable[[Any], None],
) -> None:
    """Do one thing."""
    if act == "register":
        token = f"{chance.random()}"
        (source / "weights").write_text(token)
        (source / "common").write_text("the same in every version")
        made = registry.register(name, source, tags={"word": token}, code="x")
        tell(["registered", name, made.version, token])
        return
    if act == "collect":
        registry.gc(window=timedelta(0), keep_last=chance.choice([None, 5]), dry_run=False)
        return
    version = chance.choice(registry.list_versions(name)).version
    if act == "promote":
        if registry.promote(name, version, chance.choice(["staging", "production"])):
            tell(["promoted", name, version])
    elif act == "alias":
        registry.set_alias(name, "champion", version)
    elif act == "rollback":
        registry.rollback(name, "production")
    else:
        registry.delete_version(name, version, consent=True)
        tell(["deleted", name, version])


def check(folder: Path, acknowledged: list[list[Any]], tell: Callable[[Any], None]) -> None:
    """Say what is not as it should be."""
    with LocalRegistry(folder / "registry") as registry:
        try:
            for problem in problems(registry, folder, acknowledged):
                tell(problem)
        except MlopskitError as exc:
            tell(f"{type(exc).__name__}: {exc}")
        tell("checked")


def problems(registry: Registry, folder: Path, acknowledged: list[list[Any]]) -> list[str]:
    """Return what of the acknowledged is missing, and what of the rest contradicts itself."""
    found = []
    for name in NAMES:
        try:
            entries = registry.history(name)
        except MlopskitError:
            entries = []
        deleted = {entry.version for entry in entries if entry.action == "deleted"}
        made = [entry.version for entry in entries if entry.action == "registered"]
        if made != list(range(1, len(made) + 1)):
            found.append(f"{name}: numbers {made}")
        versions = {}
        if set(made) - deleted:
            versions = {each.version: each for each in registry.list_versions(name)}
        later = registry.history(name) if entries else []
        deleted |= {entry.version for entry in later if entry.action == "deleted"}
        for what, of, number, *rest in acknowledged:
            if of != name:
                continue
            if what == "registered" and number not in deleted:
                token = versions[number].tags["word"] if number in versions else None
                if token != rest[0]:
                    found.append(f"{name} {number}: registered {rest[0]}, found {token}")
            if what == "deleted" and number not in deleted:
                found.append(f"{name} {number}: deleted, and there")
            if what == "promoted" and not any(
                (entry.action, entry.version) == ("promoted", number) for entry in later
            ):
                found.append(f"{name} {number}: promoted, and not in the history")
        found += _bytes(registry, folder, name, list(versions))
        found += _stages(registry, name)
    return found


def _bytes(registry: Registry, folder: Path, name: str, numbers: list[int]) -> list[str]:
    found = []
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            try:
                where = registry.download(name, number, Path(out) / "out")
            except MlopskitError as exc:
                gone = any(
                    (entry.action, entry.version) == ("deleted", number)
                    for entry in registry.history(name)
                )
                if not gone:  # Else it was deleted and collected meanwhile.
                    found.append(f"{name} {number}: {type(exc).__name__}: {exc}")
                continue
            if sorted(path.name for path in where.iterdir()) != ["common", "weights"]:
                found.append(f"{name} {number}: {list(where.iterdir())}")
    return found


def _stages(registry: Registry, name: str) -> list[str]:
    """Compare the stages with the history, which another program may add to meanwhile."""
    for _ in range(50):
        try:
            before = registry.history(name)
            stages = {each.version: each.stage for each in registry.list_versions(name)}
            after = registry.history(name)
        except MlopskitError:
            return []
        if before[-1].id != after[-1].id:
            continue
        told = moves.stages_of(after)
        wrong = [] if told == stages else [f"{name}: history says {told}, rows say {stages}"]
        if list(stages.values()).count("production") > 1:
            wrong.append(f"{name}: {stages}")
        return wrong
    return []


def forked(run: Callable[[Callable[[Any], None]], None]) -> tuple[int, Any]:
    """Fork a program that tells lines of JSON, and return its process and the end of its pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, os.fdopen(reading, "rb")
    os.close(reading)
    return _child(run, writing)


def _child(run: Callable[[Callable[[Any], None]], None], writing: int) -> NoReturn:
    code = 1
    try:
        run(lambda told: _write(writing, json.dumps(told).encode() + b"\n"))
        code = 0
    except BaseException as exc:  # noqa: BLE001 - the child ends here, whatever it was
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
    finally:
        os._exit(code)


def _write(fd: int, line: bytes) -> None:
    os.write(fd, line)


def _report(program: tuple[int, Any], found: dict[str, int]) -> None:
    pid, pipe = program
    lines = [json.loads(line) for line in pipe.read().split(b"\n")[:-1]]
    pipe.close()
    os.waitpid(pid, 0)
    if lines != ["checked"]:
        found["wrong"] += 1
        print(f"  wrong: {lines}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
