"""W&B's own client."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from mlopskit.comparison.workload import CLOSED, plain
from mlopskit.tracking.wandb_files import find_runs

if TYPE_CHECKING:
    from collections.abc import Mapping


class Client:
    """`wandb.init` and its run; offline unless in an outage.

    W&B has no reader for offline runs. What its files hold is read by mlopskit's own.
    """

    alone = True  # After a step, no metric takes an earlier one.

    def __init__(self, folder: Path, *, outage: bool) -> None:
        self._folder = folder
        settings = wandb.Settings(base_url=CLOSED, api_key="0" * 40) if outage else None
        self._run: Any = wandb.init(
            project="compare",
            dir=str(folder),
            mode="online" if outage else "offline",
            settings=settings,
        )
        self._read: Any = None

    def log_param(self, key: str, value: Any) -> None:
        self._run.config[key] = value

    def change_param(self, key: str, value: Any) -> None:
        self._run.config.update({key: value}, allow_val_change=True)

    def log_metric(self, key: str, value: float, step: int) -> None:
        self._run.log({key: value}, step=step)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def set_tag(self, key: str, value: str) -> None:
        # A tag of W&B's is a word; what has a key and a text is config.
        self._run.config[f"tags.{key}"] = value

    def log_file(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "content")
            path.write_bytes(content)
            made = wandb.Artifact(f"file-{abs(hash(name)) % 10**6}", "file")
            made.add_file(str(path), name)
            self._run.log_artifact(made)

    def finish(self) -> None:
        self._run.finish()

    def params(self) -> Mapping[str, Any]:
        return {key: value for key, value in self._kept().config.items() if key != "_wandb"}

    def points(self, key: str) -> list[tuple[int, float]]:
        rows = self._kept().history(key)
        return [(int(s), plain(v)) for s, v in zip(rows.steps, rows.values, strict=True)]

    def tags(self) -> Mapping[str, str]:
        return {
            key.removeprefix("tags."): str(value)
            for key, value in self._kept().config.items()
            if key.startswith("tags.")
        }

    def file(self, name: str) -> bytes:
        for artifact in self._kept().artifacts:
            for entry in artifact.entries():
                if entry.path == name:
                    content: bytes = artifact.verified(entry).read_bytes()
                    return content
        raise LookupError(name)

    @staticmethod
    def left(folder: Path) -> int:
        return sum(len(each.read().history("loss").steps) for each in find_runs(folder))

    def _kept(self) -> Any:
        if self._read is None:
            self._read = next(iter(find_runs(self._folder))).read()
        return self._read
