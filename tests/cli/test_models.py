"""``mlopskit models``."""

from __future__ import annotations

import io
import json
from datetime import UTC, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def good_enough(asked: object) -> bool:
    return True


def never(asked: object) -> bool:
    return False


@pytest.fixture
def models(tmp_path: Path) -> None:
    """Register two versions, promote one, and have a gate refuse the other."""
    with mk.load() as kit:
        registry = kit.registry
        for number, auc in ((1, 0.1 + 0.2), (2, 0.75)):
            file = tmp_path / f"{number}.bin"
            file.write_bytes(b"model" * number)
            registry.register("churn", file, metrics={"auc": auc}, description="a \x1b[31m tree")
        registry.set_alias("churn", "champion", 1)
        registry.promote("churn", 1, "production", [good_enough], why="the first")
        registry.promote("churn", 2, "production", [never])


@pytest.mark.usefixtures("models")
def test_every_model_is_one_line_with_where_its_versions_are(cli: Callable[..., Done]) -> None:
    done = cli("models")

    assert done.code == 0, done.err
    (record,) = done.records
    assert record[:-1] == ["churn", "2", "2", "production=1", "@champion=1", "auc=0.75"]


@pytest.mark.usefixtures("models")
def test_one_model_is_shown_with_its_versions_and_its_history(cli: Callable[..., Done]) -> None:
    done = cli("models", "churn")

    assert done.code == 0, done.err
    first, second = (each for each in done.records if each[-1:] == ["a \\x1b[31m tree"])
    assert first[:3] == ["1", "production", "@champion"]
    assert "auc=0.30000000000000004" in first
    assert second[:3] == ["2", "none", "-"]
    whats = [each[2] for each in done.records[done.out.splitlines().index("History") + 1 :]]
    assert whats == ["registered", "registered", "alias set @champion", "promoted", "refused"]
    assert "the first" in done.out
    assert "never" in done.out.splitlines()[-1], "a refusal shows its reasons"


@pytest.mark.usefixtures("models")
def test_json_has_the_decisions_with_their_reasons(cli: Callable[..., Done]) -> None:
    found = json.loads(cli("models", "churn", "--json").out)

    assert [each["metrics"]["auc"] for each in found["versions"]] == [0.1 + 0.2, 0.75]
    last = found["history"][-1]
    assert last["action"] == "refused"
    assert last["decision"]["approved"] is False
    assert any("never" in reason for reason in last["decision"]["reasons"])
    (model,) = json.loads(cli("models", "--json").out)
    assert model["stages"] == {"production": 1}
    assert model["metrics"] == {"auc": 0.75}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["chrun", "../x"])
def test_a_model_that_is_not_there_is_told(name: str, cli: Callable[..., Done]) -> None:
    done = cli("models", name)

    assert done.code in (1, 2)
    assert repr(name) in done.err
    assert "Traceback" not in done.err


def test_an_empty_registry_says_so_beside_the_output(cli: Callable[..., Done]) -> None:
    done = cli("models")

    assert done.code == 0, done.err
    assert done.records == []
    assert done.err.startswith("There are no models.")


@pytest.mark.usefixtures("models")
def test_the_history_alone_is_a_log(cli: Callable[..., Done]) -> None:
    done = cli("models", "log", "churn")
    assert [each[2] for each in done.records] == [
        "registered",
        "registered",
        "alias set @champion",
        "promoted",
        "refused",
    ]
    assert len(cli("models", "log", "churn", "2").records) == 2
    assert len(json.loads(cli("models", "log", "churn", "--json").out)) == 5


def test_a_model_that_is_called_like_a_command_can_be_shown(
    tmp_path: Path, cli: Callable[..., Done]
) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"a")
    with mk.load() as kit:
        kit.registry.register("log", file)

    assert cli("models", "show", "log").records[0][:2] == ["VERSION", "STAGE"]
    assert cli("models", "log").code == 2
    assert cli("models", "--home", str(tmp_path / "other")).code == 0


