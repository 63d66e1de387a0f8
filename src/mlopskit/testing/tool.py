"""What every tool keeps, whichever domain it is of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, ClassVar

import pytest

from mlopskit import plugins
from mlopskit.capabilities import Capabilities
from mlopskit.errors import UnknownOption, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.tool import Tool


class ToolContract:
    """The part of a backend's contract that all six domains share.

    A domain's contract sets `interface` and `vocabulary`, and gives `tool` its own fixture.
    """

    interface: ClassVar[type[Tool]]
    vocabulary: ClassVar[Mapping[str, str]]

    @pytest.fixture
    def tool(self) -> Tool:
        """Return the tool under test. Each domain's contract overrides this."""
        raise NotImplementedError

    def test_signatures_match_the_interface(self, tool: Tool) -> None:
        """A backend may not rename or reorder what callers pass."""
        for name, method in inspect.getmembers(self.interface, inspect.isfunction):
            if not name.startswith("_"):
                assert _shape(getattr(type(tool), name)) == _shape(method), name

    def test_every_capability_is_declared_and_nothing_else(self, tool: Tool) -> None:
        """A gap has a line and a reason in the table, so that users can read it."""
        assert {line.name for line in tool.capabilities} == set(self.vocabulary)
        for line in tool.capabilities:
            assert line.note or line.level == "native"

    def test_the_table_is_read_without_importing_the_backend(self, tool: Tool) -> None:
        """What `mlopskit backends` shows is what the opened tool says of itself."""
        name = tool.capabilities.backend
        if name not in plugins.installed(tool.domain):
            pytest.skip("a backend without an entry point is in no table")
        table = plugins.declared(tool.domain, name)["CAPABILITIES"]
        shown = Capabilities(tool.domain, name, table)
        assert list(shown) == list(tool.capabilities)

    def test_what_is_absent_is_refused_when_it_is_required(self, tool: Tool) -> None:
        """A missing capability fails when the tool is opened, never in the middle of the work."""
        for line in tool.capabilities:
            if line:
                tool.capabilities.require([line.name])
            else:
                with pytest.raises(Unsupported) as refused:
                    tool.capabilities.require([line.name])
                assert refused.value.reason == line.note
        with pytest.raises(UnknownOption, match="no capability 'telepathy'"):
            tool.capabilities.require(["telepathy"])

    def test_it_answers_a_ping(self, tool: Tool) -> None:
        """The doctor's question, on a tool that works."""
        tool.ping(timeout_s=30)

    def test_it_hands_out_the_native_client(self, tool: Tool) -> None:
        """Whoever needs more than the interface is not locked out."""
        assert tool.native is not None

    def test_it_can_be_closed_twice(self, tool: Tool) -> None:
        """`close` releases what is held, however often it is called."""
        tool.close()
        tool.close()


def _shape(method: Callable[..., object]) -> list[tuple[str, object, object]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
