"""The registry's workload, in a process of its own."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import ExitStack, contextmanager
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from mlopskit.comparison.processes import shortened
from mlopskit.comparison.registry_workload import CASES, shown
from mlopskit.comparison.server import free_port, place_at, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.comparison.place import Place
    from mlopskit.comparison.registry_workload import Case, Driver

CALLS: Final = 20
SIZE: Final = 2**20


def fates(place: Place, way: str, folder: Path) -> list[dict[str, Any]]:
    """Do every case, each to a model of its own."""
    with _opened(place, way, folder) as driver:
        return [
            _judged(place, driver, case, f"{prefix(place, way)}-{at}", folder)
            for at, case in enumerate(CASES)
            if case.needs <= driver.has
        ]


def costs(place: Place, way: str, folder: Path) -> dict[str, float]:
    """Measure calls, in milliseconds."""
    name = f"{prefix(place, way)}-costs"
    source = folder / "model"
    source.mkdir()
    content = bytes(range(256)) * (SIZE // 256)
    with _opened(place, way, folder) as driver:

        def register(number: int) -> None:
            # Equal bytes would be stored once.
            (source / "model.bin").write_bytes(number.to_bytes(8, "big") + content[8:])
            versions.append(driver.register(name, source))

        versions: list[int] = []
        return {
            "register a file of 1 MiB": _median(CALLS, register),
            "set an alias": _median(
                CALLS, lambda n: driver.set_alias(name, "best", versions[n % 2])
            ),
            "get a version by its alias": _median(CALLS, lambda _: driver.by_alias(name, "best")),
            "download a file of 1 MiB": _median(
                CALLS, lambda n: driver.download(name, versions[n], folder / f"to-{n}")
            ),
        }


def prefix(place: Place, way: str) -> str:
    """Return how the names of all models begin that one way makes."""
    return "compare" if place.private else f"{place.name}-{way}"


@contextmanager
def _opened(place: Place, way: str, folder: Path) -> Iterator[Driver]:
    """Open a client, in a private folder or at a place that was named."""
    has = {"server"}
    if place.private:
        has |= {"disk"}
    with ExitStack() as stack:
        if place.private and place.tool == "wandb":  # Its registry is nowhere but on a server.
            port = free_port()
            stack.enter_context(served("wandb", folder, port))
            place = place_at("wandb", port)
            has -= {"server"} if way == "native" else set()
        line, _ = place.fetched()
        if place.tool == "mlflow" and line.location is None:
            line = line.model_copy(update={"location": f"sqlite:///{folder}/mlflow.db"})
        module = "mlopskit" if way == "mlopskit" else place.tool
        client = import_module(f"mlopskit.comparison.{module}_registry_client").Client
        driver: Driver = client(line, folder, frozenset(has))
        stack.callback(driver.close)
        yield driver


def _judged(place: Place, driver: Driver, case: Case, name: str, folder: Path) -> dict[str, Any]:
    try:
        fate, detail = case.done(driver, name)
    except Exception as exc:  # noqa: BLE001 - what was needed before the case was refused
        fate, detail = "refused", shown(exc)
    # Folders with names by chance would make every page another.
    scratch = (
        f"{re.escape(str(folder))}/|{re.escape(tempfile.gettempdir())}/{tempfile.template}[^/]*/"
    )
    detail = place.fetched()[1].text(re.sub(scratch, "", detail))
    return {
        "kind": case.kind,
        "what": case.what,
        "fate": fate,
        "detail": shortened(detail),
        "meant": case.meant,
    }


def _median(count: int, call: Callable[[int], object]) -> float:
    took = []
    for number in range(count):
        begun = time.perf_counter()
        call(number)
        took.append(time.perf_counter() - begun)
    return median(took) * 1000
