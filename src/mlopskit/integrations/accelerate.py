"""An Accelerate tracker that logs to any tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

from mlopskit.integrations.held import HeldRun, StartOptions, missing
from mlopskit.tracking.run import status_of

try:
    from accelerate.tracking import GeneralTracker, on_main_process
except ModuleNotFoundError as exc:
    raise missing(exc, "accelerate", "accelerate") from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.run import Run

__all__ = ["MlopskitTracker"]


class MlopskitTracker(GeneralTracker):  # type: ignore[misc]  # Accelerate ships no types
    """Logs what an `Accelerator` logs, under its own names and with its own values.

    ``Accelerator(log_with=MlopskitTracker())``; `Accelerator.end_training` ends the run as
    ``finished``. Accelerate does not say that a training failed: use the tracker in a ``with``
    block, or let the program end with the exception. Processes other than the main one log nothing
    and open nothing.

    Args:
        to: A `Tracker`, an open `Run`, which is left open, or a config line; the configured tracker
            if left out.
        start: What `Tracker.start_run` takes. Accelerate keeps its project's name from trackers
            that are passed as objects: say ``experiment``.

    Raises:
        InvalidInput: If an open run is to begin in another way.
    """

    name = "mlopskit"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, to: Destination = None, **start: Unpack[StartOptions]) -> None:
        super().__init__()
        self._held = HeldRun(to, start)

    @property
    def tracker(self) -> Run | None:
        """The run; None before it is open, and on other processes."""
        return self._held.run

    @on_main_process  # type: ignore[untyped-decorator]  # Accelerate ships no types
    def start(self) -> None:
        """Open the run. `Accelerator.init_trackers` calls this."""
        self._held.open()

    @on_main_process  # type: ignore[untyped-decorator]  # Accelerate ships no types
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Log the configuration as params, nested as it is.

        Raises:
            ParamConflict: If the run has another value under one of the names.
        """
        self._held.log_params(values)

    @on_main_process  # type: ignore[untyped-decorator]  # Accelerate ships no types
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log what was measured at one step."""
        del kwargs  # Accelerate passes what a caller wrote for this tracker; it takes nothing.
        self._held.log_metrics(values, step)

    @on_main_process  # type: ignore[untyped-decorator]  # Accelerate ships no types
    def finish(self) -> None:
        """End the run, if it was opened here. `Accelerator.end_training` calls this."""
        self._held.end("finished")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._held.end(status_of(error))
