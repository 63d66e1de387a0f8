"""Triton's own client works against the embedded server, unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.serving.local import LocalServer
from mlopskit.testing.serving import SAMPLES, Echo, Scaled, X, assert_same

triton = pytest.importorskip("tritonclient.http")

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.deploy("scaled", Scaled(2.0), version="1")
        server.deploy("scaled", Scaled(3.0), version="2")
        server.deploy("echo", Echo())
        server.start()
        yield server


@pytest.fixture
def client(server: LocalServer) -> Iterator[Any]:
    assert server.url
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def given(
    array: np.ndarray[Any, Any], datatype: str, *, binary: bool = True, name: str = "x"
) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_it_finds_server_and_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scaled")
    assert client.is_model_ready("scaled", "1")
    assert not client.is_model_ready("scaled", "9")
    assert not client.is_model_ready("sealed")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("scaled") == {
        "name": "scaled",
        "versions": ["1", "2"],
        "platform": "python",
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1, 2]}],
    }
    config = client.get_model_config("scaled")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP64", "dims": [-1, 2]}]
    assert {(each["name"], each["version"]) for each in client.get_model_repository_index()} == {
        ("echo", "1"),
        ("scaled", "1"),
        ("scaled", "2"),
    }


@pytest.mark.parametrize("into", [True, False])
@pytest.mark.parametrize("out", [True, False, None])
def test_it_infers_in_both_encodings(client: Any, into: bool, out: bool | None) -> None:
    outputs = None if out is None else [triton.InferRequestedOutput("y", binary_data=out)]
    tensor = given(X, "FP64", binary=into)
    answer = client.infer("scaled", [tensor], outputs=outputs, request_id="r-1")
    assert answer.as_numpy("y").tolist() == (X * 3.0).tolist()
    response = answer.get_response()
    assert (response["id"], response["model_version"]) == ("r-1", "2")
    older = client.infer("scaled", [tensor], model_version="1")
    assert older.as_numpy("y").tolist() == (X * 2.0).tolist()


@pytest.mark.parametrize("datatype", sorted(SAMPLES))
def test_every_datatype_comes_back_equal(client: Any, datatype: str) -> None:
    sample = SAMPLES[datatype]
    answer = client.infer("echo", [given(sample, datatype)])
    assert_same(answer.as_numpy("x"), sample)


def test_it_reads_our_errors(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="'x' is missing") as bad:
        client.infer("scaled", [given(X, "FP64", name="nope")])
    assert bad.value.status() == "400"
    with pytest.raises(triton.InferenceServerException, match="no model 'sealed'") as unknown:
        client.infer("sealed", [given(X, "FP64")])
    assert unknown.value.status() == "404"
    for act in (client.load_model, client.unload_model):
        with pytest.raises(triton.InferenceServerException, match="is off"):
            act("scaled")
    with pytest.raises(triton.InferenceServerException, match="nothing"):
        client.get_system_shared_memory_status()
    with pytest.raises(triton.InferenceServerException, match="Compressed"):
        client.infer("scaled", [given(X, "FP64")], request_compression_algorithm="gzip")


def test_it_counts(client: Any) -> None:
    client.infer("scaled", [given(X, "FP64")], model_version="1")
    (row,) = client.get_inference_statistics("scaled", "1")["model_stats"]
    assert row["inference_count"] >= 1
    assert {each["name"] for each in client.get_inference_statistics()["model_stats"]} == {
        "echo",
        "scaled",
    }


def test_it_infers_in_parallel(server: LocalServer) -> None:
    assert server.url
    client = triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=4)
    try:
        asked = [client.async_infer("scaled", [given(X * i, "FP64")]) for i in range(40)]
        for i, each in enumerate(asked):
            assert each.get_result().as_numpy("y").tolist() == (X * i * 3.0).tolist()
    finally:
        client.close()
