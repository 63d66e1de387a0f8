"""Where a comparison works: in private folders, or at a place that somebody named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from mlopskit.config import Line, fetch_secrets
from mlopskit.redaction import Redactor, is_secret_key

if TYPE_CHECKING:
    from collections.abc import Iterable

SQLITE: Final = "sqlite:///"


class Place(BaseModel):
    """A tool's config line, and the name under which the comparison keeps to itself there.

    Attributes:
        line: As it was written, secrets not yet fetched.
        label: The line as it may be shown.
        name: Of the experiment or project that the comparison makes; empty in private folders.
    """

    model_config = ConfigDict(frozen=True)

    line: Line
    label: str
    name: str = ""

    @property
    def tool(self) -> str:
        """The backend's name."""
        return self.line.backend

    @property
    def private(self) -> bool:
        """Whether there is a tool's name alone: the comparison works in folders of its own."""
        return self.line.location is None and not self.line.options

    def fetched(self) -> tuple[Line, Redactor]:
        """Return the line with its secrets, and what hides them.

        Raises:
            ConfigError: If a secret cannot be fetched.
        """
        line, secrets = fetch_secrets(self.line)
        hidden = {*secrets, *_secrets(line.options.items()), *_secrets(os.environ.items())}
        if line.location is not None and "://" in line.location:
            user, _, password = urlsplit(line.location).netloc.rpartition("@")[0].partition(":")
            hidden.add(password or user)
        return line, Redactor(frozenset(hidden))

    def own(self, way: str) -> str:
        """Return the name of what is made there by one way: its experiment, or W&B's project."""
        if self.tool != "wandb":
            return f"{self.name}-{way}"
        head, between, project = (self.line.location or "").rpartition("/")
        return f"{head}{between}{project}{'-' * bool(project)}{self.name}-{way}"

    def made(self, way: str, domain: str = "tracking") -> str:
        """Say what is made there; nothing in private folders."""
        if self.private:
            return ""
        if domain == "registry":
            return f"models {self.name}-{way}-0 and so on, with what the tool keeps for them"
        return f"{'project' if self.tool == 'wandb' else 'experiment'} {self.own(way)}"

    def stored(self, folder: Path) -> int | None:
        """Return how many bytes there are on the disk; None where they are not on this disk."""
        if self.private:
            return _size([folder])
        where = self.line.location or ""
        if where.startswith(SQLITE):
            path = where.removeprefix(SQLITE)
            return _size([Path(path), Path(f"{path}-wal")])
        return _size([Path(where)]) if self.tool == "local" and where else None


def label_of(line: Line) -> str:
    """Return a line as it may be shown: no password, no user, no query, no options."""
    where = line.masked().get("location")
    if where is None:
        return line.backend
    scheme, between, rest = str(where).partition("://")
    if between and scheme != "sqlite":
        where = f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
    return f"{line.backend}:{where}"


def _secrets(pairs: Iterable[tuple[str, Any]]) -> set[str]:
    return {
        value
        for key, value in pairs
        if isinstance(value, str) and (is_secret_key(key) or key == "MLFLOW_TRACKING_TOKEN")
    }


def _size(paths: Iterable[Path]) -> int:
    files = [each for path in paths for each in (path, *path.rglob("*")) if each.is_file()]
    return sum(each.stat().st_size for each in files)
