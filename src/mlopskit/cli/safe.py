"""Text from stores, made safe to print: no control character reaches the terminal."""

from __future__ import annotations

import unicodedata

from mlopskit.names import UNPRINTABLE


def safe(text: str) -> str:
    r"""Return a text with every unprintable character escaped, such as ``\x1b`` for an escape.

    Line breaks and tabs are escaped too, so that one record stays one line, and so are the
    characters that reorder what is shown (Unicode bidirectional overrides).
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if _is_unprintable(char) else char for char in text
    )


def _is_unprintable(char: str) -> bool:
    return unicodedata.category(char) in UNPRINTABLE
