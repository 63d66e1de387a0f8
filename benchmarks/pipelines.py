"""What a step costs beside a plain call: no-op steps in a chain and side by side.

Run it with ``python benchmarks/pipelines.py``. Every engine does the same work in the same
process, in turns; the best of several rounds counts, in CPU seconds of this process, because a
shared machine spoils the clock on the wall.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit.pipelines import pipeline, step
from mlopskit.pipelines.local import LocalRunner

if TYPE_CHECKING:
    from collections.abc import Callable


def plus_one(x: int, salt: int) -> int:
    return x + 1 + salt - salt


def total(*values: int) -> int:
    return sum(values)


step_plus_one = step(plus_one)
step_total = step(total)


@pipeline
def chain(steps: int, salt: int) -> int:
    value = 0
    for _ in range(steps):
        value = step_plus_one(value, salt)
    return value


@pipeline
def fan_out(steps: int, salt: int) -> int:
    return step_total(*(step_plus_one(number, salt) for number in range(steps)))


class Engine:
    """One engine, and its best CPU milliseconds per step by kind of work."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.best: dict[str, float] = {}

    def one_round(self, salt: int) -> None:
        raise NotImplementedError

    def measure(self, kind: str, work: Callable[[], object]) -> None:
        before = time.process_time()
        work()
        per_step = (time.process_time() - before) / self.steps * 1e3
        self.best[kind] = min(per_step, self.best.get(kind, per_step))


class Ours(Engine):
    def __init__(self, steps: int, folder: Path, workers: int) -> None:
        super().__init__(steps)
        self.runner = LocalRunner(folder, workers=workers)

    def one_round(self, salt: int) -> None:
        for kind in ("cold", "cached"):
            self.measure(f"chain, {kind}", lambda: self.runner.run(chain, self.steps, salt))
            self.measure(f"fan-out, {kind}", lambda: self.runner.run(fan_out, self.steps, salt))


class Calls(Engine):
    """Plain calls of a function; what a library wraps around it is the function's own matter."""

    def __init__(self, steps: int, function: Callable[[int, int], int], kinds: list[str]) -> None:
        super().__init__(steps)
        self.function = function
        self.kinds = kinds

    def one_round(self, salt: int) -> None:
        for kind in self.kinds:
            self.measure(f"chain, {kind}", lambda: self.chain(salt))

    def chain(self, salt: int) -> None:
        value = 0
        for _ in range(self.steps):
            value = self.function(value, salt)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a step costs beside a plain call.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engines: dict[str, Engine] = {
            "plain calls": Calls(given.steps, plus_one, ["cold"]),
            "mlopskit, 1 worker": Ours(given.steps, folder / "one", 1),
            "mlopskit, 4 workers": Ours(given.steps, folder / "four", 4),
        }
        if importlib.util.find_spec("joblib"):
            from joblib import Memory

            kept = Memory(folder / "joblib", verbose=0).cache(plus_one)
            engines["joblib.Memory"] = Calls(given.steps, kept, ["cold", "cached"])
        for salt in range(given.rounds):
            for engine in engines.values():
                engine.one_round(salt)
    columns = ["chain, cold", "chain, cached", "fan-out, cold", "fan-out, cached"]
    print(f"CPU ms per no-op step, {given.steps} steps, best of {given.rounds} rounds in turns")
    print("".ljust(22), *(column.rjust(16) for column in columns))
    for title, engine in engines.items():
        shown = (f"{engine.best[each]:.4f}" if each in engine.best else "-" for each in columns)
        print(title.ljust(22), *(value.rjust(16) for value in shown))
    if "joblib.Memory" in engines:
        for column in columns[:2]:
            theirs = engines["joblib.Memory"].best[column]
            ratio = theirs / engines["mlopskit, 1 worker"].best[column]
            print(f"{column}: joblib.Memory takes {ratio:.1f} times as much CPU")


if __name__ == "__main__":
    main()
