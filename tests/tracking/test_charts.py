"""Charts hold the numbers that scikit-learn would give."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from mlopskit.errors import InvalidInput, MissingDependency
from mlopskit.tracking import charts

if TYPE_CHECKING:
    from mlopskit.tracking.media import Media

np = pytest.importorskip("numpy")
metrics = pytest.importorskip("sklearn.metrics")


def data(made: Media) -> dict[str, Any]:
    """Return the numbers of a chart whose picture is well-formed."""
    assert set(made.files) == {"data.json", "plot.svg"}
    content, picture = made.files["data.json"], made.files["plot.svg"]
    assert isinstance(content, bytes)
    assert isinstance(picture, bytes)
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    found: dict[str, Any] = json.loads(content)
    assert found["type"] == made.type
    return found


def binary(seed: int, count: int = 300) -> tuple[Any, Any]:
    """Return labels and scores with many ties."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 2, count)
    return truth, np.round(chance.normal(truth, 1.0), 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_roc_curve_is_that_of_scikit_learn(seed: int) -> None:
    truth, scores = binary(seed)
    fpr, tpr, thresholds = metrics.roc_curve(truth, scores)

    (curve,) = data(charts.roc_curve(truth, scores))["curves"]

    assert curve["label"] == 1
    assert np.allclose(curve["fpr"], fpr)
    assert np.allclose(curve["tpr"], tpr)
    assert curve["thresholds"][0] is None
    assert np.allclose(curve["thresholds"][1:], thresholds[1:])
    assert curve["area"] == pytest.approx(metrics.roc_auc_score(truth, scores))


@pytest.mark.parametrize("seed", range(5))
def test_a_pr_curve_is_that_of_scikit_learn(seed: int) -> None:
    truth, scores = binary(seed)
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)

    (curve,) = data(charts.pr_curve(truth, scores))["curves"]

    assert np.allclose(curve["precision"], precision)
    assert np.allclose(curve["recall"], recall)
    assert np.allclose(curve["thresholds"][:-1], thresholds)
    assert curve["thresholds"][-1] is None
    average = metrics.average_precision_score(truth, scores)
    assert curve["average_precision"] == pytest.approx(average)


def test_several_labels_are_each_held_against_the_rest() -> None:
    chance = np.random.default_rng(0)
    labels = ["cat", "dog", "<ant>"]
    truth = np.array(labels)[chance.integers(0, 3, 200)]
    scores = chance.dirichlet([1, 1, 1], 200)

    curves = data(charts.roc_curve(truth, scores, labels=labels))["curves"]

    assert [each["label"] for each in curves] == labels
    for column, each in enumerate(curves):
        area = metrics.roc_auc_score(truth == labels[column], scores[:, column])
        assert each["area"] == pytest.approx(area)


def test_a_label_that_never_occurs_has_no_area() -> None:
    made = charts.roc_curve(["a", "a"], [[0.5, 0.5], [0.25, 0.75]], labels=["a", "b"])

    assert [each["area"] for each in data(made)["curves"]] == [None, None]
    made = charts.pr_curve(["a", "a"], [0.5, 0.25], labels=["a", "b"])
    assert data(made)["curves"][0]["average_precision"] is None


def test_long_curves_are_cut_down_and_keep_their_area() -> None:
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 2, 50_000)
    scores = chance.normal(truth, 1.0)

    (curve,) = data(charts.roc_curve(truth, scores))["curves"]

    assert 500 < len(curve["fpr"]) <= charts.MOST_POINTS
    assert (curve["fpr"][-1], curve["tpr"][-1]) == (1.0, 1.0)
    assert curve["area"] == pytest.approx(metrics.roc_auc_score(truth, scores))
    drawn = np.trapezoid(curve["tpr"], curve["fpr"])
    assert drawn == pytest.approx(curve["area"], abs=1e-3)


def test_a_long_pr_curve_of_few_hits_keeps_its_shape() -> None:
    chance = np.random.default_rng(0)
    truth = chance.random(200_000) < 1e-3
    scores = chance.normal(truth * 4, 1.0)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)

    (curve,) = data(charts.pr_curve(truth, scores))["curves"]

    assert 100 < len(curve["recall"]) <= charts.MOST_POINTS
    assert (curve["recall"][0], curve["recall"][-1]) == (1.0, 0.0)
    assert curve["thresholds"].count(None) == 1
    drawn = metrics.auc(curve["recall"], curve["precision"])
    assert drawn == pytest.approx(metrics.auc(recall, precision), abs=1e-3)
    average = metrics.average_precision_score(truth, scores)
    assert curve["average_precision"] == pytest.approx(average)


def test_many_labels_have_short_curves_and_a_small_picture() -> None:
    chance = np.random.default_rng(0)
    labels = list(range(200))
    truth = np.concatenate([labels, chance.integers(0, 200, 5000)])

    curves = charts.roc_curve(truth, chance.random((len(truth), 200)), labels)
    matrix = charts.confusion_matrix(truth, chance.permutation(truth))

    assert max(len(each["fpr"]) for each in data(curves)["curves"]) <= 100
    assert np.array(data(matrix)["matrix"]).shape == (200, 200)
    assert curves.metadata["rows"] == matrix.metadata["total"] == len(truth)
    picture = matrix.files["plot.svg"]
    assert isinstance(picture, bytes)
    assert len(picture) < 500_000
    diagonal = charts.confusion_matrix(range(1000), range(1000)).files["plot.svg"]
    assert isinstance(diagonal, bytes)
    assert len(diagonal) < 20_000


