"""The Open Inference Protocol's two encodings, without a network."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlopskit.errors import InvalidInput
from mlopskit.serving import protocol, tensors, text
from mlopskit.testing.serving import SAMPLES, assert_same


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def tensor(datatype: str, shape: list[Any], data: Any, name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def travelled(array: np.ndarray[Any, Any], *, binary: bool) -> np.ndarray[Any, Any]:
    """Send an array through a request and an answer."""
    sent = tensors.as_array("x", array)
    if binary:
        pieces, length = protocol.encode_request({"x": sent}, "r", None)
        request = protocol.decode_request(b"".join(pieces), str(length))
    else:
        data = [e.decode() if isinstance(e, bytes) else e for e in sent.ravel().tolist()]
        given_ = tensor(tensors.datatype_of(sent), list(sent.shape), data)
        request = protocol.decode_request(body(given_, id="r"), None)
    assert request.id == "r"
    answer, head = protocol.encode_response("m", "1", request, request.inputs)
    assert (head is None) is not binary
    message, outputs = protocol.decode_response(
        b"".join(answer), None if head is None else str(head)
    )
    assert (message.model_name, message.model_version, message.id) == ("m", "1", "r")
    return outputs["x"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", sorted(SAMPLES))
def test_every_datatype_survives_both_encodings(datatype: str, binary: bool) -> None:
    assert_same(travelled(SAMPLES[datatype], binary=binary), SAMPLES[datatype])
    big_endian = SAMPLES[datatype]
    if big_endian.dtype.kind in "iuf":
        big_endian = big_endian.astype(big_endian.dtype.newbyteorder(">"))
        assert_same(travelled(big_endian, binary=binary), SAMPLES[datatype])


@settings(deadline=None, max_examples=150)
@given(values=st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False)))
def test_json_keeps_every_finite_float(values: list[float]) -> None:
    sent = np.array(values, dtype="f8")
    assert travelled(sent, binary=False).tobytes() == sent.tobytes()


@settings(deadline=None, max_examples=150)
@given(values=st.lists(st.binary(max_size=40), max_size=20))
def test_bytes_are_split_where_they_were_joined(values: list[bytes]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    raw = tensors.to_bytes(array)
    assert tensors.from_bytes("x", "BYTES", [len(values)], raw).tolist() == values
    for wrong in (raw + b"\0", raw[:-1] if raw else b"\0\0\0\0"):
        with pytest.raises(InvalidInput):
            tensors.from_bytes("x", "BYTES", [len(values)], wrong)


@settings(deadline=None, max_examples=300)
@given(junk=st.binary(max_size=200), length=st.integers(0, 210))
def test_junk_is_refused_and_nothing_else_happens(junk: bytes, length: int) -> None:
    for header in (None, str(length)):
        with pytest.raises(InvalidInput):
            protocol.decode_request(junk, header)


def test_rows_may_be_nested_or_flat() -> None:
    for data in ([1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]):
        request = protocol.decode_request(body(tensor("INT32", [2, 3], data)), None)
        assert request.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6]]
        words = [["a", "b", "c"], ["d", "e", "f"]] if isinstance(data[0], list) else list("abcdef")
        request = protocol.decode_request(body(tensor("BYTES", [2, 3], words)), None)
        assert request.inputs["x"].tolist() == [[b"a", b"b", b"c"], [b"d", b"e", b"f"]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (tensor("INT8", [1], [128]), "does not fit INT8"),
        (tensor("UINT8", [1], [-1]), "does not fit UINT8"),
        (tensor("INT64", [1], [2**63]), "does not fit INT64"),
        (tensor("UINT64", [1], [2**64]), "does not fit UINT64"),
        (tensor("INT32", [1], [1.5]), "does not fit INT32"),
        (tensor("INT32", [1], [True]), "does not fit INT32"),
        (tensor("INT32", [1], ["1"]), "does not fit INT32"),
        (tensor("INT32", [1], [None]), "does not fit INT32"),
        (tensor("FP16", [1], [1e6]), "does not fit FP16"),
        (tensor("FP32", [1], [1e39]), "does not fit FP32"),
        (tensor("FP32", [1], ["1.0"]), "does not fit FP32"),
        (tensor("FP32", [1], [None]), "does not fit FP32"),
        (tensor("FP64", [1], [float("nan")]), "not valid JSON"),
        (tensor("FP64", [1], [float("inf")]), "not valid JSON"),
        (tensor("BOOL", [1], [1]), "does not fit BOOL"),
        (tensor("BYTES", [1], [1]), "does not fit BYTES"),
        (tensor("BYTES", [1], ["\ud800"]), "not valid JSON"),
        (tensor("BF16", [1], [1]), "BF16"),
        (tensor("FP128", [1], [1]), "FP128"),
        (tensor("fp32", [1], [1]), "fp32"),
        (tensor("FP32", [2], [1]), r"shape \[1\]"),
        (tensor("FP32", [1], [1, 2]), r"shape \[2\]"),
        (tensor("FP32", [2, 2], [[1, 2], [3]]), "same length"),
        (tensor("FP32", [2, 2], [[1, 2, 3, 4]]), r"shape \[1, 4\]"),
        (tensor("FP32", [2], [[1, 2]]), "does not fit"),
        (tensor("FP32", [2], [[[1, 2]]]), "does not fit"),
        (tensor("FP32", [1], 1), "does not fit"),
        (tensor("FP32", [1], {"a": 1}), "does not fit"),
        (tensor("FP32", [1], None), "x"),
        (tensor("FP32", [-1], [1]), "out of range"),
        (tensor("FP32", [2**31], []), "out of range"),
        (tensor("FP32", [2**40, 0], []), "out of range"),
        (tensor("FP32", [0, *[2**31 - 1] * 4], []), "too large"),
        (tensor("FP32", [1] * 17, [1]), "dimensions"),
        (tensor("FP32", [1.5], [1]), "inference request"),
        (tensor("FP32", ["1"], [1]), "inference request"),
        (tensor("FP32", [2**70], [1]), "x|inference request|JSON"),
        ({"name": "x", "datatype": "FP32", "shape": [1]}, "no data"),
        ({"name": "x", "datatype": "FP32", "data": [1]}, "shape"),
        ({"name": "x", "shape": [1], "data": [1]}, "datatype"),
        ({"datatype": "FP32", "shape": [1], "data": [1]}, "name"),
        ({**tensor("FP32", [1], [1]), "name": 5}, "name"),
        ({**tensor("FP32", [1], [1]), "parameters": {"binary_data_size": 4}}, "body has"),
        ({**tensor("FP32", [1], [1]), "parameters": {"binary_data_size": 0}}, "both"),
        ({**tensor("FP32", [1], [1]), "parameters": {"binary_data_size": -1}}, "body has"),
        ({**tensor("FP32", [1], [1]), "parameters": {"binary_data_size": True}}, "body has"),
        ({**tensor("FP32", [1], [1]), "parameters": {"a": {"b": 1}}}, "parameters"),
        (
            {**tensor("FP32", [1], [1]), "parameters": {"shared_memory_region": "x"}},
            "Shared memory",
        ),
    ],
)
def test_a_tensor_that_does_not_add_up_is_refused(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        protocol.decode_request(body(bad), None)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [null]}',
        b'{"inputs": [[[[]]]]}',
        b"\xff\xfe",
        b'{"inputs": [], "inputs": 1}',
        body(tensor("FP32", [1], [1]), tensor("FP32", [1], [1])),
        body(tensor("FP32", [1], [1]), id=7),
        body(tensor("FP32", [1], [1]), id="x" * 2000),
        body(tensor("FP32", [1], [1]), outputs=[{"name": "y"}, {"name": "y"}]),
        body(tensor("FP32", [1], [1]), outputs=[{"name": 1}]),
        body(
            tensor("FP32", [1], [1]), outputs=[{"name": "y", "parameters": {"classification": 3}}]
        ),
        body(
            tensor("FP32", [1], [1]),
            outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}],
        ),
        body(tensor("FP32", [1], [1]), parameters={"sequence_id": 4}),
        body(tensor("FP32", [1], [1])) + b"trailing",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1e999]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1,]}]}',
        b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[' + b"9" * 5000 + b"]}]}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"inputs":' + b"[" * 33 + b"]" * 33 + b"}",
    ],
)
def test_a_request_that_is_none_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInput):
        protocol.decode_request(bad, None)


@pytest.mark.parametrize("length", ["-1", "1.5", "", "x", "9" * 30, "0", "5", "٣", "1000000"])
def test_a_header_length_that_leads_astray_is_refused(length: str) -> None:
    with pytest.raises(InvalidInput):
        protocol.decode_request(body(tensor("FP32", [1], [1])), length)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", [2], b"\0" * 7),
        ("FP32", [2], b"\0" * 9),
        ("FP32", [2**31 - 1] * 2, b"\0" * 8),
        ("BOOL", [2], b"\x01\x02"),
        ("BYTES", [1], b"\xff\xff\xff\xffx"),
        ("BYTES", [1], b"\x01\0\0\0"),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("BYTES", [2**31 - 1], b"\0" * 400),
        ("BYTES", [1], b"\0\0\0\0\0"),
    ],
)
def test_raw_bytes_must_be_what_the_shape_says(datatype: str, shape: list[int], raw: bytes) -> None:
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": datatype,
                    "shape": shape,
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()
    with pytest.raises(InvalidInput, match="'x'"):
        protocol.decode_request(head + raw, str(len(head)))


def test_bytes_behind_the_last_tensor_are_refused() -> None:
    pieces, length = protocol.encode_request({"x": np.zeros(2)}, "", None)
    with pytest.raises(InvalidInput, match="1 bytes behind"):
        protocol.decode_request(b"".join(pieces) + b"\0", str(length))


def test_depth_counts_nesting_and_not_what_stands_in_strings() -> None:
    deepest = b"[" * 32 + b"]" * 32
    assert not protocol.too_deep(deepest)
    assert protocol.too_deep(b"[" + deepest + b"]")
    assert protocol.too_deep(b'{"a":[' * 17 + b"]}" * 17)
    assert not protocol.too_deep(b"[" + b",".join([b"[]"] * 5000) + b"]")
    assert not protocol.too_deep(b'["' + b"[" * 500 + b'"]')
    assert not protocol.too_deep(b'["\\"' + b"[" * 500 + b'"]')
    assert not protocol.too_deep(b'["\\\\", "' + b"[" * 500 + b'"]')
    assert protocol.too_deep(b'["\\\\", ' + b"[" * 40 + b'"x"' + b"]" * 41)


def test_answers_carry_what_was_asked_for_as_it_was_asked_for() -> None:
    ask = body(
        tensor("FP32", [1], [1]),
        outputs=[{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}],
    )
    request = protocol.decode_request(ask, None)
    outputs = {"a": np.array([1.5]), "b": np.array([2.5]), "c": np.array([3.5])}
    pieces, head = protocol.encode_response("m", "1", request, outputs)
    assert head == len(pieces[0])
    shown = json.loads(pieces[0])["outputs"]
    assert [each["name"] for each in shown] == ["b", "a"]
    assert shown[0]["parameters"] == {"binary_data_size": 8}
    assert shown[1]["data"] == [1.5]
    assert pieces[1:] == [np.array([2.5]).tobytes()]
    with pytest.raises(InvalidInput, match="no output 'b'"):
        protocol.encode_response("m", "1", request, {"a": outputs["a"]})


@pytest.mark.parametrize("output", [np.array([np.nan]), np.array([-np.inf], dtype="f2")])
def test_json_refuses_numbers_that_are_none_rather_than_changing_them(output: Any) -> None:
    request = protocol.decode_request(body(tensor("FP32", [1], [1])), None)
    with pytest.raises(InvalidInput, match="binary"):
        protocol.encode_response("m", "1", request, {"y": output})


def test_json_refuses_bytes_that_are_no_text() -> None:
    request = protocol.decode_request(body(tensor("FP32", [1], [1])), None)
    with pytest.raises(InvalidInput, match="binary"):
        protocol.encode_response("m", "1", request, {"y": np.array([b"\xff"], dtype=object)})


def test_decoded_arrays_belong_to_the_model() -> None:
    pieces, length = protocol.encode_request({"a": np.ones(3, "i1"), "x": np.ones(3)}, "", None)
    x = protocol.decode_request(b"".join(pieces), str(length)).inputs["x"]
    assert x.flags.writeable
    assert x.flags.aligned
    assert x.flags.owndata


def test_a_callers_own_words_are_escaped_and_cut_in_errors() -> None:
    bad = tensor("FP32", [1], [], name="\x1b[31m\n" + "x" * 500)
    with pytest.raises(InvalidInput) as refused:
        protocol.decode_request(body(bad), None)
    assert "\x1b" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_text_decodes_what_arrives_as_bytes() -> None:
    array = np.array([["ü".encode(), b""], [b"a", "b"]], dtype=object)
    assert text(array).tolist() == [["ü", ""], ["a", "b"]]
    with pytest.raises(InvalidInput, match="UTF-8"):
        text(np.array([b"\xff"], dtype=object))


@pytest.mark.parametrize(
    "value", [np.array([1 + 2j]), np.array(["2020-01-01"], "M8[D]"), np.array([{}]), [object()]]
)
def test_arrays_that_cannot_travel_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        tensors.as_array("x", value)
