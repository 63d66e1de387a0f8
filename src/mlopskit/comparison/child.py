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

from mlopskit.comparison import dying, lifeline, registry_child
from mlopskit.comparison.drivers import client, opened, opening, ours
from mlopskit.comparison.place import Place
from mlopskit.comparison.processes import LONGEST, shortened
from mlopskit.comparison.workload import CASES, SENT, is_kept, log, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.comparison.workload import Case, Driver

# The same for every way: what is fixed would otherwise weigh less on one of them.
CALLS: Final = 1000
# The first argument is imported; what of the packages was there before it began is printed too.
IMPORT: Final = """
import json, sys, time
wanted, packages = sys.argv[1], sys.argv[2:]
before = sorted(name for name in sys.modules if name.partition(".")[0] in packages)
cpu, begun = time.process_time(), time.perf_counter()
__import__(wanted)
took = time.process_time() - cpu, time.perf_counter() - begun
print(json.dumps([*took, before]))
"""
# A first run through mlopskit, where nothing is imported: standard input has what it takes.
START: Final = """
import json, sys, time
said = json.load(sys.stdin)
before = sorted(n for n in sys.modules if n.partition(".")[0] in ("mlopskit", said["tool"]))
begun = time.perf_counter()
from mlopskit.kit import Kit
run = Kit(tracking=said["line"], home=said["home"]).tracker.start_run(said["name"])
took = time.perf_counter() - begun
run.finish()
print(json.dumps([took, before]))
"""


def main() -> None:
    """Do one of `DOING`, one way, in a folder; standard input has the place."""
    way, folder, what, line = sys.argv[1:5]
    lifeline.hold(int(line))
    place = Place.model_validate_json(sys.stdin.read())
    logging.disable(logging.CRITICAL)
    with redirect_stdout(sys.stderr):
        done = DOING[what](place, way, Path(folder))
    print(json.dumps(done))  # noqa: T201 - the answer of this program


def _fates(place: Place, way: str, folder: Path) -> list[dict[str, str]]:
    _, redactor = place.fetched()
    driver = opened(place, way, folder)
    return _logged(driver, lambda name: opened(place, way, _made(folder / name)), redactor.text)


def _costs(place: Place, way: str, folder: Path) -> dict[str, Any]:
    cpu, waited, before = _import(place.tool, way)
    if way == "mlopskit":
        started, more = _start(place, folder)
        before += more
    else:
        # What the comparison itself imports is none of the tool's cost.
        native = client(place.tool, way)
        begun = time.perf_counter()
        first = native(opening(place, way, folder))
        started = waited + time.perf_counter() - begun
        first.finish()
    fast = _made(folder / "speed")
    stored = 0 if place.private else place.stored(fast)
    calls, points = _speed(place, way, fast)
    after = place.stored(fast)
    return {
        "p50_us": calls[len(calls) // 2] / 1000,
        "p99_us": calls[len(calls) * 99 // 100] / 1000,
        "points_per_s": points,
        "import_s": cpu,
        "start_s": started,
        "imported_before": before,
        "stored_bytes": None if after is None or stored is None else after - stored,
    }


def _start(place: Place, folder: Path) -> tuple[float, list[str]]:
    """Return how long a first run through mlopskit takes, and what was imported before."""
    line, name = ours(place, folder)
    said = {"line": line, "name": name, "home": str(folder / "home"), "tool": place.tool}
    took, before = _program([START], json.dumps(said))
    return took, before


def _logged(
    driver: Driver, again: Callable[[str], Driver], hide: Callable[[str], str]
) -> list[dict[str, str]]:
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
            errors[at] = shortened(hide(f"{type(exc).__name__}: {exc}"))
    driver.finish()
    pairs = enumerate(zip(used, CASES, strict=True))
    return [_judged(each, case, errors.get(at)) for at, (each, case) in pairs]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _import(tool: str, way: str) -> tuple[float, float, list[str]]:
    """Return the CPU and other seconds of an import, and what of it was imported before."""
    name = "mlopskit.kit" if way == "mlopskit" else tool
    cpu, waited, before = _program([IMPORT, name, "mlopskit", tool])
    return cpu, waited, before


def _program(program: list[str], given: str = "") -> Any:
    """Run one of the programs above in an interpreter of its own; return what it prints."""
    done = subprocess.run(  # noqa: S603 - the texts above
        [sys.executable, "-P", "-c", *program],
        input=given,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.splitlines() or ["it said nothing"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _judged(driver: Driver, case: Case, error: str | None) -> dict[str, str]:
    fate, detail = _fate(driver, case)
    if error is not None and fate != "kept":
        fate, detail = "refused", error
    return {"kind": case.kind, "what": case.what, "fate": fate, "detail": shortened(detail)}


def _fate(driver: Driver, case: Case) -> tuple[str, str]:
    try:
        found = read(driver, case)
    except Exception as exc:  # noqa: BLE001 - whatever a client raises of what it does not have
        return "lost", f"{type(exc).__name__}: {exc}"
    if is_kept(case, found):
        return "kept", ""
    if case.kind == "metric" and len(found) < len(case.value):
        return "lost", f"{found!r} is left"
    if isinstance(found, str) and isinstance(case.value, str) and len(found) > LONGEST:
        return "changed", f"{len(found):,} of its {len(case.value):,} characters"
    return "changed", repr(found)


def _speed(place: Place, way: str, folder: Path) -> tuple[list[int], float]:
    """Return the times of calls in nanoseconds, sorted, and points stored a second."""
    driver: Any = opened(place, way, folder)
    calls = []
    begun = time.perf_counter()
    for step in range(CALLS):
        values = {"loss": 1 / (step + 1), "acc": step / CALLS, "lr": 0.1}
        called = time.perf_counter_ns()
        driver.log_metrics(values, step)
        calls.append(time.perf_counter_ns() - called)
    driver.finish()
    return sorted(calls), 3 * CALLS / (time.perf_counter() - begun)


def _outage(place: Place, way: str, folder: Path) -> dict[str, Any]:
    driver = opened(place, way, folder, outage=True)
    for step in range(SENT):
        driver.log_metric("loss", 1 / (step + 1), step)
    return {}


def _left(place: Place, way: str, folder: Path) -> dict[str, Any]:
    return {"left": client(place.tool, way).left(folder)}


DOING: Final[Mapping[str, Callable[[Place, str, Path], Any]]] = {
    "fates": _fates,
    "costs": _costs,
    "outage": _outage,
    "left": _left,
    "dying": dying.log_on,
    "found": dying.found,
    "sync": dying.sync,
    "registry_fates": registry_child.fates,
    "registry_costs": registry_child.costs,
}


if __name__ == "__main__":
    main()
