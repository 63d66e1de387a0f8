"""Many processes and threads use W&B's registry at once, and some are killed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import wandb_places
from tests.registry.processes import FORKS, forked, killed, left_whole
from tests.registry.wandb_places import history_of, links_of, opened

from mlopskit.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.registry.processes import Steps

    from mlopskit.registry import Registry
    from mlopskit.testing.wandb_server import WandbServer

wandb = pytest.importorskip("wandb")
backend = pytest.importorskip("mlopskit.registry.wandb")
registry = wandb_places.registry


# Many at once.


@FORKS
def test_processes_number_versions_without_gaps(server: WandbServer, source: Path) -> None:
    def work(number: int) -> None:
        with opened(server, actor=f"worker {number}") as mine:
            for _ in range(4):
                mine.register("churn", source)

    assert forked(work, 4) == [0] * 4
    with opened(server) as registry:
        versions = [each.version for each in registry.list_versions("churn")]
        assert versions == list(range(1, 17))
        entries = registry.history("churn")
        assert [entry.id for entry in entries] == list(range(1, 17))
        assert sorted(entry.version or 0 for entry in entries) == versions
        assert len({entry.by for entry in entries}) == 4


@FORKS
def test_of_processes_that_promote_one_wins(server: WandbServer, source: Path) -> None:
    with opened(server) as registry:
        for _ in range(4):
            registry.register("churn", source)

    def work(number: int) -> None:
        with opened(server, actor=f"worker {number}") as mine:
            mine.promote("churn", number + 1, "production", [lambda c: c.holder is None])

    assert forked(work, 4) == [0] * 4
    with opened(server) as registry:
        actions = [entry.action for entry in registry.history("churn")]
        assert (actions.count("promoted"), actions.count("refused")) == (1, 3)
        holder = registry.get_version("churn", "production").version
        linked = links_of(server)
        assert linked["aliases"]["production"] == holder - 1


@FORKS
def test_nothing_that_processes_write_at_once_is_lost(server: WandbServer, source: Path) -> None:
    """Each counts up a tag that it must have read."""
    with opened(server) as registry:
        registry.register("churn", source)

    def work(number: int) -> None:
        with opened(server, actor=f"worker {number}") as mine:
            for turn in range(5):
                mine.set_alias("churn", f"a{number}.{turn}", 1)

    assert forked(work, 4) == [0] * 4
    with opened(server) as registry:
        wanted = sorted(f"a{number}.{turn}" for number in range(4) for turn in range(5))
        assert list(registry.get_version("churn", 1).aliases) == wanted
        entries = registry.history("churn")
        assert sorted(e.alias or "" for e in entries if e.action == "alias_set") == wanted
        history = history_of(server)["members"]
        assert len(history) > len(entries)  # Some were too late, and do not count.


def test_threads_share_a_registry(registry: Registry, source: Path) -> None:
    registry.register("churn", source)

    def work(number: int) -> None:
        registry.set_alias("churn", f"a{number}", 1)
        registry.register("churn", source)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert len(registry.get_version("churn", 1).aliases) == 8
    assert [each.version for each in registry.list_versions("churn")] == list(range(1, 10))
    assert [e.id for e in registry.history("churn")] == list(range(1, 18))


@FORKS
def test_a_registry_is_used_on_both_sides_of_a_fork(server: WandbServer, source: Path) -> None:
    with opened(server) as registry:
        registry.register("churn", source)

        def work(number: int) -> None:
            for _ in range(5):
                assert registry.get_version("churn", 1).version == 1
            registry.register("churn", source)

        assert forked(work, 3) == [0] * 3
        assert registry.get_version("churn", 1).version == 1
        assert registry.register("churn", source).version == 5


def test_a_lost_link_of_a_history_is_said(
    registry: Registry, server: WandbServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlopskit.registry.wandb_chronicle.LOOKS", 2)
    registry.register("churn", source)
    registry.promote("churn", 1, "production")
    history_of(server)["members"][0] = None
    with opened(server) as other, pytest.raises(BackendError, match="lost links"):
        other.list_versions("churn")


def test_a_link_that_shows_late_is_waited_for(
    registry: Registry, server: WandbServer, source: Path
) -> None:
    """Who did not wait would take a text for one that does not count."""
    registry.register("churn", source)
    for alias in ("a", "b"):
        registry.set_alias("churn", alias, 1)
    linked = history_of(server)
    late, linked["members"][1] = linked["members"][1], None
    look = server.on_ProjectArtifacts
    looks: list[str] = []

    def lagging(given: Any) -> Any:
        answer = look(given)
        looks.append(given["collection"])
        if looks.count("mlopskit-history.churn") == 2:
            linked["members"][1] = late
        return answer

    server.on_ProjectArtifacts = lagging  # type: ignore[method-assign]
    with opened(server) as other:
        assert [entry.id for entry in other.history("churn")] == [1, 2, 3]
        assert other.get_version("churn", 1).aliases == ("a", "b")


# Kills.


def killed_there(server: WandbServer, act: Callable[[Any], object], after: int) -> bool:
    """Act in a child that is killed before or after a request; tell whether it came so far."""

    def work(steps: Steps) -> None:
        mine = opened(server, actor="killed")
        for name in ("ask", "send"):
            setattr(mine._api, name, steps(getattr(mine._api, name)))
        act(mine)

    return killed(work, after)


@FORKS
def test_a_killed_registration_leaves_a_whole_version_or_none(
    server: WandbServer, tmp_path: Path, source: Path
) -> None:

    def register(name: str, mine: Any) -> None:
        mine.register(name, source, tags={"a": "b"})

    seen = []
    for after in range(1, 120):
        name = f"churn{after}"
        was_killed = killed_there(server, partial(register, name), after)
        with opened(server) as registry:
            seen.append(left_whole(registry, name, source, tmp_path / f"out{after}"))
            registry.delete_model(name, consent=True)
        if not was_killed:
            break

    assert not was_killed
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    assert len(seen) > 30


@FORKS
@pytest.mark.parametrize("what", ["promote", "delete", "long"])
def test_a_killed_change_is_made_whole_or_not_at_all(
    server: WandbServer, source: Path, what: str
) -> None:
    """And whoever comes next shows it in W&B."""
    acts: dict[str, Callable[[str, Any], object]] = {
        "promote": lambda n, r: r.promote(n, 2, "production"),
        "delete": lambda n, r: r.delete_model(n, consent=True),
        "long": lambda n, r: r.update_version(n, 1, tags={"a": "b" * 30_000}, description="d"),
    }
    seen = []
    for after in range(1, 100):
        name = f"churn{after}"
        with opened(server) as registry:
            registry.register(name, source)
            registry.register(name, source)
            if what == "promote":
                registry.promote(name, 1, "production")
            before = len(registry.history(name))
        was_killed = killed_there(server, partial(acts[what], name), after)
        with opened(server) as registry:
            added = registry.history(name)[before:]
            seen.append(len(added))
            linked = links_of(server, name)
            if what == "promote":
                stages = [each.stage for each in registry.list_versions(name)]
                assert stages == (["archived", "production"] if added else ["production", "none"])
                assert linked["aliases"]["production"] == (1 if added else 0)
            elif what == "delete":
                there = [each is not None for each in linked["members"]]
                assert there == [not added, True]  # The last link stays.
                assert registry.register(name, source).version == 3
            else:
                found = registry.get_version(name, 1)
                assert found.tags == ({"a": "b" * 30_000} if added else {})
                shown = server.artifacts[linked["members"][0]]["description"]
                assert shown == ("d" if added else None)
        if not was_killed:
            break

    assert not was_killed
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1 if what == "long" else 2)
