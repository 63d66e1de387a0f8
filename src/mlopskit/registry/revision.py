"""The revision of the code that is running, as Git knows it."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path


def current_revision() -> str | None:
    """Return the commit of the working folder, with ``-dirty`` where files differ from it.

    None where there is no repository or no Git. It is asked for once in a process for each working
    folder: what runs was imported at the start, whatever is committed meanwhile.
    """
    return _revision(Path.cwd())


@lru_cache(maxsize=16)
def _revision(folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607 - the user's own Git
            cwd=folder,
            capture_output=True,
            check=False,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
