"""Promotions that wait for a person: requests, and what became of them, read off the history."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit.errors import Conflict, InvalidInput, NotFound
from mlopskit.registry.backend import RegistryBackend
from mlopskit.registry.details import check_text
from mlopskit.registry.entities import ApprovalRequest
from mlopskit.registry.lines import Line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlopskit.registry.entities import HistoryEntry, ModelVersion
    from mlopskit.registry.references import Ref

WEEK: Final = timedelta(days=7)
TRIES: Final = 20


class Approvals(RegistryBackend):
    """The part of the registry's interface that asks people."""

    def request_approval(
        self,
        name: str,
        version: Ref,
        stage: str,
        *,
        why: str,
        expires_in: timedelta = WEEK,
        by: str | None = None,
    ) -> ApprovalRequest:
        """Ask that a version may enter a stage, and return the request.

        The gate `mlopskit.registry.gates.approved` lets a version pass whose request was approved.
        An approval is good for one promotion.

        Args:
            name: The model's name.
            version: The candidate.
            stage: Where it shall go.
            why: The reason, for those who decide.
            expires_in: After that neither the request nor its approval can be used.
            by: Who asks; the registry's `actor` if left out.

        Raises:
            NotFound: If there is no such model, version or stage.
            Conflict: If the stages do not allow the move, or such a request is pending.
            InvalidInput: If there is no reason, or the time is over before it begins.
        """
        candidate = self.get_version(name, version)
        self._check_move(candidate, stage)
        if not check_text("why", why).strip():
            raise InvalidInput("A request needs a reason for those who decide: pass why.")
        expires_at = _after(expires_in)
        who = self._who(by)
        for _ in range(TRIES):
            entries = self.history(name)
            for known in requests_of(entries, _now()):
                same = (known.version, known.stage) == (candidate.version, stage)
                if same and known.status == "pending":
                    raise Conflict(
                        f"{known.by!r} has asked already that version {known.version} of {name!r} "
                        f"may enter {stage!r}: request {known.id} is pending until "
                        f"{_told(known.expires_at)}. Approve or reject that one."
                    )
            line = Line(
                name,
                candidate.version,
                "requested",
                before=candidate.stage,
                after=stage,
                why=self.context.redactor.text(why),
                details={"by": who, "expires_at": expires_at.isoformat()},
            )
            if (entry := self._note(line, entries[-1].id)) is not None:
                return self._request(name, entry.id)
        raise _busy(name)

    def requests(self, name: str | None = None) -> list[ApprovalRequest]:
        """Return every request of a model, or of all models, the first one first.

        Raises:
            NotFound: If there is no such model.
        """
        names = [model.name for model in self.list_models()] if name is None else [name]
        return [each for one in names for each in requests_of(self.history(one), _now())]

    def pending(self, name: str | None = None) -> list[ApprovalRequest]:
        """Return the requests of a model, or of all models, that nobody has decided yet."""
        return [each for each in self.requests(name) if each.status == "pending"]

    def approve(
        self, name: str, request: int, *, by: str | None = None, why: str = ""
    ) -> ApprovalRequest:
        """Approve a request, and return it. Its version may then pass the gate `approved`.

        Args:
            name: The model's name.
            request: The request's id, which `pending` tells; no version's number.
            by: Who approves; the registry's `actor` if left out. Nobody proves a name here: give
                people registries of their own, or let what knows them pass it.
            why: A reason for the history.

        Raises:
            NotFound: If there is no such model or request.
            Conflict: If who approves is who asked, whether by name or as the actor that wrote the
                request down, or the request is not pending.
        """
        return self._decide_request(name, request, "approved", by, why)

    def reject(
        self, name: str, request: int, *, by: str | None = None, why: str = ""
    ) -> ApprovalRequest:
        """Reject a request, and return it. Takes what `approve` takes; who asked may reject too."""
        return self._decide_request(name, request, "rejected", by, why)

    def _decide_request(
        self,
        name: str,
        request: int,
        action: Literal["approved", "rejected"],
        by: str | None,
        why: str,
    ) -> ApprovalRequest:
        who = self._who(by)
        why = self.context.redactor.text(check_text("why", why))
        for _ in range(TRIES):
            entries = self.history(name)
            found = _found(requests_of(entries, _now()), name, request)
            if found.status != "pending":
                raise Conflict(
                    f"Request {request} of {name!r} {_became(found)}, and cannot be {action} any "
                    "more. Ask again with request_approval()."
                )
            asked = next(entry for entry in entries if entry.id == request)
            if action == "approved" and _person(who) in {_person(found.by), _person(asked.by)}:
                raise Conflict(
                    f"Request {request} of {name!r} was made by {found.by!r}, and {who!r} cannot "
                    "approve it. Another person has to."
                )
            line = Line(
                name,
                found.version,
                action,
                after=found.stage,
                why=why,
                details={"by": who, "request": request},
            )
            if self._note(line, entries[-1].id) is not None:
                return self._request(name, request)
        raise _busy(name)

    def _request(self, name: str, id: int) -> ApprovalRequest:
        return _found(requests_of(self.history(name), _now()), name, id)

    def _lapsed(self, candidate: ModelVersion, stage: str, since: datetime) -> bool:
        """Tell whether an approval that could be used at a time has expired since."""
        return any(
            (each.version, each.stage) == (candidate.version, stage)
            and each.status == "expired"
            and each.decided_by is not None
            and each.expires_at >= since
            for each in self.requests(candidate.name)
        )

    def _who(self, by: str | None) -> str:
        who = self.actor if by is None else check_text("by", by).strip()
        if not who:
            raise InvalidInput("Nobody is named: pass by, or open the registry with an actor.")
        return who


