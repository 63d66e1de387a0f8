"""Processes that use one registry at once, and some that are killed at a step of their choice."""

from __future__ import annotations

import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlopskit.registry import Registry

    Steps = Callable[[Any], Any]

FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def forked(work: Callable[[int], object], count: int) -> list[int]:
    """Run a function in forked children that begin at once; return their exit codes."""
    ready, begin = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(begin)
                os.read(ready, 1)  # The end of the pipe.
                work(number)
                code = 0
            except BaseException:  # noqa: BLE001 - a child must not go on as pytest
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    os.close(ready)
    os.close(begin)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def killed(act: Callable[[Steps], object], after: int) -> bool:
    """Act in a child that is killed before or after a step; tell whether it came so far.

    Args:
        act: What to do. It is given what makes two steps of a function: its beginning and its end.
        after: How many steps the child lives.
    """

    def work(_: int) -> None:
        seen = 0

        def step() -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                os.kill(os.getpid(), signal.SIGKILL)

        def steps(real: Any) -> Any:
            def call(*given: Any, **named: Any) -> Any:
                step()
                answer = real(*given, **named)
                step()
                return answer

            return call

        act(steps)

    (code,) = forked(work, 1)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def left_whole(registry: Registry, name: str, source: Path, out: Path) -> int:
    """Check that a killed registration left a whole version or none, and that another one works.

    Args:
        registry: Where it was killed.
        name: The model, which had no version before.
        source: What was registered, of 7 bytes and with the tag ``a``.
        out: Where to download it to.

    Returns:
        How many versions it left.
    """
    count = sum(model.versions for model in registry.list_models() if model.name == name)
    if count:
        (version,) = registry.list_versions(name)
        assert (version.tags, version.size) == ({"a": "b"}, 7)
        registry.download(name, 1, out)
        (entry,) = registry.history(name)
        assert (entry.action, entry.by) == ("registered", "killed")
    else:
        with pytest.raises(NotFound):
            registry.history(name)
    assert registry.register(name, source).version == count + 1
    assert len(registry.history(name)) == count + 1
    return count
