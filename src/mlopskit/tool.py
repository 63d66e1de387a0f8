"""What the six interfaces have in common: capabilities, the native client, closing, events."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mlopskit.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from mlopskit.capabilities import Capabilities

logger = logging.getLogger(__name__)


def _nobody_listens(event: str, **details: Any) -> None:
    """Receive an event where no plugin asked for any."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a tool lives: the folder for its state, the secrets it must not store, its listeners.

    ``home`` is the only folder that embedded backends write to unless they are given a location.
    ``save_model`` takes an object, an empty folder and an example of what the object takes or None;
    it writes both there, as the registry does, and says how: tracking keeps models and knows no
    flavors. Of a path it writes the example alone, and an example that the registry could not keep
    it leaves out. ``fetch_model`` takes a run, the name of a model that it logged and an empty
    folder, writes the model's files there and returns what was logged beside it: the registry knows
    no tracker. Both are None where a tool is made without a kit. ``flavors`` returns the flavors of
    models that other packages bring, by name, and imports them when it is first called; without a
    kit there are none.
    """

    home: Path = Path(".mlopskit")
    redactor: Redactor = field(default_factory=Redactor)
    notify: Callable[..., None] = _nobody_listens
    save_model: Callable[[Any, Path, Any], Mapping[str, Any]] | None = None
    fetch_model: Callable[[str, str, Path], Mapping[str, Any]] | None = None
    flavors: Callable[[], Mapping[str, Any]] = dict


class Tool(ABC):
    """One opened tool, whichever domain it is of.

    A backend's constructor takes its configuration and must not block on a network; whoever opens
    the tool sets ``context`` before its first use.
    """

    domain: ClassVar[str]
    context: Context = Context()

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do, line by line, with the reason for each gap."""

    @property
    @abstractmethod
    def native(self) -> Any:
        """The tool's own client, for all that the interface leaves out."""

    @abstractmethod
    def ping(self, timeout_s: float = 5.0) -> None:
        """Reach the tool once, as cheaply as it allows.

        Raises:
            Unavailable: If it does not answer within the time.
            StorageError: If its storage cannot be read or written.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the tool holds. Closing twice is fine."""

    def notify(self, event: str, **details: Any) -> None:
        """Tell the installed event hooks. A hook that fails is logged and harms nobody."""
        try:
            self.context.notify(event, **details)
        except Exception:
            logger.exception("A listener to %r failed.", event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
