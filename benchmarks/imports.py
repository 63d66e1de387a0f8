"""The cost of `import mlopskit` and of `mlopskit --help`, beside the tools it stands in front of.

CPU seconds of whole processes, bare interpreter subtracted, medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec

LIMITS_MS = {"import mlopskit": 60.0, "mlopskit --help": 200.0}


def cpu_ms(code: str) -> float:
    """Return the CPU time of a fresh interpreter that runs `code`, in milliseconds."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    spent = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return spent * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    work = {
        "python": "pass",
        "import mlopskit": "import mlopskit",
        "mlopskit --help": "from mlopskit.cli import main; main(['--help'])",
        "import pluggy": "import pluggy",
        "import pydantic": "from pydantic import BaseModel",
    }
    if find_spec("mlflow"):
        work["import mlflow"] = "import mlflow"
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, code in work.items():
            if name != "import mlflow" or len(took[name]) < 3:
                took[name].append(cpu_ms(code))
    median = {name: statistics.median(times) for name, times in took.items()}
    bare = median["python"]
    print(f"{'':18} {'CPU ms':>9} {'above python':>13} {'x import mlopskit':>18}")
    for name, value in median.items():
        own = value - bare
        ratio = own / (median["import mlopskit"] - bare)
        print(f"{name:18} {value:9.1f} {own:13.1f} {ratio:18.1f}")
    # `--help` is a whole command, so the interpreter's own start counts too.
    spent = {
        "import mlopskit": median["import mlopskit"] - bare,
        "mlopskit --help": median["mlopskit --help"],
    }
    for name, limit in LIMITS_MS.items():
        verdict = "within" if spent[name] <= limit else "OVER"
        print(f"{name}: {spent[name]:.1f} ms CPU, {verdict} the {limit:.0f} ms it may cost")
    return 0 if all(spent[name] <= LIMITS_MS[name] for name in LIMITS_MS) else 1


if __name__ == "__main__":
    sys.exit(main())
