"""What is registered or loaded: an object, a path, or the model that a run logged."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, InvalidModel, InvalidName, Unsupported
from mlopskit.registry import blobs, examples, flavors
from mlopskit.registry.entities import Signature
from mlopskit.storage import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlopskit.redaction import Redactor
    from mlopskit.registry.flavors import More, Package
    from mlopskit.tool import Context

# What `Run.log_model` says of the example: where in the model it lies.
EXAMPLE: Final = "input_example"
# And where it lies if it is a table for people, which no flavor reads.
TABLE: Final = "input_example"
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
    context: Context,
) -> Iterator[tuple[Package, Signature | None]]:
    """Hold a model as files, with its example among them, and its signature where it is known.

    The model of a run brings its own example, unless another one is given.

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
            package = stack.enter_context(flavors.packed(source, example, more=context.flavors))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopskit-")))
            package, signature, its_own = _of_run(source, folder / "model", context)
            if example is None and its_own is not None:
                examples.unpacked(its_own, source)
                example = its_own
        if any(name == examples.FILE for name, _ in package.files):
            raise InvalidModel(f"A model's own file cannot be called {examples.FILE!r}. Rename it.")
        if example is not None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlopskit-")))
            (path / examples.FILE).write_bytes(example)
            files = [*package.files, (examples.FILE, path / examples.FILE)]
            package = replace(package, files=sorted(files))
        yield package, signature


def save(
    model: Any,
    folder: Path,
    example: Any,
    *,
    redactor: Redactor,
    more: More,
) -> dict[str, Any]:
    """Write an object and its example into an empty folder, and say how, for `packed` to read.

    Args:
        model: The object; or a path, of which nothing is written, since its files are there.
        folder: The folder.
        example: What `Registry.register` takes as an input example; one that it would not take is
            left out.
        redactor: Removes the secrets in an example's texts.
        more: The flavors of other packages.

    Raises:
        InvalidModel: If no flavor takes the object, or its flavor cannot save it.
        InvalidInput: If the example is too large.
        MissingDependency: If the flavor needs a package that is not installed.
    """
    said: dict[str, Any] = {}
    text = None
    if example is not None and examples.fits(example):
        text = examples.packed(example, redactor=redactor)
        shown = examples.signature(example)
        said = {EXAMPLE: examples.FILE, "signature": shown.model_dump(mode="json")}
    if not isinstance(model, str | PathLike):
        said |= flavors.saved(model, folder, text, more=more)
    if text is not None:
        (folder / examples.FILE).write_bytes(text)
    return said


def _of_run(
    source: str, folder: Path, context: Context
) -> tuple[Package, Signature | None, bytes | None]:
    """Fetch a run's model into a new folder; return it, its signature and its example."""
    run, name = _parts(source)
    if context.fetch_model is None:
        raise Unsupported(
            "registry",
            "this registry",
            source,
            "it was opened without a kit, which knows the tracker; use kit.registry",
        )
    folder.mkdir()
    details = context.fetch_model(run, name, folder)
    example = _taken_out(folder, details)
    package = _package(folder, details, context.flavors)
    return package, _signature(details.get("signature")), example


def load_of_run(source: str, context: Context, *, trusted: bool) -> Any:
    """Return the model that a run logged, as `Registry.load` returns a version."""
    with tempfile.TemporaryDirectory(prefix="mlopskit-") as scratch:
        folder = Path(scratch, "model")
        package, *_ = _of_run(source, folder, context)
        files = [
            blobs.ManifestFile(path=name, size=path.stat().st_size, sha256=digest_of(path))
            for name, path in package.files
        ]
        manifest = blobs.Manifest(flavor=package.flavor, files=tuple(files))
        more = context.flavors
        return flavors.loaded(package.flavor, folder, manifest, source, trusted=trusted, more=more)


def _taken_out(folder: Path, details: Mapping[str, Any]) -> bytes | None:
    """Take the example out of the files of a run's model, and return it unless it is a table."""
    # Runs of before said nothing of their table, and what no flavor saved may be anybody's.
    if details.get(EXAMPLE, TABLE if "flavor" in details else None) == TABLE:
        shutil.rmtree(folder / TABLE, ignore_errors=True)
    path = folder / examples.FILE
    if not path.is_file():
        return None
    text = path.read_bytes()
    path.unlink()
    return text


def _package(folder: Path, details: Mapping[str, Any], more: More) -> Package:
    """Return a run's model as files; how an object was saved is known since it was logged."""
    flavor = details.get("flavor")
    files = blobs.files_of(folder)
    if flavor:
        return flavors.Package(str(flavor), files, dict(details.get("libraries") or {}))
    alone = len(files) == 1 and "/" not in files[0][0]
    found = flavors.flavor_of(files[0][1] if alone else folder, files, more=more)
    return flavors.Package(found, files)


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
