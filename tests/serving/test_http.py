"""The HTTP door as strangers see it: raw bytes in, and always an orderly answer out."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlopskit.errors import InvalidInput, Unavailable
from mlopskit.serving import InferenceClient, Predictor, protocol
from mlopskit.serving.local import LocalServer
from mlopskit.testing.serving import Echo, Gated, Scaled, X

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network

INFER = "/v2/models/scaled/infer"
GOOD = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]}]}
).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(max_body_bytes=200_000) as server:
        server.deploy("scaled", Scaled(2.0))
        server.deploy("echo", Echo())
        server.start()
        yield server


def connected(server: LocalServer) -> socket.socket:
    assert server.url
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def message(path: str = INFER, data: bytes = GOOD, method: str = "POST", **headers: Any) -> bytes:
    lines: dict[str, Any] = {"host": "localhost", "content-length": str(len(data))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"{method} {path} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return head.encode("latin-1") + b"\r\n" + data


def answers(server: LocalServer, sent: bytes, *, ends: bool = True) -> list[tuple[int, Any]]:
    """Send raw bytes, and return status and JSON of everything that comes back."""
    with closing(connected(server)) as sock:
        try:
            sock.sendall(sent)
            if ends:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The door has hung up; what it said is read below.
        received = b""
        try:
            while part := sock.recv(65536):
                received += part
        except ConnectionError:
            pass
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length, head
        size = int(length[1])
        found.append((int(head.split()[1]), json.loads(received[:size] or b"null")))
        received = received[size:]
    return found


def answer(server: LocalServer, sent: bytes) -> tuple[int, Any]:
    found = answers(server, sent + b"")
    assert len(found) == 1, found
    return found[0]


def close(**headers: str | None) -> dict[str, Any]:
    return {"connection": "close", **headers}


def test_a_good_request_is_answered(server: LocalServer) -> None:
    status, content = answer(server, message(**close()))
    assert status == 200
    assert content == {
        "model_name": "scaled",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [1, 2], "data": [2.0, 4.0]}],
    }


def test_a_chunked_request_is_answered(server: LocalServer) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, GOOD[i : i + 1]) for i in range(len(GOOD)))
    sent = message(data=b"", **close(content_length=None, transfer_encoding="chunked"))
    assert answer(server, sent + chunks + b"0\r\n\r\n")[0] == 200


def test_requests_sent_in_one_breath_are_answered_in_order(server: LocalServer) -> None:
    sent = message() + message("/v2/health/live", b"", "GET") + message("/v2/nothing", b"", "GET")
    found = answers(server, sent + message(**close()))
    assert [status for status, _ in found] == [200, 200, 404, 200]


NESTED = b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}"
HEAD = (
    b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1,2],'
    b'"parameters":{"binary_data_size":16}}]}'
)


def infer(data: bytes, **headers: str | None) -> bytes:
    return message(data=data, **close(**headers))


def of(**changed: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0], **changed}
    return infer(json.dumps({"inputs": [tensor]}).encode())


BAD: dict[str, tuple[int, bytes]] = {
    "no body": (400, infer(b"")),
    "null": (400, infer(b"null")),
    "a list": (400, infer(b"[]")),
    "an empty object": (400, infer(b"{}")),
    "half an object": (400, infer(b'{"inputs":')),
    "not UTF-8": (400, infer(b'{"inputs":"\xff"}')),
    "a UTF-16 body": (400, infer(GOOD.decode().encode("utf-16"))),
    "NUL bytes": (400, infer(b"\0" * 100)),
    "no inputs": (400, infer(b'{"inputs":[]}')),
    "inputs of another kind": (400, infer(b'{"inputs":7}')),
    "deep nesting": (400, infer(NESTED)),
    "very deep nesting": (400, infer(b"[" * 150_000)),
    "deep objects": (400, infer(b'{"a":' * 30_000)),
    "a number of 100,000 digits": (400, infer(GOOD.replace(b"1.0", b"9" * 100_000))),
    "an unknown input": (400, of(name="z")),
    "an input without a name": (400, of(name="")),
    "an input of two names": (400, of(name=["x"])),
    "another datatype": (400, of(datatype="FP32")),
    "an unknown datatype": (400, of(datatype="FLOAT")),
    "BF16": (400, of(datatype="BF16")),
    "another shape": (400, of(shape=[2])),
    "another row length": (400, of(shape=[2, 1])),
    "a negative shape": (400, of(shape=[-1, -2])),
    "an enormous shape": (400, of(shape=[2**31 - 1, 2**31 - 1])),
    "an overflowing shape": (400, of(shape=[2**63, 2**63])),
    "a shape of floats": (400, of(shape=[1.0, 2.0])),
    "a shape of texts": (400, of(shape="12")),
    "no shape": (400, of(shape=None)),
    "a hundred dimensions": (400, of(shape=[1] * 100)),
    "too little data": (400, of(data=[1.0])),
    "too much data": (400, of(data=[1.0, 2.0, 3.0])),
    "texts for numbers": (400, of(data=["1", "2"])),
    "nulls": (400, of(data=[None, None])),
    "NaN": (400, of(data=[float("nan"), 1.0])),
    "infinity": (400, of(data=[float("inf"), 1.0])),
    "ragged rows": (400, of(shape=[2, 2], data=[[1.0, 2.0], [3.0]])),
    "no data": (400, of(data={})),
    "shared memory": (400, of(parameters={"shared_memory_region": "/dev/shm/x"})),
    "parameters of another kind": (400, of(parameters=[1])),
    "an input twice": (400, infer(GOOD.replace(b"]}]", b']},{"name":"x"}]'))),
    "an output that is none": (400, infer(GOOD[:-1] + b',"outputs":[{"name":"z"}]}')),
    "an output of another kind": (400, infer(GOOD[:-1] + b',"outputs":[7]}')),
    "an id of another kind": (400, infer(GOOD[:-1] + b',"id":{}}')),
    "a sequence": (400, infer(GOOD[:-1] + b',"parameters":{"sequence_id":1}}')),
    "raw bytes that nothing announces": (400, infer(HEAD + b"\0" * 16)),
    "a header length of text": (400, infer(HEAD, inference_header_content_length="ten")),
    "a negative header length": (400, infer(HEAD, inference_header_content_length="-5")),
    "a header length beyond": (400, infer(HEAD, inference_header_content_length="99999")),
    "a header length within": (400, infer(HEAD, inference_header_content_length="10")),
    "raw bytes that are missing": (
        400,
        infer(HEAD, inference_header_content_length=str(len(HEAD))),
    ),
    "raw bytes too few": (
        400,
        infer(HEAD + b"\0" * 15, inference_header_content_length=str(len(HEAD))),
    ),
    "raw bytes too many": (
        400,
        infer(HEAD + b"\0" * 17, inference_header_content_length=str(len(HEAD))),
    ),
    "gzip": (415, infer(b"\x1f\x8b\x08", content_encoding="gzip")),
    "a form": (415, infer(GOOD, content_type="application/x-www-form-urlencoded")),
    "an upload": (415, infer(GOOD, content_type="multipart/form-data; boundary=x")),
    "plain text": (415, infer(GOOD, content_type="text/plain;charset=UTF-8")),
    "a body too large": (413, infer(b"x" * 200_001)),
    "a body said to be enormous": (413, message(data=b"", **close(content_length="9" * 18))),
    "another web page": (403, infer(GOOD, origin="https://evil.example")),
    "a page without an origin": (403, infer(GOOD, origin="null")),
    "a rebound host name": (403, infer(GOOD, host="evil.example")),
    "no host": (403, infer(GOOD, host=None)),
    "an empty host": (403, infer(GOOD, host="")),
    "an unknown model": (404, message("/v2/models/sealed/infer", **close())),
    "an unknown version": (404, message("/v2/models/scaled/versions/9/infer", **close())),
    "a path upwards": (404, message("/v2/models/../../etc/passwd/infer", **close())),
    "an escaped path upwards": (404, message("/v2/models/%2e%2e%2fetc/infer", **close())),
    "a NUL in the path": (404, message("/v2/models/%00/infer", **close())),
    "a line break in the path": (404, message("/v2/models/%0d%0aset-cookie:x/infer", **close())),
    "an escape that is none": (404, message("/v2/models/%zz%/infer", **close())),
    "bytes that are no UTF-8 in the path": (404, message("/v2/models/%ff/infer", **close())),
    "no protocol": (404, message("/", **close())),
    "version one": (404, message("/v1/models/scaled:predict", **close())),
    "loading": (403, message("/v2/repository/models/scaled/load", b"{}", **close())),
    "unloading": (403, message("/v2/repository/models/scaled/unload", b"{}", **close())),
    "an index of nonsense": (400, message("/v2/repository/index", b"[", **close())),
    "shared memory status": (404, message("/v2/systemsharedmemory/status", b"", "GET", **close())),
    "asking to infer": (405, message(INFER, b"", "GET", **close())),
    "deleting": (405, message("/v2/models/scaled", b"", "DELETE", **close())),
    "options": (405, message(INFER, b"", "OPTIONS", **close())),
    "an unknown method": (400, message(INFER, b"", "FROBNICATE", **close())),
    "no HTTP": (400, b"hello there\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "two lengths": (
        400,
        message().replace(b"content-length", b"content-length: 5\r\ncontent-length"),
    ),
    "a length and chunks": (400, infer(GOOD, transfer_encoding="chunked")),
    "a negative length": (400, infer(GOOD, content_length="-1")),
    "chunks that are none": (
        400,
        infer(b"zz\r\nxx\r\n", content_length=None, transfer_encoding="chunked"),
    ),
    "a header without a colon": (400, message().replace(b"host:", b"host")),
    "a header with a blank before the colon": (400, message().replace(b"host:", b"host :")),
    "a header with a NUL": (400, infer(GOOD, x_strange="a\0b")),
    "a hundred headers more": (431, infer(GOOD, **{f"x-{i}": "v" for i in range(120)})),
    "a header too long": (431, infer(GOOD, x_long="v" * 20_000)),
    "a header name too long": (431, infer(GOOD, **{"x" * 20_000: "v"})),
    "an address too long": (414, message("/v2/" + "x" * 20_000, **close())),
    "a header that never ends": (431, b"GET / HTTP/1.1\r\nx: " + b"v" * 1_000_000),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_a_bad_request_is_refused_in_words(server: LocalServer, kind: str) -> None:
    expected, sent = BAD[kind]
    status, content = answer(server, sent)
    assert status == expected, content
    assert set(content) == {"error"}
    assert 0 < len(content["error"]) < 700
    assert "Traceback" not in content["error"]
    assert ".py" not in content["error"]
    assert answer(server, message(**close()))[0] == 200


def test_there_are_enough_bad_requests() -> None:
    assert len(BAD) >= 60


def test_a_hangup_in_the_middle_harms_nobody(server: LocalServer) -> None:
    whole = message()
    for end in range(1, len(whole), 7):
        with closing(connected(server)) as sock:
            sock.sendall(whole[:end])
    assert answer(server, message(**close()))[0] == 200


def test_after_a_refused_body_the_connection_still_works(server: LocalServer) -> None:
    sent = message(data=b"x" * 300_000) + message("/v2/models/sealed/infer") + message(**close())
    assert [status for status, _ in answers(server, sent)] == [413, 404, 200]


def test_a_chunked_body_is_counted_while_it_comes(server: LocalServer) -> None:
    sent = message(data=b"", content_length=None, transfer_encoding="chunked")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    found = answers(server, sent + chunk * 4 + b"0\r\n\r\n" + message(**close()))
    assert [status for status, _ in found] == [413, 200]


def test_an_offer_to_change_the_protocol_is_passed_over(server: LocalServer) -> None:
    upgrade: dict[str, Any] = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAMA",
    }
    found = answers(server, message("/v2/health/live", b"", "GET", **upgrade))
    assert found == [(200, {"live": True})]
    found = answers(server, message(**upgrade))
    assert [status for status, _ in found] == [400]
    assert "plain HTTP/1.1" in found[0][1]["error"]


@pytest.mark.parametrize("head", ["/v2/health/live", "/v2", "/v2/models/scaled"])
def test_head_answers_without_a_body(server: LocalServer, head: str) -> None:
    with closing(connected(server)) as sock:
        sock.sendall(message(head, b"", "HEAD", connection="close"))
        received = sock.makefile("rb").read()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")


def test_a_client_that_waits_to_continue_is_told_to(server: LocalServer) -> None:
    with closing(connected(server)) as sock:
        sock.sendall(message(data=b"", expect="100-continue", content_length=str(len(GOOD))))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(GOOD)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_slow_clients_are_hung_up_on() -> None:
    with LocalServer() as server:
        limits = server.native.limits
        # The limits are frozen; a quick clock for this one server spares the test the seconds.
        object.__setattr__(limits, "header_s", 0.3)
        object.__setattr__(limits, "body_s", 0.6)
        server.deploy("scaled", Scaled())
        server.start()
        assert answers(server, b"", ends=False) == []
        assert answers(server, b"\r\n\r\n", ends=False) == []
        assert answers(server, b"POST /v2", ends=False)[0][0] == 408
        assert answers(server, b"POST /v2 HTTP/1.1\r\nhost: x\r\n", ends=False)[0][0] == 408
        assert answers(server, message()[:-3], ends=False)[0][0] == 408
        found = answers(server, message() + b"\r\n", ends=False)
        assert [status for status, _ in found] == [200]


def test_more_connections_than_allowed_are_told_so() -> None:
    with LocalServer(max_connections=2) as server:
        server.deploy("scaled", Scaled())
        server.start()
        with closing(connected(server)) as one, closing(connected(server)) as two:
            for sock in (one, two):
                sock.sendall(message("/v2/health/live", b"", "GET"))
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert answers(server, b"")[0][0] == 503


def test_a_full_queue_sheds_and_a_slow_model_is_told() -> None:
    model = Gated()
    with LocalServer(threads=1, queue=1, request_timeout_s=0.5) as server:
        server.deploy("m", model)
        server.start()
        found: list[tuple[int, Any]] = []
        sent = message("/v2/models/m/infer", **close())
        first = threading.Thread(target=lambda: found.append(answer(server, sent)))
        first.start()
        assert model.entered.wait(60)
        statuses = []
        threads = [
            threading.Thread(target=lambda: statuses.append(answer(server, sent)[0]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in [first, *threads]:
            thread.join(60)
        assert found[0][0] == 504
        assert set(statuses) <= {503, 504}
        assert 503 in statuses
        assert answer(server, message("/v2/health/live", b"", "GET", **close()))[0] == 200
        model.go.set()


def test_what_arrived_before_stop_is_answered() -> None:
    """uvicorn closes connections that look idle, though a request waits in the kernel."""
    for _ in range(5):
        with LocalServer() as server:
            server.deploy("scaled", Scaled(2.0))
            server.start()
            kept = [connected(server) for _ in range(8)]
            for sock in kept[:4]:
                sock.sendall(message())
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
            for sock in kept:
                sock.sendall(message())
            server.stop()
            for sock in kept:
                with closing(sock):
                    received = sock.makefile("rb").read()
                    assert received.startswith(b"HTTP/1.1 200 ")


def test_a_request_that_nobody_has_read_yet_is_answered_when_its_connection_is_shut_down() -> None:
    with LocalServer() as server:
        server.deploy("scaled", Scaled(2.0))
        server.start()
        assert server._door
        listener = server._door._listener
        kept = [connected(server) for _ in range(4)]
        for sock in kept:
            sock.sendall(message())
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")

        def arrive_and_shut() -> None:
            for sock in kept:  # On the loop's own thread: it cannot have read any of this.
                sock.sendall(message())
            for connection in listener.server_state.connections:
                connection.shutdown()

        (one, *_) = listener.server_state.connections
        one.loop.call_soon_threadsafe(arrive_and_shut)
        for sock in kept:
            with closing(sock):
                received = sock.makefile("rb").read()
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in received


def test_versions_are_swapped_under_load_and_no_request_is_lost(server: LocalServer) -> None:
    assert server.url
    server.deploy("swapped", Scaled(1.0), version="1")
    stop = threading.Event()
    counts = [0] * 4
    seen: set[tuple[str, float]] = set()
    lost: list[BaseException] = []
    with InferenceClient(server.url) as client:

        def ask(i: int) -> None:
            try:
                while not stop.is_set():
                    got = client.infer("swapped", {"x": X}, request_id=f"{i}-{counts[i]}")
                    assert got.request_id == f"{i}-{counts[i]}"
                    seen.add((got.version, float(got.outputs["y"][0, 0])))
                    counts[i] += 1
            except BaseException as exc:  # noqa: BLE001 - whatever it is, the request was lost
                lost.append(exc)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for version in range(2, 12):
            server.deploy("swapped", Scaled(float(version)), version=version)
            server.undeploy("swapped", version - 1)
            before = sum(counts)
            while sum(counts) < before + 20 and not lost:
                stop.wait(0.002)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert lost == []
    assert all(float(version) == factor for version, factor in seen)
    assert ("11", 11.0) in seen
    total = server.stats("swapped").versions["11"].requests
    assert total > 0


def test_the_client_goes_on_when_a_kept_connection_was_closed() -> None:
    server = LocalServer()
    server.deploy("scaled", Scaled(2.0))
    server.start()
    assert server.url
    port = int(server.url.rpartition(":")[2])
    client = InferenceClient(server.url)
    assert client.predict("scaled", {"x": X})["y"][0, 0] == 2.0
    server.close()
    assert not client.live()
    with pytest.raises(Unavailable):
        client.predict("scaled", {"x": X})
    with LocalServer(port=port) as again, client:
        again.deploy("scaled", Scaled(3.0))
        again.start()
        assert client.predict("scaled", {"x": X})["y"][0, 0] == 3.0


def test_the_client_reads_why_its_body_was_too_large(server: LocalServer) -> None:
    assert server.url
    with InferenceClient(server.url) as client:
        with pytest.raises(InvalidInput, match="larger than 200000"):
            client.predict("echo", {"x": np.zeros(1_000_000)})
        assert client.live()


def test_a_model_may_blame_the_request(server: LocalServer) -> None:
    class Picky(Predictor):
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            raise InvalidInput("x must grow")

    server.deploy("picky", Picky())
    status, content = answer(server, message("/v2/models/picky/infer", **close()))
    assert (status, content) == (400, {"error": "x must grow"})


def test_raw_tensors_are_taken_and_given(server: LocalServer) -> None:
    pieces, length = protocol.encode_request({"x": X}, "r", ["y"])
    sent = message(data=b"".join(pieces), **close(inference_header_content_length=str(length)))
    with closing(connected(server)) as sock:
        sock.sendall(sent)
        head, _, rest = sock.makefile("rb").read().partition(b"\r\n\r\n")
    found = re.search(rb"inference-header-content-length: (\d+)", head)
    assert found
    assert rest[int(found[1]) :] == (X * 2.0).tobytes()
    assert b"application/octet-stream" in head
    assert b"nosniff" in head
