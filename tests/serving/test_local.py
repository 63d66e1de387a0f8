"""The embedded server keeps the contract, and what is its own."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mlopskit as mk
from mlopskit.errors import BackendError, ConfigError, InvalidInput, Unavailable, Unsupported
from mlopskit.serving import InferenceClient, Predictor
from mlopskit.serving.local import LocalServer
from mlopskit.testing import ServerContract
from mlopskit.testing.serving import Echo, Scaled, X

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network


class TestLocalServer(ServerContract):
    @pytest.fixture
    def tool(self) -> LocalServer:
        return LocalServer()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        LocalServer(host=host)


@pytest.mark.parametrize("token", ["", "short", "with a blank in", "ünïcödé-token"])
def test_a_token_that_cannot_be_sent_or_is_guessed_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        LocalServer(token=token)


@pytest.mark.parametrize("location", ["8080", "host:", ":80", "127.0.0.1:http", "127.0.0.1:70000"])
def test_a_location_that_is_no_address_is_refused(location: str) -> None:
    with pytest.raises(ConfigError):
        LocalServer(location)


def test_there_is_no_grpc_door_and_asking_for_it_says_why() -> None:
    with pytest.raises(Unsupported, match="HTTP"):
        LocalServer(grpc_port=0)
    assert LocalServer().grpc_url is None


def test_a_port_that_is_taken_is_told() -> None:
    with mk.open_server("local") as first:
        first.start()
        assert first.url
        with mk.open_server("local", port=int(first.url.rpartition(":")[2])) as second:
            with pytest.raises(BackendError, match="cannot be bound"):
                second.start()
            assert second.url is None


def test_a_closed_server_takes_no_models_and_does_not_start() -> None:
    server = LocalServer()
    server.close()
    for act in (server.start, server.ping, lambda: server.deploy("m", Echo())):
        with pytest.raises(Unavailable, match="closed"):
            act()


def test_a_class_is_loaded_with_its_path_and_closed_after_its_last_request(tmp_path: Path) -> None:
    happened: list[Any] = []

    class Loaded(Predictor):
        def load(self, path: Any) -> None:
            happened.append(path)

        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return inputs

        def close(self) -> None:
            happened.append("closed")

    with LocalServer() as server:
        server.deploy("m", Loaded, path=tmp_path)
        server.deploy("m", Loaded, path=tmp_path / "2")
        assert happened == [tmp_path, tmp_path / "2", "closed"]
        server.deploy("n", Loaded())
    assert happened == [tmp_path, tmp_path / "2", "closed", "closed"]


def test_an_object_with_predict_proba_is_served_by_its_probabilities() -> None:
    class Model:
        n_features_in_ = 2

        def predict(self, rows: Any) -> Any:
            raise AssertionError

        def predict_proba(self, rows: Any) -> Any:
            return np.stack([rows[:, 0], 1 - rows[:, 0]], axis=1)

    with LocalServer() as server:
        server.deploy("m", Model())
        found = server.predict("m", {"any": [[0.25, 9.0]]})
        assert found["probabilities"].tolist() == [[0.25, 0.75]]
        with pytest.raises(InvalidInput, match="3 columns"):
            server.predict("m", {"input": [[1.0, 2.0, 3.0]]})
        with pytest.raises(InvalidInput, match="one input"):
            server.predict("m", {"a": X, "b": X})
        with pytest.raises(InvalidInput, match="1 dimensions"):
            server.predict("m", {"a": X[0]})


def test_an_object_with_predict_alone_is_served_by_it() -> None:
    class Model:
        def predict(self, rows: Any) -> Any:
            return np.array(["late" if row[0] > 1 else "on time" for row in rows])

    with LocalServer() as server:
        server.deploy("m", Model())
        assert server.predict("m", {"x": X})["prediction"].tolist() == [b"on time", b"late"]


def test_a_python_list_takes_the_declared_type_unless_that_loses_something() -> None:
    with LocalServer() as server:
        server.deploy("m", Scaled(2.0))
        assert server.predict("m", {"x": [[1, 2]]})["y"].tolist() == [[2.0, 4.0]]
        with pytest.raises(InvalidInput, match="BYTES"):
            server.predict("m", {"x": [["a", "b"]]})
        with pytest.raises(InvalidInput, match="no array"):
            server.predict("m", {"x": [[1.0], [1.0, 2.0]]})


def test_a_model_that_is_not_concurrent_gets_one_request_at_a_time() -> None:
    class Alone(Predictor):
        concurrent = False
        inside = 0
        most = 0

        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            self.inside += 1
            self.most = max(self.most, self.inside)
            sum(range(10_000))
            self.inside -= 1
            return inputs

    model = Alone()
    with LocalServer() as server:
        server.deploy("m", model)

        def ask() -> None:
            for _ in range(20):
                server.predict("m", {"x": X})

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.stats("m").requests == 80
        assert server.stats("m").versions["1"].in_flight == 0
    assert model.most == 1


def test_outputs_other_than_declared_are_the_models_failure() -> None:
    class Wrong(Scaled):
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return {"y": inputs["x"].astype("f4")}

    class Complex(Echo):
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return {"y": inputs["x"] * 1j}

    class Bare(Echo):
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return inputs["x"]  # type: ignore[no-any-return]  # wrong on purpose

    class Nothing(Echo):
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return {}

    with LocalServer() as server:
        server.deploy("wrong", Wrong())
        server.deploy("nothing", Nothing())
        server.deploy("complex", Complex())
        server.deploy("bare", Bare())
        with pytest.raises(BackendError, match="FP32"):
            server.predict("wrong", {"x": X})
        with pytest.raises(BackendError, match=r"Output 'y'.*complex"):
            server.predict("complex", {"x": X})
        with pytest.raises(BackendError, match="items"):
            server.predict("bare", {"x": X})
        with pytest.raises(BackendError, match="no outputs"):
            server.predict("nothing", {"x": X})


def test_a_models_failure_is_told_in_the_log_and_not_to_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Leaving(Echo):
        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            raise SystemExit("weights.bin is gone")

    with LocalServer() as server, caplog.at_level(logging.ERROR):
        server.deploy("m", Leaving())
        server.deploy("echo", Echo())
        server.start()
        assert server.url
        with InferenceClient(server.url) as client:
            with pytest.raises(BackendError, match=r"500: the model failed$"):
                client.infer("m", {"x": X}, request_id="r-17")
            assert client.predict("echo", {"x": X})["x"].tolist() == X.tolist()
    assert "r-17" in caplog.text
    assert "weights.bin is gone" in caplog.text


def test_the_token_is_asked_for_on_every_address() -> None:
    with LocalServer(token="correct-horse") as server:
        server.deploy("m", Echo())
        server.start()
        assert server.url
        for token in (None, "correct-horsf", "correct-hors"):
            with InferenceClient(server.url, token) as client:
                assert not client.live()
                assert not client.ready("m")
                with pytest.raises(BackendError, match="401"):
                    client.predict("m", {"x": X})
        with InferenceClient(server.url, "correct-horse") as client:
            assert client.live()
            assert client.predict("m", {"x": X})["x"].tolist() == X.tolist()


def test_after_a_fork_the_door_is_the_parents() -> None:
    with LocalServer() as server:
        server.deploy("m", Echo())
        server.start()
        child = os.fork()
        if child == 0:
            try:
                right = server.url is None and server.predict("m", {"x": X})["x"][1, 1] == 5.0
                server.close()
                os._exit(0 if right else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert server.url
        with InferenceClient(server.url) as client:
            assert client.live()


def test_the_door_listens_on_ipv6_too() -> None:
    with LocalServer("[::1]:0") as server:
        try:
            server.start()
        except BackendError:
            pytest.skip("there is no IPv6 here")
        assert server.url
        assert server.url.startswith("http://[::1]:")
        with InferenceClient(server.url) as client:
            assert client.live()
