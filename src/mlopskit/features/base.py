"""The feature store's interface: what every backend can do, and nothing else.

What callers hand in is checked and put into one form here, once; a backend implements the methods
that begin with an underscore, in terms of `Events`, keys and Arrow tables.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mlopskit.errors import InvalidInput
from mlopskit.features import rows
from mlopskit.features.answers import answer
from mlopskit.features.entities import FeatureService, FeatureView, duration
from mlopskit.features.references import Selection, select
from mlopskit.features.values import microseconds
from mlopskit.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    import pyarrow as pa

    from mlopskit.features.entities import OnlineFeatures, ViewStats
    from mlopskit.features.rows import Events

CAPABILITIES: Final[Mapping[str, str]] = {
    "historical": "Features as they were known at the time of each row of a table.",
    "online": "The latest values of an entity, read within milliseconds.",
    "services": "Named lists of features are stored beside the views.",
    "push": "Single events go online without a source file.",
    "push_offline": "A pushed event is also seen by later historical reads.",
    "online_order": "An older event that comes late never replaces a newer one.",
    "materialize_resume": "A killed materialize goes on where it stopped.",
    "concurrent_apply": "Processes may apply definitions at the same time, and none is lost.",
    "list_values": "A feature may be a list, such as an embedding.",
    "known_as_of": "Corrections written after the time of a row can be left out of history.",
    "windows": "A view may declare aggregates over time windows.",
    "on_demand": "A view may compute columns from the request.",
    "remote_sources": "A source may lie in an object store or a database.",
    "skew": "What was served can be compared with what history says.",
}


class FeatureStore(Tool):
    """Keeps definitions of features, joins them to past events, and serves the latest ones.

    Frames may be pandas, polars or pyarrow; what comes back is of the type that came in. In pandas
    frames NaN means null, elsewhere it is a number like any other. Naive times are UTC, and times
    are kept to the microsecond.
    """

    domain: ClassVar[str] = "features"

    # What callers use.

    def apply(self, *objects: FeatureView | FeatureService) -> None:
        """Store definitions, all of them or none. A name that exists is replaced.

        What is online stays when a view is replaced, unless its join keys change.

        Raises:
            InvalidInput: If an object is neither a `FeatureView` nor a `FeatureService`.
            NotFound: If a service refers to a view or a feature that does not exist.
            Conflict: If a service that is stored refers to a feature that would be gone.
            Unsupported: If a source lies where the backend cannot read.
        """
        for each in objects:
            if not isinstance(each, FeatureView | FeatureService):
                raise InvalidInput(
                    f"{each!r} cannot be applied. Give FeatureView and FeatureService objects."
                )
        views = [each for each in objects if isinstance(each, FeatureView)]
        services = [each for each in objects if isinstance(each, FeatureService)]
        for named in (views, services):
            _check_single(named)
        if any(view.source is not None and "://" in view.source for view in views):
            self.capabilities.require(["remote_sources"])
        self._apply(views, services)

    def push(self, view: str, frame: Any, *, to: str = "both") -> None:
        """Store events as they happen. When it returns, every reader sees them.

        Args:
            view: The name of an applied view.
            frame: The events: a frame, a list of dicts, or a dict of columns, with the view's join
                keys, features and timestamp. None is null; other columns are left out.
            to: ``"online"`` for online reads, ``"offline"`` for later historical reads, or
                ``"both"``.

        Raises:
            NotFound: If there is no such view.
            InvalidInput: If a column is missing, a key is null, or a value has the wrong type.
            Unsupported: If the backend cannot push, or not to there.
        """
        if to not in ("both", "offline", "online"):
            raise InvalidInput(f"to={to!r}: an event goes to 'online', 'offline' or 'both'.")
        self.capabilities.require(["push"] if to == "online" else ["push", "push_offline"])
        definition = self.get_view(view)
        events = rows.events(definition, frame)
        if events.keys:
            self._push(definition, events, online=to != "offline", offline=to != "online")

    def materialize(
        self, start: datetime | str, end: datetime | str, views: Sequence[str] | None = None
    ) -> dict[str, int]:
        """Put the newest event of each entity online, and return how many entities each view had.

        Args:
            start: The earliest event time that counts, itself included.
            end: The latest event time that counts, itself included.
            views: The names of the views; all by default.

        Doing it twice, or an earlier window after a later one, changes nothing. It commits in
        batches; after a kill the same call goes on behind the last one.

        Raises:
            NotFound: If there is no such view, or its source is not there.
            InvalidInput: If the window ends before it begins, or a source lacks a column.
        """
        first, last = microseconds("start", start), microseconds("end", end)
        if last < first:
            raise InvalidInput(f"The window ends at {end}, before it begins at {start}.")
        if isinstance(views, str):
            views = [views]
        chosen = self.list_views() if views is None else [self.get_view(name) for name in views]
        return {view.name: self._materialize(view, first, last) for view in chosen}

    def get_historical_features(
        self,
        entity_frame: Any,
        features: Sequence[str] | FeatureService | str,
        *,
        timestamp: str = "event_timestamp",
    ) -> Any:
        """Return the frame with each feature as it was known at each row's time.

        Exactly one row per row, in the same order, other columns untouched. The value is that of
        the newest event at or before the row's time, no older than the view's ttl; null if there
        is none. Rows with a null key or a null time get nulls. A column carries the feature's own
        name, or ``view__feature`` where that is taken.

        Args:
            entity_frame: A frame with the join keys, and the time of each row.
            features: References ``"view:feature"``, a `FeatureService`, or the name of one.
            timestamp: The column that holds the time of each row.

        Raises:
            NotFound: If a view, a feature, a service or a source is not there.
            InvalidInput: If a column is missing, or has a type that cannot be joined.
        """
        self.capabilities.require(["historical"])
        frames = rows.frames()
        frame = frames.opened(entity_frame)
        selection = self._selected(features, taken=frame.columns)
        keys = list(dict.fromkeys(key for view in selection.views for key in view.entities))
        spine = frames.spine(frame, keys, timestamp)
        table = self._historical(spine, selection)
        return frames.joined(frame, table)

    def get_online_features(
        self,
        entity_rows: Any,
        features: Sequence[str] | FeatureService | str,
        max_age: timedelta | float | None = None,
        *,
        now: datetime | str | None = None,
    ) -> OnlineFeatures:
        """Return the latest values of each entity, each with its status and event time.

        Args:
            entity_rows: A list of dicts, a dict of columns, or a frame, with the join keys.
            features: References ``"view:feature"``, a `FeatureService`, or the name of one.
            max_age: The oldest that a value may be, as a timedelta or in seconds; where the view's
                ttl is shorter, that decides. None or 0 for no limit.
            now: The moment that age is measured from; the clock by default. If it is given, an
                event after it counts as unknown.

        Raises:
            NotFound: If a view, a feature or a service is not there.
            InvalidInput: If a join key is missing, or is of a type that cannot be a key.
        """
        selection = self._selected(features)
        asked = rows.lookups(selection, entity_rows)
        found = [self._read_online(view, asked.keys[view.entities]) for view in selection.views]
        return answer(selection, asked, found, duration("max_age", max_age), now)

    @abstractmethod
    def list_views(self) -> list[FeatureView]:
        """Return every view, by name."""

    @abstractmethod
    def get_view(self, name: str) -> FeatureView:
        """Return one view, equal to what was applied.

        Raises:
            NotFound: If there is no such view.
        """

    @abstractmethod
    def delete_view(self, name: str) -> None:
        """Forget a view, all that is online of it, and all that was pushed to it.

        Raises:
            NotFound: If there is no such view.
            Conflict: If a service still refers to it.
        """

    @abstractmethod
    def list_services(self) -> list[FeatureService]:
        """Return every service, by name."""

    @abstractmethod
    def get_service(self, name: str) -> FeatureService:
        """Return one service, equal to what was applied.

        Raises:
            NotFound: If there is no such service.
        """

    @abstractmethod
    def delete_service(self, name: str) -> None:
        """Forget a service. Its views stay.

        Raises:
            NotFound: If there is no such service.
        """

    @abstractmethod
    def stats(self, name: str) -> ViewStats:
        """Return how much of a view is held, and how new it is.

        Raises:
            NotFound: If there is no such view.
        """

    # What a backend implements.

    @abstractmethod
    def _apply(self, views: Sequence[FeatureView], services: Sequence[FeatureService]) -> None:
        """Store definitions in one transaction."""

    @abstractmethod
    def _push(self, view: FeatureView, events: Events, *, online: bool, offline: bool) -> None:
        """Store events, in one transaction where there can be one."""

    @abstractmethod
    def _materialize(self, view: FeatureView, start: int, end: int) -> int:
        """Put online what lies between two times, in microseconds, and return how many keys."""

    @abstractmethod
    def _historical(self, spine: pa.Table, selection: Selection) -> pa.Table:
        """Join each row of the spine to the features as they were known then.

        Args:
            spine: The join keys under their own names, then ``__time``: microseconds since 1970
                as int64, null where unknown. Nothing else.
            selection: What is asked for, grouped by view.

        Returns:
            A table of as many rows in the same order, with a column for each of
            ``selection.names``.
        """

    @abstractmethod
    def _read_online(
        self, view: FeatureView, keys: Sequence[tuple[Any, ...] | None]
    ) -> Sequence[tuple[int, Mapping[str, Any]] | None]:
        """Return the event time, in microseconds, and the values of each key, or None.

        A key is a tuple in the order of the view's join keys; None where one of them is null.
        """

    def _selected(
        self, features: Sequence[str] | FeatureService | str, taken: Sequence[str] = ()
    ) -> Selection:
        if isinstance(features, str):
            if ":" in features:
                raise InvalidInput(f"Features are asked for in a list: write [{features!r}].")
            features = self.get_service(features)
        references = features.features if isinstance(features, FeatureService) else features
        return select(references, self.get_view, taken)


def _check_single(named: Sequence[FeatureView] | Sequence[FeatureService]) -> None:
    by_name = {each.name: each for each in named}
    for each in named:
        if by_name[each.name] != each:
            raise InvalidInput(
                f"Two definitions with the name {each.name!r} are applied at once. Rename one."
            )
