"""Histograms, confusion matrices, and the two curves of a classifier, as data and as a picture.

Each is a folder of two files: ``data.json``, from which any tool can draw it, and ``plot.svg``. The
numbers are those of scikit-learn's `confusion_matrix`, `roc_curve`, `auc`, `precision_recall_curve`
and `average_precision_score`; Fawcett, "An introduction to ROC analysis", 2006.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.tracking import plots
from mlopskit.tracking.media import Media, json_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_POINTS: Final = 1000
# Of all curves of a chart together, so that one of many labels stays readable.
MOST_POINTS_IN_ALL: Final = 20_000
FEWEST_POINTS: Final = 50
MOST_LABELS: Final = 1000
MOST_BINS: Final = 10_000


def histogram(values: Any, *, bins: int = 64) -> Media:
    """Count values in bins of equal width, or take counts that were made elsewhere.

    ``data.json``: ``edges`` (bins + 1), ``counts`` (bins), ``nan``, ``inf`` and ``total``.

    Args:
        values: Numbers of any shape; or a pair of counts (bins,) and edges (bins + 1,).
        bins: How many; one, where the values lie closer together than floats can part.

    Raises:
        InvalidInput: If there is no finite number, their range has no float, or counts and edges
            do not fit.
    """
    np = _numpy()
    if type(bins) is not int or not 1 <= bins <= MOST_BINS:
        raise InvalidInput(f"bins is {bins!r}; it is an int from 1 to {MOST_BINS}.")
    if isinstance(values, tuple) and len(values) == 2 and np.ndim(values[0]) == 1:
        counts, edges = _given(np, *values)
        odd = {"nan": 0, "inf": 0}
    else:
        flat = _numbers(values, "values").ravel()
        finite = flat[np.isfinite(flat)]
        if finite.size == 0:
            raise InvalidInput("A histogram needs at least one finite number.")
        odd = {"nan": int(np.isnan(flat).sum()), "inf": int(np.isinf(flat).sum())}
        counts, edges = _binned(np, finite, bins)
    data = {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        **odd,
        "total": _plain(counts.sum()),
    }
    picture = plots.bars("Histogram", ("value", "count"), data["edges"], data["counts"])
    said = {"bins": len(data["counts"]), "low": data["edges"][0], "high": data["edges"][-1]}
    return _chart("histogram", data, picture, {**said, **odd, "total": data["total"]})


def confusion_matrix(y_true: Any, y_pred: Any, labels: Sequence[Any] | None = None) -> Media:
    """Count how often each true label was predicted as each label.

    ``data.json``: ``labels`` (k,) and ``matrix`` (k, k), whose rows are the true labels.

    Args:
        y_true: True labels (n,).
        y_pred: Predicted labels (n,).
        labels: All labels in their order; those that occur, sorted, if left out.

    Raises:
        InvalidInput: If the two are not of one length, hold a label that is none of `labels`, or
            there are more than 1000 labels.
    """
    np = _numpy()
    true, predicted = _labels_of(y_true, "y_true"), _labels_of(y_pred, "y_pred")
    if len(true) != len(predicted):
        raise InvalidInput(
            f"There are {len(true)} true labels and {len(predicted)} predicted ones."
        )
    known = _known({*true, *predicted}, labels)
    place = {label: number for number, label in enumerate(known)}
    matrix = np.zeros((len(known), len(known)), dtype=np.int64)
    rows = np.array([place[each] for each in true])
    columns = np.array([place[each] for each in predicted])
    np.add.at(matrix, (rows, columns), 1)
    data = {"labels": known, "matrix": matrix.tolist()}
    names = [str(each) for each in known]
    picture = plots.grid("Confusion matrix", ("predicted", "true"), names, _blocks(np, matrix))
    right = float(matrix.trace() / len(true))
    return _chart(
        "confusion_matrix", data, picture, {"labels": known, "total": len(true), "accuracy": right}
    )


def roc_curve(y_true: Any, y_score: Any, labels: Sequence[Any] | None = None) -> Media:
    """Draw true against false positives over every threshold, one curve for each label.

    ``data.json``: ``curves``, each with ``label``, ``fpr``, ``tpr``, ``thresholds`` (the first is
    null, above every score) and ``area``, null where a label never or always occurs. Of a long
    curve at most 1000 points are kept, spread along its length; the area is that of all of them.

    Args:
        y_true: True labels (n,).
        y_score: Scores (n,) of the second label; or (n, k), of each label against the rest.
        labels: The labels in the order of the columns; those that occur, sorted, if left out.

    Raises:
        InvalidInput: If the shapes or the labels do not fit.
    """
    np = _numpy()
    curves = []
    sides = _against_rest(y_true, y_score, labels)
    for label, hits, scores in sides:
        false, true, thresholds = _counts(np, hits, scores)
        keep = _corners(np, false, true)
        false, true, thresholds = (each[keep] for each in (false, true, thresholds))
        fpr = np.concatenate([[0.0], _share(np, false)])
        tpr = np.concatenate([[0.0], _share(np, true)])
        area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
        shown = _thin(np, fpr, tpr, _most(len(sides)))
        curves.append(
            {
                "label": label,
                "area": None if math.isnan(area) else area,
                "fpr": _finite(fpr[shown]),
                "tpr": _finite(tpr[shown]),
                "thresholds": _finite(np.concatenate([[np.inf], thresholds])[shown]),
            }
        )
    picture = plots.lines(
        "ROC curve",
        ("false positive rate", "true positive rate"),
        [
            (_legend(each, "area", "area"), each["fpr"], each["tpr"])
            for each in curves
            if each["area"] is not None
        ],
        diagonal=True,
    )
    said = {"areas": _of(curves, "area"), "rows": len(sides[0][1])}
    return _chart("roc_curve", {"curves": curves}, picture, said)


def pr_curve(y_true: Any, y_score: Any, labels: Sequence[Any] | None = None) -> Media:
    """Draw precision against recall over every threshold, one curve for each label.

    ``data.json``: ``curves``, each with ``label``, ``precision``, ``recall``, ``thresholds`` (the
    last is null, above every score) and ``average_precision``, null where a label never occurs.
    It is cut down as the ROC curve is.

    Args:
        y_true: As for `roc_curve`.
        y_score: As for `roc_curve`.
        labels: As for `roc_curve`.

    Raises:
        InvalidInput: If the shapes or the labels do not fit.
    """
    np = _numpy()
    curves = []
    sides = _against_rest(y_true, y_score, labels)
    for label, hits, scores in sides:
        false, true, thresholds = _counts(np, hits, scores)
        precision = true / (true + false)
        recall = _share(np, true)
        average = float(np.sum(np.diff(np.concatenate([[0.0], recall])) * precision))
        # From the lowest threshold up, and to recall 0, as scikit-learn has it.
        precision = np.concatenate([precision[::-1], [1.0]])
        recall = np.concatenate([recall[::-1], [0.0]])
        shown = _thin(np, recall, precision, _most(len(sides)))
        curves.append(
            {
                "label": label,
                "average_precision": None if math.isnan(average) else average,
                "precision": _finite(precision[shown]),
                "recall": _finite(recall[shown]),
                "thresholds": _finite(np.concatenate([thresholds[::-1], [np.inf]])[shown]),
            }
        )
    picture = plots.lines(
        "Precision-recall curve",
        ("recall", "precision"),
        [
            (_legend(each, "AP", "average_precision"), each["recall"], each["precision"])
            for each in curves
            if each["average_precision"] is not None
        ],
        legend_left=True,
    )
    said = {
        "average_precisions": _of(curves, "average_precision"),
        "rows": len(sides[0][1]),
    }
    return _chart("pr_curve", {"curves": curves}, picture, said)


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - the core has no NumPy
    except ImportError as exc:
        raise MissingDependency("charts", "numpy", "pip install 'mlopskit[local]'") from exc
    return np


def _chart(type: str, data: Mapping[str, Any], picture: bytes, said: Mapping[str, Any]) -> Media:
    return Media(type, {"data.json": json_of({"type": type, **data}), "plot.svg": picture}, said)


def _numbers(values: Any, name: str) -> Any:
    np = _numpy()
    if hasattr(values, "detach"):  # torch, whose bfloat16 NumPy does not know
        values = values.detach().cpu().double()
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"they are of {array.dtype}")  # noqa: TRY301 - one message for both
        return array.astype(np.float64)
    except (TypeError, ValueError) as exc:
        raise InvalidInput(f"{name} must be numbers: {exc}.") from exc


def _labels_of(values: Any, name: str) -> list[Any]:
    np = _numpy()
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    # NumPy would make texts of the numbers in a mixed list.
    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    if array.ndim != 1 or array.size == 0:
        raise InvalidInput(f"{name} must be labels of shape (n,), and is of shape {array.shape}.")
    found = [_plain(each) for each in array.tolist()]
    try:
        odd = any(each != each for each in set(found))  # noqa: PLR0124 - true of NaN alone
    except TypeError as exc:
        raise InvalidInput(f"{name} holds what is no label: {exc}.") from exc
    if odd:
        raise InvalidInput(f"{name} holds NaN, which is no label.")
    return found


def _known(found: set[Any], labels: Sequence[Any] | None) -> list[Any]:
    """Return the labels in their order, of which `found` occur."""
    known = _sorted(found) if labels is None else [_plain(each) for each in labels]
    strange = sorted(map(repr, found - set(known)))
    if strange:
        raise InvalidInput(f"The label {strange[0]} is none of {_few(known)}.")
    if len(set(known)) != len(known):
        raise InvalidInput(f"A label occurs twice in {_few(known)}.")
    if len(known) > MOST_LABELS:
        raise InvalidInput(f"There are {len(known)} labels, and a chart has at most {MOST_LABELS}.")
    return known


def _few(labels: Sequence[Any]) -> str:
    return f"{labels}" if len(labels) <= 10 else f"{list(labels[:10])} and {len(labels) - 10} more"


def _given(np: Any, counts: Any, edges: Any) -> tuple[Any, Any]:
    """Return counts and edges that fit, the counts as ints where they are."""
    edges, numbers = _numbers(edges, "edges"), _numbers(counts, "counts")
    if edges.shape != (numbers.size + 1,) or not numbers.size or not (np.diff(edges) > 0).all():
        raise InvalidInput("Counts (n,) need edges (n + 1,) that grow.")
    if not (np.isfinite(edges).all() and np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise InvalidInput("Counts and edges must be finite, and no count below 0.")
    return np.asarray(counts), edges


def _binned(np: Any, finite: Any, bins: int) -> tuple[Any, Any]:
    if not math.isfinite(float(finite.max()) - float(finite.min())):
        raise InvalidInput("The range of the values is larger than a float can hold.")
    try:
        counts, edges = np.histogram(finite, bins=bins)
    except ValueError:  # Fewer floats lie between the values than there are bins.
        counts, edges = np.histogram(finite, bins=1)
    return counts, edges


def _blocks(np: Any, matrix: Any) -> list[list[int]]:
    """Return a matrix for a picture, neighbours summed where it has more cells than that can show.

    A picture of 480 pixels has room for some 60 cells a side.
    """
    starts = np.arange(0, len(matrix), math.ceil(len(matrix) / 60))
    summed = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    found: list[list[int]] = summed.tolist()
    return found


def _against_rest(
    y_true: Any, y_score: Any, labels: Sequence[Any] | None
) -> list[tuple[Any, Any, Any]]:
    """Return each label with where it is true, as bools (n,), and its scores (n,)."""
    np = _numpy()
    true, scores = _labels_of(y_true, "y_true"), _numbers(y_score, "y_score")
    if scores.ndim not in (1, 2) or len(scores) != len(true):
        raise InvalidInput(
            f"y_score of shape {scores.shape} does not fit {len(true)} labels: "
            f"it must be ({len(true)},) or ({len(true)}, labels)."
        )
    if np.isnan(scores).any():
        raise InvalidInput("y_score holds NaN.")
    known = _known(set(true), labels)
    columns = 2 if scores.ndim == 1 else scores.shape[1]
    if len(known) != columns:
        raise InvalidInput(
            f"There are {len(known)} labels, {known[:5]}, and scores for {columns}. Pass labels=."
        )
    place = {label: number for number, label in enumerate(known)}
    codes = np.array([place[each] for each in true])
    if scores.ndim == 1:
        return [(known[1], codes == 1, scores)]
    return [(label, codes == at, scores[:, at]) for at, label in enumerate(known)]


def _counts(np: Any, hits: Any, scores: Any) -> tuple[Any, Any, Any]:
    """Return false and true positives, and the threshold, at each distinct score from the top."""
    order = np.argsort(-scores, kind="stable")
    hits, scores = hits[order], scores[order]
    last = np.concatenate([np.nonzero(np.diff(scores))[0], [len(scores) - 1]])
    true = np.cumsum(hits)[last].astype(np.float64)
    return last + 1 - true, true, scores[last]


def _corners(np: Any, false: Any, true: Any) -> Any:
    """Tell which points are not in the middle of a straight stretch."""
    keep = np.ones(len(false), dtype=bool)
    if len(false) > 2:
        keep[1:-1] = (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0)
    return keep


def _share(np: Any, counts: Any) -> Any:
    return counts / counts[-1] if counts[-1] else np.full(len(counts), np.nan)


def _most(curves: int) -> int:
    return max(FEWEST_POINTS, min(MOST_POINTS, MOST_POINTS_IN_ALL // curves))


def _thin(np: Any, x: Any, y: Any, most: int) -> Any:
    """Return the places of at most `most` points (n,) that draw the same curve.

    Points in the middle of a stretch straight up go first: their y falls or rises all along. What
    is left is taken at equal distances along the curve, so that the steep parts keep their points.
    """
    if len(x) <= most:
        return np.arange(len(x))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.linspace(0, len(x) - 1, most).astype(int)
    turns = np.ones(len(x), dtype=bool)
    turns[1:-1] = (x[1:-1] != x[:-2]) | (x[1:-1] != x[2:])
    left = np.nonzero(turns)[0]
    if len(left) <= most:
        return left
    steps = np.abs(np.diff(x[left])) + np.abs(np.diff(y[left]))
    way = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.searchsorted(way, np.linspace(0.0, way[-1], most))
    wanted[-1] = len(left) - 1
    return left[np.unique(wanted)]


def _finite(values: Any) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _legend(curve: Mapping[str, Any], word: str, number: str) -> str:
    return f"{plots.short(str(curve['label']), 30)} ({word} {curve[number]:.3f})"


def _of(curves: Sequence[Mapping[str, Any]], number: str) -> list[list[Any]]:
    return [[each["label"], each[number]] for each in curves]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _sorted(labels: set[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:
        return sorted(labels, key=repr)
