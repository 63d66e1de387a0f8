"""What a server tells about its models, in the words of the protocol and of Triton's extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlopskit.errors import NotFound

if TYPE_CHECKING:
    from mlopskit.serving.entities import TensorSpec, VersionStats
    from mlopskit.serving.traffic import Traffic


def metadata(traffic: Traffic, name: str, version: str | None) -> dict[str, Any]:
    """Return the page of one model."""
    found = traffic.metadata(name, version)
    return {
        "name": found.name,
        "versions": list(found.versions),
        "platform": found.platform,
        "inputs": [_tensor(spec) for spec in found.inputs],
        "outputs": [_tensor(spec) for spec in found.outputs],
    }


def config(traffic: Traffic, name: str, version: str | None) -> dict[str, Any]:
    """Return the page that Triton's model configuration extension asks for."""
    found = traffic.metadata(name, version)
    return {
        "name": found.name,
        "platform": found.platform,
        "backend": "python",
        "max_batch_size": 0,
        "input": [_configured(spec) for spec in found.inputs],
        "output": [_configured(spec) for spec in found.outputs],
    }


def stats(traffic: Traffic, name: str, version: str | None) -> dict[str, Any]:
    """Return the counts of a model's versions, or of one of them."""
    found = traffic.stats(name).versions
    chosen = found if version is None else {version: found[version]} if version in found else {}
    if not chosen:
        raise NotFound("version", version, found)
    return {"model_stats": [_counted(name, each, counts) for each, counts in chosen.items()]}


def all_stats(traffic: Traffic) -> dict[str, Any]:
    """Return the counts of every version of every model."""
    rows: list[Any] = []
    for name in dict.fromkeys(each.name for each in traffic.deployments()):
        try:
            rows += stats(traffic, name, None)["model_stats"]
        except NotFound:  # It has just been taken out of service.
            continue
    return {"model_stats": rows}


def index(traffic: Traffic) -> list[dict[str, str]]:
    """Return the page that the model repository extension asks for."""
    return [
        {"name": each.name, "version": each.version, "state": "READY", "reason": ""}
        for each in traffic.deployments()
    ]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": list(spec.shape)}


def _counted(name: str, version: str, counts: VersionStats) -> dict[str, Any]:
    success = {"count": counts.requests, "ns": int(counts.seconds * 1e9)}
    return {
        "name": name,
        "version": version,
        "inference_count": counts.requests,
        "execution_count": counts.requests,
        "inference_stats": {"success": success, "fail": {"count": counts.failures, "ns": 0}},
    }
