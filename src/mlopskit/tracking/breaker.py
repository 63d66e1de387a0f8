"""When to try a backend again that failed: later each time, never all at once, and not in vain.

Exponential back-off with full jitter: Brooker, "Exponential Backoff And Jitter", AWS Architecture
Blog, 2015. The circuit breaker is Nygard's, "Release It!", 2007.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 60.0
OPEN_AFTER: Final = 3


class Breaker:
    """Counts failures in a row.

    Args:
        clock: The time in seconds, which only grows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._not_before = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it has failed so often that nobody should wait for it."""
        return self._failures >= OPEN_AFTER

    @property
    def may_try(self) -> bool:
        """Whether the pause after the last failure is over."""
        return self._failures == 0 or self._clock() >= self._not_before

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0

    def failed(self) -> int:
        """Count a failure, and return how many there were in a row."""
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 20))
        self._not_before = self._clock() + random.uniform(0.0, pause)  # noqa: S311 - jitter
        self._failures += 1
        return self._failures
