"""A gate that asks whether a candidate is better, or was lucky with the rows it was tried on.

B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993: pairs are drawn with
replacement, and the interval is the one of percentiles (chapter 13).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.registry.entities import GateContext, GateResult
from mlopskit.registry.gates.asking import named
from mlopskit.registry.gates.metrics import reaches, unopposed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from mlopskit.registry.gates.asking import Gate

FEWEST_RESAMPLES: Final = 100
# More resamples than this without a value, and the interval is not about the metric any more.
MOST_UNDEFINED: Final = 0.1


def paired_bootstrap(
    predict: Callable[[Any], Any],
    labels: Any,
    metric: Callable[[Any, Any], float],
    by: float = 0.0,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    higher_is_better: bool = True,
    groups: Any = None,
    least_rows: int = 30,
    trusted: bool = False,
) -> Gate:
    """Return a gate: the candidate must beat the stage's holder by more than chance.

    Both are loaded through the registry and asked on the same rows. Rows are drawn anew with
    replacement, each with its label and both answers, and the gain is measured on every draw. The
    gate passes if the lower end of the interval of gains is `by` or more::

        paired_bootstrap(lambda model: model.predict_proba(rows)[:, 1], labels, roc_auc_score)

    A draw on which the metric has no value, as AUC has none on one class, is left out; if more than
    a tenth are, the gate refuses. An infinite gain or loss is a value, and counts.

    Answers in one column, as neural networks give them, are taken for one answer a row.

    Args:
        predict: Asks a model on rows of the caller's, and returns an answer for each row. A model
            that changes what it is asked has to be given a copy.
        labels: What is right, a value for each row.
        metric: Takes labels and answers, as those of scikit-learn do, and returns a number.
        by: The least gain; 0 asks that the candidate is not worse, and a negative one allows it to
            be worse by that much.
        confidence: Of the interval, which has as much outside it on either side: at 0.95 the gain
            is below the lower end in 2.5 % of cases.
        n_resamples: How many draws.
        seed: Of the draws; the same one gives the same decision.
        higher_is_better: False for a loss.
        groups: A value for each row that rows which belong together share, such as a customer:
            they are drawn together. Left out, every row stands for itself. A group that is not
            known (None, NaN) is none, and refused.
        least_rows: With fewer rows, or groups, the gate refuses.
        trusted: Whether to run code that the models' files may hold.

    Raises:
        InvalidInput: If an argument is out of its range.
    """
    _check(by, confidence, n_resamples, least_rows)
    _check_seed(seed)
    name = f"paired_bootstrap({getattr(metric, '__name__', type(metric).__name__)})"
    test = _Test(
        metric=metric,
        name=name,
        sign=1.0 if higher_is_better else -1.0,
        settings={
            "by": by,
            "confidence": confidence,
            "n_resamples": n_resamples,
            "seed": seed,
            "higher_is_better": higher_is_better,
        },
    )

    def gate(context: GateContext) -> GateResult:
        sample = _Sample.of(labels, groups)
        try:
            ours = sample.answers(predict(context.load(trusted=trusted)), "the candidate")
            if context.holder is None:
                return unopposed(name, float(metric(sample.labels, ours)), context.stage)
            whose = f"version {context.holder.version}"
            theirs = sample.answers(predict(context.load(context.holder, trusted=trusted)), whose)
            return test.of(sample, ours, theirs, context.holder.version, least_rows)
        except _Undecidable as exc:
            return GateResult(passed=False, reason=str(exc), evidence=exc.evidence)

    return named(gate, name)


class _Undecidable(Exception):
    """The rows cannot tell which model is better."""

    def __init__(self, reason: str, evidence: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class _Sample:
    """The rows: their labels, and the places of those that are drawn together."""

    labels: NDArray[Any]
    blocks: list[NDArray[Any]] | None
    count: int

    @classmethod
    def of(cls, labels: Any, groups: Any) -> _Sample:
        np = _numpy()
        kept = np.asarray(labels)
        if kept.ndim == 2 and kept.shape[1] == 1:
            kept = kept[:, 0]
        if kept.ndim == 0 or not len(kept):
            raise InvalidInput("There are no labels to compare the models on.")
        if groups is None:
            return cls(kept, None, len(kept))
        given = np.asarray(groups)
        if given.shape != (len(kept),):
            raise InvalidInput(
                f"There are {len(kept)} labels, and groups of the shape {given.shape}."
            )
        unknown = sum(each is None or each != each for each in given.tolist())  # noqa: PLR0124 - NaN
        if unknown:
            raise InvalidInput(
                f"{unknown} of {len(kept)} rows have no group. Give each of them one of its own, "
                "or leave them out."
            )
        _, places = np.unique(given, return_inverse=True)
        ends = np.cumsum(np.bincount(places))
        blocks = np.split(np.argsort(places, kind="stable"), ends[:-1])
        return cls(kept, blocks, len(blocks))

    def answers(self, given: Any, whose: str) -> NDArray[Any]:
        """Return a model's answers, one for each row, all of them there."""
        np = _numpy()
        found: NDArray[Any] = np.asarray(given)
        # With (n,) against (n, 1) a metric would quietly compare every row with every other.
        if self.labels.ndim == 1 and found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        if found.ndim == 0 or len(found) != len(self.labels):
            raise InvalidInput(
                f"{len(self.labels)} rows have labels, and {whose} gave answers of the shape "
                f"{found.shape}."
            )
        if found.dtype.kind in "fc":
            missing = int(np.isnan(found).reshape(len(found), -1).any(axis=1).sum())
            if missing:
                raise _Undecidable(
                    f"{missing} of {len(found)} answers of {whose} are not a number.",
                    {"whose": whose, "nan": missing, "rows": len(found)},
                )
        return found

    def draws(self, n_resamples: int, seed: int) -> Iterator[NDArray[Any]]:
        """Yield the places of the rows of every draw."""
        np = _numpy()
        rng = np.random.default_rng(seed)
        for _ in range(n_resamples):
            drawn = rng.integers(0, self.count, self.count)
            blocks = self.blocks
            yield drawn if blocks is None else np.concatenate([blocks[at] for at in drawn])


