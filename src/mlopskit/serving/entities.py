"""The values that cross the interface of a model server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# The Open Inference Protocol's words for what numpy calls a dtype.
Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]


class Deployment(BaseModel):
    """One version of a model that a server holds.

    Attributes:
        name: The model's name.
        version: The version's name, always a text.
        ready: Whether it answers requests now.
        weight: The share of the model's requests that name no version and go to this one.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    ready: bool
    weight: float = 1.0


class TensorSpec(BaseModel):
    """One input or output of a model.

    Attributes:
        name: Its name in requests and answers.
        datatype: Its type in the words of the Open Inference Protocol, such as ``"FP32"``.
        shape: Its shape with the batch dimension; ``-1`` stands for any length.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    datatype: Datatype
    shape: tuple[int, ...]


class ModelMetadata(BaseModel):
    """What a server says of a model.

    Attributes:
        name: The model's name.
        versions: The versions that are ready, oldest first.
        platform: What runs the model.
        inputs: The declared inputs; empty where the model declares none and takes what comes.
        outputs: The declared outputs; empty where the model declares none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    versions: tuple[str, ...]
    platform: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class VersionStats(BaseModel):
    """What one version has done since it was deployed.

    Attributes:
        requests: Requests that were answered.
        failures: Requests that failed at it, whether the model or the request was to blame.
        in_flight: Requests it is working on now.
        seconds: Time spent inside the model, over all requests.
    """

    model_config = ConfigDict(frozen=True)

    requests: int = 0
    failures: int = 0
    in_flight: int = 0
    seconds: float = 0.0


class ServerStats(BaseModel):
    """What the versions of one model have done.

    Attributes:
        name: The model's name.
        versions: Counts by version.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    versions: Mapping[str, VersionStats]

    @property
    def requests(self) -> int:
        """Requests that any version answered."""
        return sum(each.requests for each in self.versions.values())

    @property
    def failures(self) -> int:
        """Requests that failed at any version."""
        return sum(each.failures for each in self.versions.values())
