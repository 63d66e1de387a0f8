"""What every feature store keeps. Needs pytest, hypothesis and pyarrow.

Subclass `FeatureStoreContract` and give it the fixture ``tool``: an opened store without views.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from math import copysign, inf, isnan, nan
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlopskit.errors import Conflict, InvalidInput, InvalidName, NotFound, Unsupported
from mlopskit.features.base import CAPABILITIES, FeatureStore
from mlopskit.features.entities import FeatureService, FeatureView
from mlopskit.testing.tool import ToolContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mlopskit.tool import Tool

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
HOSTILE_NAMES = (
    "../x",
    "a/b",
    "a:b",
    "a\x00b",
    "\u202ex",
    "x" * 10_000,
    "con",
    ".hidden",
    "",
    " a",
)

Event = tuple[int, int, int]  # key, event time and created, both in minutes


class FeatureStoreContract(ToolContract):
    """The promises of the feature store, as tests."""

    interface: ClassVar[type[Tool]] = FeatureStore  # type: ignore[type-abstract]  # only looked at
    vocabulary: ClassVar[Mapping[str, str]] = CAPABILITIES

    @pytest.fixture
    def store(self, tool: FeatureStore) -> FeatureStore:
        """Return the store under test."""
        return tool

    @pytest.fixture
    def weather(self, store: FeatureStore, tmp_path: Path) -> FeatureView:
        """Return an applied view: one origin with two events, one with a corrected event."""
        path = tmp_path / "weather.parquet"
        write(
            path,
            origin=["EWR", "EWR", "JFK", "JFK"],
            event_timestamp=[NOON, NOON + 10 * MINUTE, NOON, NOON],
            created=[NOON, NOON + 10 * MINUTE, NOON + 2 * MINUTE, NOON + MINUTE],
            temp=[1.5, 2.5, 30.0, 20.0],
        )
        view = FeatureView("weather", ["origin"], ["temp"], path, created="created", ttl=3600)
        store.apply(view)
        return view

    # History.

    @pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
    def test_every_row_gets_one_row_in_order_and_in_the_callers_frame_type(
        self, store: FeatureStore, weather: FeatureView, kind: str
    ) -> None:
        """Rows that repeat, rows that nothing is known of, and rows in no order all stay."""
        times = [NOON + 10 * MINUTE, NOON, NOON - TICK, NOON, NOON, NOON + 10 * MINUTE]
        origins = ["EWR", "EWR", "EWR", "XXX", None, "EWR"]
        frame = framed(kind, origin=origins, event_timestamp=times, label=[6, 5, 4, 3, 2, 1])
        found = store.get_historical_features(frame, ["weather:temp"])
        assert type(found) is type(frame)
        columns = listed(found)
        assert list(columns) == ["origin", "event_timestamp", "label", "temp"]
        assert columns["label"] == [6, 5, 4, 3, 2, 1]
        assert columns["origin"] == origins
        assert columns["temp"] == [2.5, 1.5, None, None, None, 2.5]

    def test_a_pandas_index_stays_even_if_it_repeats(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """The index belongs to the caller."""
        pytest.importorskip("pandas")
        frame = framed("pandas", origin=["EWR"] * 3, event_timestamp=[NOON] * 3)
        frame.index = [7, 7, 2]
        found = store.get_historical_features(frame, ["weather:temp"])
        assert list(found.index) == [7, 7, 2]
        assert list(found["temp"]) == [1.5, 1.5, 1.5]
        assert list(frame.columns) == ["origin", "event_timestamp"]

    def test_an_event_counts_from_its_own_moment_and_not_before(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """The edge is inclusive, to the microsecond."""
        moment = NOON + 10 * MINUTE
        assert history(store, [("EWR", moment - TICK), ("EWR", moment)]) == [1.5, 2.5]

    def test_of_events_at_one_time_the_newest_created_wins(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """A correction that stands earlier in the file is still the correction."""
        assert history(store, [("JFK", NOON)]) == [30.0]

    def test_ttl_counts_its_last_moment(self, store: FeatureStore, weather: FeatureView) -> None:
        """An hour old is known, an hour and a microsecond is not."""
        edge = NOON + timedelta(hours=1)
        assert history(store, [("JFK", edge), ("JFK", edge + TICK)]) == [30.0, None]

    @pytest.mark.parametrize("ttl", [None, 0, timedelta(0)])
    def test_no_ttl_is_no_limit(
        self, store: FeatureStore, weather: FeatureView, ttl: timedelta | None
    ) -> None:
        """Zero means for ever, as it does elsewhere."""
        store.apply(FeatureView("weather", ["origin"], ["temp"], weather.source, ttl=ttl))
        assert history(store, [("EWR", NOON + timedelta(days=9000))]) == [2.5]

    def test_times_are_instants_and_naive_ones_are_utc(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """The same moment in Tokyo, in UTC and without a zone finds the same value."""
        tokyo = timezone(timedelta(hours=9))
        rows = [("EWR", NOON.astimezone(tokyo))]
        assert history(store, rows) == [1.5]
        assert history(store, [("EWR", NOON.replace(tzinfo=None))]) == [1.5]
        assert history(store, [("EWR", (NOON - TICK).astimezone(tokyo))]) == [None]

    def test_nanoseconds_never_show_what_came_after(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        """An event one nanosecond after the row is not known to it."""
        at = int(NOON.timestamp()) * 10**9
        table = pa.table(
            {
                "k": [1, 1],
                "event_timestamp": pa.array([at + 1, at - 2000], pa.timestamp("ns", "UTC")),
                "v": ["after", "before"],
            }
        )
        pq.write_table(table, tmp_path / "ns.parquet")
        store.apply(FeatureView("fine", ["k"], ["v"], tmp_path / "ns.parquet"))
        times = pa.array([at, at + 999, at + 1000], pa.timestamp("ns"))
        found = store.get_historical_features(
            pa.table({"k": [1, 1, 1], "event_timestamp": times}), ["fine:v"]
        )
        assert found["v"].to_pylist() == ["before", "before", "after"]

    def test_a_clash_of_names_carries_the_view(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """A feature keeps its own name unless another feature or column has it."""
        store.apply(FeatureView("sea", ["origin"], ["temp", "waves"], weather.source))
        store.apply(FeatureView("air", ["origin"], ["temp"], weather.source))
        frame = framed("pyarrow", origin=["EWR"], event_timestamp=[NOON])
        found = store.get_historical_features(frame, ["weather:temp", "air:temp"])
        assert found.column_names[2:] == ["weather__temp", "air__temp"]
        labelled = frame.append_column("temp", pa.array([0]))
        found = store.get_historical_features(labelled, ["air:temp"])
        assert found.to_pylist()[0] == {
            "origin": "EWR",
            "event_timestamp": NOON,
            "temp": 0,
            "air__temp": 1.5,
        }
        taken = labelled.append_column("air__temp", pa.array([0]))
        with pytest.raises(InvalidInput, match="air__temp"):
            store.get_historical_features(taken, ["air:temp"])

    def test_keys_of_several_columns_match_in_all_of_them(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        """(1, "b") is not (1, "a"), and not (11, "b") either."""
        path = tmp_path / "pairs.parquet"
        write(path, n=[1, 1, 11], s=["a", "b", "b"], event_timestamp=[NOON] * 3, v=[10, 20, 30])
        store.apply(FeatureView("pairs", ["n", "s"], ["v"], path))
        frame = framed(
            "pyarrow", s=["b", "a", "a", "b"], n=[1, 1, 11, None], event_timestamp=[NOON] * 4
        )
        found = store.get_historical_features(frame, ["pairs:v"])
        assert found["v"].to_pylist() == [20, 10, None, None]

    def test_values_keep_their_types(self, store: FeatureStore, tmp_path: Path) -> None:
        """A large integer stays exact beside a null, and NaN is a number."""
        path = tmp_path / "types.parquet"
        big = 2**53 + 1
        write(
            path,
            k=[1],
            event_timestamp=[NOON],
            i=[big],
            b=[True],
            s=["é\x00"],
            f=[nan],
            t=[NOON],
            d=[date(2024, 2, 29)],
        )
        store.apply(FeatureView("types", ["k"], ["i", "b", "s", "f", "t", "d"], path))
        asked = [f"types:{name}" for name in "ibsftd"]
        for kind in ("pandas", "polars", "pyarrow"):
            frame = framed(kind, k=[1, 2], event_timestamp=[NOON, NOON])
            found = listed(store.get_historical_features(frame, asked))
            assert found["i"] == [big, None], kind
            assert found["b"] == [True, None]
            assert found["s"] == ["é\x00", None]
            assert found["t"] == [NOON, None]
            assert found["d"] == [date(2024, 2, 29), None]
            if kind != "pandas":  # There NaN and null are one.
                assert isnan(found["f"][0])
                assert found["f"][1] is None

    def test_an_empty_frame_has_an_empty_answer(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """No rows is no error, and the columns are there."""
        frame = framed("pyarrow", origin=["EWR"], event_timestamp=[NOON]).slice(0, 0)
        found = store.get_historical_features(frame, ["weather:temp"])
        assert found.column_names == ["origin", "event_timestamp", "temp"]
        assert found.num_rows == 0

    def test_the_time_of_the_rows_may_have_another_name(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """Rows and events need not call their time alike."""
        frame = framed("pyarrow", origin=["EWR"], departs=[NOON])
        found = store.get_historical_features(frame, ["weather:temp"], timestamp="departs")
        assert found["temp"].to_pylist() == [1.5]

    def test_what_cannot_be_joined_is_refused_with_a_name(
        self, store: FeatureStore, weather: FeatureView, tmp_path: Path
    ) -> None:
        """A wrong frame is told what it lacks, and what there is."""
        good = framed("pyarrow", origin=["EWR"], event_timestamp=[NOON])
        asked = ["weather:temp"]
        with pytest.raises(InvalidInput, match=r"lacks the column 'origin'.*'event_timestamp'"):
            store.get_historical_features(good.drop_columns("origin"), asked)
        with pytest.raises(InvalidInput, match="lacks the column 'event_timestamp'"):
            store.get_historical_features(good.drop_columns("event_timestamp"), asked)
        with pytest.raises(InvalidInput, match="no time"):
            store.get_historical_features(
                pa.table({"origin": ["EWR"], "event_timestamp": [3]}), asked
            )
        with pytest.raises(InvalidInput, match="origin"):
            store.get_historical_features(
                framed("pyarrow", origin=[1], event_timestamp=[NOON]), asked
            )
        with pytest.raises(InvalidInput, match="frame"):
            store.get_historical_features("weather.parquet", asked)

    def test_what_does_not_exist_is_not_found(
        self, store: FeatureStore, weather: FeatureView, tmp_path: Path
    ) -> None:
        """A view, a feature, a service and a file each say their name and the nearest right one."""
        frame = framed("pyarrow", origin=["EWR"], event_timestamp=[NOON])
        for asked, wrong in (
            (["wether:temp"], "wether"),
            (["weather:tmp"], "tmp"),
            ("no-such-service", "no-such-service"),
        ):
            with pytest.raises(NotFound, match=wrong):
                store.get_historical_features(frame, asked)
            with pytest.raises(NotFound, match=wrong):
                store.get_online_features([{"origin": "EWR"}], asked)
        for malformed in (["weather"], [":temp"], [], "weather:temp", ["weather:temp"] * 2):
            with pytest.raises(InvalidInput):
                store.get_historical_features(frame, malformed)
        store.apply(FeatureView("gone", ["origin"], ["temp"], tmp_path / "gone.parquet"))
        with pytest.raises(NotFound, match=r"gone\.parquet"):
            store.get_historical_features(frame, ["gone:temp"])

    def test_a_source_that_lacks_a_column_is_named(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """The missing column and the ones that are there."""
        frame = framed("pyarrow", origin=["EWR"], event_timestamp=[NOON])
        store.apply(FeatureView("a", ["origin"], ["wind"], weather.source))
        store.apply(FeatureView("b", ["origin"], ["temp"], weather.source, timestamp="when"))
        store.apply(FeatureView("c", ["origin"], ["created"], weather.source, timestamp="temp"))
        with pytest.raises(InvalidInput, match="'wind'"):
            store.get_historical_features(frame, ["a:wind"])
        with pytest.raises(InvalidInput, match="'when'"):
            store.get_historical_features(frame, ["b:temp"])
        with pytest.raises(InvalidInput, match="'temp'"):
            store.get_historical_features(frame, ["c:created"])

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(
        events=st.lists(st.tuples(*[st.integers(0, hi) for hi in (2, 12, 2)]), max_size=25),
        rows=st.lists(
            st.tuples(st.integers(0, 3) | st.none(), st.integers(-2, 20)), min_size=1, max_size=25
        ),
        ttl=st.sampled_from([0, 1, 5]),
        with_created=st.booleans(),
        pushed=st.integers(0, 25),
    )
    def test_no_value_comes_from_the_future_ever(
        self,
        store: FeatureStore,
        tmp_path: Path,
        events: list[Event],
        rows: list[tuple[int | None, int]],
        ttl: int,
        with_created: bool,
        pushed: int,
    ) -> None:
        """Whatever the events and the rows, the answer is that of the simplest search."""
        name = f"view{next(_counter)}"
        path = tmp_path / f"{name}.parquet"
        pushed = min(pushed, len(events)) if "push_offline" in store.capabilities else 0
        columns = event_columns(events)
        cut = len(events) - pushed
        write(path, **{key: column[:cut] for key, column in columns.items()})
        view = FeatureView(
            name,
            ["k"],
            {"v": "int"},
            path,
            created="created" if with_created else None,
            ttl=ttl * MINUTE,
        )
        store.apply(view)
        if pushed:
            late = {key: column[cut:] for key, column in columns.items()}
            store.push(name, late, to="offline")
        frame = pa.table(
            {
                "k": pa.array([k for k, _ in rows], pa.int64()),
                "event_timestamp": [NOON + t * MINUTE for _, t in rows],
            }
        )
        found = store.get_historical_features(frame, [f"{name}:v"])["v"].to_pylist()
        assert len(found) == len(rows)
        for (key, at), value in zip(rows, found, strict=True):
            if value is not None:
                assert events[value][1] <= at, "a value from the future"
            assert value in acceptable(events, key, at, ttl, with_created)

    # Definitions.

    def test_a_definition_reads_back_equal(self, store: FeatureStore) -> None:
        """Every field of a view and of a service."""
        view = FeatureView(
            "full",
            ["a", "b c"],
            {"x": float, "y é": "str"},
            "some/where/*.parquet",
            "at",
            "written",
            timedelta(days=2, microseconds=1),
        )
        service = FeatureService("model-1.2", ["full:x", "full:y é"])
        store.apply(view, service)
        assert store.get_view("full") == view
        assert store.list_views() == [view]
        assert store.get_service("model-1.2") == service
        assert store.list_services() == [service]

    def test_applying_again_replaces_and_keeps_the_others(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """A new ttl counts at once, and nothing else is touched."""
        other = FeatureView("other", ["k"], ["v"])
        store.apply(other)
        changed = FeatureView("weather", ["origin"], ["temp"], weather.source, ttl=60)
        store.apply(changed, changed)
        assert store.list_views() == [other, changed]
        assert history(store, [("EWR", NOON + 2 * MINUTE)]) == [None]

    def test_apply_stores_all_or_nothing(self, store: FeatureStore) -> None:
        """A service that refers to nothing takes the view beside it down."""
        view = FeatureView("v", ["k"], ["x"])
        with pytest.raises(NotFound, match="v:y"):
            store.apply(view, FeatureService("s", ["v:x", "v:y"]))
        assert store.list_views() == []
        assert store.list_services() == []
        with pytest.raises(InvalidInput, match="'v'"):
            store.apply(view, FeatureView("v", ["k"], ["other"]))
        with pytest.raises(InvalidInput, match="cannot be applied"):
            store.apply(view, "weather")  # type: ignore[arg-type]  # on purpose
        assert store.list_views() == []

    def test_a_service_keeps_what_it_asks_for(self, store: FeatureStore) -> None:
        """A view or a feature that a service names cannot go before the service does."""
        store.apply(FeatureView("v", ["k"], ["x", "y"]), FeatureService("s", ["v:y"]))
        with pytest.raises(Conflict, match="'s'"):
            store.delete_view("v")
        with pytest.raises(Conflict, match="v:y"):
            store.apply(FeatureView("v", ["k"], ["x"]))
        assert store.get_view("v").features == ("x", "y")
        store.delete_service("s")
        store.delete_view("v")
        views: list[Callable[[str], object]] = [store.get_view, store.delete_view, store.stats]
        for missing in views:
            with pytest.raises(NotFound, match="'v'"):
                missing("v")
        services: list[Callable[[str], object]] = [store.get_service, store.delete_service]
        for missing in services:
            with pytest.raises(NotFound, match="'s'"):
                missing("s")

    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_a_hostile_name_is_refused_and_found_nowhere(
        self, store: FeatureStore, name: str
    ) -> None:
        """It is refused where it would be stored, and unknown where it is asked for."""
        with pytest.raises(InvalidName):
            FeatureView(name, ["k"], ["v"])
        with pytest.raises(InvalidName):
            FeatureService(name, ["v:x"])
        with pytest.raises((NotFound, InvalidName)):
            store.get_view(name)
        with pytest.raises((NotFound, InvalidName)):
            store.delete_view(name)
        with pytest.raises((NotFound, InvalidName)):
            store.push(name, [{"k": 1, "v": 2, "event_timestamp": NOON}])

    def test_a_source_that_cannot_be_reached_is_refused_when_it_is_applied(
        self, store: FeatureStore
    ) -> None:
        """Not in the middle of a training run."""
        view = FeatureView("far", ["k"], ["v"], "s3://bucket/features")
        if "remote_sources" in store.capabilities:
            store.apply(view)
            return
        with pytest.raises(Unsupported, match="remote_sources"):
            store.apply(view)

    # Online.

    def test_each_value_says_what_it_is_worth(self, store: FeatureStore) -> None:
        """FRESH, EXPIRED, MISSING and NULL, each with the time of its event."""
        pushed(store, ("new", NOON, 1), ("old", NOON - timedelta(hours=1, microseconds=1), 2))
        pushed(store, ("null", NOON, None), ("edge", NOON - timedelta(hours=1), 3))
        asked = [{"k": key} for key in ("new", "old", "none", "null", "edge", None)]
        found = store.get_online_features(asked, ["v:x"], now=NOON)
        cells = [row["v:x"] for row in found.rows]
        assert [cell.status for cell in cells] == [
            "FRESH",
            "EXPIRED",
            "MISSING",
            "NULL",
            "FRESH",
            "MISSING",
        ]
        assert [cell.value for cell in cells] == [1, None, None, None, 3, None]
        assert cells[0].event_time == NOON
        assert cells[1].event_time == NOON - timedelta(hours=1, microseconds=1)
        assert cells[2].event_time is None
        assert cells[3].event_time == NOON
        assert found.statuses("v:x") == [cell.status for cell in cells]
        assert found.to_dict() == {
            "k": ["new", "old", "none", "null", "edge", None],
            "x": [1, None, None, None, 3, None],
        }

    def test_max_age_and_ttl_both_count(self, store: FeatureStore) -> None:
        """The shorter one decides, and age is measured from the clock unless told otherwise."""
        pushed(store, ("a", NOON, 1))
        later = NOON + 10 * MINUTE
        for max_age, status in ((None, "FRESH"), (600, "FRESH"), (599.999999, "EXPIRED")):
            found = store.get_online_features([{"k": "a"}], ["v:x"], max_age, now=later)
            assert found.rows[0]["v:x"].status == status
        found = store.get_online_features(
            [{"k": "a"}], ["v:x"], timedelta(days=9), now=NOON + timedelta(hours=1, microseconds=1)
        )
        assert found.rows[0]["v:x"].status == "EXPIRED"
        assert store.get_online_features([{"k": "a"}], ["v:x"]).rows[0]["v:x"].status == "EXPIRED"
        with pytest.raises(InvalidInput, match="max_age"):
            store.get_online_features([{"k": "a"}], ["v:x"], -1)

    def test_a_moment_given_sees_no_later_event(self, store: FeatureStore) -> None:
        """A replay of the past is not told the future."""
        pushed(store, ("a", NOON, 1))
        for now, status in ((NOON, "FRESH"), (NOON - TICK, "MISSING")):
            found = store.get_online_features([{"k": "a"}], ["v:x"], now=now)
            assert found.rows[0]["v:x"].status == status

    def test_an_older_event_never_overwrites_a_newer_one(self, store: FeatureStore) -> None:
        """Late events, in one batch or in the next, change nothing."""
        needs(store, "online_order")
        pushed(store, ("a", NOON, 1), ("a", NOON - TICK, 2))
        pushed(store, ("a", NOON - MINUTE, 3))
        assert online(store, "a") == (1, NOON)
        pushed(store, ("a", NOON, 4))
        assert online(store, "a") == (4, NOON), "an event told again is a correction"

    def test_of_online_events_at_one_time_the_newest_created_wins(
        self, store: FeatureStore
    ) -> None:
        """As in history."""
        needs(store, "push", "online_order")
        store.apply(FeatureView("c", ["k"], ["x"], created="created"))
        for x, created in ((1, NOON), (2, NOON - MINUTE)):
            row = {"k": 1, "x": x, "event_timestamp": NOON, "created": created}
            store.push("c", [row])
        assert store.get_online_features([{"k": 1}], ["c:x"]).to_dict()["x"] == [1]

    def test_values_read_back_equal(self, store: FeatureStore) -> None:
        """Whatever is accepted, to the last bit."""
        needs(store, "push")
        values: dict[str, list[Any]] = {
            "i": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1],
            "f": [0.1, inf, -inf, 5e-324, 1e308],
            "s": ["", "é", "\x00", "日本", "x" * 10_000],
            "b": [True, False, True, None, False],
            "t": [NOON, NOON.astimezone(timezone(timedelta(hours=9))), NOON + TICK, None, NOON],
            "d": [date(2024, 2, 29), date(1, 1, 1), None, date(9999, 12, 31), date(1970, 1, 1)],
            "y": [b"", b"\x00\xff", None, b"a", b"b"],
        }
        store.apply(FeatureView("v", ["k"], list(values)))
        store.push("v", {"k": [0, 1, 2, 3, 4], "event_timestamp": [NOON] * 5, **values})
        found = store.get_online_features({"k": [4, 3, 2, 1, 0]}, [f"v:{n}" for n in values])
        for name, column in values.items():
            back = found.to_dict()[name][::-1]
            assert back == column, name
            assert [type(v) for v in back] == [type(v) for v in column]

    def test_nan_is_a_number_and_zero_has_a_sign(self, store: FeatureStore) -> None:
        """NULL says that nothing is there; NaN is something."""
        pushed(store, ("nan", NOON, nan), ("zero", NOON, -0.0))
        found = store.get_online_features({"k": ["nan", "zero"]}, ["v:x"], now=NOON)
        assert found.statuses("v:x") == ["FRESH", "FRESH"]
        assert isnan(found.rows[0]["v:x"].value)
        assert copysign(1, found.rows[1]["v:x"].value) == -1

    def test_a_list_reads_back_equal(self, store: FeatureStore) -> None:
        """An embedding, online and in history."""
        needs(store, "push", "push_offline", "list_values")
        store.apply(FeatureView("e", ["k"], {"x": "list"}))
        store.push("e", [{"k": 1, "x": [0.5, -1.0, 3.25], "event_timestamp": NOON}])
        assert store.get_online_features([{"k": 1}], ["e:x"]).to_dict()["x"] == [[0.5, -1.0, 3.25]]
        found = store.get_historical_features(
            framed("pyarrow", k=[1], event_timestamp=[NOON]), ["e:x"]
        )
        assert found["x"].to_pylist() == [[0.5, -1.0, 3.25]]

    def test_a_key_matches_by_value_and_type(self, store: FeatureStore) -> None:
        """1 is not "1", and not True."""
        needs(store, "push")
        store.apply(FeatureView("n", ["k"], ["x"]))
        store.push("n", [{"k": 1, "x": "int", "event_timestamp": NOON}])
        found = store.get_online_features({"k": [1, "1", 1.0, True]}, ["n:x"])
        assert found.to_dict()["x"] == ["int", None, "int", None]
        with pytest.raises(InvalidInput, match=r"1\.5"):
            store.get_online_features({"k": [1.5]}, ["n:x"])
        with pytest.raises(InvalidInput, match="lacks the column 'k'"):
            store.get_online_features([{"key": 1}], ["n:x"])

    def test_an_answer_keeps_the_order_and_repeats(self, store: FeatureStore) -> None:
        """As many rows as were asked for, several views side by side."""
        pushed(store, ("a", NOON, 1), ("b", NOON, 2))
        store.apply(FeatureView("w", ["j"], ["x"]), FeatureService("both", ["v:x", "w:x"]))
        store.push("w", {"j": [7], "x": ["seven"], "event_timestamp": [NOON]})
        rows = [{"k": k, "j": j} for k, j in (("b", 7), ("a", 8), ("b", 7))]
        found = store.get_online_features(rows, "both", now=NOON)
        assert found.to_dict() == {
            "k": ["b", "a", "b"],
            "j": [7, 8, 7],
            "v__x": [2, 1, 2],
            "w__x": ["seven", None, "seven"],
        }
        assert len(found.rows) == 3
        assert dict(found.rows[-1])["w:x"].value == "seven"
        service = store.get_service("both")
        assert store.get_online_features(rows, service, now=NOON).to_dict() == found.to_dict()

    @pytest.mark.parametrize("kind", ["rows", "columns", "pandas", "polars", "pyarrow"])
    def test_events_and_questions_come_in_any_form(self, store: FeatureStore, kind: str) -> None:
        """A frame, a list of dicts, or a dict of columns."""
        needs(store, "push")
        store.apply(FeatureView("v", ["k"], {"x": "float", "s": "str"}, timestamp="at"))
        columns: dict[str, list[Any]] = {
            "k": [1, 2],
            "x": [0.5, None],
            "s": ["a", None],
            "at": [NOON, NOON],
            "extra": [1, 2],
        }
        store.push("v", formed(kind, columns))
        found = store.get_online_features(formed(kind, {"k": [2, 1, 3]}), ["v:x", "v:s"])
        assert found.statuses("v:x") == ["NULL", "FRESH", "MISSING"]
        assert found.to_dict() == {"k": [2, 1, 3], "x": [None, 0.5, None], "s": [None, "a", None]}
        assert found.rows[1]["v:s"].event_time == NOON

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"k": None, "x": 1.0, "event_timestamp": NOON}, "null key"),
            ({"k": 1.5, "x": 1.0, "event_timestamp": NOON}, "1.5"),
            ({"k": 1, "x": 1.0, "event_timestamp": None}, "no time"),
            ({"k": 1, "x": 1.0, "event_timestamp": 1710072000}, "no time"),
            ({"k": 1, "x": 1.0}, "event_timestamp"),
            ({"k": 1, "event_timestamp": NOON}, "'x'"),
            ({"k": 1, "x": "warm", "event_timestamp": NOON}, "'warm'"),
            ({"k": 1, "x": True, "event_timestamp": NOON}, "True"),
            ({"k": 1, "x": 2**64, "event_timestamp": NOON}, str(2**64)),
            ({"k": 1, "x": object(), "event_timestamp": NOON}, "object"),
        ],
    )
    def test_a_wrong_event_is_refused_and_nothing_is_stored(
        self, store: FeatureStore, row: dict[str, Any], said: str
    ) -> None:
        """The good event beside it is not stored either."""
        needs(store, "push")
        store.apply(FeatureView("v", ["k"], {"x": "float"}))
        good = {"k": 9, "x": 1.0, "event_timestamp": NOON}
        with pytest.raises(InvalidInput, match=said):
            store.push("v", [good, row])
        assert store.get_online_features([{"k": 9}], ["v:x"]).statuses("v:x") == ["MISSING"]
        assert store.stats("v").online_rows == 0

    def test_a_feature_keeps_one_type(self, store: FeatureStore) -> None:
        """Undeclared, it is what it was first; an int may become a float."""
        pushed(store, ("a", NOON, 1))
        pushed(store, ("a", NOON + TICK, 1.5))
        with pytest.raises(InvalidInput, match="str"):
            pushed(store, ("a", NOON + MINUTE, "two"))
        assert online(store, "a") == (1.5, NOON + TICK)

    def test_a_push_reaches_the_readers_it_is_meant_for(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """Online, offline, or both; the source file is not touched."""
        needs(store, "push", "push_offline")
        at = NOON + 20 * MINUTE
        for i, to in enumerate(("online", "offline", "both")):
            row = {"origin": to, "event_timestamp": at, "created": at, "temp": float(i)}
            store.push("weather", [row], to=to)
        asked = ["online", "offline", "both", "EWR"]
        assert history(store, [(origin, at) for origin in asked]) == [None, 1.0, 2.0, 2.5]
        found = store.get_online_features({"origin": asked}, ["weather:temp"], now=at)
        assert found.to_dict()["temp"] == [0.0, None, 2.0, None]
        with pytest.raises(InvalidInput, match="nowhere"):
            store.push("weather", [], to="nowhere")

    def test_deleting_a_view_deletes_what_was_online(self, store: FeatureStore) -> None:
        """A view of that name starts empty."""
        pushed(store, ("a", NOON, 1))
        store.delete_view("v")
        store.apply(FeatureView("v", ["k"], ["x"]))
        assert store.get_online_features([{"k": "a"}], ["v:x"]).statuses("v:x") == ["MISSING"]
        assert store.stats("v").online_rows == 0

    def test_a_new_feature_is_missing_until_an_event_has_it(self, store: FeatureStore) -> None:
        """MISSING, not NULL: nobody said that there is nothing."""
        pushed(store, ("a", NOON, 1))
        store.apply(FeatureView("v", ["k"], ["x", "y"]))
        found = store.get_online_features([{"k": "a"}], ["v:x", "v:y"])
        assert {ref: cell.status for ref, cell in found.rows[0].items()} == {
            "v:x": "FRESH",
            "v:y": "MISSING",
        }

    def test_stats_count_what_is_held(self, store: FeatureStore, weather: FeatureView) -> None:
        """Rows online, the newest event, and how far it was materialized."""
        stats = store.stats("weather")
        assert (stats.online_rows, stats.newest_event, stats.materialized_until) == (0, None, None)
        store.materialize(NOON - MINUTE, NOON + MINUTE, ["weather"])
        stats = store.stats("weather")
        assert stats.name == "weather"
        assert stats.online_rows == 2
        assert stats.newest_event == NOON
        assert stats.materialized_until == NOON + MINUTE

    # Materialize.

    def test_materialize_puts_the_newest_event_of_the_window_online(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """Both ends count, and of one time the newest created."""
        assert store.materialize(NOON, NOON + 10 * MINUTE - TICK) == {"weather": 2}
        assert temps(store) == [1.5, 30.0]
        assert store.materialize(NOON + 10 * MINUTE, NOON + 10 * MINUTE) == {"weather": 1}
        assert temps(store) == [2.5, 30.0]

    def test_materialize_twice_or_backwards_changes_nothing(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """Windows may overlap, repeat and come in any order."""
        needs(store, "online_order")
        for start, end in ((0, 10), (0, 10), (0, 9), (-99, 0)):
            store.materialize(NOON + start * MINUTE, NOON + end * MINUTE)
            assert temps(store) == [2.5, 30.0]

    def test_materialize_leaves_a_newer_push_alone(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """What happened after the file was written stays."""
        needs(store, "push", "online_order")
        later = NOON + 30 * MINUTE
        row = {"origin": "EWR", "event_timestamp": later, "created": later, "temp": 99.0}
        store.push("weather", [row], to="online")
        store.materialize(NOON, later)
        assert temps(store) == [99.0, 30.0]

    def test_a_window_that_ends_before_it_begins_is_refused(
        self, store: FeatureStore, weather: FeatureView
    ) -> None:
        """So is a view that does not exist."""
        with pytest.raises(InvalidInput, match="before it begins"):
            store.materialize(NOON, NOON - TICK)
        with pytest.raises(NotFound, match="'wether'"):
            store.materialize(NOON, NOON, ["wether"])

    def test_history_and_online_agree(self, store: FeatureStore, weather: FeatureView) -> None:
        """What a model learns from is what it is served."""
        for minutes in (0, 5, 10, 60, 61, 70, 71):
            at = NOON + minutes * MINUTE
            store.materialize(NOON - MINUTE, at)
            found = store.get_online_features(
                {"origin": ["EWR", "JFK", "XXX"]}, ["weather:temp"], now=at
            )
            rows = [(origin, at) for origin in ("EWR", "JFK", "XXX")]
            assert found.to_dict()["temp"] == history(store, rows), minutes

    def test_threads_may_push_and_read_at_once(self, store: FeatureStore) -> None:
        """The newest event wins, and a reader sees an event whole."""
        needs(store, "push", "online_order")
        store.apply(FeatureView("v", ["k"], ["x", "y"]))

        def push(i: int) -> None:
            row = {"k": 1, "x": i, "y": -i, "event_timestamp": NOON + (i * 7 % 40) * TICK}
            store.push("v", [row], to="online")
            seen = store.get_online_features([{"k": 1}], ["v:x", "v:y"]).rows[0]
            assert seen["v:x"].value == -seen["v:y"].value

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(push, range(40)))
        newest = next(i for i in range(40) if i * 7 % 40 == 39)
        assert store.get_online_features([{"k": 1}], ["v:x"]).to_dict()["x"] == [newest]


_counter = itertools.count()


def needs(store: FeatureStore, *capabilities: str) -> None:
    """Skip where the backend says that it cannot, with the reason it gives."""
    for name in capabilities:
        if name not in store.capabilities:
            pytest.skip(store.capabilities[name].note)


def write(path: Path, **columns: list[Any]) -> None:
    """Write a Parquet file."""
    pq.write_table(pa.table(columns), path)


def framed(kind: str, **columns: list[Any]) -> Any:
    """Return columns as a frame of a kind."""
    if kind == "pyarrow":
        return pa.table(columns)
    module = pytest.importorskip(kind)
    return module.DataFrame(columns)


def formed(kind: str, columns: dict[str, list[Any]]) -> Any:
    """Return columns in any form in which rows may come."""
    if kind == "columns":
        return columns
    if kind == "rows":
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return framed(kind, **columns)


def listed(frame: Any) -> dict[str, list[Any]]:
    """Return a frame of any kind as lists, where every kind of null is None."""
    if hasattr(frame, "to_pydict"):
        return frame.to_pydict()  # type: ignore[no-any-return]  # pyarrow
    if hasattr(frame, "isna"):
        nulls = frame.isna()
        return {
            name: [None if null else v for v, null in zip(frame[name], nulls[name], strict=True)]
            for name in frame.columns
        }
    return frame.to_dict(as_series=False)  # type: ignore[no-any-return]  # polars


def history(store: FeatureStore, rows: Sequence[tuple[str, datetime]]) -> list[float | None]:
    """Return the temperature that was known at some places and times."""
    frame = pa.table(
        {"origin": [origin for origin, _ in rows], "event_timestamp": [at for _, at in rows]}
    )
    found = store.get_historical_features(frame, ["weather:temp"])
    return found["temp"].to_pylist()  # type: ignore[no-any-return]  # pyarrow


def temps(store: FeatureStore) -> list[float | None]:
    """Return the temperatures that are online, whatever their age."""
    found = store.get_online_features(
        {"origin": ["EWR", "JFK"]}, ["weather:temp"], now=NOON + 30 * MINUTE
    )
    return found.to_dict()["temp"]


def pushed(store: FeatureStore, *events: tuple[str, datetime, Any]) -> None:
    """Push events to the view ``v`` with the key ``k`` and the feature ``x``, an hour of ttl."""
    needs(store, "push")
    if "v" not in [view.name for view in store.list_views()]:
        store.apply(FeatureView("v", ["k"], ["x"], ttl=3600))
    rows = [{"k": key, "event_timestamp": at, "x": x} for key, at, x in events]
    store.push("v", rows, to="online")


def online(store: FeatureStore, key: str) -> tuple[Any, datetime | None]:
    """Return the value and the event time that are online for a key of the view ``v``."""
    cell = store.get_online_features([{"k": key}], ["v:x"], now=NOON + 2 * MINUTE).rows[0]["v:x"]
    return cell.value, cell.event_time


def event_columns(events: list[Event]) -> dict[str, Any]:
    """Return events as columns; the value of each is its place."""
    return {
        "k": pa.array([k for k, _, _ in events], pa.int64()),
        "event_timestamp": pa.array(
            [NOON + t * MINUTE for _, t, _ in events], pa.timestamp("us", "UTC")
        ),
        "created": pa.array([NOON + c * MINUTE for _, _, c in events], pa.timestamp("us", "UTC")),
        "v": pa.array(range(len(events)), pa.int64()),
    }


def acceptable(
    events: list[Event], key: int | None, at: int, ttl: int, with_created: bool
) -> set[int | None]:
    """Return the places of the events that may answer a row, by looking at every one of them."""
    known = [
        (time, created if with_created else 0, place)
        for place, (k, time, created) in enumerate(events)
        if k == key and time <= at and (not ttl or at - time <= ttl)
    ]
    if not known:
        return {None}
    best = max(known)[:2]
    return {place for *rank, place in known if tuple(rank) == best}