@dataclass(frozen=True, slots=True)
class _Test:
    """What is measured, and what would be enough."""

    metric: Callable[[Any, Any], float]
    name: str
    sign: float
    settings: Mapping[str, Any]

    def of(
        self,
        sample: _Sample,
        ours: NDArray[Any],
        theirs: NDArray[Any],
        holder: int,
        least: int,
    ) -> GateResult:
        """Return whether the candidate's answers are better than chance would make them."""
        whose = f"version {holder}"
        score = float(self.metric(sample.labels, ours))
        against = float(self.metric(sample.labels, theirs))
        evidence = {
            "candidate": score,
            "holder": against,
            "holder_version": holder,
            "gain": self.sign * (score - against),
            "rows": len(sample.labels),
            "groups": None if sample.blocks is None else sample.count,
            **self.settings,
        }
        if sample.count < least:
            what = "rows" if sample.blocks is None else "groups of rows"
            raise _Undecidable(
                f"{sample.count} {what} are too few to tell: at least {least} are needed.", evidence
            )
        if not math.isfinite(score) or not math.isfinite(against):
            raise _Undecidable(
                f"{self.name} is {score:g} for the candidate and {against:g} for {whose}: these "
                "cannot be compared.",
                evidence,
            )
        low, high = self._interval(sample, ours, theirs, evidence)
        by = self.settings["by"]
        passed = reaches(low, by, score, against)
        return GateResult(
            passed=passed,
            reason=f"{self.name} is {score:g} against the {against:g} of {whose}: the gain of "
            f"{evidence['gain']:g} lies between {low:g} and {high:g} with a confidence of "
            f"{self.settings['confidence']:g} on {len(sample.labels)} rows, "
            f"{'not below' if passed else 'and may be below'} {by:g}.",
            evidence={**evidence, "interval": [low, high]},
        )

    def _interval(
        self,
        sample: _Sample,
        ours: NDArray[Any],
        theirs: NDArray[Any],
        evidence: dict[str, Any],
    ) -> tuple[float, float]:
        n_resamples = self.settings["n_resamples"]
        with warnings.catch_warnings():
            # A metric may warn of every draw that it has no value on. They are counted below.
            warnings.simplefilter("ignore")
            gains = [
                self._gain(sample.labels[rows], ours[rows], theirs[rows])
                for rows in sample.draws(n_resamples, self.settings["seed"])
            ]
        found = [gain for gain in gains if not math.isnan(gain)]
        evidence["undefined"] = undefined = n_resamples - len(found)
        if undefined > MOST_UNDEFINED * n_resamples:
            raise _Undecidable(
                f"{self.name} has no value on {undefined} of {n_resamples} draws of these "
                f"{len(sample.labels)} rows. They may hold too few of one class.",
                evidence,
            )
        tail = (1 - self.settings["confidence"]) / 2
        # Of two draws the one further out: nothing lies between a number and an infinite one.
        quantile = _numpy().quantile
        low = quantile(found, tail, method="lower")
        return float(low), float(quantile(found, 1 - tail, method="higher"))

    def _gain(self, labels: Any, ours: Any, theirs: Any) -> float:
        try:
            return self.sign * (
                float(self.metric(labels, ours)) - float(self.metric(labels, theirs))
            )
        except (ArithmeticError, ValueError, Warning):  # All rows had a value: this draw has none.
            return math.nan


def _check(by: float, confidence: float, n_resamples: int, least_rows: int) -> None:
    if not math.isfinite(by):
        raise InvalidInput(f"by is {by}; a gain is a finite number.")
    if not 0.5 <= confidence < 1:
        raise InvalidInput(f"confidence is {confidence}; it lies from 0.5 up to, but not at, 1.")
    if n_resamples < FEWEST_RESAMPLES:
        raise InvalidInput(
            f"n_resamples is {n_resamples}; an interval's ends need {FEWEST_RESAMPLES} or more."
        )
    needed = math.ceil(2 / (1 - confidence) - 1e-6)
    if n_resamples < needed:
        raise InvalidInput(
            f"n_resamples is {n_resamples}; an interval with a confidence of {confidence} has a "
            f"draw outside it on either side, which takes {needed} or more."
        )
    if least_rows < 2:
        raise InvalidInput(f"least_rows is {least_rows}; one row differs from nothing: 2 or more.")


def _check_seed(seed: object) -> None:
    # None would draw otherwise every time, and a decision could be asked for until it is right.
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidInput(f"seed is {seed!r}; so that the draws can be repeated, pass 0, 1, ...")


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - the core works without NumPy
    except ModuleNotFoundError as exc:
        raise MissingDependency(
            "paired_bootstrap", "numpy", "pip install 'mlopskit[local]'"
        ) from exc
    return np
