"""What a comparison of tools has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

Fate = Literal["kept", "changed", "refused", "lost", "unnoticed", "ran code"]


class Verdict(BaseModel):
    """What became of one case.

    Attributes:
        kind: Such as ``param``, ``metric``, ``tag`` or ``file``.
        what: What is hard about it.
        fate: What happened to it.
        detail: What reads back instead, or the error.
        meant: What may become of it and be right.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    what: str
    fate: Fate
    detail: str = ""
    meant: tuple[Fate, ...] = ("kept",)

    @property
    def well(self) -> bool:
        """Whether that is right."""
        return self.fate in self.meant


class Outage(BaseModel):
    """What a program meets that logs to a server that is not there.

    Attributes:
        ended: Whether it ended within the time that it was given.
        code: Its exit code, if it ended.
        took_s: How long it took, or was given.
        left: How many of its hundred values are on the disk afterwards, to be sent later.
        detail: The last line that it printed.
    """

    model_config = ConfigDict(frozen=True)

    ended: bool
    code: int | None
    took_s: float
    left: int = 0
    detail: str = ""


class Death(BaseModel):
    """What a program meets whose server is killed while it logs.

    Attributes:
        ended: Whether it ended within the time that it was given after that.
        code: Its exit code, if it ended.
        took_s: How long it went on after that, or was given.
        blocked_s: The longest that it waited for one call.
        at_least: Whether that call had not returned by then, so that `blocked_s` is a lower bound.
        in_finish: Whether that call was the end of the run, not one that logs.
        exception: What it met, if a call raised.
        acknowledged: How many of its hundred values were logged by calls that returned.
        found: How many of these the server has when it is started again.
        found_after_sync: How many it has once the tool has sent what it kept; None if it keeps
            nothing to send.
        error: Why there is no result.
    """

    model_config = ConfigDict(frozen=True)

    ended: bool = False
    code: int | None = None
    took_s: float = 0.0
    blocked_s: float = 0.0
    at_least: bool = False
    in_finish: bool = False
    exception: str = ""
    acknowledged: int = 0
    found: int = 0
    found_after_sync: int | None = None
    error: str = ""


class ToolResult(BaseModel):
    """One way to one tool.

    Attributes:
        tool: The backend's name, or its config line as it may be shown.
        way: ``native`` for the tool's own client, ``mlopskit`` for ours.
        made: What the comparison made where the line says, and left there; empty if nothing.
        version: Of the tool's package.
        verdicts: What became of each case.
        p50_us: The median time of a call that logs three metrics, in microseconds.
        p99_us: Its 99th percentile.
        points_per_s: Points stored a second, from the first call to the end of the run.
        import_s: CPU seconds to import the client; ours imports the tool when it is opened.
        start_s: Seconds from an interpreter without imports to a first run.
        calls_ms: Of a registry: the median time of a call in milliseconds, by what it does.
        imported_before: What of mlopskit and the tool had been imported where an import or a first
            run was measured: nothing, or the times mean nothing.
        stored_bytes: What a run with 3,000 points takes on the disk, with all that is beside it;
            None where it is not on this disk.
        outage: What happens without a server; None for tools that have none.
        death: What happens when the server dies, likewise.
        error: Why there is no result.
    """

    model_config = ConfigDict(frozen=True)

    tool: str
    way: Literal["native", "mlopskit"]
    made: str = ""
    version: str = ""
    verdicts: tuple[Verdict, ...] = ()
    p50_us: float = 0.0
    p99_us: float = 0.0
    points_per_s: float = 0.0
    import_s: float = 0.0
    start_s: float = 0.0
    calls_ms: Mapping[str, float] = {}
    imported_before: tuple[str, ...] = ()
    stored_bytes: int | None = None
    outage: Outage | None = None
    death: Death | None = None
    error: str = ""

    def count(self, fate: Fate) -> int:
        """Return how many cases met a fate."""
        return sum(each.fate == fate for each in self.verdicts)


class ToolComparison(BaseModel):
    """Several tools, each by its own client and through mlopskit.

    Attributes:
        domain: What the tools are for.
        date: When, in ISO 8601 and UTC.
        machine: How many CPUs it has, and how busy it was before and after.
        times: How often each cost was measured; each is the median.
        versions: Of Python, mlopskit and the tools.
        results: One for each way to each tool.
        capabilities: By capability and tool, what the backend declares.
    """

    model_config = ConfigDict(frozen=True)

    domain: str
    date: str
    machine: str = ""
    times: int = 1
    versions: Mapping[str, str] = {}
    results: tuple[ToolResult, ...] = ()
    capabilities: Mapping[str, Mapping[str, str]] = {}
