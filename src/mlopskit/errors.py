"""What can go wrong, on one page.

::

  * MlopskitError
    + ConfigError                 the configuration cannot be turned into working tools
      - UnknownBackend            no installed package offers that backend
      - UnknownOption             a key, option or domain that nothing reads
      - UnknownProfile            no configuration file has that profile
      - MissingDependency         the backend is known; the package it talks to is not installed
      - BrokenPlugin              the backend's own code failed while it was imported
    + InvalidName                 a name that could leave its folder, or that no backend can keep
    + InvalidInput                a value that cannot be taken as it is
      - InvalidModel              bytes that are not the model they claim to be
    + UntrustedModel              loading would run code from the model file
      - InvalidSignature          a signature is required, and is missing or not of these files
    + NotFound                    the backend answered, and it has no such thing
    + Conflict                    the request contradicts what is already stored
      - ParamConflict             a param already has another value
    + Unsupported                 the backend declares that it cannot do this, and why
    + StorageError                bytes could not be written, or do not read back as written
      - IntegrityError            stored bytes no longer match their digest
      - CopyDiffers               what was copied does not read back as its source does
    + StepFailed                  a step of a pipeline raised; its own exception is the cause
    + RunCancelled                somebody asked the run of a pipeline to stop
    + BackendError                the tool failed; its own exception is the cause
      - Unavailable               the tool could not be reached, and may be later

Each class builds its own message from arguments that it keeps, so that raising one is a single
line and every message says what happened, what there is instead, and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "BackendError",
    "BrokenPlugin",
    "ConfigError",
    "Conflict",
    "CopyDiffers",
    "IntegrityError",
    "InvalidInput",
    "InvalidModel",
    "InvalidName",
    "InvalidSignature",
    "MissingDependency",
    "MlopskitError",
    "NotFound",
    "ParamConflict",
    "RunCancelled",
    "StepFailed",
    "StorageError",
    "Unavailable",
    "UnknownBackend",
    "UnknownOption",
    "UnknownProfile",
    "Unsupported",
    "UntrustedModel",
]


class MlopskitError(Exception):
    """Base class of every error that mlopskit raises on purpose."""


class ConfigError(MlopskitError):
    """The configuration cannot be turned into working tools."""


class UnknownBackend(ConfigError):
    """No installed package offers the backend that was asked for."""

    def __init__(self, domain: str, name: str, installed: Iterable[str]) -> None:
        choices = sorted(installed)
        super().__init__(
            f"No {domain} backend is called {name!r}.{_nearest(name, choices)} "
            f"Installed: {', '.join(choices) or 'none'}."
        )
        self.domain = domain
        self.name = name
        self.installed = choices


class UnknownOption(ConfigError):
    """A key, option or domain that nothing reads."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        choices = sorted(known)
        place = f" in {where}" if where else ""
        super().__init__(
            f"There is no {kind} {name!r}{place}.{_nearest(name, choices)} "
            f"Known: {', '.join(choices) or 'none'}."
        )
        self.kind = kind
        self.name = name
        self.known = choices


class UnknownProfile(ConfigError):
    """No configuration file has the profile that was asked for."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        there = ", ".join(choices) or "none; add a [profile.NAME] table to mlopskit.toml"
        super().__init__(
            f"No profile is called {name!r}.{_nearest(name, choices)} Profiles: {there}."
        )
        self.name = name
        self.known = choices


class MissingDependency(ConfigError):
    """A backend or a feature is known, but the package it talks to is not installed."""

    def __init__(self, what: str, package: str, install: str) -> None:
        super().__init__(
            f"{what} needs {package!r}, which is not installed. Install it with: {install}"
        )
        self.package = package
        self.install = install


class BrokenPlugin(ConfigError):
    """A backend's own code failed while it was imported. The failure is this error's cause."""

    def __init__(self, domain: str, name: str, distribution: str, reason: BaseException) -> None:
        super().__init__(
            f"The {domain} backend {name!r} of the distribution {distribution!r} failed to import "
            f"({type(reason).__name__}: {reason}). The other backends still work."
        )
        self.domain = domain
        self.name = name
        self.distribution = distribution


class InvalidName(MlopskitError, ValueError):
    """A name that could leave its folder, or that not every backend can keep."""

    def __init__(self, kind: str, name: object, reason: str) -> None:
        shown = repr(name)
        if len(shown) > 80:
            shown = f"{shown[:60]}... ({len(shown)} characters)"
        super().__init__(f"{shown} cannot name {_a(kind)}: {reason}.")
        self.kind = kind
        self.name = name
        self.reason = reason


class InvalidInput(MlopskitError, ValueError):
    """A value that cannot be taken as it is."""


class InvalidModel(InvalidInput):
    """Bytes that are not the model they claim to be."""


class UntrustedModel(MlopskitError):
    """Loading would run code from the model file."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(
            f"Loading {model} would run code from the file: {reason}. "
            "If you trust where it came from, pass trusted=True in code."
        )
        self.model = model
        self.reason = reason


