"""A Lightning logger that logs to any tracker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mlopskit.integrations.held import Destination, HeldRun, StartOptions, missing
from mlopskit.integrations.plain import one_value
from mlopskit.tracking.run import status_of

try:
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.utilities import rank_zero_only
except ModuleNotFoundError as exc:
    raise missing(exc, "lightning", "lightning") from exc

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from lightning.pytorch.callbacks import ModelCheckpoint

    from mlopskit.tracking.run import Run

__all__ = ["MlopskitLogger"]


class MlopskitLogger(Logger):
    """Logs what a `Trainer` logs, under its own names and with its own values.

    Hyperparameters stay nested. A fit that ends well leaves a ``finished`` run, one that raises a
    ``failed`` one, Ctrl-C a ``killed`` one. What comes after, such as `Trainer.test`, takes the run
    up again. Ranks other than 0 log nothing and open nothing.

    Args:
        to: A `Tracker`, an open `Run`, which is left open, or a config line; the configured tracker
            if left out.
        checkpoints: Keep the files of `ModelCheckpoint` with the run when the fit ends, as
            artifacts ``checkpoints/<file>``; the best has the alias ``best``.
        save_dir: The folder for what Lightning writes itself, if not its ``default_root_dir``.
            `LightningCLI` needs it for its configuration file.
        start: What `Tracker.start_run` takes.

    Raises:
        InvalidInput: If an open run is to begin in another way.
    """

    def __init__(
        self,
        to: Destination = None,
        *,
        checkpoints: bool = False,
        save_dir: str | None = None,
        **start: Unpack[StartOptions],
    ) -> None:
        super().__init__()
        self._held = HeldRun(to, start)
        self._checkpoints = checkpoints
        self._save_dir = save_dir
        self._callbacks: dict[int, ModelCheckpoint] = {}
        self._kept: dict[str, float] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The open run. On other ranks, an object whose every method does nothing."""
        return self._held.open()

    @property
    def name(self) -> str:
        """The experiment."""
        return self._held.experiment or "default"

    @property
    def version(self) -> str | None:
        """The id of the run; None before it is open, and on other ranks."""
        return self._held.id

    @property
    def save_dir(self) -> str | None:
        """The folder for what Lightning writes itself."""
        return self._save_dir

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log what was measured at one step."""
        self._held.log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log params; Lightning calls this with what `save_hyperparameters` found.

        Raises:
            ParamConflict: If the run has another value under one of the names.
        """
        del args, kwargs  # TensorBoard's loggers take a metric beside; there is no use for it here.
        self._held.log_params(params)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remember whose files to keep when the fit ends."""
        if self._checkpoints:
            self._callbacks[id(checkpoint_callback)] = checkpoint_callback

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, if it was opened here. Lightning calls this after a fit and after a test."""
        if self._held.run is None:
            return
        # Lightning says "failed" of Ctrl-C too, while it handles the exception.
        ended = status_of(sys.exc_info()[1] or RuntimeError()) if status == "failed" else "finished"
        try:
            for callback in self._callbacks.values():
                self._keep(callback)
        finally:
            self._held.pause(ended)

    def _keep(self, callback: ModelCheckpoint) -> None:
        scores = {**callback.best_k_models, callback.best_model_path: callback.best_model_score}
        for path in {**dict.fromkeys([callback.last_model_path]), **scores}:
            if not path or not Path(path).exists():
                continue
            written = Path(path).stat().st_mtime
            if self._kept.get(path) == written:
                continue
            self._held.open().log_artifact(
                path,
                f"checkpoints/{Path(path).name}",
                type="checkpoint",
                metadata={"score": one_value(scores.get(path))},
                aliases=["best"] if path == callback.best_model_path else [],
            )
            self._kept[path] = written
