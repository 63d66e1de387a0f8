"""Runs of programs that train as several processes, each of which has a rank.

``torchrun`` says in the environment of each process which rank it has, of how many
(https://docs.pytorch.org/docs/stable/elastic/run.html); so do the launchers of Lightning and
accelerate, and those of MPI. Nothing else is asked: no rank waits for another one.
"""

from __future__ import annotations

import os
import sys
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from mlopskit.errors import InvalidInput, NotFound, ParamConflict
from mlopskit.tracking.entities import ArtifactUse
from mlopskit.tracking.run import Run
from mlopskit.tracking.values import (
    check_params,
    check_step,
    check_tags,
    check_text,
    number,
    same,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import (
        Artifact,
        Dataset,
        DeliveryStatus,
        Started,
        Status,
    )

Ranks = Literal["first", "group", "every"]
CHOICES: Final = ("first", "group", "every")
NAMES: Final = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
SIZES: Final = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def this_rank() -> int:
    """Return the rank of this process among those of one program; 0 where it is the only one.

    torch says it once its process group is there; before that, launchers do in the environment.
    """
    torch = _group()
    if torch is not None:
        return int(torch.get_rank())
    if os.environ.get("WORLD_SIZE", "") in ("0", "1"):
        return 0
    for name in NAMES:
        if os.environ.get(name, "").isdecimal():
            return _number(name)
    # Lightning's own launcher names the node and the place on it.
    return _number("NODE_RANK") * _number("WORLD_SIZE") + _number("LOCAL_RANK")


def several() -> bool:
    """Tell whether this process is one of several ranks."""
    torch = _group()
    if torch is not None:
        return int(torch.get_world_size()) > 1
    return any(_number(name) > 1 for name in SIZES) or this_rank() > 0


def group_name() -> str:
    """Return a name that the ranks of one launch share."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if launch != "none":
        return launch
    return f"{os.environ.get('MASTER_ADDR', 'ranks')}:{os.environ.get('MASTER_PORT', '0')}"


def check_ranks(ranks: str) -> Ranks:
    """Return an option, or say what it may be.

    Raises:
        InvalidInput: If it is something else.
    """
    if ranks not in CHOICES:
        raise InvalidInput(f"ranks is {ranks!r}; it may be {', '.join(map(repr, CHOICES))}.")
    return cast("Ranks", ranks)


class SilentRun(Run):
    """The handle of a rank that does not log: it takes what a `Run` takes, and stores nothing.

    What a `Run` would refuse is refused here too, so that no rank fails alone.
    """

    def __init__(self, tracker: Tracker, id: str, start: Started) -> None:
        self.id = id
        self.name = start.name
        self.experiment = start.experiment
        self.parent_id = start.parent_id
        self._tracker = tracker
        self._redactor = tracker.context.redactor
        self._watches = {}
        self._params = {}
        self._finished = False

    @property
    def url(self) -> str | None:
        """None: rank 0 has it."""
        return None

    @property
    def delivery(self) -> dict[str, DeliveryStatus]:
        """Nothing is on its way."""
        return {}

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Check them."""
        for key, value in metrics.items():
            number(key, value)
        if step is not None:
            check_step(step)
        self._check_open()

    def log_params(self, params: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Check them, also against what this rank logged before."""
        checked = self._redactor.value(check_params(params))
        self._check_open()
        for key, value in checked.items():
            if not overwrite and key in self._params and not same(self._params[key], value):
                raise ParamConflict(key, self._params[key], value)
        self._params.update(checked)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Check them."""
        check_tags(tags)
        self._check_open()

    def set_notes(self, notes: str) -> None:
        """Check them."""
        check_text("Notes", notes)
        self._check_open()

    def alert(self, text: str, *, level: Literal["info", "warning", "error"] = "warning") -> None:  # noqa: ARG002 - as of a run
        """Check it: rank 0 alerts."""
        check_text("An alert", text)

    def watch(self, module: Any, **_: Any) -> None:
        """Set no hook."""

    def at_finish(self, call: Callable[[], object]) -> None:
        """Call nothing: it would log."""

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait for nothing."""

    def finish(self, status: Status = "finished", *, timeout_s: float | None = None) -> None:  # noqa: ARG002 - as of a run
        """Take no more."""
        self._finished = True

    def _stored(self, source: Path | bytes) -> tuple[str, int]:
        return "", len(source) if isinstance(source, bytes) else source.stat().st_size

    def _log_files(self, name: str, kept: list[Artifact]) -> None:
        """Keep none of them."""

    def _refer(self, artifact: Artifact) -> Artifact:
        self._check_open()
        return artifact

    def use_artifact(self, ref: str | ArtifactUse, experiment: str | None = None) -> ArtifactUse:
        """Return what it is. One that is not there may be on its way from rank 0, and is no use."""
        try:
            return super().use_artifact(ref, experiment)
        except NotFound:
            self._check_open()
            return ArtifactUse(run_id=self.id, name=str(ref))

    def _repr_html_(self) -> str:
        """Say in a notebook why there is nothing to see."""
        return f"<p>Run {escape(self.id)} is logged by rank 0; this is rank {this_rank()}.</p>"

    def _used(self, use: ArtifactUse) -> None:  # noqa: ARG002 - as of a run
        self._check_open()

    def _given(self, dataset: Dataset) -> None:  # noqa: ARG002 - as of a run
        self._check_open()


def _group() -> Any:
    """Return torch's module of process groups, if one is there; nothing is imported for it."""
    torch = sys.modules.get("torch.distributed")
    return torch if torch is not None and torch.is_available() and torch.is_initialized() else None


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0
