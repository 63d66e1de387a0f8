"""The contract of a tracker, as tests.

Subclass it, override the fixture `line`, and pytest does the rest::

    class TestMine(TrackerContract):
        @pytest.fixture
        def line(self, tmp_path):
            return {"backend": "mine", "location": str(tmp_path / "store")}
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from mlopskit.errors import InvalidInput, InvalidName, NotFound, ParamConflict
from mlopskit.kit import Kit
from mlopskit.testing.hard_values import (
    HARD_METRIC_NAMES,
    HARD_PARAMS,
    HARD_STEPS,
    HARD_TAGS,
    HARD_VALUES,
    ODD_NAMES,
)
from mlopskit.testing.tool import ToolContract
from mlopskit.testing.tracking_contents import ContentsContract
from mlopskit.testing.tracking_lives import OPENING, Line, LivesContract
from mlopskit.tracking import CAPABILITIES, Tracker
from mlopskit.tracking.values import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlopskit.tool import Tool

__all__ = ["HARD_PARAMS", "HARD_STEPS", "HARD_VALUES", "OPENING", "Line", "TrackerContract"]


HOSTILE = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "a\\b",
    "C:x",
    "nul",
    "a/\x00b",
    "\u202ex",
    "x" * 10_000,
    "",
    ".",
    " x",
    "a//b",
]
FILTERS = {
    "": ["cnn", "mlp", "tree"],
    "metrics.loss < 0.5": ["cnn", "mlp"],
    "metrics.loss <= 0.25": ["cnn"],
    "metrics.loss < 0.5 and params.lr > 0.01": ["mlp"],
    "metrics.loss > 0.5 or params.lr = 0.01": ["cnn", "tree"],
    "not metrics.loss < 0.5": ["tree"],
    "params.model in ('cnn', 'tree')": ["cnn", "tree"],
    "params.model not in ('cnn', 'tree')": ["mlp"],
    "name like '%l%'": ["mlp"],
    "tags.`best of` is null": ["mlp", "tree"],
    'tags."best of" is not null': ["cnn"],
    "metrics.acc@1 >= 0": ["cnn", "mlp"],
    "metrics.acc@1 = inf": ["mlp"],
    "params.opt.name = 'adam' and (status = 'finished' or name = 'x')": ["cnn", "tree"],
    "params.lr is null": ["tree"],
    "params.lr != 0.01": ["mlp"],
    "params.lr = '0.01'": [],
    "attributes.experiment = 'elsewhere'": [],
    "started_at > '2020-01-01' and ended_at is not null": ["cnn", "mlp", "tree"],
}


class TrackerContract(LivesContract, ContentsContract, ToolContract):
    """Everything a caller may rely on, whichever tracker is behind."""

    interface: ClassVar[type[Tool]] = Tracker  # type: ignore[type-abstract]  # only looked at
    vocabulary: ClassVar[Mapping[str, str]] = CAPABILITIES
    points: ClassVar[int] = 100_000

    @pytest.fixture
    def line(self, tmp_path: Path) -> Line:
        """Return the config line of an empty store. Each backend overrides this, and only this."""
        raise NotImplementedError

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """Return the folder where the tests' journals lie."""
        return tmp_path / "home"

    @pytest.fixture
    def tracker(self, line: Line, home: Path) -> Iterator[Tracker]:
        """Return the tracker under test, opened through the kit as users do."""
        with Kit(tracking=line, home=home) as kit:
            yield kit.tracker

    @pytest.fixture
    def tool(self, tracker: Tracker) -> Tool:
        """Return the tracker for the tests that all six domains share."""
        return tracker

    # What was logged reads back.

    def test_a_run_reads_back_as_it_was_written(self, tracker: Tracker) -> None:
        """Names, params, tags and the last metrics, with times and status."""
        with tracker.start_run(
            "flights", name="base line", params={"lr": 0.1}, tags={"team": "ü"}
        ) as run:
            run.log_metrics({"loss": 0.5, "acc": 0.25}, step=0)
            run.log_metric("loss", 0.125, step=1)
            run.set_tags({"team": "blue"})

        record = tracker.get_run(run.id)

        assert (record.id, record.name, record.experiment) == (run.id, "base line", "flights")
        assert record.status == "finished"
        assert record.params == {"lr": 0.1}
        assert record.tags == {"team": "blue"}
        assert record.metrics == {"loss": 0.125, "acc": 0.25}
        assert record.last_steps == {"loss": 1, "acc": 0}
        assert record.parent_id is None
        assert record.started_at is not None
        assert record.ended_at is not None
        assert record.started_at.utcoffset() is not None
        assert record.started_at <= record.ended_at

    def test_every_param_keeps_its_type_and_nesting(self, tracker: Tracker) -> None:
        """A text that looks like a number stays a text; 1, 1.0 and True are three params."""
        with tracker.start_run(params=HARD_PARAMS) as run:
            pass

        found = tracker.get_run(run.id).params

        assert set(found) == set(HARD_PARAMS)
        for key, value in HARD_PARAMS.items():
            assert to_json(found[key]) == to_json(value), key

    def test_every_number_comes_back_exactly_and_in_order(self, tracker: Tracker) -> None:
        """NaN, infinities, -0.0 and ints that no float equals."""
        with tracker.start_run() as run:
            for step, value in enumerate(HARD_VALUES):
                run.log_metrics({"hard": value, f"hard@{step}": value}, step=step)

        history = tracker.get_metric_history(run.id, "hard")
        metrics = tracker.get_run(run.id).metrics

        assert list(map(_exact, history.values)) == list(map(_exact, HARD_VALUES))
        assert list(history.steps) == list(range(len(HARD_VALUES)))
        assert list(history.timestamps) == sorted(history.timestamps)
        for step, value in enumerate(HARD_VALUES):
            assert _exact(metrics[f"hard@{step}"]) == _exact(value)

    def test_steps_may_come_in_any_order(self, tracker: Tracker) -> None:
        """Nothing is dropped or merged; the last value is that of the highest step."""
        with tracker.start_run() as run:
            for place, step in enumerate(HARD_STEPS):
                run.log_metric("loss", place + 0.5, step=step)
                run.log_metric("same", 1.5, step=step)

        history = tracker.get_metric_history(run.id, "loss")
        record = tracker.get_run(run.id)

        assert list(history.steps) == HARD_STEPS
        assert list(history.values) == [place + 0.5 for place in range(len(HARD_STEPS))]
        assert list(tracker.get_metric_history(run.id, "same").steps) == HARD_STEPS
        assert record.metrics["loss"] == HARD_STEPS.index(2**63) + 0.5
        assert record.last_steps["loss"] == 2**63

    def test_equal_points_are_all_kept(self, tracker: Tracker) -> None:
        """The same value at the same step, logged three times, is three points."""
        with tracker.start_run() as run:
            for _ in range(3):
                run.log_metric("loss", 0.5, step=1)

        assert list(tracker.get_metric_history(run.id, "loss").values) == [0.5, 0.5, 0.5]

    def test_a_step_left_out_follows_the_highest(self, tracker: Tracker) -> None:
        """From 0, and after whatever was logged with a step."""
        with tracker.start_run() as run:
            run.log_metric("loss", 1.0)
            run.log_metric("loss", 2.0, step=10)
            run.log_metric("loss", 3.0)

        assert list(tracker.get_metric_history(run.id, "loss").steps) == [0, 10, 11]

    def test_scalars_of_numpy_are_numbers(self, tracker: Tracker) -> None:
        """Values, steps and params, each as the Python number it holds."""
        np = pytest.importorskip("numpy")
        with tracker.start_run(params={"lr": np.float32(0.5), "n": np.int64(3)}) as run:
            run.log_metrics({"loss": np.float32(0.25), "ok": np.bool_(True)}, step=np.int64(4))

        record = tracker.get_run(run.id)

        assert to_json(record.params["lr"]) == "0.5"
        assert to_json(record.params["n"]) == "3"
        assert record.metrics == {"loss": 0.25, "ok": 1.0}
        assert record.last_steps == {"loss": 4, "ok": 4}

    def test_scalars_of_torch_are_numbers(self, tracker: Tracker) -> None:
        """Of any float type, with a gradient or without."""
        torch = pytest.importorskip("torch")
        loss = torch.tensor(0.25, requires_grad=True) * 1
        params = {"lr": torch.tensor(0.5, dtype=torch.float64), "n": torch.tensor(3)}
        with tracker.start_run(params=params) as run:
            run.log_metrics(
                {"loss": loss, "half": torch.tensor(0.5, dtype=torch.bfloat16)},
                step=torch.tensor(4),
            )
            with pytest.raises(InvalidInput, match="one real number"):
                run.log_metric("two", torch.zeros(2))

        record = tracker.get_run(run.id)

        assert (to_json(record.params["lr"]), to_json(record.params["n"])) == ("0.5", "3")
        assert record.metrics == {"loss": 0.25, "half": 0.5}
        assert record.last_steps == {"loss": 4, "half": 4}

    def test_hard_names_of_metrics_are_kept(self, tracker: Tracker) -> None:
        """Long ones, Unicode, and what tools use as separators."""
        with tracker.start_run() as run:
            for number, name in enumerate(HARD_METRIC_NAMES):
                run.log_metric(name, number + 0.5, step=number)

        expected = {name: number + 0.5 for number, name in enumerate(HARD_METRIC_NAMES)}
        assert tracker.get_run(run.id).metrics == expected
        for number, name in enumerate(HARD_METRIC_NAMES):
            assert list(tracker.get_metric_history(run.id, name).values) == [number + 0.5]

    def test_an_empty_run_is_a_run(self, tracker: Tracker) -> None:
        """It has started and ended, and there is nothing in it."""
        with tracker.start_run() as run:
            pass

        record = tracker.get_run(run.id)

        assert (record.status, record.name, record.experiment) == (
            "finished",
            run.id[:8],
            "default",
        )
        assert (record.params, record.tags, record.metrics, record.datasets) == ({}, {}, {}, ())
        assert tracker.list_artifacts(run.id) == []

    def test_a_hundred_thousand_points_are_all_there(self, tracker: Tracker) -> None:
        """And a plot of them gets as many as it asks for, with the extremes among them."""
        count = self.points
        with tracker.start_run() as run:
            for step in range(count):
                run.log_metric("loss", -5.0 if step == count // 3 else step * 0.5, step=step)
            run.flush(timeout_s=280)
            history = tracker.get_metric_history(run.id, "loss")
            plot = tracker.get_metric_history(run.id, "loss", max_points=400)

        assert len(history) == count
        assert list(history.steps) == list(range(count))
        assert history.values[count // 3] == -5.0
        assert history.values[-1] == (count - 1) * 0.5
        assert 100 <= len(plot) <= 400
        assert (plot.steps[0], plot.steps[-1]) == (0, count - 1)
        assert min(plot.values) == -5.0
        assert set(plot.steps) <= set(range(count))
        with pytest.raises(InvalidInput, match="4 at least"):
            tracker.get_metric_history(run.id, "loss", max_points=3)

    @pytest.mark.parametrize("value", ["0.5", None, [0.5], {}, 1j, b"1"], ids=repr)
    def test_what_is_no_number_is_refused_as_a_metric(self, tracker: Tracker, value: Any) -> None:
        """With the key, and nothing of the call is logged."""
        with tracker.start_run() as run:
            with pytest.raises(InvalidInput, match="loss"):
                run.log_metrics({"fine": 1.0, "loss": value})
            with pytest.raises(InvalidInput, match="step"):
                run.log_metric("fine", 1.0, step=1.5)  # type: ignore[arg-type]  # on purpose

        assert tracker.get_run(run.id).metrics == {}

    def test_what_would_not_read_back_equal_is_refused_as_a_param(self, tracker: Tracker) -> None:
        """Never stored as some text in its place."""
        with tracker.start_run() as run:
            for value in ({1, 2}, object(), b"bytes", [1, {"deep": {3}}]):
                with pytest.raises(InvalidInput, match="read back"):
                    run.log_params({"fine": 1, "odd": value})
            with pytest.raises(InvalidInput, match="text"):
                run.set_tags({"n": 1})  # type: ignore[dict-item]  # on purpose

        assert tracker.get_run(run.id).params == {}

    def test_a_param_is_given_once(self, tracker: Tracker) -> None:
        """The same again is fine; another value, or another type, is not, unless asked for."""
        with tracker.start_run(params={"lr": 1, "nan": math.nan}) as run:
            run.log_params({"lr": 1, "nan": math.nan})
            for other in (2, 1.0, True, "1"):
                with pytest.raises(ParamConflict, match="'lr'"):
                    run.log_params({"new": 0, "lr": other})
            assert tracker.get_run(run.id).params.keys() == {"lr", "nan"}
            run.log_params({"lr": (2,), "acc@1": 1}, overwrite=True)
            run.log_params({"lr": (3,), "acc@1": "x" * 9000}, overwrite=True)

        found = tracker.get_run(run.id).params
        assert found["lr"] == (3,)
        assert found["acc@1"] == "x" * 9000

    def test_hard_tags_read_back(self, tracker: Tracker) -> None:
        """Long, empty, with line ends, odd keys, and those that tools use for themselves."""
        with tracker.start_run(name="mine", tags=HARD_TAGS) as run:
            pass

        record = tracker.get_run(run.id)
        assert record.tags == HARD_TAGS
        assert record.name == "mine"

    def test_names_that_nobody_could_keep_are_refused(self, tracker: Tracker) -> None:
        """Before anything is stored, on every way in."""
        with tracker.start_run() as run:
            for name in ("", " x", "a\x00b", "\u202ex", "x" * 10_000):
                with pytest.raises(InvalidName):
                    run.log_metric(name, 1.0)
                with pytest.raises(InvalidName):
                    run.log_params({name: 1})
                with pytest.raises(InvalidName):
                    run.set_tags({name: "x"})
                with pytest.raises(InvalidName):
                    tracker.start_run(name)
                with pytest.raises(InvalidName):
                    tracker.start_run(name=name)
            with pytest.raises(InvalidName):
                tracker.start_run(run_id="../../x")

        record = tracker.get_run(run.id)
        assert (record.params, record.metrics, record.tags) == ({}, {}, {})

    def test_secrets_are_removed_before_they_are_stored(self, tracker: Tracker, home: Path) -> None:
        """By key and by look; numbers stay whatever their key."""
        token = "ghp_" + "a1B2" * 9
        with tracker.start_run(params={"api_key": "hunter22", "n": {"url": "s3://u:pw9@h"}}) as run:
            run.set_tags({"note": f"uses {token}"})
            run.log_text(f"token {token}", "log.txt")
            journal = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())

        record = tracker.get_run(run.id)

        assert record.params["api_key"] == "[redacted]"
        assert "pw9" not in record.params["n"]["url"]
        assert record.tags["note"] == "uses [redacted]"
        for secret in (token, "hunter22", "pw9"):
            assert secret.encode() not in journal

    # Questions.

    @pytest.fixture
    def three(self, tracker: Tracker) -> Tracker:
        """Return a tracker with three finished runs in one experiment, and one in another."""
        rows: list[tuple[str, dict[str, Any], dict[str, float], dict[str, str]]] = [
            (
                "cnn",
                {"lr": 0.01, "opt": {"name": "adam"}},
                {"loss": 0.25, "acc@1": 0},
                {"best of": "3"},
            ),
            ("mlp", {"lr": 0.1, "opt": {"name": "sgd"}}, {"loss": 0.375, "acc@1": math.inf}, {}),
            ("tree", {"opt": {"name": "adam"}}, {"loss": 0.75, "acc@1": math.nan}, {}),
        ]
        for name, params, metrics, tags in rows:
            with tracker.start_run("e", name=name, params={"model": name, **params}) as run:
                run.log_metrics({"loss": 99.0}, step=-1)
                run.log_metrics(metrics, step=1)
                run.log_metrics({"loss": 77.0}, step=0)
                run.set_tags(tags)
        with tracker.start_run("other", name="cnn"):
            pass
        return tracker

    def test_filters_find_the_runs_they_describe(self, three: Tracker) -> None:
        """A metric is its value at the last step; what is not there never compares."""
        for where, names in FILTERS.items():
            found = sorted(run.name for run in three.search_runs(where, "e"))
            assert found == names, where

    def test_runs_come_in_the_order_asked_for(self, three: Tracker) -> None:
        """The latest first if nothing is asked; NaN and what is missing last, either way."""

        def names(*order: str) -> list[str]:
            return [run.name for run in three.search_runs(experiment="e", order_by=order)]

        assert names("metrics.loss desc") == ["tree", "mlp", "cnn"]
        assert names("metrics.acc@1") == ["cnn", "mlp", "tree"]
        assert names("metrics.acc@1 desc") == ["mlp", "cnn", "tree"]
        assert names("params.lr desc") == ["mlp", "cnn", "tree"]
        assert names("params.opt.name", "metrics.loss desc") == ["tree", "cnn", "mlp"]
        assert sorted(names()) == ["cnn", "mlp", "tree"]

    def test_a_limit_says_whether_it_kept_runs_back(self, three: Tracker) -> None:
        """A search never cuts in silence."""
        two = three.search_runs(experiment="e", limit=2)
        best = three.search_runs(experiment="e", order_by="metrics.loss", limit=1)

        assert (len(two), two.truncated) == (2, True)
        assert ([run.name for run in best], best.truncated) == (["cnn"], True)
        assert not three.search_runs(experiment="e", limit=3).truncated
        assert len(three.search_runs(limit=None)) == 4
        pages = [three.search_runs(order_by="name", limit=3, offset=at) for at in (0, 3, 6)]
        named = [[run.name for run in page] for page in pages]
        assert named == [["cnn", "cnn", "mlp"], ["tree"], []]
        assert [page.truncated for page in pages] == [True, False, False]
        with pytest.raises(InvalidInput, match="offset"):
            three.search_runs(offset=-1)
        with pytest.raises(InvalidInput, match="column 14"):
            three.search_runs("metrics.loss ! 3")

    def test_experiments_are_listed(self, three: Tracker) -> None:
        """Each that has a run, at least."""
        found = {each.name: each.runs for each in three.list_experiments()}

        assert {"e", "other"} <= set(found)
        assert found["e"] in (3, None)
        assert three.search_runs(experiment="nowhere") == []

    # Files.

    def test_files_come_back_byte_by_byte(self, tracker: Tracker, tmp_path: Path) -> None:
        """An empty one, two of equal content, a binary one, and whole folders."""
        folder = tmp_path / "plots"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a.bin").write_bytes(bytes(range(256)))
        (folder / "empty").write_bytes(b"")
        with tracker.start_run() as run:
            run.log_artifact(folder)
            run.log_artifact(folder / "deep" / "a.bin", "copy.bin")
            run.log_dict({"a": [1, None]}, "d.json")
            run.log_text("first", "notes.txt")
            run.log_text("second", "notes.txt")
            (folder / "deep" / "a.bin").write_bytes(b"changed afterwards")

        found = {each.name: each for each in tracker.list_artifacts(run.id)}

        assert list(found) == ["copy.bin", "d.json", "notes.txt", "plots/deep/a.bin", "plots/empty"]
        assert found["plots/empty"].size == 0
        assert found["copy.bin"].digest == found["plots/deep/a.bin"].digest
        got = tmp_path / "got"
        path = tracker.download_artifact(run.id, "plots/deep/a.bin", got)
        assert path == got / "plots/deep/a.bin"
        assert path.read_bytes() == bytes(range(256))
        assert tracker.download_artifact(run.id, "plots/empty", got).read_bytes() == b""
        assert tracker.download_artifact(run.id, "notes.txt", got).read_text() == "second"
        assert json.loads(tracker.download_artifact(run.id, "d.json", got).read_text()) == {
            "a": [1, None]
        }

    @pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:12])
    def test_a_hostile_name_leaves_no_folder(
        self, tracker: Tracker, tmp_path: Path, name: str
    ) -> None:
        """It is refused on every way in and out."""
        with tracker.start_run() as run:
            with pytest.raises(InvalidName):
                run.log_text("x", name)
            with pytest.raises(InvalidName):
                run.log_artifact(__file__, name)

        with pytest.raises((InvalidName, NotFound)):
            tracker.download_artifact(run.id, name, tmp_path / "got")
        assert tracker.list_artifacts(run.id) == []

    def test_odd_but_harmless_names_are_kept(self, tracker: Tracker, tmp_path: Path) -> None:
        """Blanks, Unicode, what URLs escape, and the names that backends use themselves."""
        with tracker.start_run() as run:
            for name in ODD_NAMES:
                run.log_text(name, name)

        assert sorted(each.name for each in tracker.list_artifacts(run.id)) == sorted(ODD_NAMES)
        for name in ODD_NAMES:
            path = tracker.download_artifact(run.id, name, tmp_path / "got")
            assert path.read_text() == name


def _exact(value: Any) -> str:
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, int) and abs(number) <= 2**53:
        number = float(number)
    return repr(number)
