"""All that one run holds, at one time, and how two of them differ."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from mlopskit.tracking.values import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from mlopskit.tracking.entities import Artifact, MetricHistory, Number, RunRecord

# What says who wrote a run and when it was last heard of, which a copy need not repeat.
_NOT_COMPARED: Final = {
    *("owner", "heartbeat_at"),
    # These are compared on their own.
    *("params", "metrics", "last_steps", "tags", "started_at", "ended_at", "status"),
}
# Of such a run nobody says that it ended: which of the two it reads as depends on the clock.
OPEN: Final = ("running", "lost")
_EMPTY: Final = ('""', "[]", "{}", "null", "")
_SHOWN: Final = 60


class Source(Protocol):
    """Where runs can be read: a `Tracker`, or runs that were exported."""

    @property
    def target(self) -> str:
        """What it is, as ``<backend>:<where>``."""

    def search_runs(
        self, where: str = "", experiment: str | None = None, *, limit: int | None = 100
    ) -> list[RunRecord]:
        """Find runs, the latest first."""

    def get_metric_history(self, id: str, key: str) -> MetricHistory:
        """Read every value of one metric."""

    def list_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run."""

    def fetch_artifact(self, id: str, artifact: Artifact, path: Path) -> None:
        """Write the bytes of one file to a path, verified."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One run, whole but for the bytes of its files.

    Attributes:
        run: What it says of itself.
        histories: Every point of every metric, by key.
        artifacts: Its files, by name.
    """

    run: RunRecord
    histories: Mapping[str, MetricHistory] = field(default_factory=dict)
    artifacts: Sequence[Artifact] = ()

    @property
    def is_open(self) -> bool:
        """Whether nobody has said that the run ended."""
        return self.run.status in OPEN and self.run.ended_at is None

    @property
    def digest(self) -> str:
        """``sha256:`` of all that is compared: two equal runs have the same on every backend."""
        whole = sha256()
        for what, value in self.said():
            whole.update(f"{what}\0{value}\n".encode("utf-8", "surrogatepass"))
        return f"sha256:{whole.hexdigest()}"

    def said(self) -> Iterator[tuple[str, str]]:
        """Yield all that is compared, each thing by its name, in one order."""
        said = self.run.model_dump(exclude=_NOT_COMPARED, mode="json")
        yield from ((what, to_json(said[what])) for what in sorted(said))
        yield "status", to_json("running" if self.is_open else self.run.status)
        yield "started_at", _ms(self.run.started_at)
        yield "ended_at", _ms(self.run.ended_at)
        for kind, values in (("params", self.run.params), ("tags", self.run.tags)):
            yield from ((f"{kind}.{key}", to_json(values[key])) for key in sorted(values))
        for key in sorted(self.histories):
            yield f"metrics.{key}", _points(self.histories[key])
        for each in sorted(self.artifacts, key=lambda artifact: artifact.name):
            about = each.model_dump(exclude={"name", "logged_at"})
            yield f"artifact {each.name}", json.dumps(about, sort_keys=True)


def snapshot_of(source: Source, run: RunRecord) -> Snapshot:
    """Read the rest of a run.

    Raises:
        NotFound: If it has gone in the meantime.
        Unavailable: If its tool does not answer.
    """
    return Snapshot(
        run=run,
        histories={key: source.get_metric_history(run.id, key) for key in sorted(run.metrics)},
        artifacts=source.list_artifacts(run.id),
    )


def differences(one: Snapshot, other: Snapshot) -> list[str]:
    """Name what differs between two runs, with both values; empty where they are equal."""
    left, right = dict(one.said()), dict(other.said())
    found = []
    for what in sorted(left.keys() | right.keys()):
        if left.get(what) == right.get(what):
            continue
        if what.startswith("metrics.") and what in left and what in right:
            key = what.partition(".")[2]
            found.append(f"{what}: {_first(one.histories[key], other.histories[key])}")
        else:
            found.append(f"{what}: {_shown(left.get(what))} became {_shown(right.get(what))}")
    return found


def has_grown(copy: Snapshot, source: Snapshot) -> bool:
    """Tell whether a copy that nobody ended is an earlier state of its source, with nothing new."""
    if not copy.is_open:
        return False
    then, now = dict(copy.said()), dict(source.said())
    for what, value in then.items():
        if value == now.get(what) or what in ("status", "ended_at") or value in _EMPTY:
            continue
        key = what.removeprefix("metrics.")
        if key == what or key not in source.histories:
            return False
        before, after = (
            Counter(map(_point, _ordered(each.histories[key]))) for each in (copy, source)
        )
        if before - after:
            return False
    return True


def _ms(time: datetime | None) -> str:
    return "" if time is None else str(round(time.timestamp() * 1000))


def _points(history: MetricHistory) -> str:
    """Return a digest of every point, with the sign of zero and the kind of each number."""
    said = "\n".join(map(_point, _ordered(history)))
    return f"{len(history)} points {sha256(said.encode()).hexdigest()}"


def _ordered(history: MetricHistory) -> list[tuple[int, int, Number]]:
    """Return (time, step, value) by time and step, which is how backends know the order.

    MLflow has none for points that share both.
    """
    columns = (history.timestamps, history.steps, history.values)
    plain = (each.tolist() if hasattr(each, "tolist") else list(each) for each in columns)
    return sorted(zip(*plain, strict=True), key=lambda point: (*point[:2], repr(point[2])))


def _point(point: tuple[int, int, Number]) -> str:
    time_ms, step, value = point
    return f"{'nan' if value != value else repr(value)} at step {step}, {time_ms} ms"  # noqa: PLR0124 - NaN


def _first(one: MetricHistory, other: MetricHistory) -> str:
    """Tell the first point that differs."""
    if len(one) != len(other):
        return f"{len(one)} points became {len(other)}"
    pairs = zip(map(_point, _ordered(one)), map(_point, _ordered(other)), strict=True)
    at, (left, right) = next(
        (at, pair) for at, pair in enumerate(pairs, start=1) if pair[0] != pair[1]
    )
    return f"point {at} of {len(one)}: {left} became {right}"


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}… ({len(value)} characters)"
