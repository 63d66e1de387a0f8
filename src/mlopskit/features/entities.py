"""The values that cross the feature store's interface: definitions in, answers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from mlopskit.errors import InvalidInput, InvalidName, NotFound
from mlopskit.names import check_identifier, check_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DTYPES: Final = ("bool", "bytes", "date", "float", "int", "list", "str", "timestamp")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ALIASES: Final[Mapping[object, str]] = {
    bool: "bool",
    bytes: "bytes",
    datetime: "timestamp",
    float: "float",
    int: "int",
    list: "list",
    str: "str",
    "boolean": "bool",
    "datetime": "timestamp",
    "double": "float",
    "float32": "float",
    "float64": "float",
    "int32": "int",
    "int64": "int",
    "string": "str",
}


class FeatureView(BaseModel):
    """Features of one kind of entity, and the table of events they come from.

    ``FeatureView("weather", ["origin"], ["temp", "wind"], "weather.parquet", ttl=6 * 3600)``

    Args:
        name: ASCII letters, digits, ``_``, ``-`` and ``.``; how references call it.
        entities: The join keys: columns that say whose values a row holds.
        features: The columns that are features, as a list of names; or as a mapping from name to
            dtype (one of `DTYPES`), and then every pushed value is held to its dtype.
        source: A Parquet file, a folder of them, or a glob pattern. A relative path is seen from
            the working folder when the view is applied. None for a view that is only pushed to.
        timestamp: The column that holds when each row's values became true. Naive times are UTC.
        created: The column that holds when each row was written; it decides between rows of one
            key and one event time: the newest wins.
        ttl: How long a value counts after its event, as a timedelta or in seconds; the last moment
            still counts. None or 0 for ever.

    Raises:
        InvalidName: If a name cannot be kept by every backend.
        InvalidInput: If names repeat, there are no keys or features, or a dtype or ttl is unknown.
    """

    model_config = ConfigDict(frozen=True, ser_json_timedelta="float")

    name: str
    entities: tuple[str, ...]
    features: tuple[str, ...]
    source: str | None = None
    timestamp: str = "event_timestamp"
    created: str | None = None
    ttl: timedelta | None = None
    dtypes: dict[str, str] = {}

    def __init__(  # noqa: PLR0917 - the order is the design's
        self,
        name: str,
        entities: Sequence[str],
        features: Sequence[str] | Mapping[str, str | type],
        source: str | Path | None = None,
        timestamp: str = "event_timestamp",
        created: str | None = None,
        ttl: timedelta | float | None = None,
        *,
        dtypes: Mapping[str, str | type] | None = None,
    ) -> None:
        check_identifier("feature view", name)
        if isinstance(features, Mapping):
            dtypes = features
        super().__init__(
            name=name,
            entities=_names("join key", entities, name),
            features=_names("feature", tuple(features), name),
            source=None if source is None else str(source),
            timestamp=check_label("timestamp column", timestamp),
            created=None if created is None else check_label("created column", created),
            ttl=duration("ttl", ttl),
            dtypes={key: _dtype(name, key, dtype) for key, dtype in (dtypes or {}).items()},
        )
        _check_distinct(name, self.columns)
        if unknown := set(self.dtypes) - set(self.features):
            raise InvalidInput(
                f"The view {name!r} gives a dtype to {sorted(unknown)}, which are none of its "
                f"features. It has: {', '.join(self.features)}."
            )

    def __hash__(self) -> int:
        return hash((self.name, self.entities, self.features, self.source))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the view reads: keys, features, timestamp, created."""
        created = () if self.created is None else (self.created,)
        return (*self.entities, *self.features, self.timestamp, *created)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(key, value) for key, value in super().__repr_args__() if value not in (None, {})]


class FeatureService(BaseModel):
    """A named list of features: what one model asks for, in training and in serving.

    Args:
        name: ASCII letters, digits, ``_``, ``-`` and ``.``.
        features: References, each ``"view:feature"``.

    Raises:
        InvalidName: If the name cannot be kept by every backend.
        InvalidInput: If a reference is none, or is there twice.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    features: tuple[str, ...]

    def __init__(self, name: str, features: Sequence[str]) -> None:
        check_identifier("feature service", name)
        super().__init__(name=name, features=checked_references(features))


class FeatureStatus(StrEnum):
    """What an online value is worth. Each member equals its own text."""

    FRESH = "FRESH"
    """Known, and young enough."""
    EXPIRED = "EXPIRED"
    """Known, but older than the view's ttl or the caller's ``max_age``; its value is None."""
    MISSING = "MISSING"
    """Nothing is known of this entity; value and event time are None."""
    NULL = "NULL"
    """Known to be null, and young enough."""


@dataclass(frozen=True, slots=True)
class FeatureValue:
    """One online value with its worth: ``value`` is None unless the status is FRESH.

    ``event_time`` is in UTC; None where nothing is known.
    """

    value: Any
    status: FeatureStatus
    event_time: datetime | None


class ViewStats(BaseModel):
    """What a store holds of one view.

    Attributes:
        name: The view.
        online_rows: Entities that can be read online.
        pushed_rows: Events kept by `push` for historical reads.
        newest_event: The newest event time that is online, in UTC.
        materialized_until: The latest end of a finished `materialize`, in UTC.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    online_rows: int
    pushed_rows: int
    newest_event: datetime | None
    materialized_until: datetime | None


