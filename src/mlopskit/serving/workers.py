"""A few threads that run requests for an event loop, for less than an executor costs per call."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = tuple[asyncio.Future[Any], asyncio.AbstractEventLoop, Callable[..., Any], tuple[Any, ...]]


class Workers:
    """Threads that start with the first job and end with `close`.

    They are daemons: a model that hangs does not keep the process from ending.
    """

    def __init__(self, number: int) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._number = number
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    async def run(self, timeout_s: float, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that raises nothing on a thread, and return what it returns.

        Raises:
            TimeoutError: If it takes longer than the time. A thread that has begun goes on; a job
                that nobody has begun is left out.
        """
        if not self._threads:
            self._start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        alarm = loop.call_later(timeout_s, _expire, done)
        self._jobs.put((done, loop, work, arguments))
        try:
            return await done
        finally:
            alarm.cancel()

    def close(self) -> None:
        """Let the threads end, each after its current job."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._threads:
                return
            self._threads = [
                threading.Thread(target=self._work, name=f"mlopskit-predict-{i}", daemon=True)
                for i in range(self._number)
            ]
            for thread in self._threads:
                thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, loop, work, arguments = job
            if done.done():
                continue
            result = work(*arguments)
            try:
                loop.call_soon_threadsafe(_deliver, done, result)
            except RuntimeError:
                continue  # The loop has been closed: nobody waits any more.


def _deliver(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _expire(done: asyncio.Future[Any]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())
