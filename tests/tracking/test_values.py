"""What may be logged, how it is written, and who writes it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.programs import launched

from mlopskit.errors import InvalidInput
from mlopskit.tracking import escapes
from mlopskit.tracking.owner import is_gone, this_process
from mlopskit.tracking.values import check_params, check_step, from_json, number, same, to_json

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
PARAMS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.just("$") | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=250)


@given(PARAMS)
def test_a_param_reads_back_with_its_types(value: object) -> None:
    (plain,) = check_params({"key": value}).values()

    found = from_json(to_json(plain))

    assert repr(found) == repr(value)
    assert same(found, plain)


@given(PARAMS)
def test_a_param_reads_back_from_a_store_of_texts(value: object) -> None:
    text = escapes.param_to_text(value)

    assert to_json(escapes.param_from_text(text)) == to_json(value)


@given(TEXTS)
def test_a_tag_reads_back_from_a_store_of_texts(value: str) -> None:
    text = escapes.tag_to_text(value)

    assert escapes.tag_from_text(text) == value
    text.encode()


@given(st.sets(KEYS, max_size=5))
def test_keys_never_meet_in_a_store_of_narrow_keys(keys: set[str]) -> None:
    stored = {key: escapes.key_to_store(key) for key in keys}
    hashed = {name: key for key, name in stored.items() if name.startswith(escapes.HASHED)}

    assert len(set(stored.values())) == len(keys)
    for key, name in stored.items():
        assert len(name) <= 250
        assert escapes.key_from_store(name, hashed) == key


@given(st.integers() | st.floats() | st.booleans())
def test_a_number_stays_what_it_is(value: float) -> None:
    found = number("loss", value)

    assert found == value or (math.isnan(found) and math.isnan(value))
    assert math.copysign(1, found) == math.copysign(1, value) if found == 0 else True
    assert math.isfinite(escapes.shown(found)) or math.isnan(found)


def test_what_has_an_item_is_asked_for_it() -> None:
    class Tensor:
        def __init__(self, value: object, ndim: int = 0) -> None:
            self.value, self.ndim = value, ndim

        def item(self) -> object:
            return self.value

    assert number("loss", Tensor(0.5)) == 0.5
    assert check_step(Tensor(3)) == 3
    assert check_params({"lr": [Tensor(True)]}) == {"lr": [True]}
    with pytest.raises(InvalidInput):
        number("loss", Tensor(0.5, ndim=1))
    with pytest.raises(InvalidInput):
        check_step(True)


def test_a_structure_without_a_bottom_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(InvalidInput, match="deeper than 64"):
        check_params({"endless": endless})


def test_an_owner_is_gone_when_its_process_is() -> None:
    code = "from mlopskit.tracking.owner import this_process; print(this_process()); input()"
    with launched(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        owner = other.stdout.readline()
        assert not is_gone(owner)
        assert not is_gone(this_process())
        other.kill()
        # Not waited for yet: a zombie has ended too.
        other.stdout.read()
        while not is_gone(owner):
            pass
        other.wait()
    assert is_gone(owner)

    host, boot, namespace, pid, started = json.loads(this_process())
    assert is_gone(json.dumps([host, "another boot", namespace, pid, started]))
    assert is_gone(json.dumps([host, boot, namespace, os.getpid(), "another start"]))
    assert not is_gone(json.dumps(["another host", "b", namespace, pid, started]))
    assert not is_gone(json.dumps([host, boot, "another container", 1, "2"]))
    assert not is_gone("")