@pytest.mark.usefixtures("models")
def test_versions_are_searched_and_compared(cli: Callable[..., Done]) -> None:
    done = cli("models", "search", "metrics.auc > 0.5")
    assert [each[:2] for each in done.records] == [["churn", "2"]]
    assert "column 1" in cli("models", "search", "params.lr > 0.5").err
    both = cli("models", "compare", "churn", "1", "latest")
    assert ["auc", "0.30000000000000004", "0.75"] in both.records
    assert "Files" in both.out
    same = cli("models", "compare", "churn", "@champion", "production")
    assert "differs" in same.err


@pytest.mark.usefixtures("models")
def test_the_holder_of_another_time_is_shown(cli: Callable[..., Done]) -> None:
    assert cli("models", "at", "churn", "production", "2999-01-01").records[0][0] == "1"
    gone = cli("models", "at", "churn", "production", "2001-01-01")
    assert gone.code == 1
    assert "2001" in gone.err
    assert cli("models", "at", "churn", "production", "yesterday").code == 2


@pytest.mark.usefixtures("models")
def test_a_printed_time_finds_what_happened_in_its_second(cli: Callable[..., Done]) -> None:
    with mk.load() as kit:
        entry = next(each for each in kit.registry.history("churn") if each.after == "production")
    shown = f"{entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    assert f"{shown}Z" in cli("models", "churn").out

    away = entry.at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    for said in (f"{shown}Z", shown, shown.replace(" ", "T"), f"{away:%Y-%m-%dT%H:%M:%S}+05:30"):
        assert cli("models", "at", "churn", "production", said).code == 0, said
    earlier = (entry.at - timedelta(microseconds=1000)).astimezone(UTC).isoformat()
    if "." not in earlier:
        earlier = earlier.replace("+", ".000+")
    assert cli("models", "at", "churn", "production", earlier).code == 1
    assert cli("models", "at", "churn", "production", f"{shown}+05:30").code == 1


@pytest.mark.usefixtures("models")
def test_files_are_downloaded(tmp_path: Path, cli: Callable[..., Done]) -> None:
    done = cli("models", "download", "churn", "2", str(tmp_path / "out"))
    assert done.out.strip() == str(tmp_path / "out")
    assert (tmp_path / "out" / "2.bin").read_bytes() == b"modelmodel"
    assert cli("models", "download", "churn", "2", str(tmp_path / "out")).code == 1


@pytest.mark.usefixtures("models")
def test_aliases_move_and_go(cli: Callable[..., Done]) -> None:
    assert cli("models", "alias", "churn", "champion", "2").records[0][0] == "2"
    assert cli("models", "alias", "churn", "champion").code == 2
    assert cli("models", "alias", "churn", "champion", "--delete").code == 0
    assert cli("models", "alias", "churn", "champion", "--delete").code == 1
    with mk.load() as kit:
        assert kit.registry.get_model("churn").aliases == {}


@pytest.mark.usefixtures("models")
def test_a_stage_is_rolled_back(cli: Callable[..., Done]) -> None:
    with mk.load() as kit:
        kit.registry.promote("churn", 2, "production")
    done = cli("models", "rollback", "churn", "production", "--why", "slow")
    assert done.records[0][:2] == ["1", "production"]
    assert "slow" in cli("models", "log", "churn").out


@pytest.mark.usefixtures("models")
def test_models_and_versions_are_edited(cli: Callable[..., Done]) -> None:
    assert cli("models", "edit", "churn", "2", "--tag", "team=a=b", "--tag", "x=").code == 0
    assert cli("models", "edit", "churn", "2", "--untag", "x", "--description", "new").code == 0
    assert cli("models", "edit", "churn", "--description", "who leaves").code == 0
    assert cli("models", "edit", "churn").code == 2
    assert "KEY=TEXT" in cli("models", "edit", "churn", "--tag", "team").err
    with mk.load() as kit:
        version = kit.registry.get_version("churn", 2)
        assert (version.tags, version.description) == ({"team": "a=b"}, "new")
        assert kit.registry.get_model("churn").description == "who leaves"


