"""What every model server keeps.

Give `ServerContract` a fixture ``tool`` that returns a server that was never started; it is closed
afterwards. A backend that serves from elsewhere may take `Echo` and the other predictors here as
the models to deploy.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from mlopskit.errors import BackendError, InvalidInput, InvalidName, NotFound
from mlopskit.serving import InferenceClient, Predictor, Server, TensorSpec
from mlopskit.serving.base import CAPABILITIES
from mlopskit.testing.tool import ToolContract

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlopskit.tool import Tool

    Array = np.ndarray[Any, Any]

# One array of every datatype, each with the values that are easily lost.
SAMPLES: dict[str, np.ndarray[Any, Any]] = {
    "BOOL": np.array([[True, False], [False, False]]),
    "UINT8": np.array([0, 255], dtype="u1"),
    "UINT16": np.array([0, 2**16 - 1], dtype="u2"),
    "UINT32": np.array([0, 2**32 - 1], dtype="u4"),
    "UINT64": np.array([0, 2**64 - 1], dtype="u8"),
    "INT8": np.array([-128, 127], dtype="i1"),
    "INT16": np.array([-(2**15), 2**15 - 1], dtype="i2"),
    "INT32": np.array([[-(2**31)], [2**31 - 1]], dtype="i4"),
    "INT64": np.array([-(2**63), 2**53 + 1, 2**63 - 1], dtype="i8"),
    "FP16": np.array([-0.0, 6e-08, 65504.0], dtype="f2"),
    "FP32": np.array([-0.0, 0.1, 3.4028235e38], dtype="f4"),
    "FP64": np.array([-0.0, 0.1, 5e-324, 1.7976931348623157e308]),
    "BYTES": np.array([["", "ü\x00"], ["a\x00\x00", "[]"]], dtype=object),
}


class Echo(Predictor):
    """Gives back what it gets, under the same names."""

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return the inputs."""
        return dict(inputs)


class Scaled(Predictor):
    """Multiplies ``x`` by a number that says which version it is."""

    inputs = (TensorSpec(name="x", datatype="FP64", shape=(-1, 2)),)
    outputs = (TensorSpec(name="y", datatype="FP64", shape=(-1, 2)),)

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return ``y``, the product."""
        return {"y": inputs["x"] * self.factor}


class Failing(Predictor):
    """Raises, and names a secret path while it does."""

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Raise."""
        raise RuntimeError("cannot open /secret/weights.bin")


class Gated(Predictor):
    """Holds every request until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return the inputs, once it may."""
        self.entered.set()
        assert self.go.wait(60)
        return dict(inputs)


X = np.array([[1.0, 2.0], [3.0, 5.0]])


