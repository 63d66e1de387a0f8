from __future__ import annotations

import math
from datetime import UTC, date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlopskit.errors import InvalidInput, StorageError
from mlopskit.features import codec

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
)


@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS)))
def test_values_read_back_equal(values: dict[str, Any]) -> None:
    assert exact(codec.decode(codec.encode(values))) == exact(values)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | st.text() | st.booleans())))
def test_equal_keys_and_only_they_have_equal_bytes(keys: list[tuple[Any]]) -> None:
    by_bytes = {codec.encode_key(key): exact(list(key)) for key in keys}
    assert len(by_bytes) == len({repr(key) for key in keys})
    for data, key in by_bytes.items():
        assert exact(codec.decode_key(data)) == key


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be a key"):
        codec.encode_key(("\ud800",))
    with pytest.raises(InvalidInput, match="cannot be kept"):
        codec.encode({"x": "\ud800"})


def test_foreign_bytes_are_a_storage_error() -> None:
    for data in (b"", b"\xc1", b"\xd4\x09x", b"\x81\xa1x\xd4\x09x", b"\x81\xa1x\xd4\x01x"):
        with pytest.raises(StorageError):
            codec.decode(data)


def exact(value: Any) -> Any:
    """Tell 1 from True and from 1.0, -0.0 from 0.0, and let NaN equal itself."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    return (type(value).__name__, value.isoformat() if isinstance(value, date) else value)
