"""What is done to every registry, and how what comes out of it is judged."""

from __future__ import annotations

import math
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

from mlopskit.comparison.processes import LONGEST
from mlopskit.testing import hard_values as hard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.comparison.result import Fate

    Judged = tuple[Fate, str]

ROUNDS: Final = 10
MARK: Final = b"these bytes are looked for on the disk" * 10


class Driver(Protocol):
    """A registry's client, as far as the workload needs it.

    Attributes:
        folder: Where everything of it lies that is on this disk.
        has: What it has of that which cases need.
    """

    folder: Path
    has: frozenset[str]

    def register(
        self,
        name: str,
        source: Path,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
    ) -> int:
        """Register a folder, and return the number of the version."""

    def download(self, name: str, version: int, to: Path) -> Path:
        """Write the files of a version under a folder, and return where they are."""

    def tags(self, name: str, version: int) -> Mapping[str, str]:
        """Read the tags of a version."""

    def metrics(self, name: str, version: int) -> Mapping[str, float]:
        """Read the metrics of a version."""

    def description(self, name: str, version: int) -> str:
        """Read the description of a version."""

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version."""

    def by_alias(self, name: str, alias: str) -> int:
        """Return the version that an alias points to."""

    def promote(self, name: str, version: int) -> None:
        """Put a version into production, and out of it what is there."""

    def in_production(self, name: str) -> list[int]:
        """Return the versions that are in production."""

    def delete(self, name: str, version: int) -> None:
        """Delete a version."""

    def delete_model(self, name: str) -> None:
        """Delete a model with all of its versions."""

    def register_pickle(self, name: str, model: object, scratch: Path) -> int:
        """Register a pickled object, the way that the tool's users do."""

    def load(self, name: str, version: int) -> object:
        """Load a version, with nothing said about trust."""

    def history(self, name: str) -> list[tuple[str, int | None]]:
        """Return what happened, as ("alias", "production" or "deleted", the version)."""

    def another(self) -> Driver:
        """Return another client of the same registry."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is hard for a registry.

    Attributes:
        kind: What it is about.
        what: What is hard about it, in a few words.
        done: Does it to a model of this name, and judges what comes out.
        meant: What may become of it and be right.
        needs: ``"disk"`` if the registry's files have to be on this disk, ``"server"`` if a server
            of the tool's own decides, not one that stands in for it.
    """

    kind: str
    what: str
    done: Callable[[Driver, str], Judged]
    meant: tuple[Fate, ...] = ("kept",)
    needs: frozenset[str] = frozenset()


