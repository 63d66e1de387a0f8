"""Gates that look at what a version is, rather than at how well it does."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MlopskitError
from mlopskit.registry.cards import REQUIRED, check_fields, read_card
from mlopskit.registry.entities import GateContext, GateResult
from mlopskit.registry.gates.asking import named
from mlopskit.registry.signatures import compare_signatures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlopskit.registry.entities import ApprovalRequest
    from mlopskit.registry.gates.asking import Gate

DATA_UNTIL: Final = "data_until"
# Clocks differ, and a time without a zone may be that of another: more is a mistake.
AHEAD: Final = timedelta(days=1)
# These keep what somebody else wrote, with libraries that nobody here was told of.
_FOREIGN: Final = frozenset(["file", "folder", "pickle", "joblib"])


def signature_compatible() -> Gate:
    """Return a gate: whoever asks the stage's holder must be able to ask the candidate.

    See `compare_signatures`. A candidate without a signature is refused, unless nobody holds the
    stage; with one it may follow a holder that has none.
    """

    def gate(context: GateContext) -> GateResult:
        holder = context.holder
        if holder is None:
            return GateResult(
                passed=True,
                reason=f"No version is in {context.stage!r} whose callers could break.",
                evidence={"holder_version": None},
            )
        evidence: dict[str, Any] = {"holder_version": holder.version}
        if context.signature is None:
            return GateResult(
                passed=False,
                reason=f"The candidate has no signature to compare with version {holder.version}.",
                evidence=evidence,
            )
        if holder.signature is None:
            return GateResult(
                passed=True,
                reason=f"Version {holder.version} has no signature; the candidate has one.",
                evidence=evidence,
            )
        change = compare_signatures(holder.signature, context.signature)
        evidence |= {"breaks": change.breaks, "additions": change.additions}
        if change.compatible:
            reason = f"Who asks version {holder.version} can ask the candidate."
            return GateResult(passed=True, reason=reason, evidence=evidence)
        reason = f"The candidate breaks who asks version {holder.version}: "
        return GateResult(passed=False, reason=reason + " ".join(change.breaks), evidence=evidence)

    return named(gate, "signature_compatible")


def digest_verified() -> Gate:
    """Return a gate: every byte of the candidate must be the one that was registered.

    A version that somebody registered by a tool's own means has no digests, and is refused.
    """

    def gate(context: GateContext) -> GateResult:
        candidate = context.candidate
        if not candidate.digest:
            return GateResult(
                passed=False,
                reason=f"Version {candidate.version} has no digests to verify: it was not "
                "registered by mlopskit. Download it, and register its files again.",
                evidence={"digest": None},
            )
        with tempfile.TemporaryDirectory(prefix="mlopskit-gate-") as folder:
            try:
                path = context.registry.download(
                    candidate.name, candidate.version, Path(folder) / "model"
                )
                files = [each for each in path.rglob("*") if each.is_file()]
                size = sum(each.stat().st_size for each in files)
            except MlopskitError as exc:
                return GateResult(
                    passed=False,
                    reason=f"{type(exc).__name__}: {exc}",
                    evidence={"digest": candidate.digest},
                )
        return GateResult(
            passed=True,
            reason=f"All of its {size} bytes are those of {candidate.digest}.",
            evidence={"digest": candidate.digest, "files": len(files), "bytes": size},
        )

    return named(gate, "digest_verified")


def smaller_than(size: int) -> Gate:
    """Return a gate: the candidate's files must take fewer bytes than `size` together."""

    def gate(context: GateContext) -> GateResult:
        found = context.candidate.size
        passed = found < size
        return GateResult(
            passed=passed,
            reason=f"The candidate takes {found} bytes, {'' if passed else 'not '}below {size}.",
            evidence={"bytes": found, "limit": size},
        )

    return named(gate, "smaller_than")


def fresh(max_age: timedelta, *, tag: str = DATA_UNTIL) -> Gate:
    """Return a gate: the candidate, and its data where their age is known, must not be old.

    A time that is more than a day ahead of this clock is a mistake, and refuses.

    Args:
        max_age: The longest time since the version was registered, and since its newest data.
        tag: The candidate's tag with the time of its newest data, in ISO 8601; without a zone it
            is UTC. A version without the tag is judged by its registration alone.

    Raises:
        InvalidInput: If the age is not above zero.
    """
    if max_age <= timedelta(0):
        raise InvalidInput(f"max_age is {max_age}; it must be above zero.")

    def gate(context: GateContext) -> GateResult:
        now = datetime.now(UTC)
        candidate = context.candidate
        times = {"registered": candidate.created_at}
        if (said := candidate.tags.get(tag)) is not None:
            try:
                until = datetime.fromisoformat(said)
            except ValueError:
                return GateResult(
                    passed=False,
                    reason=f"The tag {tag!r} is {said!r}, which is no time in ISO 8601.",
                    evidence={"tag": tag, "value": said},
                )
            times["data"] = until.replace(tzinfo=UTC) if until.tzinfo is None else until
        ages = {what: now - time for what, time in times.items()}
        old = [what for what, age in ages.items() if age > max_age]
        ahead = [what for what, age in ages.items() if age < -AHEAD]
        told = " and ".join(_WORDS[what].format(_days(age)) for what, age in ages.items())
        reason = f"{told}, {'more' if old else 'not more'} than {_days(max_age)}."
        if ahead:
            reason = f"{told}: a time ahead of this clock says nothing of an age."
        return GateResult(
            passed=not old and not ahead,
            reason=reason,
            evidence={
                "max_age_s": max_age.total_seconds(),
                **{f"{what}_age_s": age.total_seconds() for what, age in ages.items()},
                "too_old": old,
                "ahead": ahead,
            },
        )

    return named(gate, "fresh")


