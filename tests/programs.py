"""Programs that a test starts."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def launched(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program, and kill it if the test fails meanwhile.

    Leaving a plain `Popen` waits for the program, for ever where that is what failed.
    """
    with subprocess.Popen(command, **options) as program:
        try:
            yield program
        except BaseException:
            program.kill()
            raise
