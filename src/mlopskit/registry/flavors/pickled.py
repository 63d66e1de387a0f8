"""Pickles: kept like any file, and loaded only by who says in code that the file is trusted.

Unpickling runs whatever code the file names. No look into the file can tell that it is harmless
(Liu et al. 2025, arXiv 2508.19774), so none is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency, UntrustedModel

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.registry.flavors import Files

_SUFFIXES: Final = (".pkl", ".pickle", ".cloudpickle", ".dill")
# gzip, bz2, xz, lzma, lz4; zlib is recognised by its checksum below.
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"]\x00\x00", b"\x04\x22\x4d\x18")


class Pickled:
    """One of the two ways in which pickles are written."""

    LIBRARIES: tuple[str, ...] = ()
    FOLDERS = False

    def __init__(self, name: str, *suffixes: str) -> None:
        self.name = name
        self.SUFFIXES = suffixes
        self.TAKES = f"the path of a {name} file"

    def takes(self, model: Any, example: Any = None) -> bool:  # noqa: ARG002
        """Take no object: nothing is pickled on a caller's behalf."""
        return False

    def recognises(self, files: Files) -> bool:
        """Go by protocol 2 and later's first byte, or the name, as the oldest have no mark."""
        if len(files) != 1:
            return False
        name, path = files[0]
        with path.open("rb") as file:
            head = file.read(6)
        lower = name.lower()
        if lower.endswith(".joblib") or (lower.endswith(_SUFFIXES) and _is_compressed(head)):
            return self.name == "joblib"
        pickled = lower.endswith(_SUFFIXES) or (
            len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
        )
        return pickled and self.name == "pickle"

    def save(self, model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG002
        """Refuse; nothing is pickled on a caller's behalf."""
        raise InvalidModel(f"{model!r} is not pickled to {folder}: loading it would run code.")

    def load(self, folder: Path, label: str, *, trusted: bool) -> Any:
        """Run the pickle if the caller trusts it.

        Raises:
            UntrustedModel: If `trusted` is not exactly True.
        """
        if trusted is not True:
            raise UntrustedModel(label, f"it is a {self.name} file")
        (path,) = folder.iterdir()
        if self.name == "joblib":
            try:
                import joblib  # noqa: PLC0415 - few load such files
            except ModuleNotFoundError as exc:
                raise MissingDependency(
                    "A joblib file", "joblib", "pip install 'mlopskit[sklearn]'"
                ) from exc
            return joblib.load(path)
        import pickle  # noqa: PLC0415 - only behind trusted=True

        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 - the caller said in code that it is trusted


def _is_compressed(head: bytes) -> bool:
    # RFC 1950: the method is 8, and the first two bytes are a multiple of 31.
    zlib = len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return zlib or head.startswith(_COMPRESSED)


PICKLE = Pickled("pickle", *_SUFFIXES)
JOBLIB = Pickled("joblib", ".joblib", *_SUFFIXES)