class InvalidSignature(UntrustedModel):
    """A signature is required, and is missing or not one of these files by a known key."""

    def __init__(self, model: str, reason: str) -> None:
        MlopskitError.__init__(
            self,
            f"The signature of {model} is not accepted: {reason}. Nothing of it was loaded. "
            "Who has the private key can sign it: mlopskit sign NAME VERSION --key FILE",
        )
        self.model = model
        self.reason = reason


class NotFound(MlopskitError, LookupError):
    """The backend answered, and it has no such thing.

    Args:
        kind: What it would be, such as ``"run"``. What something quoted would have, such as
            ``"version of 'churn'"``, is told as it is said: "There is no version 9 of 'churn'."
        name: What it was asked for.
        known: What there is instead.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str] = ()) -> None:
        choices = sorted(known, key=_in_order)
        near = "" if str(name).isdigit() else _nearest(str(name), choices)
        there = f"{near} There is: {_some(choices)}." if choices else ""
        super().__init__(f"There is no {_called(kind, name)}.{there}")
        self.kind = kind
        self.name = name


class Conflict(MlopskitError):
    """The request contradicts what is already stored."""


class ParamConflict(Conflict):
    """A param already has another value."""

    def __init__(self, key: str, stored: object, given: object) -> None:
        super().__init__(
            f"Param {key!r} is already {stored!r} and cannot become {given!r}. "
            "Pass overwrite=True to change it."
        )
        self.key = key
        self.stored = stored
        self.given = given


class Unsupported(MlopskitError):
    """The backend declares that it cannot do this, and why."""

    def __init__(self, domain: str, backend: str, capability: str, reason: str) -> None:
        super().__init__(
            f"The {domain} backend {backend!r} cannot do {capability!r}: {reason}. "
            f"See which can: mlopskit backends {domain}"
        )
        self.domain = domain
        self.backend = backend
        self.capability = capability
        self.reason = reason


class StorageError(MlopskitError):
    """Bytes could not be written, or do not read back as they were written."""


class IntegrityError(StorageError):
    """Stored bytes no longer match the digest under which they were stored."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(
            f"{what} has changed since it was stored: its digest was {expected} and is now {found}."
        )
        self.expected = expected
        self.found = found


class CopyDiffers(StorageError):
    """What was copied reads back otherwise than its source, and in what."""

    def __init__(self, destination: str, different: Mapping[str, Sequence[str]]) -> None:
        shown = [f"  {run}: {'; '.join(why)}" for run, why in list(different.items())[:5]]
        more = f"\n  and {len(different) - 5} more" if len(different) > 5 else ""
        super().__init__(
            f"{len(different)} runs at {destination} are not what was copied there:\n"
            + "\n".join(shown)
            + more
        )
        self.different = different


class StepFailed(MlopskitError):
    """A step of a pipeline raised. Its own exception is this one's cause."""

    def __init__(
        self, pipeline: str, step: str, run_id: str, reason: BaseException, others: Iterable[str]
    ) -> None:
        failed = sorted(others)
        also = f" So did {', '.join(failed)}." if failed else ""
        super().__init__(
            f"Step {step!r} of pipeline {pipeline!r} failed ({type(reason).__name__}: {reason})."
            f"{also} Every step that needs none of these has finished and is kept, so that the "
            f"same run again begins here. Run: {run_id}"
        )
        self.pipeline = pipeline
        self.step = step
        self.run_id = run_id
        self.others = failed


class RunCancelled(MlopskitError):
    """Somebody asked the run of a pipeline to stop, and it has."""

    def __init__(self, pipeline: str, run_id: str) -> None:
        super().__init__(
            f"The run {run_id} of pipeline {pipeline!r} was cancelled. The steps that finished are "
            "kept, so that the same run again begins after them."
        )
        self.pipeline = pipeline
        self.run_id = run_id


class BackendError(MlopskitError):
    """The tool failed. Its own exception is this one's cause."""


class Unavailable(BackendError):
    """The tool could not be reached, and may be later."""

    def __init__(self, what: str, reason: Any) -> None:
        super().__init__(f"{what} cannot be reached: {reason}")
        self.what = what


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only an error pays for it

    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _called(kind: str, name: object) -> str:
    """Return ``version 9 of 'churn'`` for the kind ``version of 'churn'``."""
    for word in (" of ", " in "):
        noun, between, owner = kind.partition(word)
        if owner.endswith(("'", '"')):
            return f"{noun} {name!r}{between}{owner}"
    return f"{kind} {name!r}"


def _in_order(name: str) -> tuple[int, str]:
    """Sort 9 before 10, and names as they are."""
    return (len(name) if name.isdigit() else 0, name)


def _some(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"
