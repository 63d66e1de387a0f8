"""What is registered or loaded: an object, a path, or the model that a run logged."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, InvalidModel, InvalidName, Unsupported
from mlopskit.registry import blobs, examples, flavors
from mlopskit.registry.entities import Signature
from mlopskit.storage import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.registry.flavors import Package

# Writes the files of a run's model into a folder, and returns what was logged beside it.
FetchModel = Callable[[str, str, Path], Mapping[str, Any]]
# Where `Run.log_model` keeps an example: rows for people, which no flavor reads.
EXAMPLE: Final = "input_example"
_RUN: Final = re.compile(r"runs:/+([^/]+)/(.+)\Z")


def run_of(source: Any) -> str | None:
    """Return the run of ``"runs:/<run>/<name>"``; None for any other source.

    Raises:
        InvalidName: If it begins so and names no model.
    """
    if not isinstance(source, str) or not source.startswith("runs:/"):
        return None
    return _parts(source)[0]


@contextmanager
def packed(
    source: Any,
    example: bytes | None,
    fetch_model: FetchModel | None,
) -> Iterator[tuple[Package, Signature | None]]:
    """Hold a model as files, with its example among them, and its signature where it is known.

    Raises:
        InvalidModel: If no flavor takes the object, or its files cannot be kept.
        NotFound: If there is nothing at the path, or no such model of a run.
        Unsupported: If a model of a run is asked for and no tracker is configured beside.
    """
    if source == "":  # A path of no text is the working folder to Python, and a slip to people.
        raise InvalidInput("There is nothing to register: the path is empty.")
    with ExitStack() as stack:
        signature = None
        if run_of(source) is None:
            package = stack.enter_context(flavors.packed(source, example))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopskit-")))
            package, signature = _of_run(source, folder / "model", fetch_model)
        if any(name == examples.FILE for name, _ in package.files):
            raise InvalidModel(f"A model's own file cannot be called {examples.FILE!r}. Rename it.")
        if example is not None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopskit-")))
            (path / examples.FILE).write_bytes(example)
            files = [*package.files, (examples.FILE, path / examples.FILE)]
            package = replace(package, files=sorted(files))
        yield package, signature


def _of_run(
    source: str,
    folder: Path,
    fetch_model: FetchModel | None,
) -> tuple[Package, Signature | None]:
    run, name = _parts(source)
    if fetch_model is None:
        raise Unsupported(
            "registry",
            "this registry",
            source,
            "it was opened without a kit, which knows the tracker; use kit.registry",
        )
    folder.mkdir()
    details = fetch_model(run, name, folder)
    return _package(folder, details), _signature(details.get("signature"))


def load_of_run(source: str, fetch_model: FetchModel | None, *, trusted: bool) -> Any:
    """Return the model that a run logged, as `Registry.load` returns a version."""
    with packed(source, None, fetch_model) as (package, _):
        files = [
            blobs.ManifestFile(path=name, size=path.stat().st_size, sha256=digest_of(path))
            for name, path in package.files
        ]
        manifest = blobs.Manifest(flavor=package.flavor, files=tuple(files))
        folder = package.files[0][1].parent
        for _ in Path(package.files[0][0]).parts[1:]:
            folder = folder.parent
        return flavors.loaded(package.flavor, folder, manifest, source, trusted=trusted)


def _package(folder: Path, details: Mapping[str, Any]) -> Package:
    """Return a run's model as files; how an object was saved is known since it was logged."""
    flavor = details.get("flavor")
    if flavor:
        shutil.rmtree(folder / EXAMPLE, ignore_errors=True)
    files = blobs.files_of(folder)
    if flavor:
        return flavors.Package(str(flavor), files, dict(details.get("libraries") or {}))
    alone = len(files) == 1 and "/" not in files[0][0]
    return flavors.Package(flavors.flavor_of(files[0][1] if alone else folder, files), files)


def _signature(given: Any) -> Signature | None:
    try:
        return None if given is None else Signature.model_validate(given)
    except ValueError:  # Somebody else's words for it.
        return None


def _parts(source: str) -> tuple[str, str]:
    found = _RUN.match(source)
    if found is None:
        raise InvalidName("model of a run", source, "write runs:/<run>/<name>")
    return found[1], found[2]
