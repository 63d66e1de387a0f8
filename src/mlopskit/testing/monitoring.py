"""What every drift detector keeps."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from mlopskit.errors import InvalidInput, Unsupported
from mlopskit.monitoring import CAPABILITIES, DriftDetector, DriftReport, Profile
from mlopskit.testing.tool import ToolContract

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tool import Tool


def flights(n: int, seed: int, *, delay: float = 0.0, ua: float = 0.4) -> pa.Table:
    """Return a table of two numeric columns, one of text and one of truth values."""
    rng = np.random.default_rng(seed)
    carriers = rng.choice(["UA", "AA", "B6"], n, p=[ua, 0.7 - ua, 0.3])
    return pa.table(
        {
            "delay": rng.normal(delay, 1.0, n),
            "distance": rng.integers(1, 12, n) * 250,
            "carrier": pa.array(carriers.tolist()),
            "night": rng.random(n) < 0.2,
        }
    )


class DriftDetectorContract(ToolContract):
    """Subclass it, and give `tool` a detector with its default options."""

    interface = DriftDetector
    vocabulary = CAPABILITIES

    @pytest.fixture
    def detector(self, tool: Tool) -> DriftDetector:
        """Return the tool under test as what it is."""
        assert isinstance(tool, DriftDetector)
        return tool

    def test_two_samples_of_one_thing_are_no_drift(self, detector: DriftDetector) -> None:
        """The report counts the rows of both sides, and measures every column."""
        report = detector.detect(flights(900, 1), flights(1100, 2))

        assert not report.drifted
        assert report.share_drifted == 0
        assert (report.n_current, report.n_reference) == (900, 1100)
        assert list(report.columns) == ["delay", "distance", "carrier", "night"]
        assert report.findings == ()
        for column in report.columns.values():
            assert column.tested
            assert column.missing_share == 0

    def test_a_shift_is_seen_where_it_is_and_nowhere_else(self, detector: DriftDetector) -> None:
        """Half a standard deviation in one of four columns is one of four that drifted."""
        report = detector.detect(flights(2000, 1, delay=0.5), flights(2000, 2))

        assert report.drifted
        assert [name for name, column in report.columns.items() if column.drifted] == ["delay"]
        assert report.share_drifted == 0.25
        column = report.columns["delay"]
        assert column.kind == "numeric"
        assert column.effect >= column.threshold > 0
        assert column.reason

    def test_a_change_of_shares_is_seen(self, detector: DriftDetector) -> None:
        """Text is compared by how frequent its values are."""
        report = detector.detect(flights(3000, 1, ua=0.65), flights(3000, 2))

        assert [name for name, column in report.columns.items() if column.drifted] == ["carrier"]
        assert report.columns["carrier"].kind == "categorical"

    def test_what_is_significant_but_tiny_is_no_drift(self, detector: DriftDetector) -> None:
        """On many rows everything is significant; only the size says whether it matters."""
        report = detector.detect(flights(60_000, 1, delay=0.05), flights(60_000, 2))

        assert not report.drifted
        assert 0 < report.columns["delay"].effect < report.columns["delay"].threshold

    def test_what_is_large_but_rests_on_few_rows_is_no_drift(self, detector: DriftDetector) -> None:
        """A dozen rows prove nothing, and the report says that they are few."""
        report = detector.detect(flights(12, 1, delay=3.0), flights(2000, 2))

        assert not report.drifted
        assert {finding.kind for finding in report.findings} == {"too_few_rows"}
        assert not report.columns["delay"].tested
        assert "12" in report.columns["delay"].reason

    def test_p_values_are_corrected_for_the_number_of_columns(
        self, detector: DriftDetector
    ) -> None:
        """A corrected p-value is never below its own, and decides together with the effect."""
        if "p_values" not in detector.capabilities:
            pytest.skip(detector.capabilities["p_values"].note)
        report = detector.detect(flights(500, 1, delay=0.4), flights(500, 2))

        for column in report.columns.values():
            assert column.p_value is not None
            assert column.adjusted_p is not None
            assert 0 <= column.p_value <= column.adjusted_p <= 1
            large = column.effect >= column.threshold
            assert column.drifted == (column.adjusted_p <= report.alpha and large)

    def test_columns_that_differ_are_findings(self, detector: DriftDetector) -> None:
        """Missing, new and of another type: each is said, and the rest is still compared."""
        now = flights(500, 1).drop_columns(["night"])
        now = now.set_column(1, "distance", now["distance"].cast(pa.string()))
        now = now.append_column("speed", pa.array(np.ones(500)))
        report = detector.detect(now, flights(500, 2))

        found = {(finding.kind, finding.column) for finding in report.findings}
        assert found == {
            ("missing_column", "night"),
            ("extra_column", "speed"),
            ("retyped_column", "distance"),
        }
        assert list(report.columns) == ["delay", "distance", "carrier"]
        assert report.columns["delay"].tested
        assert not report.columns["distance"].tested

    def test_a_jump_of_missing_values_is_a_finding(self, detector: DriftDetector) -> None:
        """Null and NaN are missing, and a column without any value is no error."""
        now, before = flights(1000, 1), flights(1000, 2)
        holes = pa.array(np.arange(1000) % 5 == 0)
        delay = pa.array(now["delay"].to_numpy(), mask=holes.to_numpy(zero_copy_only=False))
        now = now.set_column(0, "delay", delay)
        now = now.set_column(2, "carrier", pa.nulls(1000, pa.string()))
        report = detector.detect(now, before)

        assert report.columns["delay"].missing_share == 0.2
        assert report.columns["delay"].reference_missing_share == 0
        assert report.columns["delay"].n_current == 800
        assert report.columns["carrier"].missing_share == 1
        jumps = {f.column for f in report.findings if f.kind == "missing_share"}
        assert jumps == {"delay", "carrier"}

    def test_infinities_are_values_like_others(self, detector: DriftDetector) -> None:
        """They are counted where they belong, and the report's numbers stay finite."""
        now = flights(1000, 1)
        delay = now["delay"].to_numpy().copy()
        delay[:5] = [np.inf, -np.inf, np.inf, 1e308, -1e308]
        report = detector.detect(now.set_column(0, "delay", pa.array(delay)), flights(1000, 2))

        assert not report.drifted
        assert DriftReport.from_json(report.to_json()) == report

    @pytest.mark.parametrize("side", [0, 1])
    def test_an_empty_frame_is_refused(self, detector: DriftDetector, side: int) -> None:
        """On either side, with a message that says which."""
        sides = [flights(500, 1), flights(500, 2)]
        sides[side] = sides[side].slice(0, 0)
        with pytest.raises(InvalidInput, match=["current", "reference"][side]):
            detector.detect(*sides)

    @pytest.mark.parametrize("side", [0, 1])
    def test_what_is_no_frame_is_refused(self, detector: DriftDetector, side: int) -> None:
        """With its type in the message."""
        sides: list[Any] = [flights(500, 1), flights(500, 2)]
        sides[side] = "flights.parquet"
        with pytest.raises(InvalidInput, match="str"):
            detector.detect(*sides)

    @pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
    def test_every_kind_of_frame_says_the_same(self, detector: DriftDetector, library: str) -> None:
        """The verdict and the effects depend on the values alone, and no frame is changed."""
        pytest.importorskip(library)
        now, before = flights(800, 1, delay=0.5), flights(900, 2)
        want = detector.detect(now, before)
        frames: list[Any] = [_as(library, now), _as(library, before)]
        got = detector.detect(*frames)

        assert got.columns == want.columns
        assert frames[0].equals(_as(library, now))

    def test_a_report_reads_back_equal(self, detector: DriftDetector) -> None:
        """JSON keeps every number to the last bit."""
        report = detector.detect(flights(700, 1, delay=0.3), flights(700, 2).drop_columns("night"))

        assert DriftReport.from_json(report.to_json()) == report
        with pytest.raises(InvalidInput, match="no drift report"):
            DriftReport.from_json('{"drifted": "maybe"}')

    def test_the_page_stands_alone(self, detector: DriftDetector, tmp_path: Path) -> None:
        """One file, nothing fetched, and hostile names are only text."""
        hostile = "<script>alert(1)</script>'\"&\u202e"
        now = flights(500, 1, delay=2.0).append_column(hostile, pa.array(["<b>"] * 500))
        before = flights(500, 2).append_column(hostile, pa.array(["<i>", "x"] * 250))
        path = detector.detect(now, before).to_html(tmp_path / "report.html")

        html = path.read_text()
        assert "&lt;script&gt;" in html
        for bad in ("<script", "<b><", "<i>", "http:", "https:", "<link", "src=", "\u202e"):
            assert bad not in html, bad
        assert path.stat().st_mode & 0o077 == 0

    def test_the_page_stays_small_with_many_columns(
        self, detector: DriftDetector, tmp_path: Path
    ) -> None:
        """Under 200 KB; what drifted most is on it, and it says how many are not."""
        rng = np.random.default_rng(3)
        before = {f"column {i} {'long ' * 30}": rng.normal(size=300) for i in range(400)}
        now = dict(before)
        last = list(now)[-1]
        now[last] = now[last] + 5.0
        report = detector.detect(pa.table(now), pa.table(before))
        path = report.to_html(tmp_path / "report.html")

        assert path.stat().st_size < 200_000
        assert "column 399" in path.read_text()
        assert "more columns" in path.read_text()

    def test_listeners_hear_of_drift_and_of_nothing_else(self, detector: DriftDetector) -> None:
        """The event carries the report; a listener that fails does not spoil it."""
        heard: list[tuple[str, Any]] = []

        def listen(event: str, **details: Any) -> None:
            heard.append((event, details["report"]))
            raise RuntimeError("a listener's own trouble")

        detector.context = replace(detector.context, notify=listen)
        detector.detect(flights(500, 1), flights(500, 2))
        assert heard == []
        report = detector.detect(flights(500, 1, delay=1.0), flights(500, 2))
        assert heard == [("drift_detected", report)]

    def test_a_profile_stands_for_its_frame(self, detector: DriftDetector) -> None:
        """On the side of the reference, from JSON, and on both sides where made alike."""
        now, before = flights(700, 1, delay=0.4), flights(900, 2)
        if "profiles" not in detector.capabilities:
            with pytest.raises(Unsupported):
                detector.fit(before)
            return
        want = detector.detect(now, before)
        reference = detector.fit(before)
        kept = Profile.from_json(reference.to_json())

        assert kept == reference
        assert detector.detect(now, kept) == want
        assert detector.detect(detector.fit(now, like=kept), kept) == want
        with pytest.raises(InvalidInput, match="like"):
            detector.detect(detector.fit(now), kept)

    def test_partitions_merge_into_the_whole(self, detector: DriftDetector) -> None:
        """In any order, to the last bit."""
        if "merge" not in detector.capabilities:
            pytest.skip(detector.capabilities["merge"].note)
        whole = flights(1000, 1)
        reference = detector.fit(flights(500, 2))
        parts = [whole.slice(0, 1), whole.slice(1, 400), whole.slice(401)]
        one, two, three = (detector.fit(part, like=reference) for part in parts)

        assert one.merge(two).merge(three) == detector.fit(whole, like=reference)
        assert three.merge(one.merge(two)) == detector.fit(whole, like=reference)
        with pytest.raises(InvalidInput, match="groups"):
            one.merge(detector.fit(whole))

    def test_many_threads_may_share_it(self, detector: DriftDetector) -> None:
        """Each gets the report of its own frames."""
        before = flights(400, 0)
        wanted = [detector.detect(flights(400, i, delay=i / 4), before) for i in range(6)]
        got: dict[int, DriftReport] = {}

        def work(i: int) -> None:
            got[i] = detector.detect(flights(400, i, delay=i / 4), before)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [got[i] for i in range(6)] == wanted


def _as(library: str, table: pa.Table) -> Any:
    if library == "pandas":
        return table.to_pandas()
    if library == "polars":
        import polars as pl  # noqa: PLC0415 - only where it is installed

        return pl.from_arrow(table)
    return table
