"""That what is exported can be had, where every extra is installed."""

from __future__ import annotations

import importlib

import pytest

import mlopskit

PACKAGES = ["tracking", "registry", "serving", "features", "monitoring", "pipelines", "lifecycle"]


@pytest.mark.parametrize(
    "module", ["mlopskit", *(f"mlopskit.{name}" for name in [*PACKAGES, "errors", "testing"])]
)
def test_every_exported_name_is_there(module: str) -> None:
    found = importlib.import_module(module)
    for name in found.__all__:
        assert getattr(found, name) is not None
    assert set(found.__all__) <= set(dir(found)) | set(found.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_tracer'"):
        _ = mlopskit.open_tracer
