"""The clients that a workload goes through. Each imports its tool when it is opened."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.comparison.workload import CLOSED, Opening, plain
from mlopskit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.comparison.place import Place
    from mlopskit.comparison.workload import Driver
    from mlopskit.kit import Kit
    from mlopskit.tracking.entities import RunRecord


def opened(place: Place, way: str, folder: Path, *, outage: bool = False) -> Driver:
    """Open a client with a new run; in an outage, of a server that is not there."""
    if way == "mlopskit":
        return Ours(place, folder, outage=outage)
    found: Driver = client(place.tool, way)(opening(place, way, folder, outage=outage))
    return found


def opening(place: Place, way: str, folder: Path, *, outage: bool = False) -> Opening:
    """Return what a tool's own client is opened with."""
    line, _ = place.fetched()
    name = "compare" if place.private else place.own(way)
    return Opening(folder, line.location, line.options, name, outage=outage)


def ours(place: Place, folder: Path, *, outage: bool = False) -> tuple[dict[str, Any], str]:
    """Return the config line that mlopskit is opened with, and the experiment of its run."""
    private = outage or place.private
    line = _private(place.tool, folder, outage=outage) if private else _named(place)
    return line, "compare" if private or place.tool == "wandb" else place.own("mlopskit")


def client(tool: str, way: str) -> Any:
    """Return the class of a client."""
    if way == "mlopskit":
        return Ours
    return import_module(f"mlopskit.comparison.{tool}_client").Client


def stored(place: Place, way: str, folder: Path, id: str) -> list[tuple[int, Any]]:
    """Read every (step, value) of "loss" that the server of a place has of a run."""
    found: list[tuple[int, Any]]
    if way != "mlopskit":
        found = client(place.tool, way).stored(opening(place, way, folder), id)
        return found
    # With another home, so that nothing is found or delivered but by the server.
    with _kit(place, folder, "elsewhere") as kit, suppress(NotFound):
        history = kit.tracker.get_metric_history(id, "loss")
        return [(int(s), plain(v)) for s, v in zip(history.steps, history.values, strict=True)]
    return []


def synced(place: Place, way: str, folder: Path) -> bool:
    """Deliver what a program left in a folder; tell whether the tool can do so."""
    if way != "mlopskit":
        return bool(client(place.tool, way).sync(opening(place, way, folder)))
    with _kit(place, folder, "home") as kit:
        kit.tracker.sync()
    return True


def _kit(place: Place, folder: Path, home: str) -> Kit:
    from mlopskit.kit import Kit  # noqa: PLC0415 - its import is measured

    return Kit(tracking=ours(place, folder)[0], home=folder / home)


class Ours:
    """Any tool, through mlopskit."""

    alone = False

    def __init__(self, place: Place, folder: Path, *, outage: bool) -> None:
        from mlopskit.kit import Kit  # noqa: PLC0415 - its import is measured

        line, experiment = ours(place, folder, outage=outage)
        self._kit = Kit(tracking=line, home=folder / "home")
        self._run = self._kit.tracker.start_run(experiment)
        self.id = self._run.id
        self._read: RunRecord | None = None

    def log_param(self, key: str, value: Any) -> None:
        self._run.log_params({key: value})

    def change_param(self, key: str, value: Any) -> None:
        self._run.log_params({key: value}, overwrite=True)

    def log_metric(self, key: str, value: float, step: int) -> None:
        self._run.log_metric(key, value, step=step)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self._run.log_metrics(values, step)

    def set_tag(self, key: str, value: str) -> None:
        self._run.set_tags({key: value})

    def log_file(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "content")
            path.write_bytes(content)
            self._run.log_artifact(path, name)

    def finish(self) -> None:
        self._run.finish(timeout_s=60)

    def end(self) -> None:
        self._run.finish()

    def params(self) -> Mapping[str, Any]:
        return self._record().params

    def points(self, key: str) -> list[tuple[int, Any]]:
        history = self._kit.tracker.get_metric_history(self._run.id, key)
        return [(int(s), plain(v)) for s, v in zip(history.steps, history.values, strict=True)]

    def tags(self) -> Mapping[str, str]:
        return self._record().tags

    def file(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return self._kit.tracker.download_artifact(self._run.id, name, folder).read_bytes()

    def _record(self) -> RunRecord:
        if self._read is None:  # It is read after the end, when nothing changes any more.
            self._read = self._kit.tracker.get_run(self._run.id)
        return self._read

    @staticmethod
    def left(folder: Path) -> int:
        from mlopskit.tracking.journal_reader import Reader  # noqa: PLC0415 - its import is measured

        journals = (folder / "home" / "tracking" / "journal").glob("*.journal")
        count = 0
        for path in journals:
            reader = Reader(path)
            while found := reader.read(whole=True):
                count += sum("loss" in record[3] for _, record in found if record[0] == "metrics")
            reader.close()
        return count


def _private(tool: str, folder: Path, *, outage: bool) -> dict[str, Any]:
    """Return the config line of a tool in a private folder, or of a server that is not there."""
    line: dict[str, Any] = {"backend": tool}
    if tool == "mlflow":
        line["location"] = CLOSED if outage else f"sqlite:///{folder}/mlflow.db"
    elif tool == "wandb" and outage:
        line |= {"location": "team/compare", "base_url": CLOSED, "api_key": "0" * 40}
    elif tool == "wandb":
        line |= {"location": "compare", "mode": "offline", "folder": str(folder / "wandb")}
    return line


def _named(place: Place) -> dict[str, Any]:
    """Return the config line of a place; in W&B a project of its own."""
    where = place.own("mlopskit") if place.tool == "wandb" else place.line.location
    return {"backend": place.tool, "location": where, **place.line.options}
