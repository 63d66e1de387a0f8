"""The figure that every training run keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlopskit.demo.data import Floats

COLORS = {"train_log_loss": "#8a95a5", "held_out_log_loss": "#1f6feb"}


def training(iterations: Sequence[dict[str, float]], late: Any, guess: Floats) -> Figure:
    """Draw the log loss by tree, and the ROC curve on the two weeks after the training data."""
    figure = Figure(figsize=(8, 3.4), dpi=80)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.16, top=0.9, wspace=0.2)
    losses, roc = figure.subplots(1, 2)
    for name in iterations[0]:
        values = [each[name] for each in iterations]
        losses.plot(values, label=name.replace("_", " "), color=COLORS[name])
    losses.set(xlabel="trees", title="log loss")
    losses.legend(frameon=False)
    false, true, _ = roc_curve(late, guess)
    every = np.linspace(0, len(false) - 1, min(len(false), 300)).astype(int)
    roc.plot(false[every], true[every], color="#1f6feb")
    roc.plot([0, 1], [0, 1], color="#c5ccd6", linestyle=":")
    roc.set(xlabel="false alarms", ylabel="late flights found", title="the two weeks after")
    roc.set_aspect("equal")
    return figure
