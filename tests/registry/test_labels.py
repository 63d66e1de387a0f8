"""Labels of versions, proposed from what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mlopskit as mk
from mlopskit.errors import Conflict, InvalidInput, NotFound
from mlopskit.registry import Signature, TensorSpec, propose_label, write_label
from mlopskit.registry.details import Details
from mlopskit.registry.flavors import Package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

pytestmark = pytest.mark.core

A = Signature(
    inputs=(TensorSpec(name="a", dtype="float64"),), outputs=(TensorSpec(name="y", dtype="int64"),)
)
WIDER = Signature(inputs=A.inputs, outputs=(*A.outputs, TensorSpec(name="p", dtype="float64")))
OTHER = Signature(inputs=(TensorSpec(name="b", dtype="float64"),), outputs=A.outputs)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with mk.open_registry(f"local:{tmp_path / 'registry'}") as opened:
        yield opened


@pytest.fixture
def register(registry: Registry, tmp_path: Path) -> Callable[..., int]:
    def registered(content: bytes = b"weights", **more: Any) -> int:
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        return registry.register("net", path, **more).version

    return registered


def with_libraries(registry: Registry, path: Path, libraries: dict[str, str], flavor: str) -> int:
    """Register a version as if those libraries had made it."""
    package = Package(flavor, [("weights.bin", path)], libraries)
    details = Details(run_id=None, metrics={}, tags={}, description="")
    return registry._register("net", package, None, details, None).version


def test_the_first_version_is_1_0_0(registry: Registry, register: Callable[..., int]) -> None:
    register()
    found = propose_label(registry, "net", "latest")

    assert (found.label, found.change, found.previous) == ("1.0.0", "first", None)


@pytest.mark.parametrize(
    ("before", "after", "label", "change", "reason"),
    [
        ({"signature": A}, {"signature": OTHER}, "3.0.0", "major", "The input 'a' is gone."),
        ({"signature": A}, {}, "3.0.0", "major", "It has no signature, and version 1 has one."),
        ({"signature": A}, {"signature": WIDER}, "2.5.0", "minor", "The output 'p' is new."),
        ({}, {"signature": A}, "2.5.0", "minor", "It has a signature now."),
        (
            {"tags": {"architecture": "gru"}},
            {"tags": {"architecture": "transformer"}},
            *("2.5.0", "minor", "The architecture was gru and is transformer."),
        ),
        ({"signature": A}, {"signature": A}, "2.4.8", "patch", "Files that differ: 1."),
        ({"data": "d1"}, {"data": "d2"}, "2.4.8", "patch", "The data were d1 and are d2."),
        (
            {"tags": {"team": "growth"}, "code": "c1"},
            {"tags": {"team": "core"}, "code": "c2"},
            *("2.4.8", "patch", "Files that differ: 1."),
        ),
    ],
)
def test_the_number_that_rises_says_what_changed(
    registry: Registry,
    register: Callable[..., int],
    before: dict[str, Any],
    after: dict[str, Any],
    label: str,
    change: str,
    reason: str,
) -> None:
    register(**before)
    write_label(registry, "net", 1, "2.4.7")
    register(b"other weights", **after)
    found = propose_label(registry, "net", 2)

    assert (found.label, found.change) == (label, change)
    assert found.reasons[0] == reason
    assert (found.previous, found.previous_label) == (1, "2.4.7")


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("1.6.1", "1.7.0", "patch"),
        ("1.6.1", "2.0.0", "minor"),
        ("0.3.9", "0.3.10", "patch"),
        ("0.3.9", "0.4.0", "minor"),
        ("1.6.1", None, "minor"),
    ],
)
def test_a_librarys_interface_is_a_part_of_the_architecture(
    registry: Registry, tmp_path: Path, before: str, after: str | None, change: str
) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    for version in (before, after):
        with_libraries(registry, path, {"torch": version} if version else {}, "file")
    write_label(registry, "net", 1)
    found = propose_label(registry, "net", 2)

    assert found.change == change
    assert f"torch was {before} and is {after or 'not known'}." in found.reasons


def test_another_flavor_is_another_architecture(
    registry: Registry, register: Callable[..., int], tmp_path: Path
) -> None:
    register()
    write_label(registry, "net", 1)
    with_libraries(registry, tmp_path / "weights.bin", {}, "folder")

    found = propose_label(registry, "net", 2)
    assert (found.label, found.reasons[0]) == ("1.1.0", "The flavor was file and is folder.")


def test_the_same_files_again_are_told(registry: Registry, register: Callable[..., int]) -> None:
    register()
    write_label(registry, "net", 1)
    register()

    found = propose_label(registry, "net", 2)
    assert (found.label, found.reasons) == ("1.0.1", ("Its files are those of version 1.",))


def test_a_version_follows_the_latest_labelled_one_before_it(
    registry: Registry, register: Callable[..., int]
) -> None:
    for content in (b"1", b"2", b"3", b"4", b"5"):
        register(content)
    write_label(registry, "net", 1, "1.0.0")
    write_label(registry, "net", 2, "1.0.1")
    write_label(registry, "net", 5, "9.0.0")

    assert propose_label(registry, "net", 4).label == "1.0.2"
    assert propose_label(registry, "net", 4, previous=5).label == "9.0.1"
    with pytest.raises(NotFound, match="net 3"):
        propose_label(registry, "net", 4, previous=3)
    with pytest.raises(Conflict, match="cannot follow itself"):
        propose_label(registry, "net", 4, previous=4)


def test_a_label_is_kept_as_a_tag_with_its_reasons(
    registry: Registry, register: Callable[..., int]
) -> None:
    register(signature=A)
    write_label(registry, "net", 1)
    register(b"other", signature=OTHER)
    version = write_label(registry, "net", 2)

    assert version.tags == {"label": "2.0.0"}
    last = registry.history("net")[-1]
    assert (last.action, last.version) == ("edited", 2)
    assert "The input 'a' is gone." in last.why
    assert registry.search_versions("tags.label = '2.0.0'") == [version]


def test_no_two_versions_have_one_label(registry: Registry, register: Callable[..., int]) -> None:
    for content in (b"1", b"2", b"3"):
        register(content)
    write_label(registry, "net", 1)
    write_label(registry, "net", 3)

    with pytest.raises(Conflict, match=r"Version 3 .* has the label 1\.0\.1 already"):
        write_label(registry, "net", 2)
    write_label(registry, "net", 3, "1.0.1", why="again")
    write_label(registry, "net", 2, "1.0.2")


@pytest.mark.parametrize("label", ["1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.0\n", ""])
def test_a_label_is_three_numbers(
    registry: Registry, register: Callable[..., int], label: str
) -> None:
    register()
    register()
    with pytest.raises(InvalidInput, match="three numbers"):
        write_label(registry, "net", 1, label)
    registry.update_version("net", 1, tags={"label": label})
    proposed = propose_label(registry, "net", 2)
    assert (proposed.label, proposed.previous) == ("1.0.0", None)
    with pytest.raises(InvalidInput, match="version 1"):
        propose_label(registry, "net", 2, previous=1)
