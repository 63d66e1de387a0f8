"""Takes a history's new entries to one webhook: in their order, again and again, and alone."""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import math
import os
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from mlopskit.errors import IntegrityError, MlopskitError
from mlopskit.registry.webhooks.headers import headers
from mlopskit.registry.webhooks.outbox import Tried
from mlopskit.registry.webhooks.post import Answer, post
from mlopskit.storage import disk_errors, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlopskit.registry.entities import HistoryEntry
    from mlopskit.registry.webhooks.config import Webhook
    from mlopskit.registry.webhooks.outbox import Outbox

logger = logging.getLogger(__name__)

# The pause after the n-th try is drawn from 0 to BASE_S * FACTOR ** (n - 1), at most LONGEST_S:
# ten tries are made within 20 hours, and within half of that most often.
BASE_S: Final = 5.0
FACTOR: Final = 4.0
LONGEST_S: Final = 21_600.0
# How soon to ask again whether another process is done, and after trouble of our own.
BUSY_S: Final = 0.2
TROUBLE_S: Final = 30.0
# A change makes a thread look at its model, and after so long at all of them: another process may
# have died with something to deliver.
LOOK_S: Final = 60.0
# How long a registry that is closed, or a program that ends, waits for what is under way.
CLOSE_S: Final = 5.0
GONE: Final = 410
# Answers, and none, that say nothing of the message: the next one would meet the same.
AWAY: Final = frozenset([0, 429, 502, 503, 504])
# Longer messages are sent without what the gates looked at; still longer ones with texts of at most
# so many characters.
LONGEST_BODY: Final = 1 << 16
LONGEST_TEXT: Final = 1000


class Source(Protocol):
    """The histories that are told."""

    def models(self) -> list[str]:
        """Return the names of all models."""

    def entries(self, name: str) -> list[HistoryEntry]:
        """Return the history of one model; nothing if there is none."""


@dataclass(frozen=True, slots=True)
class Rest:
    """How a round ended: when the next one is worth while, and whether somebody else is at it."""

    pause_s: float | None = None
    busy: bool = False


