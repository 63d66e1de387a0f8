"""What a run can hold beside numbers, as tests that every tracker passes; see `tracking`."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import Conflict, InvalidInput, InvalidName, NotFound, Unsupported
from mlopskit.tracking.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tracking import Tracker
    from mlopskit.tracking.entities import Artifact

GIB = 1 << 30


class ContentsContract:
    """Files, media, data, models, and what is said about runs and experiments."""

    # What is said about a run.

    def test_groups_job_types_and_notes_read_back(self, tracker: Tracker) -> None:
        """They can be searched for; notes are replaced, of any length, and may be empty again."""
        needs(tracker, "groups")
        long = "ü\n" * 20_000
        with tracker.start_run("e", group="fold/1 ü", job_type="train", notes="first") as run:
            assert tracker.get_run(run.id).notes == "first"
            run.set_notes(long)
        with tracker.start_run("e", notes="to be emptied") as other:
            other.set_notes("")

        record = tracker.get_run(run.id)

        assert (record.group, record.job_type, record.notes) == ("fold/1 ü", "train", long)
        plain = tracker.get_run(other.id)
        assert (plain.group, plain.job_type, plain.notes) == (None, None, "")
        found = tracker.search_runs("group = 'fold/1 ü' and job_type = 'train'", "e")
        assert [each.id for each in found] == [run.id]
        assert [each.id for each in tracker.search_runs("group is null", "e")] == [other.id]

    def test_a_run_that_is_taken_up_again_keeps_what_was_said(self, tracker: Tracker) -> None:
        """Its group, job type and notes."""
        needs(tracker, "groups", "resume")
        with tracker.start_run("e", group="g", job_type="train", notes="n") as first:
            pass
        with tracker.start_run(run_id=first.id, resume=True):
            pass

        record = tracker.get_run(first.id)
        assert (record.group, record.job_type, record.notes) == ("g", "train", "n")

    def test_experiments_are_described_and_deleted(self, tracker: Tracker) -> None:
        """With their runs, and others keep theirs; one that is open here is not deleted."""
        needs(tracker, "experiments")
        tracker.describe_experiment("flights", "one")
        tracker.describe_experiment("flights", "Delays of flights; ü\nsecond line")
        with tracker.start_run("flights") as run, pytest.raises(Conflict, match="still open"):
            tracker.delete_experiment("flights")
        with tracker.start_run("other") as other:
            pass

        described = {each.name: each.description for each in tracker.list_experiments()}
        tracker.delete_experiment("flights")

        assert described["flights"] == "Delays of flights; ü\nsecond line"
        assert described["other"] == ""
        assert "flights" not in {each.name for each in tracker.list_experiments()}
        with pytest.raises(NotFound):
            tracker.get_run(run.id)
        assert [each.id for each in tracker.search_runs()] == [other.id]
        with pytest.raises(NotFound, match="nowhere"):
            tracker.delete_experiment("nowhere")
        with tracker.start_run("flights") as again:
            pass
        assert [each.id for each in tracker.search_runs(experiment="flights")] == [again.id]

    # Files.

    def test_what_is_said_about_a_file_reads_back(self, tracker: Tracker, tmp_path: Path) -> None:
        """Its type, metadata, aliases, the name it was logged by, and when."""
        folder = tmp_path / "model"
        (folder / "deep").mkdir(parents=True)
        (folder / "w.bin").write_bytes(b"\0\1")
        (folder / "deep" / "c.json").write_text("{}")
        odd = [math.nan, math.inf, -0.0, 1.0, 2**70]
        said = {"step": 3, "note": "ü", "nested": {"a": [1, None, 0.5, "x"]}, "odd": odd}
        with tracker.start_run("e") as run:
            run.log_artifact(folder, "m", type="model", metadata=said, aliases=["best", "a b"])
            run.log_text("x", "notes.txt")

        found = {each.name: each for each in tracker.list_artifacts(run.id)}

        assert set(found) == {"m/w.bin", "m/deep/c.json", "notes.txt"}
        for each in (found["m/w.bin"], found["m/deep/c.json"]):
            assert (each.type, each.logged_as) == ("model", "m")
            assert json.dumps(each.metadata, sort_keys=True) == json.dumps(said, sort_keys=True)
            assert each.aliases == ("best", "a b")
            assert each.logged_at is not None
        notes = found["notes.txt"]
        assert (notes.type, notes.logged_as, notes.size) == ("text", "notes.txt", 1)
        assert (notes.metadata, notes.aliases, notes.uri) == ({}, (), None)

    def test_a_name_that_is_logged_again_is_the_newer_file(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        """With what was said about it then."""
        with tracker.start_run() as run:
            run.log_artifact(_file(tmp_path, b"one"), "a.bin", metadata={"n": 1}, aliases=["x"])
            run.log_artifact(_file(tmp_path, b"two!"), "a.bin", metadata={"n": 2})

        (found,) = tracker.list_artifacts(run.id)

        assert (found.size, found.metadata, found.aliases) == (4, {"n": 2}, ())
        assert tracker.download_artifact(run.id, "a.bin", tmp_path / "got").read_bytes() == b"two!"

    def test_a_large_sparse_file_comes_back(self, tracker: Tracker, tmp_path: Path) -> None:
        """A GiB, of which one byte is not zero."""
        large = tmp_path / "large.bin"
        with large.open("wb") as file:
            file.seek(GIB // 2)
            file.write(b"x")
            file.truncate(GIB)
        with tracker.start_run() as run:
            (logged,) = run.log_artifact(large)
            run.flush(timeout_s=240)
            large.unlink()

        (found,) = tracker.list_artifacts(run.id)
        path = tracker.download_artifact(run.id, "large.bin", tmp_path / "got")

        assert found.size == logged.size == path.stat().st_size == GIB
        with path.open("rb") as file:
            file.seek(GIB // 2 - 1)
            assert file.read(3) == b"\0x\0"

    def test_a_folder_is_downloaded_as_one(self, tracker: Tracker, tmp_path: Path) -> None:
        """By the name that it was logged by."""
        folder = tmp_path / "f"
        (folder / "a").mkdir(parents=True)
        for name in ("a/1.txt", "a/2.txt", "3.txt"):
            (folder / name).write_text(name)
        with tracker.start_run() as run:
            run.log_artifact(folder, "deep/f")

        path = tracker.download_artifact(run.id, "deep/f", tmp_path / "got")

        assert path == tmp_path / "got/deep/f"
        got = {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
        assert got == {"a/1.txt", "a/2.txt", "3.txt"}
        assert (path / "a/1.txt").read_text() == "a/1.txt"

    def test_a_reference_is_an_address_and_no_copy(self, tracker: Tracker, tmp_path: Path) -> None:
        """What is downloaded comes from there, and is checked if its digest is known."""
        needs(tracker, "artifact_references")
        remote = tmp_path / "remote.csv"
        remote.write_bytes(b"a,b\n1,2\n")
        with tracker.start_run() as run:
            run.log_reference(remote.as_uri(), "data/remote.csv", metadata={"rows": 1})
            run.log_reference("s3://nobody:pw9x@bucket/key", "far.bin", size=7)
            with pytest.raises(InvalidInput, match="no address"):
                run.log_reference("just a text", "x")

        found = {each.name: each for each in tracker.list_artifacts(run.id)}

        assert found["data/remote.csv"].uri == remote.as_uri()
        assert found["data/remote.csv"].metadata == {"rows": 1}
        assert found["data/remote.csv"].type == "dataset"
        assert "pw9x" not in str(found["far.bin"].uri)
        assert found["far.bin"].size == 7
        remote.write_bytes(b"changed")
        path = tracker.download_artifact(run.id, "data/remote.csv", tmp_path / "got")
        assert path.read_bytes() == b"changed"

    def test_an_artifact_is_found_by_name_and_alias(self, tracker: Tracker, tmp_path: Path) -> None:
        """The newest that has the alias, whichever run it is of; its use is recorded."""
        needs(tracker, "artifact_inputs")
        runs = []
        for number, aliases in enumerate((["best"], ["best"], [])):
            with tracker.start_run("e", name=f"n{number}") as run:
                file, said = _file(tmp_path, b"%d" % number), {"auc": math.inf}
                run.log_artifact(file, "m/w.bin", aliases=aliases, metadata=said)
            runs.append(run)
        with tracker.start_run("elsewhere") as other:
            other.log_artifact(_file(tmp_path, b"other"), "m/w.bin", aliases=["best"])

        with tracker.start_run("e") as user:
            best = user.use_artifact("m/w.bin:best")
            latest = user.use_artifact("m/w.bin")
            exact = user.use_artifact(f"{runs[0].id}/m/w.bin")
            with pytest.raises(NotFound, match="no artifact"):
                user.use_artifact("m/w.bin:worst")

        assert [use.run_id for use in (best, latest, exact)] == [runs[1].id, runs[2].id, runs[0].id]
        inputs = tracker.get_run(user.id).inputs
        assert [(use.run_id, use.name, use.alias) for use in inputs] == [
            (runs[1].id, "m/w.bin", "best"),
            (runs[2].id, "m/w.bin", "latest"),
            (runs[0].id, "m/w.bin", ""),
        ]
        assert [use.files[0].metadata for use in inputs] == [{"auc": math.inf}] * 3
        assert [use.files[0].digest for use in inputs] == [
            use.files[0].digest for use in (best, latest, exact)
        ]
        path = tracker.download_artifact(best.run_id, best.name, tmp_path / "got")
        assert path.read_bytes() == b"1"

    @pytest.mark.parametrize("alias", ["latest", "v3", "a:b", "a/b", "", "x" * 200])
    def test_an_alias_that_tools_give_themselves_is_refused(
        self, tracker: Tracker, tmp_path: Path, alias: str
    ) -> None:
        """As is one that no reference could name."""
        with tracker.start_run() as run, pytest.raises(InvalidName):
            run.log_artifact(_file(tmp_path, b"x"), "x", aliases=[alias])

        assert tracker.list_artifacts(run.id) == []

    def test_metadata_that_json_cannot_hold_is_refused(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        """And nothing is kept."""
        with tracker.start_run() as run, pytest.raises(InvalidInput):
            run.log_artifact(_file(tmp_path, b"x"), "x", metadata={"bad": object()})

        assert tracker.list_artifacts(run.id) == []

    # Media.

    def test_media_come_back_with_what_was_said_about_them(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        """An image, a list of images, sound, a page, a figure; steps and captions."""
        np = pytest.importorskip("numpy")
        pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        with tracker.start_run() as run:
            run.log_image(pixels, "one.png", caption="ü one", step=3)
            run.log_image([pixels, 255 - pixels], "many", caption=["a", "b"], step=4)
            run.log_audio(np.zeros(800), "sound.wav", rate=8000, caption="silence")
            run.log_html("<p>hello</p>", "page.html", step=5)
            figures = pytest.importorskip("matplotlib.figure")
            figure = figures.Figure()
            figure.subplots().plot([1, 2])
            run.log_figure(figure, "plot.png", step=6)

        found = {each.name: each for each in tracker.list_artifacts(run.id)}

        assert found["one.png"].type == "image"
        assert (found["one.png"].metadata["caption"], found["one.png"].metadata["step"]) == (
            "ü one",
            3,
        )
        many = [each for each in found.values() if each.logged_as == "many"]
        assert len(many) == 2
        assert many[0].metadata["captions"] == ["a", "b"]
        assert found["sound.wav"].metadata["rate"] == 8000
        assert (found["page.html"].type, found["page.html"].metadata["step"]) == ("html", 5)
        for name, head in (
            ("one.png", b"\x89PNG"),
            (many[1].name, b"\x89PNG"),
            ("sound.wav", b"RIFF"),
            ("page.html", b"<p>hello"),
            ("plot.png", b"\x89PNG"),
        ):
            path = tracker.download_artifact(run.id, name, tmp_path / "got")
            assert path.read_bytes().startswith(head), name

    def test_a_table_reads_back_with_its_media(self, tracker: Tracker, tmp_path: Path) -> None:
        """Cells keep their types, and images become files of the table."""
        np = pytest.importorskip("numpy")
        pixels = np.zeros((2, 3, 3), dtype=np.uint8)
        rows = [{"n": 1, "x": 0.5, "text": "ü", "none": None}, {"n": 2, "x": -1.0, "text": ""}]
        with tracker.start_run() as run:
            run.log_table(rows, "plain.json")
            run.log_table([{"n": 1, "image": pixels}], "pictures", step=2)

        plain = read_table(tracker.download_artifact(run.id, "plain.json", tmp_path / "got"))
        pictures = read_table(tracker.download_artifact(run.id, "pictures", tmp_path / "got"))

        assert plain == [{**row, "none": None} for row in rows]
        assert pictures[0]["n"] == 1
        assert pictures[0]["image"].read_bytes().startswith(b"\x89PNG")

    def test_charts_are_data_that_anybody_can_draw(self, tracker: Tracker, tmp_path: Path) -> None:
        """A histogram, a confusion matrix, and the two curves."""
        pytest.importorskip("numpy")
        truth, scores = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
        with tracker.start_run() as run:
            run.log_histogram([1.0, 2.0, 2.5, 4.0], "h", bins=2, step=1)
            run.log_confusion_matrix(["a", "b", "a"], ["a", "a", "a"])
            run.log_roc_curve(truth, scores)
            run.log_pr_curve(truth, scores, step=3)

        kinds = {each.logged_as: each for each in tracker.list_artifacts(run.id)}
        assert {name: each.type for name, each in kinds.items()} == {
            "h": "histogram",
            "confusion_matrix": "confusion_matrix",
            "roc_curve": "roc_curve",
            "pr_curve": "pr_curve",
        }
        assert (kinds["h"].metadata["step"], kinds["pr_curve"].metadata["step"]) == (1, 3)
        data: dict[str, Any] = {}
        for name in kinds:
            folder = tracker.download_artifact(run.id, name, tmp_path / "got")
            data[name] = json.loads((folder / "data.json").read_text())
            assert (folder / "plot.svg").read_text().startswith("<svg")
        assert data["h"]["counts"] == [2, 2]
        assert data["confusion_matrix"]["matrix"] == [[2, 0], [1, 0]]

    # Data and models.

    def test_datasets_are_known_by_their_fingerprint(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        """With their columns, role and address; the data itself is not kept."""
        needs(tracker, "datasets")
        pytest.importorskip("narwhals")
        rows: list[dict[str, Any]] = [{"x": 1, "y": 0.5}, {"x": 2, "y": None}]
        file = _file(tmp_path, b"a,b\n1,2\n")
        digest = "sha256:" + "0" * 64
        with tracker.start_run() as run:
            first = run.log_dataset(rows, "rows")
            same = run.log_dataset([dict(row) for row in rows], "same", role="validation")
            other = run.log_dataset(rows[:1], "fewer", role="test ü")
            run.log_dataset(file, "file", uri="s3://bucket/a.csv")
            run.log_dataset(None, "remote", uri="s3://bucket/b", digest=digest)

        found = tracker.get_run(run.id).datasets

        assert [each.name for each in found] == ["rows", "same", "fewer", "file", "remote"]
        assert [each.role for each in found[:3]] == ["training", "validation", "test ü"]
        assert found[0] == first
        assert first.digest == same.digest != other.digest
        assert (first.rows, [name for name, _ in first.columns]) == (2, ["x", "y"])
        assert (found[3].source, found[3].uri) == ("file", "s3://bucket/a.csv")
        assert (found[4].digest, found[4].uri) == (digest, "s3://bucket/b")
        assert tracker.list_artifacts(run.id) == []

    def test_a_model_of_a_run_is_kept(self, tracker: Tracker, tmp_path: Path) -> None:
        """A file or a folder, with a signature and an example of what it takes."""
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "weights.bin").write_bytes(b"\0\1\2")
        with tracker.start_run() as run:
            run.log_model(folder, "net", signature={"inputs": ["x"]}, input_example=[{"x": 1}])
            with pytest.raises(InvalidInput, match="no file"):
                run.log_model(tmp_path / "nothing", "other")
            for log in (run.log_artifact, run.log_model):
                with pytest.raises(InvalidInput, match="empty"):
                    log("", "other")

        found = [each for each in tracker.list_artifacts(run.id) if each.logged_as == "net"]

        assert {each.name for each in found} == {"net/weights.bin", "net/input_example/rows.json"}
        assert {each.type for each in found} == {"model"}
        assert found[0].metadata["signature"] == {"inputs": ["x"]}
        path = tracker.download_artifact(run.id, "net", tmp_path / "got")
        assert (path / "weights.bin").read_bytes() == b"\0\1\2"

    def test_an_object_is_saved_by_the_flavor_that_knows_it(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        """A scikit-learn model, as the registry would save it."""
        linear = pytest.importorskip("sklearn.linear_model")
        pytest.importorskip("skops")
        model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
        with tracker.start_run() as run:
            run.log_model(model, "line")

        found: list[Artifact] = tracker.list_artifacts(run.id)

        assert {each.logged_as for each in found} == {"line"}
        assert found[0].metadata["flavor"] == "sklearn"


def needs(tracker: Tracker, *capabilities: str) -> None:
    """Skip a test where the backend says that it cannot; that saying so is true is checked.

    A capability that is absent must be refused with `Unsupported`.
    """
    for capability in capabilities:
        line = tracker.capabilities[capability]
        if not line:
            with pytest.raises(Unsupported):
                tracker.capabilities.require([capability])
            pytest.skip(f"{capability}: {line.note}")


def _file(folder: Path, content: bytes) -> Path:
    path = folder / f"source-{os.urandom(4).hex()}"
    path.write_bytes(content)
    return path
