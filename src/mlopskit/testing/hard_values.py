"""What is hard to keep, once for the contract of a tracker and for the comparison of tools.

Each table says in a few words what is hard about a line: `mlopskit.comparison` prints that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlopskit.tracking.entities import Number

# What is hard, the key, the value.
PARAMS: Final[tuple[tuple[str, str, Any], ...]] = (
    ("None", "none", None),
    ("a bool", "true", True),
    ("an int", "one", 1),
    ("a float that is whole", "one as a float", 1.0),
    ("a text that looks like a number", "one as a text", "1"),
    ("a text that looks like a bool", "true as a text", "true"),
    ("a text that looks like JSON's null", "null as a text", "null"),
    ("a text in quotes", "quoted", '"quoted"'),
    ("an empty text", "empty", ""),
    ("line ends, a tab and NUL", "lines", "a\n\tb\x00c"),
    ("a lone surrogate", "surrogate", "\udc80"),
    ("2**70", "big", 2**70),
    ("a float with 17 digits", "tenth", 0.1),
    ("the smallest float", "smallest", 5e-324),
    ("NaN", "nan", math.nan),
    ("an infinity", "inf", -math.inf),
    ("-0.0", "minus zero", -0.0),
    ("a text of 100,000 characters", "long", "ü" * 100_000),
    (
        "mappings, lists and a tuple, nested",
        "nested",
        {"layers": [{"units": 64, "act": None}, (1, 2.0)], "weights": {0: 0.5, True: "x"}},
    ),
    ("a mapping with a key '$'", "marked", {"$": "tuple", "v": [1]}),
    ("a key with an @", "acc@1", "odd key"),
    ("a Unicode key", "größe/α", "unicode key"),
    ("a key that looks like a path", "a//b/../c", "no path"),
    ("a tuple, under the key '$'", "$", ("the mark", 1)),
    ("a key with a quote and a backslash", 'a "b"\\', "quotes in the key"),
    ("a key of 250 characters", "k" * 250, "long key"),
    ("a Unicode key of 250 characters", "€" * 250, "long unicode key"),
    ("a key that mlopskit's escaped ones look like", "_mk_a", "a key that looks escaped"),
)
# What is hard, the key, the value, and the one that is written over it on purpose.
CHANGED: Final = ("another value, on purpose", "changed", "before", "after")
HARD_PARAMS: Final[Mapping[str, Any]] = {key: value for _, key, value in PARAMS}

VALUES: Final[tuple[tuple[str, Number], ...]] = (
    ("a float with 17 digits", 0.1),
    ("NaN", math.nan),
    ("an infinity", math.inf),
    ("a negative infinity", -math.inf),
    ("-0.0", -0.0),
    ("0.0", 0.0),
    ("the smallest float", 5e-324),
    ("the largest float", 1.7976931348623157e308),
    ("an int beyond 2**53", 2**53 + 1),
    ("an int beyond every float", -(10**400)),
    ("a bool", True),
)
HARD_VALUES: Final[list[Number]] = [value for _, value in VALUES]

HARD_STEPS: Final = [5, 3, 3, -7, 2**63 - 1, 2**63, 0]
# Each of one metric, as (step, value), in the order logged.
POINTS: Final[tuple[tuple[str, list[tuple[int, float]]], ...]] = (
    ("steps that go back", [(5, 0.5), (3, 0.25), (4, 0.75)]),
    ("one step twice", [(1, 0.5), (1, 0.25)]),
    ("one point three times", [(1, 0.5)] * 3),
    ("a step below zero", [(-7, 0.5)]),
    ("the step 2**63 - 1", [(2**63 - 1, 0.5)]),
    ("the step 2**63", [(2**63, 0.5)]),
    ("all of that in one metric", [(step, at + 0.5) for at, step in enumerate(HARD_STEPS)]),
)

METRIC_NAMES: Final[tuple[tuple[str, str], ...]] = (
    ("a name with an @", "acc@1"),
    ("a Unicode name", "größe/α"),
    ("a name of 250 characters", "k" * 250),
    ("a Unicode name of 250 characters", "€" * 250),
    ("a name that looks like a path", "a//b/../c"),
    ("a name with a dot", "a.b"),
    ("the name _step", "_step"),
    ("the name %", "%"),
)
HARD_METRIC_NAMES: Final = [name for _, name in METRIC_NAMES]

TAGS: Final[tuple[tuple[str, str, str], ...]] = (
    ("a text of 50,000 characters", "long", "ü" * 50_000),
    ("an empty text", "empty", ""),
    ("line ends and NUL", "lines", "a\nb\r\n\x00"),
    ("a text in quotes", "quoted", '"x"'),
    ("a text of JSON", "json", '{"$": "file", "v": "x"}'),
    ("a key that MLflow uses itself", "mlflow.runName", "not the name"),
    ("a key with an @", "acc@1", "odd"),
    ("a key of 250 characters", "s" * 250, "long key"),
)
HARD_TAGS: Final[Mapping[str, str]] = {key: value for _, key, value in TAGS}

FILE_NAMES: Final[tuple[tuple[str, str], ...]] = (
    ("a name with a blank, in a folder", "a b/c.txt"),
    ("a name with what URLs escape", "ü/@1#%2e.txt"),
    ("a name as mlopskit's own files have", "mlopskit/odd/x.json"),
    ("a name with a combining accent", "e\u0301.txt"),
    ("a name with what shells read", "a?b&c;d"),
    ("a name like an option", "-r"),
    ("a hidden file", "x/.y"),
)
ODD_NAMES: Final = [name for _, name in FILE_NAMES]
FILES: Final[tuple[tuple[str, str, bytes], ...]] = (
    ("no bytes", "empty.bin", b""),
    *((what, name, name.encode()) for what, name in FILE_NAMES),
)
