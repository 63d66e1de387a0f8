"""What every trainer is given here: names and values that trackers like to change."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord

PARAMS: dict[str, Any] = {
    "lr": 0.1,
    "flag": True,
    "nothing": None,
    "layers": (64, 32),
    "nested": {"deep": {"er": [1, 2.5, "x"]}},
    "a thousand": "x" * 1000,
    "very long": "yz" * 50_000,
}
SCALARS: dict[str, Any] = {
    "acc@1": 0.5,
    "f1(macro)": np.float32(0.25),
    "np64": np.float64(0.1),
    "np_int": np.int64(7),
    "torch": torch.tensor(1.5),
    "torch_of_one": torch.tensor([2.5]),
}
AS_NUMBERS = {
    "acc@1": 0.5,
    "f1(macro)": 0.25,
    "np64": 0.1,
    "np_int": 7.0,
    "torch": 1.5,
    "torch_of_one": 2.5,
}
LINES = ["local", "mlflow", "fan-out"]


def line(kind: str, tmp_path: Path) -> Any:
    """Return a config line by a word."""
    mlflow = f"mlflow:sqlite:///{tmp_path}/m.db"
    local = {"backend": "local", "location": str(tmp_path / "local")}
    return {"local": local, "mlflow": mlflow, "fan-out": [local, mlflow]}[kind]


@contextlib.contextmanager
def trackers(kind: str, tmp_path: Path) -> Iterator[tuple[Tracker, list[Tracker]]]:
    """Open a tracker, and say which trackers it writes to."""
    with Kit(tracking=line(kind, tmp_path), home=tmp_path / "home") as kit:
        kit.tracker.flush_timeout_s = 60
        yield kit.tracker, list(kit.tracker.sinks())


def fit_with_lightning(folder: Path, loggers: Any, params: dict[str, Any]) -> Any:
    """Train a module of Lightning for two steps, and return its trainer."""
    from lightning.pytorch import LightningModule, Trainer

    class Net(LightningModule):
        def __init__(self, **hparams: Any) -> None:
            super().__init__()
            self.save_hyperparameters(hparams)
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            self.log_dict({"acc@1": 0.5, "f1(macro)": 0.25})
            return self.layer(batch[0]).square().mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = Trainer(
        logger=loggers,
        max_epochs=1,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    rows = torch.utils.data.TensorDataset(torch.ones(4, 2))
    trainer.fit(Net(**params), torch.utils.data.DataLoader(rows, 2))
    return trainer


def fit_with_transformers(folder: Path, report_to: str, callback: Any) -> Any:
    """Train a tiny model for two steps, evaluate it, and return its trainer.

    Its configuration has ``long``, and a ``seed`` that is not that of the training arguments.
    """
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class More(TrainerCallback):
        def on_log(self, *args: Any, logs: Any = None, **kwargs: Any) -> None:
            logs.update(SCALARS)

    config = GPT2Config(
        vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    config.long, config.seed = PARAMS["very long"], 7
    rows: Any = [{"input_ids": torch.arange(4), "labels": torch.arange(4)} for _ in range(4)]
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=1,
        per_device_train_batch_size=2,
        logging_steps=1,
        save_strategy="no",
        report_to=report_to,
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        run_name="fit",
        seed=42,
    )
    model = GPT2LMHeadModel(config)
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.callback_handler.callbacks.insert(0, More())  # Before theirs and ours.
    trainer.add_callback(callback)
    trainer.train()
    trainer.evaluate()
    return trainer


def the_run(tracker: Tracker) -> RunRecord:
    """Return the only run there is."""
    (record,) = tracker.search_runs()
    return record
