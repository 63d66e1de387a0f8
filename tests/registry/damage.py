"""Flips bits in, and truncates, the files of a registry; then reads everything that is there.

``python tests/registry/damage.py --cases 2000`` ends with 0 if every case was noticed (a typed
error) or harmless (everything reads as it was). A damaged write-ahead log may take back the last
changes, as a power cut before them would have: what is read then is what was there at some time.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from mlopskit.errors import MlopskitError
from mlopskit.registry.local import LocalRegistry

# What an outcome may be. Anything else is wrong.
FINE = frozenset(["noticed", "harmless", "taken back"])


def main() -> int:
    """Damage as often as asked, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlopskit-damage-") as folder:
        counts, wrong = damage(Path(folder), given.cases, given.seed)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:10} {outcome:12} {count:6}")
    for line in wrong:
        print(f"  wrong: {line}")
    print("nothing was silently wrong" if not wrong else "NOT every damage was noticed")
    return 1 if wrong else 0


def damage(folder: Path, cases: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Return how many cases of each kind ended how, and a line for each that ended wrong."""
    chance = random.Random(seed)
    states = build(folder / "killed")
    shutil.copytree(folder / "killed", folder / "closed")
    with LocalRegistry(folder / "closed") as registry:
        assert everything(registry) == states[-1]  # The last to close it empties the log.
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for case in range(cases):
        hurt = folder / "hurt"
        shutil.rmtree(hurt, ignore_errors=True)
        shutil.copytree(folder / ("killed" if chance.random() < 0.5 else "closed"), hurt)
        files = sorted(path for path in hurt.rglob("*") if path.is_file() and path.stat().st_size)
        kinds = {kind_of(path) for path in files}
        kind = chance.choice(sorted(kinds))
        path = chance.choice([each for each in files if kind_of(each) == kind])
        how = hit(path, chance)
        outcome = read(hurt, states, kind)
        counts[kind, outcome] += 1
        if outcome not in FINE:
            wrong.append(f"case {case}: {path.relative_to(hurt)} {how}: {outcome}")
    return counts, wrong


def kind_of(path: Path) -> str:
    """Return what a file of a registry is."""
    if path.name.endswith("-wal"):
        return "log"
    if path.name.startswith("registry.db"):
        return "index of the log" if path.name.endswith("-shm") else "database"
    return "manifest" if path.read_bytes()[:1] == b"{" else "blob"


def hit(path: Path, chance: random.Random) -> str:
    """Flip a bit of a file, or cut it short."""
    content = bytearray(path.read_bytes())
    path.chmod(0o600)
    if chance.random() < 0.2:
        length = chance.randrange(len(content))
        path.write_bytes(content[:length])
        return f"cut to {length} of {len(content)}"
    at, bit = chance.randrange(len(content)), chance.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {at}"


def build(home: Path) -> list[str]:
    """Make a registry as a killed program leaves it, log and all; return what could be read."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "--build", str(home)],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line for line in done.stdout.splitlines() if line]


def builder(home: Path) -> None:
    """Print everything after each change, and die without closing."""
    registry = LocalRegistry(home, actor="ada")
    source = home.with_name("source")
    source.mkdir(exist_ok=True)

    def tell() -> None:
        print(everything(registry), flush=True)

    def checkpoint() -> None:
        registry.native.execute("pragma wal_checkpoint(truncate)")

    for number in range(1, 9):
        (source / "weights").write_bytes(bytes([number]) * 400)
        (source / "common").write_bytes(b"same" * 100)
        name = "churn" if number % 3 else "late"
        registry.register(
            name,
            source,
            metrics={"auc": number / 10},
            tags={"team": "a", "n": str(number)},
            code="x",
            description="words " * 20,
        )
        tell()
    registry.promote("churn", 1, "production", [lambda _: True], why="first")
    registry.set_alias("churn", "champion", 1)
    registry.update_model("churn", description="who leaves")
    registry.delete_version("churn", 6, consent=True)
    tell()
    checkpoint()
    registry.promote("churn", 2, "production")
    tell()
    registry.update_version("churn", 3, tags={"team": "b"})
    tell()
    registry.promote("late", 1, "staging")
    tell()
    sys.stdout.flush()
    # The last connection would empty the log on its way out.
    import os

    os._exit(0)


def everything(registry: LocalRegistry) -> str:
    """Return all that a registry answers, as one line.

    Raises:
        MlopskitError: If it notices that something is wrong.
    """
    found: dict[str, Any] = {}
    for model in registry.list_models():
        found[model.name] = model.model_dump(mode="json")
        versions = registry.list_versions(model.name)
        found[f"{model.name} versions"] = [each.model_dump(mode="json") for each in versions]
        history = registry.history(model.name)
        found[f"{model.name} history"] = [each.model_dump(mode="json") for each in history]
        for stage, number in model.stages.items():
            held = registry.get_version(model.name, stage).version
            assert held == number, f"{stage} of {model.name} is held by {held} and {number}"
        for alias, number in model.aliases.items():
            there = registry.get_version(model.name, f"@{alias}").version
            assert there == number, f"@{alias} of {model.name} is {there} and {number}"
        for version in versions:
            with tempfile.TemporaryDirectory() as out:
                folder = registry.download(model.name, version.version, Path(out) / "out")
                found[f"{model.name} {version.version}"] = {
                    path.name: path.read_bytes().hex() for path in sorted(folder.iterdir())
                }
    return json.dumps(found, sort_keys=True)


def read(home: Path, states: list[str], kind: str) -> str:
    """Read everything in a damaged registry, and say what came of it."""
    try:
        with LocalRegistry(home) as registry:
            found = everything(registry)
    except MlopskitError:
        return "noticed"
    except sqlite3.Error as exc:
        return f"untyped {type(exc).__name__}: {exc}"
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is a finding
        return f"untyped {type(exc).__name__}: {exc}"
    if found == states[-1]:
        return "harmless"
    if kind in ("log", "index of the log") and found in states:
        return "taken back"
    return "SILENTLY WRONG"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        builder(Path(sys.argv[2]))
    raise SystemExit(main())
