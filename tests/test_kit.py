from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import mlopskit as mk
from mlopskit.errors import ConfigError, StorageError, UnknownOption, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


def test_a_tool_is_opened_at_its_first_use_and_closed_with_the_kit(tmp_path: Path) -> None:
    with mk.Kit(home=tmp_path / "home") as kit:
        assert not (tmp_path / "home").exists()
        with kit.tracker.start_run(experiment="churn") as run:
            run.log_metrics({"loss": 0.5}, step=0)
        assert kit.tracker is kit.tracker
        assert kit.tracker.get_run(run.id).metrics == {"loss": 0.5}
        assert (tmp_path / "home").is_dir()

    with mk.Kit(home=tmp_path / "home") as again:
        assert again.tracker.get_run(run.id).experiment == "churn"


def test_load_reads_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlopskit.toml").write_text('home = "state"\n')
    monkeypatch.chdir(tmp_path)

    with mk.load() as kit:
        assert kit.home == tmp_path / "state"
    with mk.load(home=tmp_path / "other") as kit:
        assert kit.home == tmp_path / "other"


def test_an_unknown_option_names_the_nearest_right_one() -> None:
    with pytest.raises(UnknownOption, match="no option 'locaton' in the tracking backend 'local'"):
        mk.open_tracker("local", locaton="x")


def test_only_tracking_takes_a_list() -> None:
    with pytest.raises(ConfigError, match="Only tracking takes a list"):
        _ = mk.Kit(registry=["local", "local"]).registry


def test_a_list_takes_no_loose_options() -> None:
    with pytest.raises(ConfigError, match="2 backends here"):
        mk.open_tracker(["local", "local:elsewhere"], journal_cap=1)


def test_a_required_capability_is_checked_when_the_tool_is_opened() -> None:
    with pytest.raises(UnknownOption, match="no capability 'telepathy'"):
        mk.open_tracker("local", require={"telepathy"})
    with pytest.raises(Unsupported, match="only mlopskit writes this store"):
        mk.open_tracker("local", require={"resume", "foreign_runs"})
    mk.open_tracker("local", require={"resume"}).close()


def test_a_home_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with mk.Kit(home=tmp_path / "file" / "home") as kit, pytest.raises(StorageError, match="home"):
        kit.tracker.start_run(experiment="e")


def test_a_kit_says_what_it_is_made_of() -> None:
    assert "tracking=mlflow" in repr(mk.Kit(tracking="mlflow:http://127.0.0.1:1"))
