"""Checksums of the embedded registry's rows, so that a changed bit is noticed and never believed.

SQLite finds pages whose structure is broken, and not a letter that has become another. Every row
carries a short digest of its columns; a line of the history carries one of the line before it too,
so that no line can be taken out. They show damage, and not who did it: whoever can write the file
can write the seals.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import IntegrityError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

# The columns of each table that a seal is of; those of the primary key come first.
KEYS: Final[Mapping[str, int]] = {"models": 1, "versions": 2, "aliases": 2}
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "models": ("name", "latest", "description", "tags", "created", "updated"),
    "versions": (
        *("name", "version", "digest", "flavor", "size", "run_id", "metrics", "tags", "signature"),
        *("description", "lineage", "created", "stage", "entered"),
    ),
    "aliases": ("name", "alias", "version"),
    "history": (
        *("name", "version", "action", "alias", "before", "after", "at", "by", "why", "decision"),
        "details",
    ),
}


def seal_of(values: Iterable[Any], before: str = "") -> str:
    """Return the seal of a row's values.

    Args:
        values: Texts, integers, bytes and None, in the order of the columns.
        before: The seal of the row that it follows.
    """
    hasher = hashlib.blake2b(before.encode(), digest_size=12)
    for value in values:
        if isinstance(value, bytes):
            text = value
        else:
            text = b"" if value is None else str(value).encode("utf-8", "surrogatepass")
        # The length and the kind, so that nothing can move from one column to the next.
        hasher.update(b"%c%d:" % (0 if value is None else 1, len(text)))
        hasher.update(text)
    return hasher.hexdigest()


def check(what: str, seal: str, values: Iterable[Any], before: str = "") -> None:
    """Compare a row with its seal.

    Raises:
        IntegrityError: If it has changed since it was written.
    """
    found = seal_of(values, before)
    if found != seal:
        raise IntegrityError(what, str(seal), found)


def reseal(connection: sqlite3.Connection, table: str, *key: Any) -> None:
    """Seal a row again that this transaction has changed, or every row of a key's beginning."""
    columns = COLUMNS[table]
    where = " and ".join(f"{column} = ?" for column in columns[: len(key)]) or "true"
    rows = connection.execute(
        f"select {', '.join(columns)} from {table} where {where}",  # noqa: S608 - names of ours
        key,
    ).fetchall()
    whole = " and ".join(f"{column} = ?" for column in columns[: KEYS[table]])
    for row in rows:
        connection.execute(
            f"update {table} set seal = ? where {whole}",  # noqa: S608 - names of ours
            [seal_of(row), *row[: KEYS[table]]],
        )
