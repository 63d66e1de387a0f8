"""``mlopskit webhooks``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.registry.receiver import SECRET, Receiver

import mlopskit as mk
from mlopskit.registry.webhooks import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Done

pytestmark = pytest.mark.network


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    """Return a receiver that the configuration names, with two events that nobody delivered."""
    made = Receiver()
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setattr(delivery, "drawn", lambda longest: 3600.0)
    config = (
        f'[[registry.webhooks]]\nurl = "{made.url}"\nsecret = "${{env:HOOK_SECRET}}"\ntries = 2\n'
    )
    Path("mlopskit.toml").write_text(config, encoding="utf-8")
    with mk.load() as kit:
        assert kit.registry.webhooks()[0].pending == 0
    file = tmp_path / "a.bin"
    file.write_bytes(b"a")
    Path("mlopskit.toml").write_text("", encoding="utf-8")
    with mk.load() as kit:
        kit.registry.register("churn", file)
        kit.registry.register("churn", file)
    Path("mlopskit.toml").write_text(config, encoding="utf-8")
    yield made
    made.close()


def test_what_was_left_is_delivered(cli: Callable[..., Done], receiver: Receiver) -> None:
    done = cli("webhooks")
    assert done.code == 0, done.err
    assert done.records[0][3:7] == ["0", "2", "0", "waits"]
    assert "token-in-path" not in done.out + done.err

    done = cli("webhooks", "deliver")
    assert done.code == 0, done.err
    assert done.records[0][3:7] == ["2", "0", "0", "up to date"]
    assert [each.said["data"]["version"] for each in receiver.messages] == [1, 2]
    assert json.loads(cli("webhooks", "--json").out)[0]["delivered"] == 2


def test_what_still_waits_fails_with_1_and_is_set_aside_in_the_end(
    cli: Callable[..., Done], receiver: Receiver
) -> None:
    receiver.answers = [500, 502, 204]
    done = cli("webhooks", "deliver")
    assert done.code == 1
    assert "HTTP 500" in done.out
    assert cli("webhooks", "deliver").code == 1
    assert len(receiver.messages) == 1

    assert cli("webhooks", "deliver", "--now").code == 0
    (dead,) = cli("webhooks", "dead").records
    assert dead[1:4] == ["churn", "1", "2"]
    assert dead[-1] == "HTTP 502"
    assert cli("webhooks", "deliver", "--dead").code == 0
    done = cli("webhooks", "dead")
    assert (done.records, done.err) == ([], "Nothing was set aside.\n")
    assert json.loads(cli("webhooks", "dead", "--json").out) == []


def test_a_disabled_one_is_enabled(cli: Callable[..., Done], receiver: Receiver) -> None:
    receiver.answers = [410]
    assert cli("webhooks", "deliver").code == 1
    (record,) = cli("webhooks").records
    assert "disabled" in record

    assert cli("webhooks", "enable", "nobody").code == 1
    done = cli("webhooks", "enable", record[0])
    assert done.code == 0, done.err
    assert done.records[0][3:7] == ["2", "0", "0", "up to date"]


def test_where_there_are_none_it_says_how_to_add_one(cli: Callable[..., Done]) -> None:
    done = cli("webhooks")
    assert (done.code, done.records) == (0, [])
    assert "[[registry.webhooks]]" in done.err
    assert "Did you mean 'deliver'" in cli("webhooks", "delivr").err
    assert "enable" in cli("webhooks", "--help").out