class Canary:
    """Unpickled, it makes a file: whoever finds the file has seen code run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        """Say what unpickling calls."""
        return os.mkdir, (str(self.path),)


def shown(error: Exception) -> str:
    """Return an error as it is told."""
    return f"{type(error).__name__}: {error}"


def _round(put: Callable[[], Any], read: Callable[[Any], Any], wanted: Any) -> Judged:
    """Put something, read it back and compare."""
    try:
        made = put()
    except Exception as exc:  # noqa: BLE001 - a refusal is what is looked for
        return "refused", shown(exc)
    try:
        found = read(made)
    except Exception as exc:  # noqa: BLE001 - whatever a client raises of what it does not have
        return "lost", shown(exc)
    if _same(found, wanted):
        return "kept", ""
    if isinstance(found, str) and isinstance(wanted, str) and len(found) > LONGEST:
        return "changed", f"{len(found):,} of its {len(wanted):,} characters"
    return "changed", repr(found)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, float):
        both_nan = math.isnan(found) and math.isnan(wanted)
        return both_nan or (found, math.copysign(1, found)) == (wanted, math.copysign(1, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


# Each of these returns what a case does.


def _file(path: str, content: bytes) -> Callable[[Driver, str], Judged]:
    def done(driver: Driver, name: str) -> Judged:
        with TemporaryDirectory() as scratch:
            source, to = _source(scratch, path, content)
            return _round(
                lambda: driver.register(name, source),
                lambda version: (driver.download(name, version, to) / path).read_bytes(),
                content,
            )

    return done


def _link(driver: Driver, name: str) -> Judged:
    with TemporaryDirectory() as scratch:
        secret = Path(scratch, "secret")
        secret.write_bytes(b"not of the model")
        source, to = _source(scratch, "model.bin", MARK)
        (source / "link").symlink_to(secret)
        fate, detail = _round(
            lambda: driver.register(name, source),
            lambda version: os.readlink(driver.download(name, version, to) / "link"),
            str(secret),
        )
        there = [each for each in to.rglob("link") if each.is_file() and not each.is_symlink()]
        return ("changed", "the bytes of that file were stored") if there else (fate, detail)


def _given(what: str, key: str, value: Any) -> Callable[[Driver, str], Judged]:
    """Register with one tag or metric."""
    given: Any = {what: {key: value}}

    def done(driver: Driver, name: str) -> Judged:
        with TemporaryDirectory() as scratch:
            source, _ = _source(scratch, "model.bin", MARK)
            return _round(
                lambda: driver.register(name, source, **given),
                lambda version: getattr(driver, what)(name, version)[key],
                value,
            )

    return done


def _described(text: str) -> Callable[[Driver, str], Judged]:
    def done(driver: Driver, name: str) -> Judged:
        with TemporaryDirectory() as scratch:
            source, _ = _source(scratch, "model.bin", MARK)
            return _round(
                lambda: driver.register(name, source, description=text),
                lambda version: driver.description(name, version),
                text,
            )

    return done


def _alias(*aliases: str) -> Callable[[Driver, str], Judged]:
    """Point aliases to the first versions of more: the first alias to version 1, and so on."""

    def done(driver: Driver, name: str) -> Judged:
        versions = _versions(driver, name, len(aliases) + 1)
        pairs = list(zip(aliases, versions, strict=False))

        def put() -> None:
            for alias, version in pairs:
                driver.set_alias(name, alias, version)

        return _round(
            put,
            lambda _: [driver.by_alias(name, alias) for alias, _ in pairs],
            [version for _, version in pairs],
        )

    return done


def _race(driver: Driver, name: str) -> Judged:
    """Promote two versions at the same moment, several times."""
    pair = [driver.another(), driver.another()]
    counts: list[int] = []
    errors: list[str] = []
    for number in range(ROUNDS):
        model = f"{name}-{number}"
        versions = _versions(driver, model, 2)
        gate = threading.Barrier(2)

        def promote(client: Driver, version: int, model: str = model, gate: Any = gate) -> None:
            gate.wait()
            try:
                client.promote(model, version)
            except Exception as exc:  # noqa: BLE001 - one of two may be refused
                errors.append(shown(exc))

        threads = [
            threading.Thread(target=promote, args=each) for each in zip(pair, versions, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts.append(len(driver.in_production(model)))
    for each in pair:
        each.close()
    wrong = [count for count in counts if count != 1]
    if not wrong:
        return "kept", ""
    said = f"{max(wrong)} in production after {len(wrong)} of {ROUNDS} races"
    return "changed", said + (f"; {errors[0]}" if 0 in wrong and errors else "")


def _number_again(driver: Driver, name: str) -> Judged:
    first, second = _versions(driver, name, 2)
    driver.delete(name, second)
    (third,) = _versions(driver, name, 1)
    return ("kept", "") if third > second > first else ("changed", f"{third} is given again")


def _model_again(driver: Driver, name: str) -> Judged:
    versions = _versions(driver, name, 2)
    driver.delete_model(name)
    (again,) = _versions(driver, name, 1)
    return ("kept", "") if again not in versions else ("changed", f"{again} is given again")


def _damaged(damage: Callable[[bytes], bytes]) -> Callable[[Driver, str], Judged]:
    def done(driver: Driver, name: str) -> Judged:
        with TemporaryDirectory() as scratch:
            content = name.encode() + MARK
            source, to = _source(scratch, "model.bin", content)
            version = driver.register(name, source)
            _damage(driver.folder, content, damage)
            try:
                found = driver.download(name, version, to) / "model.bin"
            except Exception as exc:  # noqa: BLE001 - that is what is looked for
                return "refused", shown(exc)
            whole = found.read_bytes() == content
            return ("kept", "it has the bytes elsewhere") if whole else ("unnoticed", "")

    return done


def _damage(folder: Path, content: bytes, damage: Callable[[bytes], bytes]) -> None:
    files = [each for each in folder.rglob("*") if each.is_file() and not each.is_symlink()]
    struck = [each for each in files if each.read_bytes() == content]
    if not struck:
        raise LookupError("its file was not found on the disk")
    for each in struck:
        each.chmod(0o600)
        each.write_bytes(damage(content))


def _pickle(driver: Driver, name: str) -> Judged:
    with TemporaryDirectory() as scratch:
        canary = Path(scratch, "canary")
        try:
            version = driver.register_pickle(name, Canary(canary), Path(scratch))
        except Exception as exc:  # noqa: BLE001 - a refusal is what is looked for
            return "refused", shown(exc)
        if canary.exists():  # Saving may unpickle what it has just pickled; that is not meant here.
            canary.rmdir()
        try:
            driver.load(name, version)
        except Exception as exc:  # noqa: BLE001 - likewise
            return ("ran code" if canary.exists() else "refused"), shown(exc)
        return ("ran code" if canary.exists() else "kept"), ""


def _told(*wanted: tuple[str, int]) -> Callable[[Driver, str], Judged]:
    """Look into the history after a life of changes."""

    def done(driver: Driver, name: str) -> Judged:
        first, second, third = _versions(driver, name, 3)
        driver.set_alias(name, "champion", first)
        driver.set_alias(name, "champion", second)
        driver.promote(name, first)
        driver.promote(name, second)
        driver.delete(name, third)
        try:
            there = driver.history(name)
        except Exception as exc:  # noqa: BLE001 - whatever a client raises of what it does not have
            return "lost", shown(exc)
        return ("kept", "") if all(each in there for each in wanted) else ("lost", repr(there))

    return done


def _source(scratch: str, path: str, content: bytes) -> tuple[Path, Path]:
    """Make a folder with one file; return it, and one that does not exist yet."""
    file = Path(scratch, "source", path)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return Path(scratch, "source"), Path(scratch, "to")


def _versions(driver: Driver, name: str, count: int) -> list[int]:
    """Register versions that differ."""
    with TemporaryDirectory() as scratch:
        source, _ = _source(scratch, "model.bin", MARK)
        found = []
        for _ in range(count):
            (source / "model.bin").write_bytes(secrets.token_bytes(16))
            found.append(driver.register(name, source))
        return found


EITHER: Final[tuple[Fate, ...]] = ("kept", "refused")
NO: Final[tuple[Fate, ...]] = ("refused",)
DISK: Final = frozenset(["disk"])
SERVER: Final = frozenset(["server"])
ALIASES: Final = (
    ("names that differ in their case", ("Best", "best")),
    ("a name with a dot", ("a.b",)),
    ("a Unicode name", ("größe",)),
    ("a name of 100 characters", ("a" * 100,)),
)
RESERVED: Final = (
    ("latest", "latest"),
    ("v2, which reads as another version", "v2"),
    ("2, likewise", "2"),
    ("production, which is a stage", "production"),
)
HISTORIES: Final = (
    ("where an alias pointed before", (("alias", 1), ("alias", 2))),
    ("what was in production before", (("production", 1), ("production", 2))),
    ("that a version was deleted", (("deleted", 3),)),
)
TEXTS: Final = (
    ("a text of 100,000 characters", "ü" * 100_000),
    ("Unicode beyond 16 bits", "größe 🦊"),
    ("line ends and NUL", "a\nb\r\n\x00"),
    ("a lone surrogate", "\udc80"),
)
NUMBERS: Final[tuple[tuple[str, float], ...]] = (
    ("NaN", math.nan),
    ("an infinity", math.inf),
    ("a negative infinity", -math.inf),
    ("-0.0", -0.0),
    ("the smallest float", 5e-324),
    ("2**53 + 1, which no float is", 2**53 + 1),
)
CASES: Final = (
    *(Case("file", what, _file(path, content)) for what, path, content in hard.FILES),
    Case("file", "a backslash in its name", _file("a\\b", b"a\\b")),
    Case("file", "a name with a lone surrogate", _file("\udc80", b"surrogate")),
    Case("file", "a link to a file outside", _link, NO),
    *(Case("tag", what, _given("tags", key, value)) for what, key, value in hard.TAGS),
    *(Case("tag", what, _given("tags", "tag", text)) for what, text in TEXTS if "end" not in what),
    *(Case("metric", what, _given("metrics", "auc", value)) for what, value in NUMBERS),
    *(Case("metric", w, _given("metrics", name, 0.5)) for w, name in hard.METRIC_NAMES[:4]),
    Case("description", "an empty text", _described("")),
    *(Case("description", what, _described(text)) for what, text in TEXTS),
    *(Case("alias", what, _alias(*names), needs=SERVER) for what, names in ALIASES),
    *(Case("alias", what, _alias(name), EITHER, SERVER) for what, name in RESERVED),
    Case("promotion", "two at the same moment", _race, needs=SERVER),
    Case("deletion", "the number of a deleted version", _number_again, needs=SERVER),
    Case("deletion", "the numbers of a deleted model", _model_again, needs=SERVER),
    Case("damage", "a byte changed on the disk", _damaged(lambda b: b[:-1] + b"!"), NO, DISK),
    Case("damage", "a file cut short on the disk", _damaged(lambda b: b[:-1]), NO, DISK),
    Case("loading", "a pickle, with nothing said about trust", _pickle, NO, SERVER),
    *(Case("history", what, _told(*wanted), needs=SERVER) for what, wanted in HISTORIES),
)
