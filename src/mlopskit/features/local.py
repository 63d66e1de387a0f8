"""Features without a server: Parquet files and DuckDB for the past, SQLite for the present."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlopskit.capabilities import Capabilities
from mlopskit.errors import InvalidInput
from mlopskit.features import frames, offline, rows, sources
from mlopskit.features.base import FeatureStore
from mlopskit.features.online import OnlineStore
from mlopskit.hookspecs import hookimpl

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mlopskit.features.entities import FeatureService, FeatureView, ViewStats
    from mlopskit.features.references import Selection
    from mlopskit.features.rows import Events, Key

TOOL = {
    "package": "duckdb",
    "extra": "local",
    "requires": {
        "duckdb": ">=1.2,<3",
        "msgspec": ">=0.19,<1",
        "narwhals": ">=2.0,<3",
        "numpy": ">=2.0,<3",
        "pyarrow": ">=18,<26",
    },
}
CAPABILITIES = {
    "historical": "native",
    "online": "native",
    "services": "native",
    "push": "native",
    "push_offline": "native",
    "online_order": "native",
    "materialize_resume": "native",
    "concurrent_apply": "native",
    "list_values": "native",
    "known_as_of": "absent: a row's value is the last correction, whenever it was written",
    "windows": "absent: aggregate before you push, or in the source",
    "on_demand": "absent: compute such columns where the request is made",
    "remote_sources": "absent: a source is a Parquet file, a folder or a pattern on this machine",
    "skew": "absent: nothing records what was served",
}
TABLE = Capabilities("features", "local", CAPABILITIES)


class LocalFeatureStore(FeatureStore):
    """Keeps definitions and the latest values in SQLite, and reads history from Parquet.

    Args:
        location: The folder of the store; ``features`` under the home by default.
        batch_rows: How many entities `materialize` commits at a time.
    """

    def __init__(self, location: str | Path | None = None, *, batch_rows: int = 10_000) -> None:
        if type(batch_rows) is not int or batch_rows < 1:
            raise InvalidInput(f"batch_rows={batch_rows!r} must be a whole number above 0.")
        self._location = None if location is None else Path(location).expanduser().absolute()
        self._batch_rows = batch_rows
        self._lock = threading.Lock()
        self._opened: OnlineStore | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        return TABLE

    @property
    def native(self) -> sqlite3.Connection:
        """The SQLite connection of this thread, to the definitions and what is online."""
        return self._store.db.connection()

    def ping(self, timeout_s: float = 5.0) -> None:
        """Read the definitions."""
        self._store.views()

    def close(self) -> None:
        """Close the SQLite connections of this process."""
        with self._lock:
            if self._opened is not None:
                self._opened.db.close()

    def list_views(self) -> list[FeatureView]:
        """Return every view, by name."""
        return self._store.views()

    def get_view(self, name: str) -> FeatureView:
        """Return one view, as the last `apply` of any process left it."""
        return self._store.view(name)

    def delete_view(self, name: str) -> None:
        """Forget a view with its records. Its source files stay."""
        self._store.delete_view(name)

    def list_services(self) -> list[FeatureService]:
        """Return every service, by name."""
        return self._store.services()

    def get_service(self, name: str) -> FeatureService:
        """Return one service."""
        return self._store.service(name)

    def delete_service(self, name: str) -> None:
        """Forget a service. Its views stay."""
        self._store.delete_service(name)

    def stats(self, name: str) -> ViewStats:
        """Return how much of a view is held; it counts the records."""
        return self._store.stats(name)

    def _apply(self, views: Sequence[FeatureView], services: Sequence[FeatureService]) -> None:
        placed = [(view, _absolute(view.source)) for view in views]
        self._store.apply(placed, services)

    def _push(self, view: FeatureView, events: Events, *, online: bool, offline: bool) -> None:
        self._store.put(view, events, online=online, offline=offline)

    def _materialize(self, view: FeatureView, start: int, end: int) -> int:
        window = (start, end)
        _, source, revision = self._store.source(view)
        mark = sources.fingerprint(view, source, revision)
        history = sources.read(view, source, self._store.pushed(view, end), view.features)
        with offline.engine() as duck:
            places = offline.newest(duck, history, start, end)
        # By key and not by count: what is pushed meanwhile is online, and shifts no other key.
        left = offline.behind(history, places, self._store.progress(view, window, mark))
        for at in range(0, len(left), self._batch_rows):
            events = _events(view, history, left[at : at + self._batch_rows])
            self._store.put_batch(view, events, window, mark)
        self._store.finish(view, window)
        return len(places)

    def _historical(self, spine: pa.Table, selection: Selection) -> pa.Table:
        columns: dict[int, pa.ChunkedArray] = {}
        with offline.engine() as duck:
            for view in selection.views:
                wanted = selection.columns[view.name]
                _, source, _ = self._store.source(view)
                names = [feature for feature, _ in wanted]
                history = sources.read(view, source, self._store.pushed(view), names)
                found = history.features.take(offline.as_of(duck, view, spine, history))
                columns.update({at: found[feature] for feature, at in wanted})
        return pa.table({name: columns[at] for at, name in enumerate(selection.names)})

    def _read_online(
        self, view: FeatureView, keys: Sequence[Key | None]
    ) -> list[tuple[int, dict[str, Any]] | None]:
        return self._store.read(view, keys)

    @property
    def _store(self) -> OnlineStore:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    folder = self._location or self.context.home / "features"
                    self._opened = OnlineStore(folder / "features.db")
        return self._opened


def _absolute(source: str | None) -> str | None:
    return None if source is None else str(Path(source).expanduser().absolute())


def _events(view: FeatureView, history: sources.History, places: NDArray[np.int64]) -> Events:
    """Return some events of a history in the form in which `push` gets them."""
    what = f"The source of the view {view.name!r}"
    columns: dict[str, list[Any]] = {
        name: key.take(pa.array(places)).to_pylist()
        for name, key in zip(view.entities, history.keys, strict=True)
    }
    table = history.features.take(places)
    for name in view.features:
        columns[name] = frames.plain(table[name], f"{what}, column {name!r}")
    columns[view.timestamp] = history.times[places].tolist()
    if view.created is not None:
        columns[view.created] = history.created[places].tolist()
    return rows.checked(view, columns, what)


@hookimpl
def make_feature_store(location: str | None, options: Mapping[str, Any]) -> FeatureStore:
    """Build the embedded feature store."""
    return LocalFeatureStore(location, **options)
