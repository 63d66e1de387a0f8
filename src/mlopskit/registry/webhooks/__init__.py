"""Webhooks: the outside is told what happens to models, at least once and in its order.

Who receives the messages verifies them with `verify`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from mlopskit.errors import MlopskitError, NotFound
from mlopskit.registry.entities import FROZEN
from mlopskit.registry.upkeep import Upkeep
from mlopskit.registry.webhooks.config import webhooks_of
from mlopskit.registry.webhooks.headers import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlopskit.registry.entities import HistoryEntry
    from mlopskit.registry.webhooks.config import Webhook
    from mlopskit.registry.webhooks.delivery import Courier
    from mlopskit.registry.webhooks.outbox import Outbox

    _Delivery = tuple[Outbox, tuple[Courier, ...]]

__all__ = ["DeadLetter", "WebhookStatus", "Webhooks", "verify"]

logger = logging.getLogger(__name__)

# The primitives of a backend that add to a history.
CHANGES: Final = (
    "_register",
    "_set_alias",
    "delete_alias",
    "_decide",
    "_roll_back",
    "_edit_version",
    "_edit_model",
    "_delete_versions",
    "_note",
    "_attach",
)


class WebhookStatus(BaseModel):
    """How far a webhook is.

    Attributes:
        id: What it is called here, since its URL may be a secret.
        url: Its URL, without the path.
        events: The actions that it is told of.
        delivered: How many messages were taken.
        pending: How many wait.
        dead: How many were set aside after too many tries.
        tries: How often the first one of those that wait was tried.
        next_try_at: When it is tried again; None if nothing waits.
        error: Why it failed last.
        disabled: Why nothing is sent; nothing if it is.
    """

    model_config = FROZEN

    id: str
    url: str
    events: tuple[str, ...]
    delivered: int = 0
    pending: int = 0
    dead: int = 0
    tries: int = 0
    next_try_at: datetime | None = None
    error: str = ""
    disabled: str = ""


class DeadLetter(BaseModel):
    """An entry of the history that a webhook would not take.

    Attributes:
        webhook: The webhook's id.
        name: The model's name.
        entry: The entry's id in the model's history.
        tries: How often it was tried.
        at: When it was tried last.
        error: Why it failed last.
    """

    model_config = FROZEN

    webhook: str
    name: str
    entry: int
    tries: int
    at: datetime
    error: str


class Webhooks(Upkeep):
    """The part of the registry's interface that tells webhooks what happens.

    What has to be told is read off the history, so that a process that dies loses nothing: the next
    one goes on behind the last entry that was taken. A message may come twice, with the same
    ``webhook-id``.
    """

    _hooks: tuple[Webhook, ...] = ()

    def __init_subclass__(cls, **more: Any) -> None:
        """Have every change of a backend told, also of those that know nothing of webhooks."""
        super().__init_subclass__(**more)
        for name in CHANGES:
            if name in vars(cls):
                setattr(cls, name, _told(vars(cls)[name]))
        if "close" in vars(cls):
            cls.close = _stopped(vars(cls)["close"])  # type: ignore[method-assign]

    def webhooks(self) -> list[WebhookStatus]:
        """Return how far each configured webhook is."""
        outbox, couriers = self._begun()
        return [self._status(outbox, courier) for courier in couriers]

    def deliver_webhooks(self, *, now: bool = False, dead: bool = False) -> list[WebhookStatus]:
        """Deliver what is new to every webhook, here and now, and return how far each is.

        Changes are delivered without it, in a thread. It is for what an earlier process left.

        Args:
            now: Whether to try again what waits for its next try.
            dead: Whether to try once more what was set aside, until the other side gives no answer,
                or says that it is away.
        """
        _, couriers = self._begun()
        for courier in couriers:
            patience = courier.webhook.timeout_s + 1.0
            if dead:
                courier.deliver_dead(patience_s=patience)
            courier.deliver(now=now, patience_s=patience)
        return self.webhooks()

    def dead_letters(self) -> list[DeadLetter]:
        """Return what webhooks would not take."""
        outbox, couriers = self._begun()
        return [
            DeadLetter(
                webhook=courier.webhook.id,
                name=each.model,
                entry=each.entry,
                tries=each.tries,
                at=_moment(each.at),
                error=each.error,
            )
            for courier in couriers
            for each in outbox.dead(courier.webhook.id)
        ]

    def enable_webhook(self, id: str) -> WebhookStatus:
        """Send again to a webhook that was disabled, from where it was left.

        Raises:
            NotFound: If no configured webhook has that id.
        """
        outbox, couriers = self._begun()
        for courier in couriers:
            if courier.webhook.id == id:
                outbox.disable(id, "")
                courier.wake(None)
                return self._status(outbox, courier)
        raise NotFound("webhook", id, (courier.webhook.id for courier in couriers))

    # Steps that the parts of the interface share.

    def _call_webhooks(self, given: Sequence[Mapping[str, Any]] | None) -> None:
        """Take the option ``webhooks`` of a backend's constructor.

        Raises:
            ConfigError: If one cannot be read.
        """
        self._hooks = webhooks_of(given)

    def _webhooks_folder(self) -> Path:
        """Return where the cursors of this registry are kept, on this machine."""
        backend = self.capabilities.backend
        target = str(getattr(self, "target", backend))
        place = f"{backend}-{hashlib.sha256(target.encode()).hexdigest()[:12]}"
        return Path(self.context.home).absolute() / "webhooks" / place

    def _begun(self) -> _Delivery:
        """Return the webhooks at work; one that was never seen begins after what there is now."""
        known: _Delivery | None = vars(self).get("_delivery")
        if known is not None:
            return known
        from mlopskit.registry.webhooks.delivery import Courier  # noqa: PLC0415 - few ask
        from mlopskit.registry.webhooks.outbox import Outbox  # noqa: PLC0415

        folder = self._webhooks_folder()
        outbox, source = Outbox(folder / "webhooks.db"), _Histories(self)
        before = vars(self).get("_before_trouble")
        for hook in self._hooks:
            outbox.begin(hook.id, source.ends if before is None else lambda: before)
        redact = self.context.redactor.text
        couriers = tuple(
            Courier(hook, source, outbox, folder, redact=redact) for hook in self._hooks
        )
        # No lock, which a fork could leave held for ever: of two threads the first one wins.
        made: _Delivery = vars(self).setdefault("_delivery", (outbox, couriers))
        return made

    def _before_change(self) -> None:
        with self._harmless():
            try:
                self._begun()
            except (MlopskitError, OSError):
                # A webhook that cannot begin now shall begin before this change, and not after it.
                if "_before_trouble" not in vars(self):
                    vars(self)["_before_trouble"] = _Histories(self).ends()
                raise

    def _after_change(self, name: str | None) -> None:
        with self._harmless():
            for courier in self._begun()[1]:
                courier.wake(name)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Keep the trouble of webhooks away from whoever changes the registry."""
        try:
            yield
        except (MlopskitError, OSError, RuntimeError) as exc:  # RuntimeError: no more threads.
            why = self.context.redactor.text(str(exc))
            logger.warning("Webhooks are not told for now, and will be later: %s", why)

    def _stop_webhooks(self) -> None:
        from mlopskit.registry.webhooks.delivery import CLOSE_S  # noqa: PLC0415 - few ask

        delivery: _Delivery | None = vars(self).pop("_delivery", None)
        if delivery is None:
            return
        outbox, couriers = delivery
        deadline = time.monotonic() + CLOSE_S
        # One that has not ended yet still has to write down what it delivers.
        ended = [courier.stop(deadline) for courier in couriers]
        if all(ended):
            outbox.close()

    def _status(self, outbox: Outbox, courier: Courier) -> WebhookStatus:
        hook = courier.webhook
        queue = courier.queue(self._all_models())
        waiting = [entry for entry in queue if courier.wants(entry)]
        first = waiting[0] if waiting else None
        tried = outbox.tried(hook.id).get((first.name, first.id)) if first else None
        dead = outbox.dead(hook.id)
        return WebhookStatus(
            id=hook.id,
            url=hook.shown,
            events=tuple(sorted(hook.events)),
            delivered=outbox.delivered(hook.id),
            pending=len(waiting),
            dead=len(dead),
            tries=tried.tries if tried else 0,
            next_try_at=_moment(tried.at + tried.pause) if tried else None,
            error=tried.error if tried else (dead[-1].error if dead else ""),
            disabled=outbox.disabled(hook.id),
        )


