"""What runs in a process of its own, so that no tool spoils another: prints JSON at the end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.comparison.drivers import client, opened
from mlopskit.comparison.workload import CASES, SENT, is_kept, log, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.comparison.workload import Case, Driver

# The same for every way: what is fixed would otherwise weigh less on one of them.
CALLS: Final = 1000
LONGEST: Final = 80
IMPORT: Final = """
import sys, time
cpu, begun = time.process_time(), time.perf_counter()
__import__(sys.argv[1])
print(time.process_time() - cpu, time.perf_counter() - begun)
"""


def main() -> None:
    """Do what the arguments say: a tool, a way, a folder, and what of the three below to do."""
    tool, way, folder, what = sys.argv[1:5]
    logging.disable(logging.CRITICAL)
    with redirect_stdout(sys.stderr):
        doing = {"measure": _measured, "outage": _outage, "left": _left}[what]
        done = doing(tool, way, Path(folder))
    print(json.dumps(done))  # noqa: T201 - the answer of this program


def _measured(tool: str, way: str, folder: Path) -> dict[str, Any]:
    imported, waited = _import(tool, way)
    client(tool, way)
    begun = time.perf_counter()
    driver = opened(tool, way, folder)
    started = waited + time.perf_counter() - begun
    verdicts = _fates(driver, lambda name: opened(tool, way, _made(folder / name)))
    fast = folder / "speed"
    calls, points = _speed(tool, way, fast)
    return {
        "verdicts": verdicts,
        "p50_us": calls[len(calls) // 2] / 1000,
        "p99_us": calls[len(calls) * 99 // 100] / 1000,
        "points_per_s": points,
        "import_s": imported,
        "start_s": started,
        "stored_bytes": sum(each.stat().st_size for each in fast.rglob("*") if each.is_file()),
    }


def _fates(driver: Driver, again: Callable[[str], Driver]) -> list[dict[str, str]]:
    """Log every case and read it back; in one run, unless one case would spoil the next."""
    errors: dict[int, str] = {}
    used: list[Driver] = []
    for at, case in enumerate(CASES):
        if driver.alone and at:
            driver.finish()
            driver = again(f"case-{at}")
        used.append(driver)
        try:
            log(driver, case)
        except Exception as exc:  # noqa: BLE001 - a refusal is what is looked for
            errors[at] = f"{type(exc).__name__}: {exc}"[:LONGEST]
    driver.finish()
    pairs = enumerate(zip(used, CASES, strict=True))
    return [_judged(each, case, errors.get(at)) for at, (each, case) in pairs]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _import(tool: str, way: str) -> tuple[float, float]:
    """Return the CPU and other seconds of an import, where nothing of it was imported before."""
    name = "mlopskit.kit" if way == "mlopskit" else tool
    done = subprocess.run(  # noqa: S603 - the text above
        [sys.executable, "-c", IMPORT, name], capture_output=True, check=True, text=True
    )
    cpu, waited = done.stdout.split()[-2:]
    return float(cpu), float(waited)


def _judged(driver: Driver, case: Case, error: str | None) -> dict[str, str]:
    fate, detail = _fate(driver, case)
    if error is not None and fate != "kept":
        fate, detail = "refused", error
    return {"kind": case.kind, "what": case.what, "fate": fate, "detail": detail[:LONGEST]}


def _fate(driver: Driver, case: Case) -> tuple[str, str]:
    try:
        found = read(driver, case)
    except Exception as exc:  # noqa: BLE001 - whatever a client raises of what it does not have
        return "lost", type(exc).__name__
    if is_kept(case, found):
        return "kept", ""
    if case.kind == "metric" and len(found) < len(case.value):
        return "lost", f"{found!r} is left"
    if isinstance(found, str) and len(found) > LONGEST:
        return "changed", f"{len(found):,} of its characters"
    return "changed", repr(found)


def _speed(tool: str, way: str, folder: Path) -> tuple[list[int], float]:
    """Return the times of calls in nanoseconds, sorted, and points stored a second."""
    driver: Any = opened(tool, way, _made(folder))
    calls = []
    begun = time.perf_counter()
    for step in range(CALLS):
        values = {"loss": 1 / (step + 1), "acc": step / CALLS, "lr": 0.1}
        called = time.perf_counter_ns()
        driver.log_metrics(values, step)
        calls.append(time.perf_counter_ns() - called)
    driver.finish()
    return sorted(calls), 3 * CALLS / (time.perf_counter() - begun)


def _outage(tool: str, way: str, folder: Path) -> dict[str, Any]:
    driver = opened(tool, way, folder, outage=True)
    for step in range(SENT):
        driver.log_metric("loss", 1 / (step + 1), step)
    return {}


def _left(tool: str, way: str, folder: Path) -> dict[str, Any]:
    return {"left": client(tool, way).left(folder)}


if __name__ == "__main__":
    main()