def requests_of(entries: Iterable[HistoryEntry], now: datetime) -> list[ApprovalRequest]:
    """Return the requests that a history tells of, as they stand at a time."""
    found: dict[int, ApprovalRequest] = {}
    for entry in entries:
        if entry.version is None:
            continue
        if entry.action == "requested":
            found[entry.id] = _asked(entry, entry.version)
        elif entry.action in ("approved", "rejected"):
            request = found.get(int(entry.details.get("request", -1)))
            if request is not None and request.status == "pending":
                found[request.id] = request.model_copy(update=_decided(entry))
        elif entry.action == "promoted":
            for each in list(found.values()):
                if _passed_by(each, entry):
                    found[each.id] = each.model_copy(update={"status": "used"})
        elif entry.action in ("registered", "deleted"):  # It was asked for other bytes.
            for each in list(found.values()):
                if each.version == entry.version and each.status in ("pending", "approved"):
                    found[each.id] = each.model_copy(update={"status": "outdated"})
    return [_expired(each) if _is_over(each, now) else each for each in found.values()]


def _asked(entry: HistoryEntry, version: int) -> ApprovalRequest:
    return ApprovalRequest(
        id=entry.id,
        name=entry.name,
        version=version,
        stage=entry.after or "",
        by=str(entry.details.get("by", entry.by)),
        why=entry.why,
        at=entry.at,
        expires_at=datetime.fromisoformat(entry.details["expires_at"]),
    )


def _decided(entry: HistoryEntry) -> dict[str, Any]:
    return {
        "status": entry.action,
        "decided_by": str(entry.details.get("by", entry.by)),
        "decided_at": entry.at,
        "decided_why": entry.why,
    }


def _passed_by(request: ApprovalRequest, entry: HistoryEntry) -> bool:
    same = (request.version, request.stage) == (entry.version, entry.after)
    return same and request.status == "approved" and entry.at <= request.expires_at


def _is_over(request: ApprovalRequest, now: datetime) -> bool:
    return request.status in ("pending", "approved") and now > request.expires_at


def _expired(request: ApprovalRequest) -> ApprovalRequest:
    return request.model_copy(update={"status": "expired"})


def _found(requests: list[ApprovalRequest], name: str, id: int) -> ApprovalRequest:
    for each in requests:
        if each.id == id:
            return each
    raise NotFound(f"request of {name!r}", id, (str(each.id) for each in requests))


def _became(request: ApprovalRequest) -> str:
    """Say what became of a request that is no longer pending."""
    if request.status == "expired":
        return f"expired at {_told(request.expires_at)}"
    if request.status == "used":
        return f"was used when version {request.version} entered {request.stage!r}"
    if request.status == "outdated":
        return f"was for a version {request.version} that is no longer there"
    return f"was {request.status} by {request.decided_by!r}"


def _after(expires_in: timedelta) -> datetime:
    if not isinstance(expires_in, timedelta):
        raise InvalidInput(f"expires_in is {expires_in!r}. Pass a timedelta.")
    if expires_in <= timedelta(0):
        raise InvalidInput(f"The request would expire in {expires_in}. Pass a longer time.")
    try:
        return _now() + expires_in
    except OverflowError as exc:
        raise InvalidInput(f"The request would expire in {expires_in}, after year 9999.") from exc


def _person(name: str) -> str:
    """Return a name as two writings of it are one."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _told(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _now() -> datetime:
    return datetime.now(UTC)


def _busy(name: str) -> Conflict:
    return Conflict(f"The history of {name!r} kept changing. Nothing was written; try again.")
