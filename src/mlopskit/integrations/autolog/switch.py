"""Switches autologging on and off again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, Self

from mlopskit.errors import InvalidInput
from mlopskit.integrations.autolog import boosting_door, keras_door, sklearn_door, torch_door
from mlopskit.integrations.autolog.patches import AfterImport, Patches
from mlopskit.integrations.autolog.session import Options, Session, Sessions
from mlopskit.kit import open_tracker
from mlopskit.tracking.base import Tracker
from mlopskit.tracking.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from mlopskit.integrations.held import Destination

FRAMEWORKS: Final = ("sklearn", "xgboost", "lightgbm", "keras", "torch")
_lock = threading.Lock()
_on: list[Autolog] = []


class Autolog:
    """Autologging that is switched on. Leaving its ``with`` block switches it off."""

    def __init__(self, frameworks: Sequence[str], options: Options) -> None:
        self._patches = Patches()
        self._removals: list[Callable[[], object]] = []
        sessions = Sessions(options)

        def torch(module: ModuleType) -> None:
            self._removals.append(torch_door.hook(module, Session(options, "torch")))

        def door(patch: Callable[..., None]) -> Callable[[ModuleType], object]:
            return lambda module: patch(module, sessions, self._patches)

        doors: dict[str, tuple[str, Callable[[ModuleType], object]]] = {
            "sklearn": (sklearn_door.MODULE, door(sklearn_door.patch)),
            "xgboost": (boosting_door.XGBOOST, door(boosting_door.patch_xgboost)),
            "lightgbm": (boosting_door.LIGHTGBM, door(boosting_door.patch_lightgbm)),
            "keras": (keras_door.MODULE, door(keras_door.patch)),
            "torch": (torch_door.MODULE, torch),
        }
        self._waiting = AfterImport(dict(doors[each] for each in frameworks))
        self._waiting.start()

    def off(self) -> None:
        """Put everything back as it was. Twice is fine."""
        self._waiting.stop()
        self._patches.undo()
        removals, self._removals = self._removals, []
        for remove in removals:
            remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.off()


def autolog(
    frameworks: str | Sequence[str] | None = None,
    *,
    to: Destination = None,
    log_models: bool = True,
    log_input_examples: bool = False,
    silent: bool = False,
    off: bool = False,
) -> Autolog:
    """Log what frameworks train from now on, until it is switched off.

    A training logs to the run whose ``with`` block it stands in, or opens one of its own and ends
    it. What is trained inside another training makes no run. An error of logging never reaches
    training. A second call takes the place of the first.

    Args:
        frameworks: Of `FRAMEWORKS`; all if left out. One that is imported later is waited for.
        to: Where runs go that are opened here: a tracker, a config line, or an open run; the
            configured tracker if left out.
        log_models: Keep the model, with its signature; of a PyTorch loop the weights.
        log_input_examples: Keep a few rows of the training data with it.
        silent: Do not even warn where something cannot be logged.
        off: Switch autologging off, and nothing on.

    Returns:
        What switches it off again, also as the end of a ``with`` block.

    Raises:
        InvalidInput: If a framework is none of `FRAMEWORKS`.
        ConfigError: If there is no such tracker as `to`, or as is configured; autologging is then
            as it was before.
    """
    wanted = [frameworks] if isinstance(frameworks, str) else list(frameworks or FRAMEWORKS)
    unknown: list[Any] = [each for each in wanted if each not in FRAMEWORKS]
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is none of the frameworks {', '.join(FRAMEWORKS)}.")
    if not off and not isinstance(to, Tracker | Run):
        open_tracker(to).close()  # A training would only warn of it.
    with _lock:
        while _on:
            _on.pop().off()
        found = Autolog(
            [] if off else wanted,
            Options(
                to=to,
                log_models=log_models,
                log_input_examples=log_input_examples,
                silent=silent,
            ),
        )
        _on.append(found)
    return found
