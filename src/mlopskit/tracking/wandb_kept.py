"""What W&B keeps of a run in its config and summary; `wandb_layout` says under which keys."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlopskit.tracking.entities import (
    Alive,
    ArtifactUse,
    ArtifactUsed,
    Dataset,
    DatasetLogged,
    Ended,
    MetricsLogged,
    NotesSet,
    ParamsLogged,
    RunRecord,
    Started,
    TagsSet,
)
from mlopskit.tracking.values import from_json, to_json
from mlopskit.tracking.wandb_layout import (
    ABOUT,
    DATA,
    EXACT,
    EXPERIMENT,
    INPUTS,
    LAST,
    LONGEST_TAG,
    TAGS,
    WHOLE,
    key_to_wandb,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlopskit.tracking.entities import Record
    from mlopskit.tracking.wandb_layout import Point


# Params.


def is_plain(value: Any) -> bool:
    """Tell whether a param reads back equal, in type too, from W&B's JSON."""
    if isinstance(value, int):  # A bool is one.
        return -WHOLE <= value <= WHOLE
    if isinstance(value, float):
        return math.isfinite(value) and not value.is_integer()
    if isinstance(value, str):
        return all(char >= " " or char in "\n\t" for char in value) and _is_utf8(value)
    if isinstance(value, list):
        return all(is_plain(each) for each in value)
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(type(key) is str and _shows(key) and is_plain(each) for key, each in value.items())
    )


