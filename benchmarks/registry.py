"""The embedded registry and MLflow's on SQLite: registering, aliases, finding; and a large file.

Medians of the same work in one process, interleaved; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit import open_registry

if TYPE_CHECKING:
    from collections.abc import Callable

Work = dict[str, "Callable[[], object]"]
LIMIT_US = 200.0
LIMIT_RATIO = 1.3
LIMIT_MIB = 100

# Each prints the CPU seconds of its work, and the peak of its memory in MiB.
MEASURED = """
import hashlib, shutil, sys, time
{imports}
begun = time.process_time()
{work}
took = time.process_time() - begun
with open("/proc/self/status") as status:  # getrusage counts the parent's memory before exec.
    print(took, next(int(line.split()[1]) / 1024 for line in status if "VmHWM" in line))
"""
PLAIN = MEASURED.format(
    imports="",
    work="with open(sys.argv[1], 'rb') as file: hashlib.file_digest(file, 'sha256')\n"
    "with open(sys.argv[1], 'rb') as file, open(sys.argv[2], 'wb') as copy:\n"
    "    shutil.copyfileobj(file, copy, 1 << 20)",
)
REGISTER = MEASURED.format(
    imports="from mlopskit import open_registry\nregistry = open_registry(f'local:{sys.argv[2]}')",
    work="registry.register('large', sys.argv[1], code='x')",
)


def ours(folder: Path, source: Path) -> Work:
    registry = open_registry(f"local:{folder / 'registry'}")
    registry.register("churn", source)
    registry.register("churn", source)
    registry.set_alias("churn", "champion", 1)
    turn = iter(range(10**9))
    return {
        "register": lambda: registry.register("churn", source, metrics={"auc": 0.5}, code="x"),
        "set_alias": lambda: registry.set_alias("churn", "champion", 1 + next(turn) % 2),
        "get by alias": lambda: registry.get_version("churn", "@champion"),
        "download": lambda: registry.download("churn", 1, folder / f"out{next(turn)}"),
    }


def mlflow(folder: Path, source: Path) -> Work:
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    client.create_registered_model("churn")
    for _ in range(2):
        client.create_model_version("churn", str(source.parent))
    client.set_registered_model_alias("churn", "champion", "1")
    turn = iter(range(10**9))

    def download() -> object:
        out = folder / f"mlflow{next(turn)}"
        return download_artifacts(str(source.parent), dst_path=str(out), tracking_uri=uri)

    return {
        # Only the row: MLflow neither copies nor reads the bytes here.
        "register": lambda: client.create_model_version("churn", str(source.parent)),
        "set_alias": lambda: client.set_registered_model_alias(
            "churn", "champion", str(1 + next(turn) % 2)
        ),
        "get by alias": lambda: client.get_model_version_by_alias("churn", "champion"),
        "download": download,
    }


def large(folder: Path, size: int) -> bool:
    """Register a large file, beside hashing and copying it, each in a process of its own."""
    source = folder / "large.bin"
    with source.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    took: dict[str, list[float]] = {"register": [], "hash and copy": []}
    peaks: list[float] = []
    for turn in range(3):
        for name, program in (("hash and copy", PLAIN), ("register", REGISTER)):
            target = folder / f"large-{name.split()[0]}-{turn}"
            done = subprocess.run(
                [sys.executable, "-c", program, str(source), str(target)],
                check=True,
                capture_output=True,
                text=True,
            )
            seconds, peak = map(float, done.stdout.split())
            took[name].append(seconds)
            if name == "register":
                peaks.append(peak)
            shutil.rmtree(target, ignore_errors=True)
            target.unlink(missing_ok=True)
    ours, plain = (statistics.median(took[name]) for name in ("register", "hash and copy"))
    print(f"{size >> 20} MiB: {ours:.2f} s of CPU, {ours / plain:.2f} of hashing and copying it")
    print(f"peak of the process: {max(peaks):.0f} MiB of {LIMIT_MIB}")
    return ours / plain <= LIMIT_RATIO and max(peaks) <= LIMIT_MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--large", type=int, default=1024, metavar="MIB")
    given = parser.parse_args()
    repeats = given.repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        source = folder / "model" / "weights.bin"
        source.write_bytes(bytes(1 << 20))
        teams = {"mlopskit": ours(folder, source)}
        if find_spec("mlflow"):
            teams["mlflow"] = mlflow(folder, source)
        took: dict[tuple[str, str], list[float]] = {}
        for _ in range(repeats):
            for team, work in teams.items():
                for act, call in work.items():
                    before = time.perf_counter()
                    call()
                    took.setdefault((act, team), []).append(time.perf_counter() - before)
    micro = {key: statistics.median(times) * 1e6 for key, times in took.items()}
    print(f"{'p50, microseconds':18}" + "".join(f"{team:>12}" for team in teams) + f"{'ratio':>8}")
    for act in teams["mlopskit"]:
        row = [micro[act, team] for team in teams]
        ratio = f"{row[1] / row[0]:8.1f}" if len(row) > 1 else ""
        print(f"{act:18}" + "".join(f"{value:12.0f}" for value in row) + ratio)
    found = micro["get by alias", "mlopskit"]
    print(f"get by alias: {found:.0f} of {LIMIT_US:.0f} us")
    with tempfile.TemporaryDirectory() as name:
        fine = large(Path(name), given.large << 20)
    return 0 if fine and found <= LIMIT_US else 1


if __name__ == "__main__":
    raise SystemExit(main())
