from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from mlopskit.demo.result import Decision, DemoResult, Month, Outcome, Prepared, Swap, Version

if TYPE_CHECKING:
    import pyarrow as pa

    from mlopskit.demo.data import Flights

REPORT = Path("report.html")
COLUMNS = ("carrier", "hour", "temp", "dewp", "wind_gust", "carrier_late_3h", "origin_late_24h")


class Made(Protocol):
    def __call__(
        self, report: Path = REPORT, *, text: str = "a reason", months: int = 10
    ) -> DemoResult: ...


@pytest.fixture
def made() -> Made:
    """Make a demo result that nothing had to be run for."""
    return result


@pytest.fixture(scope="session")
def flights() -> Flights:
    """Every real flight of the year."""
    from mlopskit.demo import data

    return data.read_flights(data.find())


@pytest.fixture(scope="session")
def weather() -> pa.Table:
    """The real weather of the year."""
    from mlopskit.demo import data

    return data.read_weather(data.find())


def result(report: Path = REPORT, *, text: str = "a reason", months: int = 10) -> DemoResult:
    return DemoResult(
        months=tuple(month(number, text) for number in range(3, 3 + months)),
        versions=(version(1, text), version(2, text)),
        prepared=Prepared(flights=336_776, weather=26_115, events=182_311, cached=True),
        requests=6_000,
        answered=5_999,
        run_id="0f" * 16,
        cached_steps=3,
        ran_steps=4,
        seconds=51.2,
        home=Path("home"),
        tools={"tracking": text},
        commands=(text,),
        report=report,
    )


def month(number: int, text: str = "a reason") -> Month:
    outcomes: tuple[Outcome, ...] = ("kept", "promoted", "refused")
    outcome = outcomes[number % 3]
    return Month(
        month=number,
        rows=28_834,
        labelled=27_900,
        cancelled=900,
        first_version=1,
        live_version=1 + (number > 4),
        auc_first=0.75 - number / 100,
        auc_live=0.75 - number / 200,
        drifted=(COLUMNS[2], COLUMNS[3]),
        effects={name: i / 100 for i, name in enumerate((text, *COLUMNS))},
        effects_first={name: i / 50 for i, name in enumerate((text, *COLUMNS))},
        thresholds=dict.fromkeys((text, *COLUMNS), 0.1),
        drift_share=2 / 8,
        drift_share_first=0.5,
        compared=400_000,
        differing=number,
        decision=Decision(
            outcome=outcome,
            triggers=(text,),
            gate=() if outcome == "kept" else (text,),
            champion_auc=None if outcome == "kept" else 0.7123,
            challenger_auc=None if outcome == "kept" else 0.7345,
            window_rows=12_000,
            version=None if outcome == "kept" else 2,
            swap=Swap(210, 210, {"1": 100, "2": 110}) if outcome == "promoted" else None,
        ),
    )


def version(number: int, text: str) -> Version:
    return Version(
        version=number,
        digest="sha256:" + "ab" * 32,
        run_id=text,
        fingerprint="cd" * 32,
        trained=("2013-01-01", "2013-02-28"),
        trained_until=1_362_114_000,
        rows=49_956,
        auc=0.7456,
        cached=number > 1,
    )
