"""``mlopskit doctor``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlopskit import plugins
from mlopskit.cli import checks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

ACME = ("-c", "tracking=acme")


def configured(done: Done) -> dict[str, dict[str, Any]]:
    return {each["domain"]: each for each in json.loads(done.out)["configured"]}


def test_everything_embedded_works_and_it_says_in_how_long(cli: Callable[..., Done]) -> None:
    done = cli("doctor", "--json")

    assert done.code == 0, done.out
    found = configured(done)
    assert list(found) == ["home", *plugins.DOMAINS]
    for domain in plugins.DOMAINS:
        assert found[domain]["state"] == "ok"
        assert found[domain]["seconds"] >= 0
    assert json.loads(done.out)["ok"] is True


def test_in_a_pipe_it_ends_with_the_verdict(cli: Callable[..., Done]) -> None:
    done = cli("doctor")

    assert done.out.splitlines()[-1] == "Everything that is configured works."


def test_a_tool_that_cannot_be_reached_fails_the_examination(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    ping = "from mlopskit.errors import Unavailable; raise Unavailable('acme:1', 'refused')"

    done = process("doctor", *ACME, environ=acme(ping))

    assert done.code == 1
    assert "acme:1 cannot be reached: refused" in done.out
    assert done.out.splitlines()[-1] == "Does not work: tracking (acme)"
    assert "features    local" in done.out, "the others are still examined"


def test_a_tool_that_never_answers_is_left_behind(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    ping = (
        "import threading; stuck = threading.Event(); "
        "threading.Thread(target=stuck.wait).start(); stuck.wait()"
    )

    done = process("doctor", "--timeout", "0.1", "--json", *ACME, environ=acme(ping))

    assert done.code == 1
    found = configured(done)
    assert found["tracking"]["detail"] == "it did not answer within 0.1 s"
    assert found["pipelines"]["state"] == "ok"


def test_a_bug_in_a_tool_is_told_as_what_it_is(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("doctor", "--json", *ACME, environ=acme("return 1 // 0"))

    assert done.code == 1
    assert configured(done)["tracking"]["detail"].startswith("ZeroDivisionError: ")


def test_a_broken_plugin_that_nobody_asked_for_is_named_and_harms_nobody(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("doctor", *ACME, environ=acme(broken=True))

    assert done.code == 0, done.out
    assert "The tracking backend 'bad' of the distribution 'acme-tracking' failed" in done.out
    assert "tracking/bad, of acme-tracking:" in done.err
    assert "ValueError: no \\x1b[31mflux" in done.err


def test_a_broken_plugin_that_is_configured_fails_the_examination(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("doctor", "-c", "tracking=bad", "--json", environ=acme(broken=True))

    assert done.code == 1
    assert "'acme-tracking'" in configured(done)["tracking"]["detail"]


def test_a_plugin_without_a_table_is_named(
    install: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    environ = install("acme", {"acme": "TABLE = 1\n"}, {"mlopskit.tracking": {"acme": "acme"}})

    done = process("doctor", "--json", environ=environ)

    (found,) = [each for each in json.loads(done.out)["plugins"] if each["name"] == "acme"]
    assert found["state"] == "warning"
    assert "the distribution 'acme' declares no table of capabilities" in found["detail"]


def test_a_broken_listener_fails_the_examination(
    install: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    environ = install("acme-events", {"ear": "1 / 0"}, {"mlopskit.events": {"ear": "ear"}})

    done = process("doctor", "--json", environ=environ)

    assert done.code == 1
    found = json.loads(done.out)["plugins"][-1]
    assert (found["domain"], found["name"], found["state"]) == ("events", "ear", "failed")
    assert "'acme-events'" in found["detail"]


def test_what_phones_home_is_told_and_versions_are_held_against_what_was_tested(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    found = json.loads(process("doctor", "--json", environ=acme()).out)

    told = {(each["domain"], each["backend"]): each["note"] for each in found["telemetry"]}
    assert told["tracking", "acme"] == "counts your runs; ACME_TELEMETRY=0 switches it off"
    (pluggy,) = [each for each in found["packages"] if each["backend"] == "acme"]
    assert pluggy["version"] == plugins.version_of("pluggy")
    assert (pluggy["tested"], pluggy["detail"]) == (">=1.0,<9", "tested")


def test_a_tool_that_phones_home_is_not_woken_unless_it_is_configured(
    install: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    source = "TOOL = {'telemetry': 'calls on import'}\nCAPABILITIES = {}\nraise ValueError('woken')"
    environ = install("acme", {"acme": source}, {"mlopskit.tracking": {"acme": "acme"}})

    idle = process("doctor", "--json", environ=environ)
    used = process("doctor", "--json", *ACME, environ=environ)

    assert json.loads(idle.out)["plugins"] == []
    assert "woken" in configured(used)["tracking"]["detail"]


def test_each_of_several_trackers_is_examined(
    acme: Callable[..., dict[str, str]], process: Callable[..., Done]
) -> None:
    done = process("doctor", "--json", "-c", 'tracking=["acme", "bad"]', environ=acme(broken=True))

    found = [each for each in json.loads(done.out)["configured"] if each["domain"] == "tracking"]
    assert [(each["name"], each["state"]) for each in found] == [("acme", "ok"), ("bad", "failed")]


def test_several_backends_where_one_is_allowed_are_refused(cli: Callable[..., Done]) -> None:
    done = cli("doctor", "--json", "-c", 'features=["local", "local"]')

    assert done.code == 1
    assert "Only tracking takes a list" in configured(done)["features"]["detail"]


def test_a_home_that_cannot_be_written_is_told(cli: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    done = cli("doctor", "--json", "--home", str(tmp_path / "file" / "home"))

    assert done.code == 1
    home = configured(done)["home"]
    assert home["state"] == "failed"
    assert "Choose another home with --home" in home["detail"]


def test_checking_the_home_leaves_nothing_behind(tmp_path: Path) -> None:
    assert checks.check_home(tmp_path / "home").state == "ok"
    assert list(tmp_path.glob("home*")) == []

    (tmp_path / "old").mkdir()
    assert checks.check_home(tmp_path / "old").state == "ok"
    assert list((tmp_path / "old").iterdir()) == []