@pytest.mark.usefixtures("models")
def test_deleting_asks_first(cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    answers("n\n")
    refused = cli("models", "delete", "churn", "2")
    assert refused.code == 1
    assert refused.err.endswith("Nothing was deleted.\n")
    answers("")
    unanswered = cli("models", "delete", "churn", "2")
    assert unanswered.code == 2
    assert "Nobody has answered, and nothing was deleted. Pass --yes." in unanswered.err
    assert cli("models", "delete", "churn", "1", "--yes").code == 1  # It is in production.
    answers("y\n")
    assert cli("models", "delete", "churn", "2").code == 0
    with mk.load() as kit:
        assert [each.version for each in kit.registry.list_versions("churn")] == [1]


@pytest.mark.usefixtures("models")
def test_bytes_are_collected_only_when_it_is_asked_for(cli: Callable[..., Done]) -> None:
    cli("models", "delete", "churn", "2", "--yes")
    planned = json.loads(cli("models", "gc", "--window", "0", "--json").out)
    assert planned["dry_run"] is True
    assert len(planned["removed"]) == 2  # The file and the manifest.
    done = cli("models", "gc", "--window", "0", "--apply")
    assert len(done.records) == 2
    assert done.err.startswith("Removed 2 files")
    assert cli("models", "gc", "--window", "0").records == []


@pytest.mark.usefixtures("models")
def test_requests_are_made_listed_and_decided(cli: Callable[..., Done]) -> None:
    assert "Nothing waits" in cli("models", "pending").err
    made = cli("models", "request", "churn", "2", "production", "--why", "better", "--by", "ada")
    (record,) = made.records
    number = record[0]
    assert cli("models", "pending", "churn").records[0][0] == number
    own = cli("models", "approve", "churn", number, "--by", "ada")
    assert own.code == 1
    assert "Another person" in own.err
    assert "approved" in cli("models", "approve", "churn", number, "--by", "grace").out
    assert cli("models", "reject", "churn", number, "--by", "grace").code == 1
    assert cli("models", "request", "churn", "2", "production").code == 2


@pytest.mark.usefixtures("models")
def test_a_request_says_how_it_is_decided(cli: Callable[..., Done]) -> None:
    """Its number is no version's, nor one more than that of the request before."""
    asked = cli("models", "request", "churn", "2", "production", "--why", "w", "--by", "ada")
    number = asked.records[0][0]
    waiting = cli("models", "pending")
    again = cli("models", "request", "churn", "2", "production", "--why", "w", "--by", "bob")
    wrong = cli("models", "approve", "churn", "999", "--by", "bob")
    assert cli("models", "approve", "churn", number, "--by", "bob").code == 0
    decided = cli("models", "reject", "churn", number, "--by", "eve")

    assert asked.err == f"Another person decides: mlopskit models approve churn {number}\n"
    assert "REQUEST is the number that" in waiting.err
    assert f"request {number} is pending until 2" in again.err
    assert "Approve or reject that one." in again.err
    assert f"There is no request 999 of 'churn'. There is: {number}." in wrong.err
    assert f"Request {number} of 'churn' was approved by 'bob', and cannot be" in decided.err


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("none", "'none' is where versions begin, and is not rolled back."),
        ("archived", "'archived' is where versions go that leave other stages, and is not"),
    ],
)
def test_the_ends_of_the_stages_are_not_rolled_back(
    cli: Callable[..., Done], stage: str, said: str
) -> None:
    refused = cli("models", "rollback", "churn", stage)

    assert refused.code == 1
    assert said in refused.err
    assert refused.err.endswith("Stages that can be: staging, production.\n")


@pytest.mark.usefixtures("models")
def test_a_change_is_confirmed(cli: Callable[..., Done]) -> None:
    assert cli("models", "edit", "churn", "--tag", "a=b").err == "'churn' is changed.\n"
    assert cli("models", "edit", "churn", "2", "--tag", "a=b").err == (
        "Version 2 of 'churn' is changed.\n"
    )
    assert "pass --description, --tag or --untag" in cli("models", "edit", "churn").err
