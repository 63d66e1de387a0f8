"""A handler of the standard library's `logging` whose records become the log of a run."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, Unpack

from mlopskit.errors import MlopskitError
from mlopskit.integrations.held import HeldRun, StartOptions
from mlopskit.tracking.ranks import this_rank
from mlopskit.tracking.run import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlopskit.integrations.held import Destination
    from mlopskit.tracking.entities import Status
    from mlopskit.tracking.run import Run

__all__ = ["MlopskitHandler"]

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
GROWN: Final = 1 << 14  # How many bytes make it worth to keep the text anew,
PAUSE_S: Final = 10.0  # and how long after that an error waits for the next time.

logger = logging.getLogger(__name__)


class MlopskitHandler(logging.Handler):
    """Gathers records into one text, an artifact of a run.

    ``with MlopskitHandler(run): ...`` adds it to the root logger, and removes it after. The text is
    kept when it has grown by half, after an error, by `flush`, and at the end; a killed process
    loses what came since. ``log.info("...", extra={"metrics": {"loss": 0.5}, "step": 3})`` logs
    metrics too, and ``extra={"alert": True}``, or a text, tells those who listen to alerts. A run
    that is opened here is open at once, and ended by the block, by `close`, or with the program.
    Ranks other than 0 log nothing and open nothing.

    What mlopskit itself says is in the text, but never a metric or an alert.

    Args:
        to: A `Tracker`, an open `Run`, which is left open and must not end before the handler, or a
            config line; the configured tracker if left out.
        of: The name of the logger that a ``with`` block adds it to.
        level: Records below are left out.
        file: The name of the artifact.
        alert_level: Records from this level on are alerts; None for those with ``alert`` only.
        start: What `Tracker.start_run` takes.

    Raises:
        ConfigError: If the tracker cannot be opened.
        InvalidInput: If an open run is to begin in another way.
    """

    def __init__(
        self,
        to: Destination = None,
        *,
        of: str = "",
        level: int | str = logging.NOTSET,
        file: str = "log.txt",
        alert_level: int | None = None,
        **start: Unpack[StartOptions],
    ) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter(FORMAT))
        self._held = HeldRun(to, start)
        self._of = of
        self._file = file
        self._alert_level = alert_level
        self._pid = os.getpid()
        self._asking = threading.local()
        self._keeping = threading.Lock()
        self._kept, self._kept_at = 0, -PAUSE_S
        self._fd = -1
        if this_rank():
            return
        with self._calling():
            self._held.open()
        self._folder = Path(tempfile.mkdtemp(prefix="mlopskit-log-"))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._folder / "written", flags, 0o600)
        atexit.register(self._close_at_exit)

    @property
    def run(self) -> Run | None:
        """The run; None after the end, and on other ranks."""
        return self._held.run

    def handle(self, record: logging.LogRecord) -> bool:
        """Handle a record without the handler's lock: a run that is called may itself log."""
        if passes := bool(self.filter(record)):
            self.emit(record)
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the text, and log what its `extra` says."""
        if self._fd < 0:
            return
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
            with self._text():
                if self._fd >= 0:
                    os.write(self._fd, line)
            if self._calls(record):
                with self._calling():
                    self._tell(record)
                    if self._due(record):
                        self._keep(wait=False)
        except Exception:  # noqa: BLE001 - logging's own rule: a handler reports, and never raises
            self.handleError(record)

    def flush(self) -> None:
        """Keep the text as it is now."""
        if self._fd >= 0 and not self._asked() and self._pid == os.getpid():
            with self._calling():
                self._keep(wait=True)

    def close(self) -> None:
        """Keep the text and end the run, if it was opened here. Closing twice is fine."""
        self._close("finished")

    def __enter__(self) -> Self:
        logging.getLogger(self._of).addHandler(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        logging.getLogger(self._of).removeHandler(self)
        self._close(status_of(error))

    def _calls(self, record: logging.LogRecord) -> bool:
        """Tell whether a record may reach the run: its own threads and words would wait for it."""
        return not (
            self._asked()
            or self._pid != os.getpid()
            or record.name.partition(".")[0] == "mlopskit"
            or threading.current_thread().name.startswith("mlopskit")
        )

    def _tell(self, record: logging.LogRecord) -> None:
        metrics = getattr(record, "metrics", None)
        if isinstance(metrics, Mapping):
            self._held.log_metrics(metrics, getattr(record, "step", None))
        alert: Any = getattr(record, "alert", None)
        if self._alert_level is not None and record.levelno >= self._alert_level:
            alert = alert or True
        if alert:
            text = alert if isinstance(alert, str) else record.getMessage()
            self._held.open().alert(text, level=_level(record))

    def _due(self, record: logging.LogRecord) -> bool:
        grown = os.fstat(self._fd).st_size - self._kept
        if grown >= max(GROWN, self._kept // 2):
            return True
        return record.levelno >= logging.ERROR and time.monotonic() - self._kept_at >= PAUSE_S

    def _keep(self, *, wait: bool) -> None:
        if not self._keeping.acquire(blocking=wait):
            return
        try:
            copy = self._folder / "copied"
            with self._text():  # Others write on while the run reads the copy.
                size = os.fstat(self._fd).st_size
                if size == self._kept:
                    return
                shutil.copyfile(self._folder / "written", copy)
            self._held.open().log_artifact(copy, self._file, type="log")
            self._kept, self._kept_at = size, time.monotonic()
        finally:
            self._keeping.release()

    def _close(self, status: Status) -> None:
        if self._fd >= 0 and self._pid == os.getpid():
            atexit.unregister(self._close_at_exit)
            with self._calling():
                try:
                    self._keep(wait=True)
                except MlopskitError as exc:
                    logger.warning("The end of %s is not kept: %s", self._file, exc)
                fd, self._fd = self._fd, -1
                try:
                    self._held.end(status)
                finally:
                    os.close(fd)
                    shutil.rmtree(self._folder, ignore_errors=True)
        super().close()

    def _close_at_exit(self) -> None:
        # As of runs that a program leaves open: an exception that ended it makes them failed.
        self._close("failed" if getattr(sys, "last_value", None) is not None else "finished")

    def _asked(self) -> bool:
        return getattr(self._asking, "on", False)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Call the run: what this thread logs meanwhile is only written to the text."""
        before = self._asked()
        self._asking.on = True
        try:
            yield
        finally:
            self._asking.on = before

    @contextmanager
    def _text(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


def _level(record: logging.LogRecord) -> Literal["info", "warning", "error"]:
    if record.levelno >= logging.ERROR:
        return "error"
    return "warning" if record.levelno >= logging.WARNING else "info"
