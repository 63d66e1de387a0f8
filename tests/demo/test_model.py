from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io

from mlopskit.demo import decisions, figures, model, training
from mlopskit.demo.features import CATEGORIES, COLUMNS, NUMBERS
from mlopskit.registry.entities import GateContext


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Rows in which the hour of the day, one carrier and missing weather tell something."""
    random = np.random.default_rng(3)
    rows = 3_000
    columns: dict[str, Any] = {name: pa.array(random.normal(size=rows)) for name in NUMBERS}
    gusts = random.normal(size=rows)
    columns["wind_gust"] = pa.array(gusts, mask=random.random(rows) < 0.8)
    columns["carrier"] = pa.array(random.choice(["AA", "B6", "UA"], rows))
    columns["origin"] = pa.array(random.choice(["EWR", "JFK"], rows))
    columns["dest"] = pa.array(random.choice(["IAH", "LAX", "SJU"], rows))
    columns["hour"] = pa.array(random.integers(5, 24, rows))
    worse = columns["carrier"].to_numpy(zero_copy_only=False) == "B6"
    chance = columns["hour"].to_numpy() / 40 + worse * 0.2
    columns[model.LABEL] = pa.array(random.random(rows) < chance)
    return pa.table(columns)


@pytest.fixture(scope="module")
def trained(table: pa.Table) -> Any:
    return model.fit(table)


def requested(table: pa.Table) -> dict[str, Any]:
    inputs = {
        name: np.array([v.encode() for v in table[name].to_pylist()], object) for name in CATEGORIES
    }
    return inputs | {name: table[name].to_numpy().astype(np.float64) for name in NUMBERS}


def test_what_is_served_is_what_was_trained(table: pa.Table, trained: Any) -> None:
    served = model.LateFlights(trained).predict(requested(table))[model.PROBABILITY]
    assert np.array_equal(served, model.score(trained, table))
    assert model.quality(table[model.LABEL].to_numpy(), served)["auc"] > 0.6


def test_a_carrier_that_was_never_seen_is_missing_and_no_error(
    table: pa.Table, trained: Any
) -> None:
    inputs = requested(table.slice(0, 4))
    inputs["carrier"][:] = [b"ZZ", b"\xff", b"", b"AA"]
    names = pa.array(["ZZ", "??", "", "AA"])
    renamed = table.slice(0, 4).set_column(table.column_names.index("carrier"), "carrier", names)
    served = model.LateFlights(trained).predict(inputs)[model.PROBABILITY]
    assert np.array_equal(served, model.score(trained, renamed))


def test_a_stored_model_answers_the_same(table: pa.Table, trained: Any) -> None:
    content = model.dumps(trained)
    assert set(skops.io.get_untrusted_types(data=content)) <= {model.UNTRUSTED}
    assert np.array_equal(model.score(model.loads(content), table), model.score(trained, table))


def test_training_twice_gives_the_same_model(table: pa.Table, trained: Any) -> None:
    assert np.array_equal(model.score(model.fit(table), table), model.score(trained, table))


def test_every_tree_has_its_losses_and_the_figure_is_drawn(table: pa.Table, trained: Any) -> None:
    losses = model.iterations(trained)
    assert losses[0]["train_log_loss"] > losses[-1]["train_log_loss"] > 0
    assert all(loss["held_out_log_loss"] > 0 for loss in losses)
    late = table[model.LABEL].to_numpy()
    assert len(figures.training(losses, late, model.score(trained, table)).axes) == 2


def test_the_quality_of_one_class_alone_has_no_auc() -> None:
    found = model.quality(np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert np.isnan(found["auc"])
    assert found["rows"] == 3


def test_a_fingerprint_is_that_of_the_contents(table: pa.Table) -> None:
    one = training.fingerprint_of(table.select(COLUMNS))
    assert one == training.fingerprint_of(pa.table({name: table[name] for name in COLUMNS}))
    other = table["hour"].to_numpy().copy()
    other[7] += 1
    changed = table.select(COLUMNS).set_column(COLUMNS.index("hour"), "hour", pa.array(other))
    assert one != training.fingerprint_of(changed)


def test_guessing_by_the_hour_learns_from_the_past_only(table: pa.Table) -> None:
    before, recent = table.slice(0, 2_000), table.slice(2_000)
    assert 0.55 < training.hour_of_day(before, recent) < 0.75


@pytest.mark.parametrize(
    ("auc", "by_hour", "passes"),
    [(0.71, 0.6, True), (0.62, 0.6, True), (0.61, 0.6, False), (float("nan"), 0.6, False)],
)
def test_the_first_model_has_to_beat_the_hour_of_the_day(
    auc: float, by_hour: float, passes: bool
) -> None:
    context: Any = GateContext
    found = decisions.beats_the_clock(auc, by_hour)(context)
    assert found.passed is passes
    assert "hour of the day" in found.reason
