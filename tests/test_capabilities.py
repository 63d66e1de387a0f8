from __future__ import annotations

import pytest

from mlopskit.capabilities import Capabilities, Capability
from mlopskit.errors import UnknownOption, Unsupported

pytestmark = pytest.mark.core

TABLE = {
    "resume": "native",
    "types": "emulated: kept as JSON beside the run",
    "live": "absent: the tool has no server",
}


def test_a_line_says_how_far_it_goes_and_why() -> None:
    able = Capabilities("tracking", "some", TABLE)

    assert able["types"] == Capability("types", "emulated", "kept as JSON beside the run")
    assert "resume" in able
    assert "types" in able
    assert "live" not in able
    assert "telepathy" not in able


def test_what_is_required_is_there_or_refused_with_the_reason() -> None:
    able = Capabilities("tracking", "some", TABLE)
    able.require(["resume", "types"])

    with pytest.raises(Unsupported, match="cannot do 'live': the tool has no server"):
        able.require(["resume", "live"])
    with pytest.raises(UnknownOption, match="Did you mean 'resume'"):
        able.require(["resum"])


@pytest.mark.parametrize("text", ["yes", "absent", "absent:", "emulated: ", ""])
def test_a_gap_without_a_reason_cannot_be_declared(text: str) -> None:
    with pytest.raises(ValueError, match="write 'native', 'emulated: <how>'"):
        Capabilities("tracking", "some", {"resume": text})