class Courier:
    """Delivers to one webhook. Its thread lives while there is something to deliver."""

    def __init__(
        self,
        webhook: Webhook,
        source: Source,
        outbox: Outbox,
        folder: Path,
        *,
        redact: Callable[[str], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.webhook = webhook
        self._source = source
        self._outbox = outbox
        self._path = folder / f"webhook-{webhook.id}.lock"
        self._redact = redact
        self._clock = clock
        self._fd: int | None = None
        self.begin_anew()
        _couriers.add(self)

    def begin_anew(self) -> None:
        """Forget the thread and the locks of the process that this one was forked from."""
        self._turn = threading.Condition(threading.RLock())
        self._alone = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = self._halted = False
        self._woken = False
        # Models to look at; None for all, since others may have left something.
        self._names: set[str] | None = None
        self._all_seen_at = -math.inf
        # What was taken, and could not be written down yet: a full disk sends nothing twice.
        self._taken: set[tuple[str, int]] = set()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def wake(self, name: str | None) -> None:
        """Deliver what is new of a model, or of all, soon and in another thread."""
        with self._turn:
            if self._names is not None:
                self._names = None if name is None else self._names | {name}
            self._woken = True
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._work, name="mlopskit webhook", daemon=True)
                thread.start()  # It may be one too many. Then the next change tries again.
                self._thread = thread
            self._turn.notify_all()

    def stop(self, deadline: float) -> bool:
        """Let the thread finish what is new, until a time; tell whether it has ended."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, deadline - time.monotonic()))
        self._halted = True
        return not thread.is_alive()

    def deliver(self, *, now: bool, patience_s: float) -> Rest:
        """Deliver what is new of all models, in the calling thread.

        Args:
            now: Whether to try what waits for its next try.
            patience_s: How long to wait for another process that is at it.
        """
        with self._only_one(patience_s) as mine:
            return self._round(self._source.models(), now=now) if mine else Rest(BUSY_S, busy=True)

    def deliver_dead(self, *, patience_s: float) -> None:
        """Try once more what was tried too often, until the other side is seen to be away."""
        with self._only_one(patience_s) as mine:
            for each in self._outbox.dead(self.webhook.id) if mine else ():
                if self._outbox.disabled(self.webhook.id):
                    return
                entries = self._source.entries(each.model)
                found = next((entry for entry in entries if entry.id == each.entry), None)
                if found is not None and not self._revived(each, found):
                    return

    def _revived(self, dead: Tried, entry: HistoryEntry) -> bool:
        """Try an entry that was set aside; tell whether the next one is worth a try."""
        answer = self._post(entry)
        if not answer.error:
            self._outbox.revived(self.webhook.id, entry.name, entry.id)
            return True
        self._outbox.bury(self.webhook.id, self._after(dead, entry, answer))
        return answer.status not in AWAY

    def queue(self, names: list[str]) -> list[HistoryEntry]:
        """Return the entries of models after the cursor, as they happened."""
        return self._queued(names)[0]

    def _queued(self, names: list[str]) -> tuple[list[HistoryEntry], bool]:
        """Return the queue, and whether a history of it may be read later that cannot be now."""
        cursors = self._outbox.cursors(self.webhook.id)
        found: list[HistoryEntry] = []
        missed = False
        for name in names:
            last = cursors.get(name, -1)
            try:
                found += (entry for entry in self._source.entries(name) if entry.id > last)
            except MlopskitError as exc:
                why = self._redact(str(exc))
                logger.warning("The history of %r cannot be told to webhooks: %s", name, why)
                missed |= not isinstance(exc, IntegrityError)  # Damage does not pass.
        return sorted(found, key=lambda entry: (entry.at, entry.name, entry.id)), missed

    def wants(self, entry: HistoryEntry) -> bool:
        """Tell whether the webhook is told of an entry."""
        return entry.action in self.webhook.events

    # The thread.

    def _work(self) -> None:
        while True:
            with self._turn:
                self._woken = False
                names, self._names = self._names, set()
            rest = self._looked(names)
            with self._turn:
                if rest.pause_s is not None:
                    later = self._names
                    self._names = None if names is None or later is None else names | later
                if self._halted or (self._is_over(rest) and not self._woken):
                    self._thread = None
                    return
                if not self._woken:
                    self._turn.wait(rest.pause_s)

    def _is_over(self, rest: Rest) -> bool:
        # Another process may have looked at the history before we wrote to it.
        return rest.pause_s is None or (self._stopping and not rest.busy)

    def _looked(self, names: set[str] | None) -> Rest:
        try:
            with self._only_one(0.0) as mine:
                if not mine:
                    return Rest(BUSY_S, busy=True)
                began = time.monotonic()
                if names is not None and not self._others_may_have_left(began):
                    return self._round(sorted(names), now=False)
                rest = self._round(self._source.models(), now=False)
                if rest.pause_s is None:
                    self._all_seen_at = began
                return rest
        except Exception as exc:  # noqa: BLE001 - a thread of its own, whose life goes on
            if not self._stopping:
                why = self._redact(str(exc))
                logger.warning("Webhook %s cannot be served: %s", self.webhook.shown, why)
            return Rest(TROUBLE_S)

    def _others_may_have_left(self, now: float) -> bool:
        # What another process tried in vain holds up this one's messages too.
        late = now - self._all_seen_at >= LOOK_S
        return late or bool(self._outbox.tried(self.webhook.id))

    # One round, while no other process is at it.

    def _round(self, names: list[str], *, now: bool) -> Rest:
        if self._outbox.disabled(self.webhook.id):
            return Rest()
        tried = self._outbox.tried(self.webhook.id)
        queue, missed = self._queued(names)
        for entry in queue:
            if self._halted:
                return Rest(0.0)
            if not self.wants(entry):
                self._outbox.done(self.webhook.id, entry.name, entry.id, delivered=False)
                continue
            before = tried.get((entry.name, entry.id))
            wait = 0.0 if now or before is None else before.wait_s(self._clock())
            rest = Rest(wait) if wait else self._try(entry, before)
            if rest is not None:
                return rest
        return Rest(TROUBLE_S) if missed else Rest()

    def _try(self, entry: HistoryEntry, before: Tried | None) -> Rest | None:
        """Post an entry; return how to rest, or nothing where the next one may follow."""
        key = (entry.name, entry.id)
        answer = Answer() if key in self._taken else self._post(entry)
        if not answer.error:
            self._taken.add(key)
            self._outbox.done(self.webhook.id, *key, delivered=True)
            self._taken.discard(key)
            return None
        what = self._after(before, entry, answer)
        if answer.status == GONE:
            self._outbox.failed(self.webhook.id, what)
            return Rest()
        if what.tries >= self.webhook.tries:
            self._outbox.bury(self.webhook.id, what)
            self._log(f"was set aside after {what.tries} tries", entry, what)
            return None
        self._outbox.failed(self.webhook.id, what)
        if what.tries == 1:
            self._log("waits for its next try", entry, what)
        return Rest(what.pause)

    def _post(self, entry: HistoryEntry) -> Answer:
        body = message(entry)
        signed = headers(message_id(entry), body, self.webhook.keys, int(self._clock()))
        answer = post(self.webhook, signed, body)
        if answer.status == GONE:
            why = "HTTP 410: the other side wants no more of it"
            self._outbox.disable(self.webhook.id, why)
            logger.warning("Webhook %s is disabled. %s.", self.webhook.shown, why)
        return answer

    def _after(self, before: Tried | None, entry: HistoryEntry, answer: Answer) -> Tried:
        tries = before.tries + 1 if before else 1
        pause = max(drawn(longest_pause(tries)), answer.retry_after_s)
        error = self._redact(answer.error)
        return Tried(entry.name, entry.id, tries, self._clock(), pause, error)

    def _log(self, what: str, entry: HistoryEntry, tried: Tried) -> None:
        logger.warning(
            "%s of %r %s: %s (%s)", entry.action, entry.name, what, self.webhook.shown, tried.error
        )

    @contextmanager
    def _only_one(self, patience_s: float) -> Iterator[bool]:
        """Hold the webhook's lock, among threads and processes; tell whether it was free.

        The system lets go of it when a process dies.
        """
        deadline = time.monotonic() + patience_s
        with self._alone, disk_errors(self._path):
            make_private_folder(self._path.parent)
            self._fd = fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while not (mine := _locked(fd)) and time.monotonic() < deadline:
                    time.sleep(0.02)
                yield mine
            finally:
                # A fork shares the lock, and closing alone would leave it to the child.
                fcntl.flock(fd, fcntl.LOCK_UN)
                self._fd = None
                os.close(fd)


def longest_pause(tries: int) -> float:
    """Return how long the pause after so many tries may be."""
    return min(LONGEST_S, BASE_S * FACTOR ** min(tries - 1, 20))


def drawn(longest: float) -> float:
    """Draw a pause, so that those who failed together do not come again together."""
    return random.uniform(0.0, longest)  # noqa: S311 - no secret


def message(entry: HistoryEntry) -> bytes:
    """Return what a webhook is told of an entry of the history, as JSON."""
    data = _plain(entry.model_dump(mode="json"))
    said = {
        "type": f"model.{entry.action}",
        "timestamp": entry.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": data,
    }
    body = _encoded(said)
    for shorten in (_without_evidence, _with_short_texts):
        if len(body) > LONGEST_BODY:
            shorten(data)
            data["shortened"] = True
            body = _encoded(said)
    return body


def message_id(entry: HistoryEntry) -> str:
    """Return a message's id: the same at every try, and of no other entry of any registry."""
    # No full stop may be in it: the signature is of "id.timestamp.body".
    when = int(entry.at.timestamp() * 1_000_000)
    return f"{entry.name.replace('.', '~')}:{entry.id}:{when}"


def _without_evidence(data: dict[str, Any]) -> None:
    if data["decision"]:
        data["decision"]["evidence"] = {}


def _with_short_texts(data: dict[str, Any]) -> None:
    data["details"] = {}
    data["why"] = _short(data["why"])
    if data["decision"]:
        data["decision"]["reasons"] = [_short(each) for each in data["decision"]["reasons"]]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def _encoded(said: Any) -> bytes:
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Return a value with NaN and infinities as texts, which JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_couriers: WeakSet[Courier] = WeakSet()


def _begin_anew() -> None:
    for courier in list(_couriers):
        courier.begin_anew()


def _stop_all() -> None:
    """Give what is under way its time when the program ends; the rest stays for the next one."""
    deadline = time.monotonic() + CLOSE_S
    for courier in list(_couriers):
        courier.stop(deadline)


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_stop_all)