def shown(value: Any) -> Any:
    """Return what W&B's pages show for a param: JSON as near to it as W&B takes."""
    if isinstance(value, dict):
        return {_text(key): shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [shown(each) for each in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not -WHOLE <= value <= WHOLE:
        return str(value)
    return value


def _shows(key: str) -> bool:
    """Tell whether a key can be W&B's as it is."""
    return bool(key) and key_to_wandb(key) == key and _is_utf8(key)


def _text(value: Any) -> str:
    return str(value).encode(errors="replace").decode().replace("\x00", "\ufffd")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Runs.


@dataclass(slots=True)
class Kept:
    """What W&B keeps of a run of ours, beside history and artifacts.

    Attributes:
        about: Its experiment, name, status, owner, parent, group, job type, and times in
            milliseconds.
        revision: Grows with every change of the config.
        last: The value at the last step, by key.
    """

    id: str
    about: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    data: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    last: dict[str, Point] = field(default_factory=dict)
    revision: int = 0

    def apply(self, record: Record, source: str) -> set[str]:
        """Take a record in, once or again; return the config keys that it changes."""
        if isinstance(record, MetricsLogged):
            for key, value in record.metrics.items():
                known = self.last.get(key)
                if known is None or (record.step, record.time_ms) >= known[:2]:
                    self.last[key] = record.step, record.time_ms, value
            return set()
        if isinstance(record, Started | Ended | Alive):
            return self._lived(record)
        return self._told(record, source)

    def _told(self, record: Record, source: str) -> set[str]:
        if isinstance(record, ParamsLogged):
            self.params.update(record.params)
            return {*map(key_to_wandb, record.params), EXACT}
        if isinstance(record, TagsSet):
            self.tags.update(record.tags)
            return {TAGS}
        if isinstance(record, NotesSet):
            self.notes = record.notes
            return {ABOUT}
        place = f"{source}:{record.position}"
        if isinstance(record, DatasetLogged):
            return (
                {DATA}
                if _added(self.data, place, record.dataset.model_dump(mode="json"))
                else set()
            )
        if isinstance(record, ArtifactUsed):
            said = record.use.model_dump(mode="json")
            return {INPUTS} if _added(self.inputs, place, said) else set()
        return set()

    def _lived(self, record: Started | Ended | Alive) -> set[str]:
        about = self.about
        if isinstance(record, Alive):
            about["beat_ms"] = max(record.time_ms, about.get("beat_ms") or 0)
        elif isinstance(record, Ended):
            mine = about.get("owner") == record.owner and about.get("status") == "running"
            if record.status == "lost" and not mine:
                return set()
            about.update(status=record.status, ended_ms=record.time_ms)
        elif record.resumed:
            about.update(status="running", owner=record.owner, ended_ms=None)
        elif not about:
            self.notes = record.notes
            about.update(
                name=record.name,
                experiment=record.experiment,
                status="running",
                parent=record.parent_id,
                owner=record.owner,
                group=record.group,
                job_type=record.job_type,
                started_ms=record.time_ms,
                ended_ms=None,
            )
        return {ABOUT, EXPERIMENT}

    def config(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return W&B's config, or only some keys of it."""
        exact = {k: v for k, v in self.params.items() if not (_shows(k) and is_plain(v))}
        everything = {key_to_wandb(key): shown(value) for key, value in self.params.items()}
        everything |= {
            ABOUT: {
                **self.about,
                "notes": None if self.notes else "",
                "revision": self.revision,
            },
            EXPERIMENT: self.about.get("experiment"),
            EXACT: to_json(exact),
            TAGS: json.dumps(self.tags),
            DATA: json.dumps(self.data),
            INPUTS: json.dumps(self.inputs),
        }
        if keys is None:
            return everything
        return {key: everything[key] for key in sorted(keys)}

    def last_text(self) -> str:
        """Return the summary's text."""
        return json.dumps(self.last)

    @property
    def wandb_tags(self) -> tuple[str, ...]:
        """W&B's tags: texts of up to 64 characters."""
        both = (f"{key}:{value}" if value else key for key, value in self.tags.items())
        fitting = (each for each in both if len(each) <= LONGEST_TAG and each.isprintable())
        return tuple(dict.fromkeys(fitting))

    def record(self) -> RunRecord:
        """Return the run as it was logged."""
        about = self.about
        return RunRecord(
            id=self.id,
            name=about.get("name") or self.id[:8],
            experiment=about.get("experiment") or "default",
            status=about.get("status") or "running",
            params=self.params,
            tags=self.tags,
            metrics={key: point[2] for key, point in self.last.items()},
            last_steps={key: point[0] for key, point in self.last.items()},
            parent_id=about.get("parent"),
            group=about.get("group"),
            job_type=about.get("job_type"),
            notes=self.notes,
            datasets=tuple(Dataset.model_validate(each) for _, each in self.data),
            inputs=tuple(ArtifactUse.model_validate(each) for _, each in self.inputs),
            started_at=time_of(about.get("started_ms")),
            ended_at=time_of(about.get("ended_ms")),
            heartbeat_at=time_of(about.get("beat_ms")),
            owner=about.get("owner") or "",
        )


def is_ours(config: Mapping[str, Any]) -> bool:
    """Tell whether mlopskit wrote a run, by its config."""
    return isinstance(config.get(ABOUT), dict) and "experiment" in config[ABOUT]


def kept_of(id: str, config: Mapping[str, Any], summary: Mapping[str, Any], notes: str) -> Kept:
    """Return what W&B keeps of a run of ours."""
    about = dict(config[ABOUT])
    emptied = about.pop("notes", None) == ""
    revision = int(about.pop("revision", 0))
    exact = from_json(config.get(EXACT, "{}"))
    hidden = set(map(key_to_wandb, exact))
    last = json.loads(summary.get(LAST, "{}"))
    plain = {key: v for key, v in config.items() if key[:1] != "_" and key not in hidden}
    return Kept(
        id=id,
        about={key: int(v) if key.endswith("_ms") and v else v for key, v in about.items()},
        params=plain | exact,
        tags=json.loads(config.get(TAGS, "{}")),
        notes="" if emptied else notes,
        data=json.loads(config.get(DATA, "[]")),
        inputs=json.loads(config.get(INPUTS, "[]")),
        last={key: (point[0], point[1], point[2]) for key, point in last.items()},
        revision=revision,
    )


def _added(found: list[Any], place: str, said: Any) -> bool:
    if any(known == place for known, _ in found):
        return False
    found.append([place, said])
    return True