def approved(by: str | Iterable[str] | None = None) -> Gate:
    """Return a gate: a person must have approved that this version enters this stage.

    See `Registry.request_approval`. The approval must not have expired, is good for one promotion,
    and never comes from who asked.

    Args:
        by: The one, or the several, whose approval counts; anybody's if left out.
    """
    people = None if by is None else frozenset([by] if isinstance(by, str) else by)

    def gate(context: GateContext) -> GateResult:
        requests = [each for each in _requests(context) if each.status == "approved"]
        if not requests:
            return GateResult(passed=False, reason=_not_approved(context), evidence={})
        good = [each for each in requests if people is None or each.decided_by in people]
        request = (good or requests)[-1]
        evidence = {
            "request": request.id,
            "asked_by": request.by,
            "approved_by": request.decided_by,
            "expires_at": request.expires_at.isoformat(),
        }
        if people is not None and not good:
            reason = f"{request.decided_by} approved it, who is not one of {sorted(people)}."
            return GateResult(passed=False, reason=reason, evidence=evidence)
        if request.decided_by in (None, request.by):
            reason = f"{request.by} asked, and cannot be the one who approves."
            return GateResult(passed=False, reason=reason, evidence=evidence)
        return GateResult(
            passed=True,
            reason=f"{request.decided_by} approved the request {request.id} of {request.by}.",
            evidence=evidence,
        )

    return named(gate, "approved")


def card_complete(*fields: str) -> Gate:
    """Return a gate: these fields of the candidate's model card must be filled in.

    Args:
        fields: Such as ``"owner"`` or ``"slices"``; those that `mlopskit.registry.cards.REQUIRED`
            names if none is given.

    Raises:
        InvalidInput: If a card has no such field.
    """
    wanted = fields or REQUIRED
    check_fields(wanted)

    def gate(context: GateContext) -> GateResult:
        candidate = context.candidate
        missing = read_card(context.registry, candidate.name, candidate.version).missing(*wanted)
        told = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(wanted)}"
        return GateResult(
            passed=not missing,
            reason=f"The model card {told}.",
            evidence={"required": wanted, "missing": missing},
        )

    return named(gate, "card_complete")


def environment_known(*, clean_code: bool = False) -> Gate:
    """Return a gate: what made the candidate must be known: Python, and the libraries.

    Files that were registered as they are name no libraries, and are not asked for any.

    Args:
        clean_code: Ask for the revision of the code too, from a folder without changes to it.
    """

    def gate(context: GateContext) -> GateResult:
        lineage, flavor = context.candidate.lineage, context.candidate.flavor
        missing = [] if lineage.python else ["the version of Python"]
        if not lineage.libraries and flavor not in _FOREIGN:
            missing.append("the versions of libraries")
        if clean_code and not lineage.code:
            missing.append("the revision of the code")
        if clean_code and (lineage.code or "").endswith("-dirty"):
            missing.append("a revision without changes to it")
        known = {"python": lineage.python, "code": lineage.code, **lineage.libraries}
        return GateResult(
            passed=not missing,
            reason=f"Not known: {', '.join(missing)}."
            if missing
            else f"Made with Python {lineage.python}{_libraries(lineage.libraries)}.",
            evidence={"known": known, "missing": missing},
        )

    return named(gate, "environment_known")


_WORDS: Final = {"registered": "Registered {} ago", "data": "trained on data that end {} ago"}


def _libraries(versions: Any) -> str:
    return "".join(f", {name} {version}" for name, version in versions.items())


def _days(age: timedelta) -> str:
    return f"{age / timedelta(days=1):.3g} days"


def _requests(context: GateContext) -> list[ApprovalRequest]:
    """Return the requests that this version may enter this stage, the first one first."""
    wanted = (context.candidate.version, context.stage)
    requests = context.registry.requests(context.candidate.name)
    return [each for each in requests if (each.version, each.stage) == wanted]


def _not_approved(context: GateContext) -> str:
    mine = _requests(context)
    what = f"version {context.candidate.version} in {context.stage!r}"
    if not mine:
        return f"Nobody asked for the approval of {what}: request_approval() does."
    last = mine[-1]
    who = f" by {last.decided_by}" if last.decided_by else ""
    return f"The latest request for {what}, number {last.id}, is {last.status}{who}."
