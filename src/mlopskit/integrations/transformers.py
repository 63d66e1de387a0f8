"""A callback of the Transformers `Trainer` that logs to any tracker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from mlopskit.integrations.held import HeldRun, StartOptions, missing
from mlopskit.integrations.plain import plain
from mlopskit.tracking.run import status_of

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as exc:
    raise missing(exc, "transformers", "transformers") from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.run import Run

__all__ = ["MlopskitCallback"]


class MlopskitCallback(TrainerCallback):
    """Logs what a `Trainer` logs, under its own names and with its own values.

    The training arguments are params, the model's configuration is the param ``model_config``. Each
    call of `Trainer.train` is a run of its own, unless an open run is passed; evaluations after it
    belong to that run. Transformers does not say that a training failed: use the callback in a
    ``with`` block, or let the program end with the exception. Ranks other than 0 log nothing and
    open nothing.

    Args:
        to: A `Tracker`, an open `Run`, which is left open, or a config line; the configured tracker
            if left out.
        checkpoints: Keep each checkpoint's folder with the run, as an artifact of its name.
        start: What `Tracker.start_run` takes; `name` is the arguments' ``run_name`` if left out.

    Raises:
        InvalidInput: If an open run is to begin in another way.
    """

    def __init__(
        self,
        to: Destination = None,
        *,
        checkpoints: bool = False,
        **start: Unpack[StartOptions],
    ) -> None:
        super().__init__()
        self._held = HeldRun(to, start)
        self._checkpoints = checkpoints
        self._training = False

    @property
    def run(self) -> Run | None:
        """The run; None while none is open, and on other processes."""
        return self._held.run

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open a run and log its params."""
        if not state.is_world_process_zero:
            return
        if self._training:  # Its end was never told, so it raised.
            self._held.end("failed")
        self._held.again()
        self._training = True
        self._open(args)
        self._held.log_params(_params(args, kwargs.get("model")))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what the trainer logs, at its global step."""
        if state.is_world_process_zero and logs:
            self._open(args)
            self._held.log_metrics(logs, state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep a checkpoint, if that was asked for."""
        folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
        if self._checkpoints and state.is_world_process_zero and folder.is_dir():
            self._held.open().log_artifact(folder, folder.name, type="checkpoint")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run, if it was opened here."""
        if state.is_world_process_zero:
            self._training = False
            self._held.pause("finished")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run again, if an evaluation after the training took it up."""
        if state.is_world_process_zero and not self._training:
            self._held.pause("finished")

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        """Log what a prediction measured."""
        self.on_log(args, state, control, metrics)
        self.on_evaluate(args, state, control)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._training = False
        self._held.end(status_of(error))

    def _open(self, args: TrainingArguments) -> None:
        self._held.open(**({"name": args.run_name} if args.run_name else {}))


def _params(args: TrainingArguments, model: Any) -> dict[str, Any]:
    params: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]  # it has no annotations
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        params["model_config"] = plain(config.to_dict())
    return params