class OnlineFeatures:
    """The answer of `get_online_features`: as many rows as were asked for, in their order.

    ``online.rows[0]["weather:temp"]`` is a `FeatureValue`; `to_dict` gives plain columns. Values
    are kept by column, and a `FeatureValue` is made when it is looked at.

    Args:
        entities: The join keys as they were asked for, a list for each.
        references: The features, each ``"view:feature"``.
        names: The column name of each reference, as in a table of historical features.
        values: A list for each reference.
        statuses: A list for each reference.
        event_times: A list for each reference: microseconds since 1970, or None.
    """

    __slots__ = ("_at", "_event_times", "_names", "_statuses", "_values", "entities", "references")

    def __init__(
        self,
        entities: Mapping[str, list[Any]],
        references: Sequence[str],
        names: Sequence[str],
        *,
        values: Sequence[list[Any]],
        statuses: Sequence[list[FeatureStatus]],
        event_times: Sequence[list[int | None]],
    ) -> None:
        self.entities = entities
        self.references = tuple(references)
        self._names = tuple(names)
        self._values = values
        self._statuses = statuses
        self._event_times = event_times
        self._at = {reference: i for i, reference in enumerate(self.references)}

    @property
    def rows(self) -> Sequence[Mapping[str, FeatureValue]]:
        """One mapping from ``"view:feature"`` to `FeatureValue` for each row asked for."""
        return _Rows(self)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the values by column: join keys first, then features named as in training.

        The lists are this answer's own: copy one before changing it.
        """
        return {**self.entities, **dict(zip(self._names, self._values, strict=True))}

    def statuses(self, reference: str) -> list[FeatureStatus]:
        """Return the status of one feature in every row.

        Raises:
            NotFound: If that feature was not asked for.
        """
        if reference not in self._at:
            raise NotFound("feature in this answer", reference, self.references)
        return self._statuses[self._at[reference]]

    def __len__(self) -> int:
        return len(self._values[0]) if self._values else 0

    def __repr__(self) -> str:
        return f"<OnlineFeatures {len(self)} rows of {', '.join(self.references)}>"

    def _value(self, row: int, reference: str) -> FeatureValue:
        at = self._at[reference]
        event = self._event_times[at][row]
        return FeatureValue(
            self._values[at][row],
            self._statuses[at][row],
            None if event is None else EPOCH + timedelta(microseconds=event),
        )


class _Rows(Sequence["_Row"]):
    __slots__ = ("_answer",)

    def __init__(self, answer: OnlineFeatures) -> None:
        self._answer = answer

    def __len__(self) -> int:
        return len(self._answer)

    def __getitem__(self, index: Any) -> Any:
        found = range(len(self))[index]
        if isinstance(found, range):
            return [_Row(self._answer, i) for i in found]
        return _Row(self._answer, found)


class _Row(Mapping[str, FeatureValue]):
    __slots__ = ("_answer", "_index")

    def __init__(self, answer: OnlineFeatures, index: int) -> None:
        self._answer = answer
        self._index = index

    def __getitem__(self, reference: str) -> FeatureValue:
        return self._answer._value(self._index, reference)

    def __iter__(self) -> Iterator[str]:
        return iter(self._answer.references)

    def __len__(self) -> int:
        return len(self._answer.references)

    def __repr__(self) -> str:
        return repr(dict(self))


def split_reference(reference: object) -> tuple[str, str]:
    """Return the view and the feature of ``"view:feature"``.

    Raises:
        InvalidInput: If it is no reference.
    """
    view, colon, feature = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if not (view and colon and feature):
        raise InvalidInput(
            f"{reference!r} is no reference to a feature. Write 'view:feature', "
            "such as 'weather:temp'."
        )
    return view, feature


def checked_references(references: Sequence[str]) -> tuple[str, ...]:
    """Return references that are well formed and unlike each other.

    Raises:
        InvalidInput: If there are none, one is malformed, or one is there twice.
    """
    found = tuple(references)
    if not found:
        raise InvalidInput("No feature is asked for. Write ['view:feature', ...].")
    for reference in found:
        split_reference(reference)
    twice = sorted({r for r in found if found.count(r) > 1})
    if twice:
        raise InvalidInput(f"{', '.join(map(repr, twice))} is asked for twice. Ask once.")
    return found


def duration(what: str, value: timedelta | float | None) -> timedelta | None:
    """Return a length of time given as a timedelta or in seconds; None where it is 0 or None.

    Raises:
        InvalidInput: If it is negative, or neither.
    """
    if value is None:
        return None
    try:
        span = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInput(
            f"{what}={value!r} is no length of time. Give a timedelta, or a number of seconds."
        ) from exc
    if span < timedelta(0):
        raise InvalidInput(f"{what}={value!r} is negative. Give None or 0 for no limit.")
    return span or None


def _names(kind: str, names: Sequence[str], view: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InvalidInput(f"The view {view!r} needs a list of {kind}s: write [{names!r}].")
    found = tuple(check_label(kind, name) for name in names)
    if not found:
        raise InvalidInput(f"The view {view!r} has no {kind}. Name at least one.")
    for name in found:
        if ":" in name and kind == "feature":
            raise InvalidName(kind, name, "':' separates view and feature in a reference")
    return found


def _check_distinct(view: str, columns: tuple[str, ...]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        folded = column.casefold()  # SQL engines do not tell `Temp` from `temp`.
        if folded in seen:
            raise InvalidInput(
                f"The view {view!r} names one column twice: {seen[folded]!r} and {column!r}. Every "
                "key, feature and time is a column of its own."
            )
        seen[folded] = column


def _dtype(view: str, feature: str, dtype: object) -> str:
    found = _ALIASES.get(dtype, dtype)
    if found not in DTYPES:
        raise InvalidInput(
            f"The feature {feature!r} of the view {view!r} has the unknown dtype {dtype!r}. "
            f"There is: {', '.join(DTYPES)}."
        )
    return str(found)
