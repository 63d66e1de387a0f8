"""How runs lie in W&B: what its config, history and summary mean. The writer and readers share it.

* Config: every param under its own key, as plain as W&B shows it, and beside them ``_mk`` (a
  mapping: experiment, status, owner, times ...), and as JSON texts ``_mk_exact`` (params that W&B
  would change), ``_mk_tags``, ``_mk_data`` and ``_mk_inputs``; ``_mk_experiment`` is for filters.
* History: a row for each `MetricsLogged`: the metrics, ``_mk/step``, ``_mk/at`` (milliseconds,
  journal and position of the record) and ``_mk/odd`` for numbers that W&B's JSON would change.
* Summary: ``_mk/last``, a JSON text with the value at the last step of every metric.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking.entities import (
    MetricHistory,
    MetricsLogged,
    RunRecord,
)
from mlopskit.tracking.escapes import ESCAPED, HASHED, key_to_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlopskit.tracking.entities import Number, Status

    Point = tuple[int, int, Number]  # step, milliseconds, value

ABOUT: Final = "_mk"
EXPERIMENT: Final = "_mk_experiment"
EXACT: Final = "_mk_exact"
TAGS: Final = "_mk_tags"
DATA: Final = "_mk_data"
INPUTS: Final = "_mk_inputs"
STEP: Final = "_mk/step"
AT: Final = "_mk/at"
ODD: Final = "_mk/odd"
LAST: Final = "_mk/last"
MARK: Final = "_mk/mark"
LONGEST_NAME: Final = 128
LONGEST_KEY: Final = 250
ESCAPES: Final = (ESCAPED.removeprefix("_"), HASHED.removeprefix("_"))
LONGEST_TAG: Final = 64
WHOLE: Final = 1 << 53  # JSON's numbers are floats in W&B.
_WORDS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FROM_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_PLAIN = re.compile(r"[\w/@%+:#()=&,~*!|<>][\w /@%+:#()=&,~*!|<>-]*\Z")
_NO_MEDIA = re.compile(r"[^\w /-]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def key_to_wandb(key: str) -> str:
    """Return the key of W&B for a key: itself, or an escape or a hash of it.

    W&B nests at dots, hides what begins with ``_``, and drops dashes at the beginning.
    """
    if _PLAIN.match(key) and len(key) <= LONGEST_KEY and not key.startswith(("_", *ESCAPES)):
        return key
    return key_to_store(key, reserved=(key,)).removeprefix("_")


def media_key(name: str) -> str:
    """Return the key under which W&B shows what was logged by a name, which need not read back."""
    return _NO_MEDIA.sub("_", name).strip("_") or "media"


def safe_name(name: str) -> str:
    """Return a name of W&B's narrow alphabet, of which no two names of ours share one."""
    if not _UNSAFE.search(name) and len(name) <= LONGEST_NAME and name.strip("."):
        return name
    return _UNSAFE.sub("-", name)[:100].strip("-.") + "-" + sha256(name.encode()).hexdigest()[:12]


def short(source: str) -> str:
    """Return a journal's name in eight characters."""
    return sha256(source.encode()).hexdigest()[:8]


# Rows.


def row_of(record: MetricsLogged, source: str, stored: dict[str, str]) -> list[tuple[str, str]]:
    """Return a row of the history as keys and JSON texts.

    Args:
        record: The metrics.
        source: The journal, as `short` has it.
        stored: W&B's keys by ours; filled.
    """
    row = []
    odd: dict[str, Any] = {}
    for key, value in record.metrics.items():
        name = stored.get(key)
        if name is None:
            name = stored[key] = key_to_wandb(key)
        text = repr(value)
        if type(value) is int or text == "-0.0":
            odd[key] = value
            text = repr(_near(value))
        row.append((name, _WORDS.get(text, text)))
    step = record.step
    if -WHOLE <= step <= WHOLE:
        row.append((STEP, str(step)))
    else:
        odd[""] = step
        row.append((STEP, repr(float(step))))
    row.append((AT, f'"{record.time_ms}:{source}:{record.position}"'))
    if odd:
        row.append((ODD, json.dumps(json.dumps(odd))))
    return row


def _near(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def place_of(text: Any) -> tuple[int, str, int] | None:
    """Return the milliseconds, journal and position in a row's ``_mk/at``; None if it has none."""
    if not isinstance(text, str):
        return None
    time_ms, source, position = text.split(":")
    return int(time_ms), source, int(position)


def number_of(value: Any) -> float | None:
    """Return what W&B has for a metric, or None if it is no number."""
    if isinstance(value, str):
        return _FROM_WORDS.get(value)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain else None


def points_of(rows: Iterable[tuple[Any, Any, Any, Any]], key: str) -> Iterator[Point]:
    """Yield the points of one metric of a run of ours, each once however often it was written.

    Args:
        rows: Of each row that has it: the metric, ``_mk/step``, ``_mk/at`` and ``_mk/odd``.
        key: The metric.
    """
    seen: set[tuple[str, int]] = set()
    for shown, step, at, odd_text in rows:
        place = place_of(at)
        if place is None or place[1:] in seen:
            continue
        seen.add(place[1:])
        odd = json.loads(odd_text) if odd_text else {}
        value = odd[key] if key in odd else number_of(shown)
        if value is not None:
            yield int(odd.get("", step)), place[0], value


def history_of(points: Iterable[Point]) -> MetricHistory:
    """Return a history of points."""
    found = list(points)
    return MetricHistory.of([p[0] for p in found], [p[2] for p in found], [p[1] for p in found])


def foreign(
    id: str,
    config: Mapping[str, Any],
    tags: Iterable[str],
    points: Mapping[str, Point],
    texts: Mapping[str, str],
    **said: Any,
) -> RunRecord:
    """Return a run that mlopskit did not write: its config as params, each tag without a text."""
    return RunRecord(
        id=id,
        params={key: value for key, value in config.items() if not key.startswith("_")},
        tags={**texts, **dict.fromkeys(tags, "")},
        metrics={key: point[2] for key, point in points.items()},
        last_steps={key: point[0] for key, point in points.items()},
        **said,
    )


def foreign_points(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Point]]:
    """Yield the points of a run that mlopskit did not write, by W&B's own step."""
    for row in rows:
        step, time_ms = int(row.get("_step", 0)), int(float(row.get("_timestamp") or 0) * 1000)
        for key, value in row.items():
            number = None if key[:1] == "_" else number_of(value)
            if number is not None:
                yield key, (step, time_ms, number)


def other_keys(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a row of a foreign run whose values are no numbers."""
    for key, value in row.items():
        if key[:1] != "_" and value is not None and number_of(value) is None:
            yield key


def status_of(exit_code: int | None, *, ended: bool) -> Status:
    """Return the status of a run that mlopskit did not write."""
    if not ended:
        return "running"
    return "failed" if exit_code else "finished"


def time_of_text(text: str | None) -> datetime | None:
    """Return a time in UTC of W&B's text."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def time_of(ms: int | None) -> datetime | None:
    """Return a time in UTC."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
