"""W&B's own client."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from mlopskit.comparison.workload import CLOSED, plain
from mlopskit.errors import NotFound
from mlopskit.tracking.wandb_folders import find_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.comparison.workload import Opening


class Client:
    """`wandb.init` and its run; in a private folder offline, unless in an outage.

    W&B has no reader for offline runs: what their files hold is read by mlopskit's own. What is on
    a server is read with `wandb.Api`.
    """

    alone = True  # After a step, no metric takes an earlier one.

    def __init__(self, opening: Opening) -> None:
        self._folder, options = opening.folder, opening.options
        entity, _, project = opening.name.rpartition("/")
        mode: Any = (
            "offline" if opening.private else options.get("mode") or os.environ.get("WANDB_MODE")
        )
        if opening.outage:
            mode, options = "online", {"base_url": CLOSED, "api_key": "0" * 40}
        chosen = {name: options[name] for name in ("base_url", "api_key") if options.get(name)}
        self._run: Any = wandb.init(
            entity=options.get("entity") or entity or None,
            project=project,
            dir=str(self._folder),
            mode=mode or "online",
            settings=wandb.Settings(**{**chosen, **options.get("settings", {})}),
        )
        self.id = str(self._run.path)
        self._online = mode != "offline"
        self._chosen = chosen
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

    def end(self) -> None:
        self.finish()

    def params(self) -> Mapping[str, Any]:
        return {key: value for key, value in self._kept().config.items() if key != "_wandb"}

    def points(self, key: str) -> list[tuple[int, Any]]:
        if self._online:
            # `scan_history` would ask for every thousand steps up to the last, of which there may
            # be 2**63. The rows of a case are so few that none is left out of the samples.
            rows = self._kept().history(samples=500, pandas=False)
            return [(int(row["_step"]), row[key]) for row in rows if key in row]
        found: list[tuple[int, Any]] = self._kept().others(key)
        with suppress(NotFound):  # Where there is no number.
            rows = self._kept().history(key)
            found += zip(map(int, rows.steps), map(plain, rows.values), strict=True)
        return found

    def tags(self) -> Mapping[str, str]:
        return {
            key.removeprefix("tags."): str(value)
            for key, value in self._kept().config.items()
            if key.startswith("tags.")
        }

    def file(self, name: str) -> bytes:
        if self._online:
            return self._fetched(name)
        for artifact in self._kept().artifacts:
            for entry in artifact.entries():
                if entry.path == name:
                    content: bytes = artifact.verified(entry).read_bytes()
                    return content
        raise LookupError(name)

    def _fetched(self, name: str) -> bytes:
        for artifact in self._kept().logged_artifacts():
            if name in artifact.manifest.entries:
                with tempfile.TemporaryDirectory() as folder:
                    return Path(artifact.get_entry(name).download(folder)).read_bytes()
        raise LookupError(name)

    @staticmethod
    def stored(opening: Opening, id: str) -> list[tuple[int, Any]]:
        try:
            run = _api(opening.options).run(id)
        except (ValueError, wandb.errors.CommError):  # The server does not know it.
            return []
        return [(int(row["_step"]), row["loss"]) for row in run.scan_history() if "loss" in row]

    @staticmethod
    def sync(opening: Opening) -> bool:
        runs = [str(each) for each in opening.folder.glob("wandb/run-*")]
        where = {
            "WANDB_BASE_URL": str(opening.options["base_url"]),
            "WANDB_API_KEY": str(opening.options["api_key"]),
        }
        subprocess.run(  # noqa: S603 - W&B's own command
            [sys.executable, "-P", "-m", "wandb", "sync", "--include-online", *runs],
            env={**os.environ, **where},
            stdout=sys.stderr,
            check=True,
        )
        return True

    @staticmethod
    def left(folder: Path) -> int:
        return sum(len(each.read().history("loss").steps) for each in find_runs(folder))

    def _kept(self) -> Any:
        if self._read is None and self._online:
            self._read = _api(self._chosen).run(self.id)
        elif self._read is None:
            self._read = next(iter(find_runs(self._folder))).read()
        return self._read


def _api(options: Mapping[str, Any]) -> Any:
    """Return W&B's client for reading, of the server that a line names."""
    where = options.get("base_url")
    overrides = {"base_url": where} if where else None
    return wandb.Api(api_key=options.get("api_key"), overrides=overrides)
