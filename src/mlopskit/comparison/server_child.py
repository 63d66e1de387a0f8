"""A server of MLflow or W&B, as a program; see `server`."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.comparison import lifeline
from mlopskit.testing.wandb_server import WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT: Final = ("runs", "artifacts", "collections", "sweeps")


class Keeping(WandbServer):
    """A W&B server that has after a kill what it has answered for.

    Args:
        port: Where to listen.
        path: The file with what it has.
    """

    def __init__(self, port: int, path: Path) -> None:
        super().__init__(port)
        self._path = path
        names: dict[str, str] = {}
        if path.exists():
            kept, names = pickle.loads(path.read_bytes())  # noqa: S301 - written below
            self.__dict__.update(kept)
        self._names = names
        self.files = _Files(path.parent / "blobs", names, self._write)  # type: ignore[assignment]

    def answer(self, name: str, given: dict[str, Any]) -> Any:
        """Answer one operation, once what it changed is in the file."""
        found = super().answer(name, given)
        self._write()
        return found

    def stream(self, id: str, said: dict[str, Any]) -> None:
        """Take lines of a run, likewise."""
        super().stream(id, said)
        self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        kept = {name: getattr(self, name) for name in KEPT}
        new.write_bytes(pickle.dumps((kept, self._names)))
        os.replace(new, self._path)


class _Files(MutableMapping[str, bytes]):
    """Bytes by path, each in a file of its own, which somebody may damage."""

    def __init__(self, folder: Path, names: dict[str, str], write: Callable[[], None]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._names, self._written = folder, names, write

    def __getitem__(self, key: str) -> bytes:
        return (self._folder / self._names[key]).read_bytes()

    def __setitem__(self, key: str, value: bytes) -> None:
        self._names[key] = hashlib.sha256(value).hexdigest()
        (self._folder / self._names[key]).write_bytes(value)
        self._written()

    def __delitem__(self, key: str) -> None:
        del self._names[key]
        self._written()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def main() -> None:
    """Serve one tool on a port, with its storage in a folder, until this process is killed."""
    tool, port, folder, line = sys.argv[1:5]
    lifeline.hold(int(line))
    if tool == "mlflow":
        import uvicorn  # noqa: PLC0415 - it comes with MLflow's server

        uvicorn.run("mlflow.server.fastapi_app:app", port=int(port))
        return
    with Keeping(int(port), Path(folder, "server.pickle")):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
