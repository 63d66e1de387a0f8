"""The cost of a request at the embedded server, beside a bare uvicorn that says hello.

CPU microseconds of server processes per request, one client with one kept connection, rounds
interleaved; medians, and ratios to the hello of the same run. Then both in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlopskit import Predictor
from mlopskit.serving import InferenceClient, protocol, tensors
from mlopskit.serving.local import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Array = np.ndarray[Any, Any]


class First(Predictor):
    """Answers with its first input: what is measured is the way there and back."""

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"y": next(iter(inputs.values()))}


def hello() -> None:
    import uvicorn

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    # asyncio sets TCP_NODELAY only where the protocol is named; without it, every answer of two
    # packets waits for a delayed acknowledgement.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


def ours() -> None:
    server = LocalServer()
    server.deploy("m", First)
    server.start()
    assert server.url
    print(server.url.rpartition(":")[2], flush=True)
    sys.stdin.read()
    server.close()


def rows(number: int) -> dict[str, Array]:
    """Return columns of mixed types, as tabular models take them."""
    random = np.random.default_rng(0)
    texts = np.array([f"AA{i}" for i in range(number)], dtype=object)
    return (
        {f"f{i}": random.normal(size=number) for i in range(12)}
        | {f"i{i}": random.integers(0, 99, number) for i in range(8)}
        | {f"b{i}": texts for i in range(3)}
    )


def request(inputs: Mapping[str, Any], *, json: bool = False) -> bytes:
    arrays = {name: tensors.as_array(name, value) for name, value in inputs.items()}
    if json:
        import msgspec

        records = [
            {
                "name": name,
                "datatype": tensors.datatype_of(array),
                "shape": list(array.shape),
                "data": [e.decode() if isinstance(e, bytes) else e for e in array.tolist()],
            }
            for name, array in arrays.items()
        ]
        body, extra = msgspec.json.encode({"inputs": records}), ""
    else:
        pieces, length = protocol.encode_request(arrays, "", None)
        body, extra = b"".join(pieces), f"Inference-Header-Content-Length: {length}\r\n"
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def exchange(sock: socket.socket, sent: bytes) -> None:
    sock.sendall(sent)
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), received
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < size:
        body += sock.recv(65536)


def cpu_of(process: int) -> float:
    """Return the CPU seconds of a process: of its threads in nanoseconds, where Linux tells."""
    total = 0.0
    for task in Path(f"/proc/{process}/task").iterdir():
        total += int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return total


def measured(process: int, work: Callable[[], None], number: int) -> float:
    before = cpu_of(process)
    for _ in range(number):
        work()
    return (cpu_of(process) - before) / number * 1e6


def one_process(number: int, rounds: int) -> float:
    inputs = rows(50)
    took = []
    with LocalServer() as server:
        server.deploy("m", First)
        server.start()
        assert server.url
        with InferenceClient(server.url) as client:
            for _ in range(rounds + 1):
                before = time.process_time()
                for _ in range(number):
                    client.predict("m", inputs)
                took.append((time.process_time() - before) / number * 1e6)
    return statistics.median(took[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=["hello", "ours"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        (hello if given.serve == "hello" else ours)()
        return 0
    processes = {
        kind: subprocess.Popen(
            [sys.executable, __file__, "--serve", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in ("hello", "ours")
    }
    try:
        socks = {}
        for kind, process in processes.items():
            assert process.stdout
            socks[kind] = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
            socks[kind].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        small = {"x": np.arange(32, dtype="f4").reshape(1, 32)}
        large = {"x": np.zeros((64, 32), dtype="f4")}
        get = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        work = {
            "hello, bare uvicorn": ("hello", get % b"/"),
            "health": ("ours", get % b"/v2/health/live"),
            "1 x 32 floats, binary": ("ours", request(small)),
            "1 x 32 floats, JSON": ("ours", request(small, json=True)),
            "64 x 32 floats, binary": ("ours", request(large)),
            "23 columns of 50, binary": ("ours", request(rows(50))),
            "23 columns of 50, JSON": ("ours", request(rows(50), json=True)),
        }
        took: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(given.rounds + 1):
            for name, (kind, sent) in work.items():

                def ask(sock: socket.socket = socks[kind], sent: bytes = sent) -> None:
                    exchange(sock, sent)

                spent = measured(processes[kind].pid, ask, given.requests)
                if turn:  # The first round warms up.
                    took[name].append(spent)
        for sock in socks.values():
            sock.close()
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    median = {name: statistics.median(times) for name, times in took.items()}
    base = median["hello, bare uvicorn"]
    print(f"{'server process':28} {'CPU us/request':>15} {'x hello':>8}")
    for name, value in median.items():
        print(f"{name:28} {value:15.0f} {value / base:8.2f}")
    both = one_process(given.requests, given.rounds)
    print(f"{'client and server together':28} {both:15.0f} {both / base:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
