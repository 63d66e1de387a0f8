"""The folders of runs that W&B's SDK leaves: ``offline-run-<time>-<id>`` and their like.

Each holds ``run-<id>.wandb`` (`wandb_log`) and ``files/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopskit.storage import disk_errors
from mlopskit.tracking.wandb_offline_run import FOLDER, OfflineRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def find_runs(folder: Path) -> Iterator[OfflineRun]:
    """Yield the runs below a folder, not read yet, in the order of their folders' names.

    Looks into the folder, and into ``wandb`` and ``.wandb`` in it. Runs that were online have
    such folders too; see `OfflineRun.online`.

    Raises:
        StorageError: If a folder cannot be listed.
    """
    found: dict[Path, str] = {}
    for base in (folder, folder / "wandb", folder / ".wandb"):
        for each in _listed(base):
            named = FOLDER.fullmatch(each.name)
            if named:
                found.update((path, named[2]) for path in _listed(each) if _is_run(path))
    for path in sorted(found, key=lambda path: (found[path], path)):
        yield OfflineRun(path)


def by_id(runs: Iterable[OfflineRun]) -> dict[str, list[OfflineRun]]:
    """Return the folders of each run by its id, in the order begun."""
    found: dict[str, list[OfflineRun]] = {}
    for run in runs:
        found.setdefault(run.id, []).append(run)
    for parts in found.values():
        parts.sort(key=lambda run: (run.begun_at, run.path))
    return found


def _is_run(path: Path) -> bool:
    return path.name.startswith("run-") and path.suffix == ".wandb"


def _listed(folder: Path) -> list[Path]:
    with disk_errors(folder):
        try:
            return list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
