"""The model: gradient boosting with scikit-learn's defaults, and what it takes to serve it.

Nothing is tuned; that a tenth is held back to stop early is the default from 10,000 rows on.
Categories become ordinal numbers, and what a model was never shown is missing.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import ThreadpoolController

from mlopskit.demo.features import CATEGORIES, NUMBERS
from mlopskit.serving.entities import TensorSpec
from mlopskit.serving.predictor import Predictor

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from mlopskit.demo.data import Floats

NAME: Final = "late-flights"
SEED: Final = 2013
LABEL: Final = "late"
PROBABILITY: Final = "probability"
# skops names it because a forged one can crash the process; these come from our own runner.
UNTRUSTED: Final = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


def build() -> Pipeline:
    """Return the untrained model: ordinal categories beside plain numbers, then boosting."""
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )
    columns = ColumnTransformer(
        [("category", encoder, list(CATEGORIES)), ("number", "passthrough", list(NUMBERS))]
    )
    boosting = HistGradientBoostingClassifier(early_stopping=True, random_state=SEED)
    return Pipeline([("columns", columns), ("boosting", boosting)])


def cores(count: int = 1) -> AbstractContextManager[Any]:
    """Keep OpenMP to so many threads. The model is the same to the last bit, however many."""
    limit: AbstractContextManager[Any] = _threads().limit(limits=count, user_api="openmp")
    return limit


def idle_cores() -> int:
    """Return how many cores nobody else uses, this one included.

    Threads of OpenMP wait for each other at every node of every tree: on a machine that has
    something else to do, a second one costs far more than it gains.
    """
    there = os.cpu_count() or 1
    others = max(0.0, os.getloadavg()[0] - 1)
    return max(1, round(there - others))


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def fit(table: pa.Table) -> Pipeline:
    """Train on a table with the model's columns and the label."""
    with cores(idle_cores()):
        return build().fit(frame(table), table[LABEL].to_numpy())


def frame(table: pa.Table) -> Any:
    """Return the model's columns of a table as a pandas frame, as scikit-learn takes it."""
    return table.select([*CATEGORIES, *NUMBERS]).to_pandas()


def score(model: Pipeline, table: pa.Table) -> Floats:
    """Return the probability of a late arrival for every row."""
    with cores():
        probability: Floats = model.predict_proba(frame(table))[:, 1]
    return probability


def quality(late: Floats, probability: Floats) -> dict[str, float]:
    """Return the area under the ROC curve, the log loss, the Brier score and the rows.

    The area is NaN where only one class is there.
    """
    both = 0 < late.sum() < len(late)
    return {
        "auc": float(roc_auc_score(late, probability)) if both else float("nan"),
        "log_loss": float(log_loss(late, probability, labels=[0, 1])),
        "brier": float(brier_score_loss(late, probability)),
        "rows": float(len(late)),
    }


def iterations(model: Pipeline) -> list[dict[str, float]]:
    """Return the log loss after every tree: on what it trained on, and on the tenth held back."""
    boosting = model["boosting"]
    return [
        {"train_log_loss": -float(train), "held_out_log_loss": -float(held)}
        for train, held in zip(boosting.train_score_, boosting.validation_score_, strict=True)
    ]


def params(model: Pipeline) -> dict[str, Any]:
    """Return every setting of the boosting, plain values only."""
    settings: dict[str, Any] = model["boosting"].get_params()
    return {key: value for key, value in settings.items() if value is not None}


def dumps(model: Pipeline) -> bytes:
    """Return a model in the skops format, which runs no code when it is read."""
    content: bytes = skops.io.dumps(model)
    return content


def loads(content: bytes) -> Pipeline:
    """Return the model that `dumps` made these bytes of."""
    return skops.io.loads(content, trusted=[UNTRUSTED])


class LateFlights(Predictor):
    """Answers which flights will be late: one probability per flight.

    It does what the pipeline does, without the pandas frame in between, which for a few dozen rows
    costs more than the trees.
    """

    inputs = (
        *(TensorSpec(name=name, datatype="BYTES", shape=(-1,)) for name in CATEGORIES),
        *(TensorSpec(name=name, datatype="FP64", shape=(-1,)) for name in NUMBERS),
    )
    outputs = (TensorSpec(name=PROBABILITY, datatype="FP64", shape=(-1,)),)

    def __init__(self, model: Pipeline) -> None:
        encoder = model["columns"].named_transformers_["category"]
        self._boosting = model["boosting"]
        self._codes: list[dict[bytes, float]] = [
            {value.encode(): float(code) for code, value in enumerate(values)}
            for values in encoder.categories_
        ]

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the probability for the columns of the model, each of one value per flight."""
        columns = [
            [codes.get(value, np.nan) for value in inputs[name].tolist()]
            for name, codes in zip(CATEGORIES, self._codes, strict=True)
        ]
        matrix = np.column_stack([*columns, *(inputs[name] for name in NUMBERS)])
        with cores():
            return {PROBABILITY: self._boosting.predict_proba(matrix)[:, 1]}
