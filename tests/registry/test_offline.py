"""Blocks of work that open no connection."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mlopskit.errors import UntrustedModel
from mlopskit.registry.flavors.offline import offline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def reach(port: int) -> None:
    socket.create_connection(("127.0.0.1", port)).close()


def test_a_connection_is_refused_with_the_host(port: int) -> None:
    with (
        pytest.raises(UntrustedModel, match=r"the model .* reaches for 127\.0\.0\.1"),
        offline("the model"),
    ):
        reach(port)


def test_a_host_is_not_even_looked_up() -> None:
    with pytest.raises(UntrustedModel, match=r"reaches for nowhere\.invalid"), offline("the model"):
        socket.getaddrinfo("nowhere.invalid", 443)


def test_an_attempt_that_somebody_passes_over_is_refused_at_the_end(port: int) -> None:
    def passes_over() -> None:
        with suppress(Exception):
            reach(port)

    with pytest.raises(UntrustedModel, match="reaches for"), offline("the model"):
        passes_over()


def test_an_attempt_that_becomes_another_error_is_refused_as_what_it_was(port: int) -> None:
    def fails() -> None:
        try:
            reach(port)
        except Exception as exc:
            raise ValueError("no such model") from exc

    with pytest.raises(UntrustedModel, match="reaches for"), offline("the model"):
        fails()


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="broken"), offline("the model"):
        raise ValueError("broken")


def test_the_network_is_there_again_afterwards(port: int) -> None:
    with offline("the model"):
        pass
    reach(port)


def test_other_threads_go_on(port: int) -> None:
    reached: list[bool] = []

    def other() -> None:
        with suppress(UntrustedModel):
            reach(port)
            reached.append(True)

    with offline("the model"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert reached == [True]


def test_sockets_of_this_machine_are_not_the_network(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with offline("the model"):
            client.connect(str(tmp_path / "s"))


def test_a_block_in_a_block_does_not_end_it(port: int) -> None:
    with pytest.raises(UntrustedModel, match=r"the outer .* reaches for"), offline("the outer"):
        with offline("the inner"):
            pass
        reach(port)