class ServerContract(ToolContract):
    """The contract of a model server."""

    interface: ClassVar[type[Tool]] = Server  # type: ignore[type-abstract]  # only its methods are read
    vocabulary: ClassVar[Mapping[str, str]] = CAPABILITIES

    @pytest.fixture
    def server(self, tool: Tool) -> Iterator[Server]:
        """Return the tool under test as a server, closed afterwards."""
        assert isinstance(tool, Server)
        yield tool
        tool.close()

    @pytest.fixture
    def client(self, server: Server) -> Iterator[InferenceClient]:
        """Return a client of the started server."""
        server.start()
        assert server.url is not None
        with InferenceClient(server.url) as client:
            yield client

    def test_a_deployed_model_answers(self, server: Server) -> None:
        deployed = server.deploy("scaled", Scaled(3.0))
        assert (deployed.name, deployed.version, deployed.ready) == ("scaled", "1", True)
        assert server.ready("scaled")
        assert server.predict("scaled", {"x": X})["y"].tolist() == [[3.0, 6.0], [9.0, 15.0]]

    def test_a_version_answers_its_example_before_anybody_elses(self, server: Server) -> None:
        right = {"x": X}, {"y": X * 2.0 + 1e-9}
        server.deploy("scaled", Scaled(2.0), example=right)
        assert server.predict("scaled", {"x": X})["y"].tolist() == (X * 2).tolist()
        wrong: list[tuple[Any, str]] = [
            (({"x": X}, {"y": X * 3.0}), "otherwise"),
            (({"x": X}, {"z": X}), "missing"),
            (({"x": X}, {"y": X[:1]}), "shape"),
            ({"z": X}, "does not answer"),
        ]
        for example, why in wrong:
            with pytest.raises(BackendError, match=why):
                server.deploy("scaled", Scaled(2.0), version=2, example=example)
        with pytest.raises(BackendError, match="does not answer"):
            server.deploy("scaled", Failing(), version=2, example={"x": X})
        assert [(each.name, each.version) for each in server.models()] == [("scaled", "1")]
        server.deploy("echo", Echo(), example=({"t": ["ü"]}, {"t": ["ü"]}))

    @pytest.mark.parametrize("example", [3, ({},), ({}, {}, {}), ({"x": X}, 3), "x"])
    def test_what_is_no_example_is_refused(self, server: Server, example: Any) -> None:
        with pytest.raises(InvalidInput, match="example"):
            server.deploy("scaled", Scaled(), example=example)
        assert server.models() == []

    def test_what_was_never_deployed_is_not_found(self, server: Server) -> None:
        server.deploy("scaled", Scaled())
        assert not server.ready("sealed")
        for ask in (server.metadata, server.stats, server.undeploy):
            with pytest.raises(NotFound, match="sealed"):
                ask("sealed")
        with pytest.raises(NotFound, match="sealed"):
            server.predict("sealed", {"x": X})
        with pytest.raises(NotFound, match="'2'"):
            server.predict("scaled", {"x": X}, version=2)
        with pytest.raises(NotFound, match="'2'"):
            server.undeploy("scaled", 2)

    @pytest.mark.parametrize("name", ["../x", "", "a/b", "a b", "\u202ex", "x" * 10_000, "nul"])
    def test_a_name_that_does_not_fit_a_url_is_refused(self, server: Server, name: str) -> None:
        with pytest.raises(InvalidName):
            server.deploy(name, Scaled())
        with pytest.raises(InvalidName):
            server.deploy("scaled", Scaled(), version=name)
        assert server.models() == []

    def test_what_cannot_predict_is_refused(self, server: Server) -> None:
        with pytest.raises(InvalidInput, match="cannot be served"):
            server.deploy("scaled", object())
        with pytest.raises(InvalidInput, match="no option 'paht'"):
            server.deploy("scaled", Scaled(), paht="x")

    def test_a_version_that_fails_to_load_leaves_the_old_one_in_service(
        self, server: Server
    ) -> None:
        class Missing(Predictor):
            def load(self, path: object) -> None:
                raise FileNotFoundError(path)

            def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
                return inputs

        server.deploy("scaled", Scaled(3.0))
        with pytest.raises(BackendError, match="load failed") as failed:
            server.deploy("scaled", Missing, version="2", path="nowhere")
        assert isinstance(failed.value.__cause__, FileNotFoundError)
        assert [each.version for each in server.models()] == ["1"]
        assert server.predict("scaled", {"x": X})["y"][0, 0] == 3.0

    def test_metadata_tells_what_the_model_declares(self, server: Server) -> None:
        server.deploy("scaled", Scaled(), version="1")
        server.deploy("scaled", Scaled(), version="2")
        found = server.metadata("scaled")
        assert found.versions == ("1", "2")
        assert found.inputs == Scaled.inputs
        assert found.outputs == Scaled.outputs

    @pytest.mark.parametrize(
        ("inputs", "said"),
        [
            ({}, "'x' is missing"),
            ({"x": X, "z": X}, "'z'"),
            ({"X": X}, "'x' is missing"),
            ({"x": X.astype("f4")}, "FP32"),
            ({"x": X[0]}, r"\[2\]"),
            ({"x": X[:, :1]}, r"\[2, 1\]"),
            ({"x": X.astype(complex)}, "complex"),
        ],
    )
    def test_inputs_other_than_declared_are_refused_by_name(
        self, server: Server, inputs: dict[str, Any], said: str
    ) -> None:
        server.deploy("scaled", Scaled())
        with pytest.raises(InvalidInput, match=said):
            server.predict("scaled", inputs)

    def test_a_models_own_failure_is_a_backend_error_with_its_cause(self, server: Server) -> None:
        server.deploy("failing", Failing())
        with pytest.raises(BackendError) as failed:
            server.predict("failing", {"x": X})
        assert isinstance(failed.value.__cause__, RuntimeError)
        assert server.stats("failing").failures == 1
        assert server.stats("failing").requests == 0

    def test_the_last_deployed_version_answers_until_weights_are_set(self, server: Server) -> None:
        server.deploy("scaled", Scaled(2.0), version="1")
        server.deploy("scaled", Scaled(3.0), version="2")
        assert server.predict("scaled", {"x": X})["y"][0, 0] == 3.0
        assert server.predict("scaled", {"x": X}, version="1")["y"][0, 0] == 2.0
        server.set_traffic("scaled", {"1": 1})
        server.deploy("scaled", Scaled(5.0), version="3")
        assert server.predict("scaled", {"x": X})["y"][0, 0] == 2.0
        server.undeploy("scaled", "1")
        assert server.predict("scaled", {"x": X})["y"][0, 0] == 5.0
        with pytest.raises(NotFound):
            server.set_traffic("scaled", {"1": 1})

    def test_requests_are_shared_out_by_weight_and_stick_to_their_id(self, server: Server) -> None:
        server.deploy("scaled", Scaled(1.0), version="a")
        server.deploy("scaled", Scaled(2.0), version="b")
        server.set_traffic("scaled", {"a": 1, "b": 3})

        def answered(key: str) -> float:
            return float(server.predict("scaled", {"x": X}, request_id=key)["y"][0, 0])

        first = [answered(f"caller-{i}") for i in range(400)]
        assert 0.65 < sum(each == 2.0 for each in first) / 400 < 0.85
        assert [answered(f"caller-{i}") for i in range(400)] == first

    @pytest.mark.parametrize("weights", [{}, {"1": 0}, {"1": -1}, {"1": float("nan")}])
    def test_weights_that_make_no_sense_are_refused(
        self, server: Server, weights: dict[str, float]
    ) -> None:
        server.deploy("scaled", Scaled(2.0))
        with pytest.raises(InvalidInput):
            server.set_traffic("scaled", weights)
        assert server.predict("scaled", {"x": X})["y"][0, 0] == 2.0

    def test_a_version_is_drained_before_it_goes(self, server: Server) -> None:
        old = Gated()
        server.deploy("m", old, version="1")
        answers: list[dict[str, Array]] = []
        asking = threading.Thread(target=lambda: answers.append(server.predict("m", {"x": X})))
        asking.start()
        assert old.entered.wait(60)
        going = threading.Thread(target=lambda: server.undeploy("m", "1"))
        going.start()
        while server.ready("m"):
            pass  # Undeploy takes the version out at once, and then waits.
        assert going.is_alive()
        old.go.set()
        going.join(60)
        asking.join(60)
        assert not going.is_alive()
        assert answers[0]["x"].tolist() == X.tolist()

    def test_replacing_a_version_under_load_loses_no_request(self, server: Server) -> None:
        server.deploy("scaled", Scaled(1.0))
        stop = threading.Event()
        answered: list[float] = []
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                while not stop.is_set():
                    answered.append(float(server.predict("scaled", {"x": X})["y"][0, 0]))
            except BaseException as exc:  # noqa: BLE001 - whatever it is, the request was lost
                failed.append(exc)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for factor in range(2, 30):
            server.deploy("scaled", Scaled(float(factor)))
            seen = len(answered)
            while len(answered) < seen + 8 and not failed:
                pass
        stop.set()
        for thread in threads:
            thread.join(60)
        assert failed == []
        assert answered[-1] == 29.0
        assert set(answered) <= {float(factor) for factor in range(1, 30)}

    @pytest.mark.parametrize("datatype", sorted(SAMPLES))
    def test_every_datatype_comes_back_equal_in_process(
        self, server: Server, datatype: str
    ) -> None:
        server.deploy("echo", Echo())
        assert_same(server.predict("echo", {"x": SAMPLES[datatype]})["x"], SAMPLES[datatype])

    @pytest.mark.parametrize("datatype", sorted(SAMPLES))
    def test_every_datatype_comes_back_equal_over_http(
        self, server: Server, client: InferenceClient, datatype: str
    ) -> None:
        server.deploy("echo", Echo())
        empty = SAMPLES[datatype][:0]
        found = client.predict("echo", {"x": SAMPLES[datatype], "none": empty})
        assert_same(found["x"], SAMPLES[datatype])
        assert_same(found["none"], empty)

    def test_numbers_that_are_none_travel_as_bytes(
        self, server: Server, client: InferenceClient
    ) -> None:
        server.deploy("echo", Echo())
        x = np.array([np.nan, np.inf, -np.inf])
        assert client.predict("echo", {"x": x})["x"].tobytes() == x.tobytes()

    def test_the_model_sees_the_same_through_both_doors(
        self, server: Server, client: InferenceClient
    ) -> None:
        server.deploy("scaled", Scaled(3.0), version="7")
        answer = client.infer("scaled", {"x": X}, request_id="r-1")
        assert (answer.name, answer.version, answer.request_id) == ("scaled", "7", "r-1")
        assert_same(answer.outputs["y"], server.predict("scaled", {"x": X})["y"])

    def test_http_says_what_was_wrong_and_keeps_the_models_secrets(
        self, server: Server, client: InferenceClient
    ) -> None:
        server.deploy("scaled", Scaled())
        server.deploy("failing", Failing())
        with pytest.raises(InvalidInput, match="'x' is missing"):
            client.predict("scaled", {"z": X})
        with pytest.raises(NotFound):
            client.predict("sealed", {"x": X})
        with pytest.raises(NotFound):
            client.predict("scaled", {"x": X}, version="9")
        with pytest.raises(BackendError) as failed:
            client.predict("failing", {"x": X})
        assert "secret" not in str(failed.value)

    def test_the_doors_open_and_close_and_open(self, server: Server) -> None:
        server.deploy("scaled", Scaled(2.0))
        assert server.url is None
        for _ in range(2):
            server.start()
            server.start()
            assert server.url is not None
            with InferenceClient(server.url) as client:
                assert client.live()
                assert client.ready()
                assert client.ready("scaled")
                assert not client.ready("sealed")
                assert client.predict("scaled", {"x": X})["y"][0, 0] == 2.0
                assert client.metadata("scaled")["inputs"][0]["shape"] == [-1, 2]
            server.stop()
            server.stop()
            assert server.url is None
        assert server.predict("scaled", {"x": X})["y"][0, 0] == 2.0

    def test_stop_answers_what_it_has_accepted(
        self, server: Server, client: InferenceClient
    ) -> None:
        model = Gated()
        server.deploy("m", model)
        answers: list[dict[str, Array]] = []
        asking = threading.Thread(target=lambda: answers.append(client.predict("m", {"x": X})))
        asking.start()
        assert model.entered.wait(60)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        model.go.set()
        stopping.join(60)
        asking.join(60)
        assert answers[0]["x"].tolist() == X.tolist()

    def test_a_closed_server_is_not_live(self, server: Server) -> None:
        server.deploy("scaled", Scaled())
        assert server.live()
        assert server.ready()
        server.close()
        assert not server.live()
        assert not server.ready()
        assert not server.ready("scaled")


def assert_same(found: Array, sent: Array) -> None:
    """Check that an array came back as it was sent, to the bit; texts come back as UTF-8."""
    assert found.shape == sent.shape
    if sent.dtype.kind == "O":
        assert found.dtype.kind == "O"
        assert found.ravel().tolist() == [each.encode() for each in sent.ravel().tolist()]
    else:
        assert found.dtype == sent.dtype
        assert found.tobytes() == sent.tobytes()