@pytest.mark.parametrize("count", [16, 17, 59, 60, 61, 121])
def test_a_picture_of_a_matrix_loses_no_count(count: int) -> None:
    truth = np.arange(count)

    blocks = charts._blocks(np, np.diag(truth))

    assert len(blocks) <= 60
    assert sum(map(sum, blocks)) == truth.sum()
    assert data(charts.confusion_matrix(truth, truth))["labels"] == truth.tolist()


def test_labels_keep_their_types() -> None:
    made = charts.confusion_matrix(["a", 1, np.int64(2)], [1, "a", 2], ["a", 1, 2])

    assert data(made)["labels"] == ["a", 1, 2]
    assert data(made)["matrix"] == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_labels_that_svg_cannot_hold_are_drawn_without() -> None:
    made = charts.confusion_matrix(["<&\x00", "b"], ["b", "b"])

    assert data(made)["labels"] == ["<&\x00", "b"]
    picture = made.files["plot.svg"]
    assert isinstance(picture, bytes)
    texts = [each.text for each in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "<&\N{REPLACEMENT CHARACTER}" in texts


@pytest.mark.parametrize("labels", [None, ["b", "a", "never"]])
def test_a_confusion_matrix_is_that_of_scikit_learn(labels: list[str] | None) -> None:
    chance = np.random.default_rng(0)
    truth, guess = chance.choice(["a", "b"], (2, 100))

    made = charts.confusion_matrix(truth, guess, labels)
    found = data(made)

    assert found["labels"] == (labels or ["a", "b"])
    theirs = metrics.confusion_matrix(truth, guess, labels=labels)
    assert found["matrix"] == theirs.tolist()
    assert made.metadata["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))


def test_a_histogram_counts_every_number() -> None:
    values = np.random.default_rng(0).normal(size=(10, 100))
    counts, edges = np.histogram(values, bins=20)

    made = charts.histogram([*values.ravel(), np.nan, np.inf], bins=20)

    found = data(made)
    assert (found["counts"], found["edges"]) == (counts.tolist(), edges.tolist())
    assert (found["nan"], found["inf"], found["total"]) == (1, 1, 1000)
    given = data(charts.histogram((counts, edges)))
    assert (given["counts"], given["edges"]) == (counts.tolist(), edges.tolist())
    assert data(charts.histogram([3.0] * 5))["total"] == 5


@pytest.mark.parametrize(
    "values", [[1.0, 1.0 + 2**-52], [0.0, 5e-324], [1e-20, 3e-20], [-8e307, 8e307], [True, False]]
)
def test_a_histogram_of_an_odd_range_is_drawn(values: list[float]) -> None:
    found = data(charts.histogram(values))

    assert found["total"] == sum(found["counts"]) == 2
    assert (found["edges"][0], found["edges"][-1]) == (min(values), max(values))


def test_charts_without_numpy_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(MissingDependency, match=r"mlopskit\[local\]"):
        charts.histogram([1.0])


def test_tensors_of_torch_are_numbers() -> None:
    torch = pytest.importorskip("torch")
    values = torch.tensor([1.0, 2.0], requires_grad=True)

    assert data(charts.histogram(values, bins=2))["counts"] == [1, 1]
    assert data(charts.histogram(values.bfloat16(), bins=2))["counts"] == [1, 1]
    assert data(charts.confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 1])))["matrix"] == [
        [1, 0],
        [0, 1],
    ]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.histogram([]),
        lambda: charts.histogram([float("nan")]),
        lambda: charts.histogram(["a"]),
        lambda: charts.histogram([1], bins=0),
        lambda: charts.histogram(([1, 2], [0, 1])),
        lambda: charts.histogram(([1, 2], [0, 2, 1])),
        lambda: charts.histogram(([1, 2], [0, float("nan"), 1])),
        lambda: charts.histogram(([1, float("nan")], [0, 1, 2])),
        lambda: charts.histogram(([1, -1], [0, 1, 2])),
        lambda: charts.histogram((["a"], ["b", "c"])),
        lambda: charts.histogram(([], [1])),
        lambda: charts.histogram([-1.7e308, 1.7e308]),
        lambda: charts.confusion_matrix([float("nan")], [1]),
        lambda: charts.confusion_matrix(["a"], ["a"], ["a", "a"]),
        lambda: charts.confusion_matrix(range(1001), range(1001)),
        lambda: charts.confusion_matrix(np.array([[], None], dtype=object), [1, 2]),
        lambda: charts.confusion_matrix(["a"], ["a", "b"]),
        lambda: charts.confusion_matrix([], []),
        lambda: charts.confusion_matrix(["a"], ["c"], ["a", "b"]),
        lambda: charts.roc_curve([0, 1], [0.5]),
        lambda: charts.roc_curve([0, 0], [0.5, 0.25]),
        lambda: charts.roc_curve([0, 1, 2], [0.5, 0.25, 0.1]),
        lambda: charts.roc_curve([0, 1], [float("nan"), 0.5]),
        lambda: charts.pr_curve([0, 1], [["a", "b"], ["c", "d"]]),
        lambda: charts.pr_curve([0, 3], [0.5, 0.25], [0, 1]),
    ],
)
def test_what_does_not_fit_is_refused(draw: Any) -> None:
    with pytest.raises(InvalidInput):
        draw()
