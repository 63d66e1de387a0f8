"""Copies many runs while the program that copies them is killed, again and again.

``python tests/tracking/transfers.py --runs 10000 --kills 20`` is the whole; the tests run a little.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit.kit import Kit, transfer

if TYPE_CHECKING:
    from mlopskit.tracking.transfer import TransferReport

PROGRAM = """
import sys
from mlopskit.kit import Kit, transfer
with Kit(tracking="local", home=sys.argv[1]) as one, Kit(tracking="local", home=sys.argv[2]) as two:
    transfer(one.tracker, two.tracker, told=lambda done, *_: print(done, flush=True))
"""


def fill(home: Path, runs: int) -> None:
    """Log runs, every tenth with a file."""
    with Kit(tracking="local", home=home) as kit:
        for number in range(runs):
            with kit.tracker.start_run("e", params={"n": number}) as run:
                for step in range(10):
                    run.log_metrics({"loss": step / 7, "acc": number}, step=step)
                if number % 10 == 0:
                    run.log_text("x" * number, "a.txt")


def copied(folder: Path, *, runs: int, kills: int, seed: int) -> tuple[list[int], TransferReport]:
    """Return how many runs were there after each kill, and the report of a last transfer."""
    chance = random.Random(seed)
    one, two = folder / "from", folder / "to"
    fill(one, runs)
    seen: list[int] = []
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(one), str(two)], stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            goal = (seen[-1] if seen else 0) + chance.randrange(1, 2 * runs // kills)
            for line in program.stdout:
                if int(line) >= goal:
                    break
            time.sleep(chance.random() / 100)
            program.kill()
        with Kit(tracking="local", home=two) as kit:
            seen.append(len(kit.tracker.search_runs(limit=None)))
    with Kit(tracking="local", home=one) as source, Kit(tracking="local", home=two) as there:
        report = transfer(source.tracker, there.tracker)
    check(seen, report, folder, runs)
    return seen, report


def check(seen: list[int], report: TransferReport, folder: Path, runs: int) -> None:
    """See that nothing is lost, doubled, or left behind."""
    assert seen == sorted(seen), seen
    assert any(0 < count < runs for count in seen), seen
    assert len(report.copied) + len(report.present) == len(report.digests) == runs
    assert all(left == right for left, right in report.digests.values())
    # What a kill left before it had a lock is hidden, and swept away after a minute.
    assert list((folder / "to" / "tracking" / "journal").glob("[!.]*")) == []


def main() -> None:
    """Say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlopskit-transfers-") as folder:
        begun = time.perf_counter()
        seen, report = copied(Path(folder), runs=given.runs, kills=given.kills, seed=0)
        took = time.perf_counter() - begun
    print(f"{given.runs} runs, {given.kills} kills, {took:.0f} s; there after each kill: {seen}")
    print(f"{len(report.digests)} pairs of digests, all equal")


if __name__ == "__main__":
    main()
