"""What a run that mlopskit did not write has beside its history: its summary, and saved files.

* A number that only the summary has becomes a metric with one point, once the run has ended: at the
  last step of the history, at the time of the end. Before that nobody knows its last value.
* A text that only the summary has becomes the tag ``summary.<key>``.
* A file of ``run.save`` becomes the artifact ``files/<name>``.

What is nested in the summary has a key of parts joined by dots. Nothing is said here of what W&B
writes of itself: its console output, list of packages and description of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlopskit.tracking.entities import Artifact
from mlopskit.tracking.wandb_layout import number_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from mlopskit.tracking.wandb_layout import Point

FILES: Final = "files/"
TAG: Final = "summary."
SAVED: Final = "saved"
OWN_FILES: Final = (
    *("config.yaml", "output.log", "requirements.txt", "conda-environment.yaml", "diff.patch"),
    *("wandb-metadata.json", "wandb-summary.json", "wandb-history.jsonl", "wandb-events.jsonl"),
)
OWN_FOLDERS: Final = ("media/", "artifact/", "code/", "logs/")


@dataclass(frozen=True, slots=True)
class OnlyInSummary:
    """What the summary of a run has and its history does not.

    Attributes:
        points: The one point of each number, by key; empty while the run goes on.
        tags: The texts, by their tags.
        others: The keys of everything else, as they are named where they are left out.
    """

    points: Mapping[str, Point] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    others: Collection[str] = ()


def only_in_summary(
    summary: Mapping[str, Any],
    logged: Collection[str],
    last_step: int,
    ended_at: datetime | None,
) -> OnlyInSummary:
    """Return what a summary has beside the history.

    Args:
        summary: W&B's.
        logged: The keys that the history has, of whatever kind.
        last_step: The last step of the history.
        ended_at: When the run ended; None while it goes on.
    """
    points: dict[str, Point] = {}
    tags: dict[str, str] = {}
    others: set[str] = set()
    for key, value in _flat(summary, logged):
        number = number_of(value)
        if number is not None and ended_at is not None:
            points[key] = last_step, round(ended_at.timestamp() * 1000), number
        elif number is None and isinstance(value, str):
            tags[TAG + key] = value
        else:
            others.add(TAG + key)
    return OnlyInSummary(points, tags, others)


def is_saved(name: str) -> bool:
    """Tell whether a file of a run is one that its program saved, by its name."""
    return name not in OWN_FILES and not name.startswith(OWN_FOLDERS)


def saved_file(name: str, size: int) -> Artifact:
    """Return a saved file as an artifact."""
    return Artifact(name=FILES + name, size=size, digest="", type=SAVED, logged_as=FILES + name)


def _flat(
    said: Mapping[str, Any], logged: Collection[str], head: str = ""
) -> Iterator[tuple[str, Any]]:
    for name, value in said.items():
        key = head + name
        if key in logged or (not head and name.startswith("_")):
            continue
        if isinstance(value, dict) and value and "_type" not in value:
            yield from _flat(value, logged, key + ".")
        else:
            yield key, value
