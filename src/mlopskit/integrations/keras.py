"""A Keras callback that logs to any tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

from mlopskit.integrations.held import HeldRun, StartOptions, missing
from mlopskit.tracking.ranks import this_rank
from mlopskit.tracking.run import status_of

try:
    from keras.callbacks import Callback
except ModuleNotFoundError as exc:
    raise missing(exc, "keras", "keras") from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.run import Run

__all__ = ["MlopskitCallback"]


class MlopskitCallback(Callback):  # type: ignore[misc]  # Keras ships no types
    """Logs what ``fit`` measures, by epoch, under its own names and with its own values.

    ``fit`` gives ``epochs`` and ``steps`` as params, and the configuration of the optimizer as the
    param ``optimizer``. Each ``fit`` is a run of its own, unless an open run is passed; an
    ``evaluate`` after it belongs to that run, and its names begin with ``test_``. Keras does not
    say that a fit failed: use the callback in a ``with`` block, or let the program end with the
    exception. Ranks other than 0 log nothing and open nothing.

    Args:
        to: A `Tracker`, an open `Run`, which is left open, or a config line; the configured tracker
            if left out.
        start: What `Tracker.start_run` takes.

    Raises:
        InvalidInput: If an open run is to begin in another way.
    """

    def __init__(self, to: Destination = None, **start: Unpack[StartOptions]) -> None:
        super().__init__()
        self._held = HeldRun(to, start)
        self._training = False
        self._epoch = 0

    @property
    def run(self) -> Run | None:
        """The run; None while none is open, and on other ranks."""
        return self._held.run

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open a run and log its params."""
        if this_rank():
            return
        if self._training:  # Its end was never told, so it raised.
            self._held.end("failed")
        self._held.again()
        self._training = True
        self._held.open()
        self._held.log_params(self._given())

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log what was measured in an epoch, with its number as the step."""
        if not this_rank():
            self._epoch = epoch
            self._held.log_metrics(logs or {}, epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run, if it was opened here."""
        if not this_rank():
            self._training = False
            self._held.pause("finished")

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Log what ``evaluate`` measured, at the last epoch."""
        if this_rank() or self._training:  # What `fit` validates is in the logs of its epochs.
            return
        tested = {f"test_{key}": value for key, value in (logs or {}).items()}
        self._held.log_metrics(tested, self._epoch)
        self._held.pause("finished")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._training = False
        self._held.end(status_of(error))

    def _given(self) -> dict[str, Any]:
        given = {key: value for key, value in (self.params or {}).items() if key != "verbose"}
        model = self.model
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None:
            given["optimizer"] = optimizer.get_config()
        if getattr(model, "built", False):
            given["parameters"] = model.count_params()
        return given
