"""Many runs in one process, as over a day: do memory, files, threads and journals stay flat?

``python tests/tracking/soak.py --runs 20000`` logs, with a backend that fails now and then, what a
busy service logs in 24 hours, samples itself on the way, and ends with 0 if nothing grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.errors import Unavailable
from mlopskit.tool import Context
from mlopskit.tracking.local import LocalTracker

if TYPE_CHECKING:
    from mlopskit.tracking.entities import Batch

SAMPLES = 20
GROWTH_KIB = 6 * 1024


class Moody(LocalTracker):
    """A local tracker that is down for a moment now and then."""

    chance = random.Random(0)

    def write(self, batch: Batch) -> None:
        """Fail once in fifty times."""
        if self.chance.random() < 0.02:
            raise Unavailable("the backend", "it is in a mood")
        super().write(batch)


def main() -> int:
    """Run for as long as asked; print a sample now and then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    given = parser.parse_args()
    samples = []
    with tempfile.TemporaryDirectory(prefix="mlopskit-soak-") as folder:
        home = Path(folder)
        tracker = Moody(home / "store", flush_timeout_s=60)
        tracker.context = Context(home=home)
        service = tracker.start_run("service", name="one run that goes on for the whole day")
        begun = time.monotonic()
        for number in range(given.runs):
            with tracker.start_run("many", name=f"n{number}", params={"number": number}) as run:
                for step in range(50):
                    run.log_metrics({"loss": 1 / (step + 1), f"m{number % 7}": 0.5}, step=step)
                    service.log_metrics({"load": step * 0.5, "rate": 0.1})
                run.log_text(f"{number % 100}", "notes.txt")
                run.set_tags({"number": str(number)})
            if number % max(given.runs // SAMPLES, 1) == 0:
                samples.append(sample(home, number))
                print(f"{time.monotonic() - begun:6.0f} s  {json.dumps(samples[-1])}", flush=True)
        service.finish()
        found = len(tracker.search_runs("metrics.loss < 1", "many", limit=None))
        points = len(tracker.get_metric_history(service.id, "load"))
        tracker.close()
    print(f"{found} of {given.runs} runs and {points} of {given.runs * 50} points are there")
    whole = (found, points) == (given.runs, given.runs * 50)
    return 0 if whole and is_flat(samples) else 1


def sample(home: Path, number: int) -> dict[str, Any]:
    """Say what this process holds."""
    journals = home / "tracking" / "journal"
    size = sum(path.stat().st_size for path in journals.rglob("*") if path.is_file())
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return {
        "run": number,
        "memory_kib": int(kib),
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "journal_bytes": size,
        "journals": sum(1 for _ in journals.iterdir()),
    }


def is_flat(samples: list[dict[str, Any]]) -> bool:
    """Tell whether the last third of the samples is like the second."""
    third = len(samples) // 3
    second, last = samples[third : 2 * third], samples[2 * third :]
    flat = True
    # A checkpoint of SQLite or a journal in delivery may be in the way of one sample, not of all.
    limits = {"memory_kib": GROWTH_KIB, "files": 6, "threads": 1, "journal_bytes": 16 << 20}
    for what, more in limits.items():
        before, after = (min(each[what] for each in part) for part in (second, last))
        print(f"{what}: {before} in the second third, {after} in the last")
        flat = flat and after <= before + more
    return flat


if __name__ == "__main__":
    sys.exit(main())
