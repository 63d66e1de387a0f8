"""Names are validated here, once, for every domain.

A name is a key, never a path that somebody else joins: what is accepted reads back equal on every
backend, and what could leave its folder is refused before any backend sees it.
"""

from __future__ import annotations

import re
import unicodedata

from mlopskit.errors import InvalidName

LONGEST = 250
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))]
)
IDENTIFIER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
# Control, format (bidi overrides, zero width), surrogate, private use, unassigned,
# line and paragraph separators.
UNPRINTABLE = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])


def check_label(kind: str, name: str, *, longest: int = LONGEST) -> str:
    """Return a free-form name (a param, a metric, a run, an experiment), or refuse it.

    Any printable Unicode is fine, ``acc@1`` and ``val/loss`` included.

    Raises:
        InvalidName: If it is empty, too long, has outer blanks or unprintable characters.
    """
    if not isinstance(name, str):
        raise InvalidName(kind, name, f"a name is text, and this is {type(name).__name__}")
    if name.isascii() and name.isprintable() and 0 < len(name) <= longest and name == name.strip():
        return name
    if not name.strip():
        raise InvalidName(kind, name, "it is empty")
    if len(name) > longest:
        raise InvalidName(kind, name, f"it is longer than {longest} characters")
    if name != name.strip():
        raise InvalidName(kind, name, "it begins or ends with a blank")
    for char in name:
        if unicodedata.category(char) in UNPRINTABLE:
            raise InvalidName(kind, name, f"it holds the unprintable character U+{ord(char):04X}")
    return name


def check_identifier(kind: str, name: str, *, longest: int = 128) -> str:
    """Return a name that also appears in URLs and files (a model, a view, a version), or refuse it.

    Raises:
        InvalidName: If it holds anything but ASCII letters, digits, ``_``, ``-`` and ``.``, or
            begins with a dot or a hyphen, or is a device name of some operating system.
    """
    check_label(kind, name, longest=longest)
    if not IDENTIFIER.match(name):
        raise InvalidName(
            kind, name, "use ASCII letters, digits, '_', '-' and '.', not beginning with '-' or '.'"
        )
    if name.split(".", maxsplit=1)[0].lower() in DEVICES:
        raise InvalidName(kind, name, "it is the name of a device on some systems")
    return name


def check_path(kind: str, name: str) -> str:
    """Return a relative path with forward slashes (an artifact, a file of a model), or refuse it.

    Raises:
        InvalidName: If any part could lead outside the folder it belongs in.
    """
    check_label(kind, name, longest=1000)
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise InvalidName(kind, name, "it must be a relative path with forward slashes")
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise InvalidName(kind, name, f"it has the part {part!r}")
        if len(part.encode()) > 255:
            raise InvalidName(kind, name, "one part is longer than 255 bytes")
        if part != part.strip() or part.split(".")[0].lower() in DEVICES:
            raise InvalidName(kind, name, f"the part {part!r} is no portable file name")
    return name