class _Histories:
    """The histories of a registry, as couriers read them."""

    def __init__(self, registry: Webhooks) -> None:
        self._registry = registry

    def models(self) -> list[str]:
        return self._registry._all_models()

    def entries(self, name: str) -> list[HistoryEntry]:
        with suppress(NotFound):
            return self._registry.history(name)
        return []

    def ends(self) -> dict[str, int]:
        histories = {name: self.entries(name) for name in self.models()}
        return {name: entries[-1].id for name, entries in histories.items() if entries}


def _told(change: Callable[..., Any]) -> Callable[..., Any]:
    """Return a primitive that tells the webhooks when it has changed something."""

    @wraps(change)
    def telling(self: Webhooks, *args: Any, **more: Any) -> Any:
        if not self._hooks:
            return change(self, *args, **more)
        self._before_change()
        try:
            return change(self, *args, **more)
        finally:  # What was interrupted, or whose answer was lost, may have been written.
            first = args[0] if args else None
            self._after_change(first if isinstance(first, str) else getattr(first, "name", None))

    return telling


def _stopped(close: Callable[..., None]) -> Callable[..., None]:
    """Return a `close` that stops the webhooks first."""

    @wraps(close)
    def closing(self: Webhooks) -> None:
        if self._hooks:
            self._stop_webhooks()
        close(self)

    return closing


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
