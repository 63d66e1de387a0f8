"""The one filter language of runs, models and versions, whichever backend is behind.

Comparisons of a field with a literal, joined by ``and``, ``or``, ``not`` and parentheses::

    metrics.loss < 0.1 and (params.model = 'cnn' or tags.`best of` = 'yes')
    params.layers in (2, 4) and name like 'night%' and not metrics.auc is null

* Fields: ``params.<key>``, ``metrics.<key>`` (of a run the value at the last step),
  ``tags.<key>``, and the attributes of what is looked for (also as ``attributes.<name>``); see
  `RUNS`, and `mlopskit.registry.search`. A key with blanks or operators in it is written in
  backticks or double quotes. ``params.model.depth`` reaches into a nested param.
* Operators: ``= == != <> < <= > >=``, ``[not] in (...)``, ``[not] like`` and ``ilike`` with ``%``
  and ``_``, ``is [not] null``.
* Literals: numbers, ``nan``, ``inf``, ``true``, ``false``, texts in single or double quotes, in
  which the quote is doubled. Times are texts in ISO 8601; without a zone they are UTC.

A comparison with a value that is not there is unknown, as in SQL: neither it nor its ``not``
matches. A number never equals a text, and neither is less than the other.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from mlopskit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_Record = TypeVar("_Record")
Kind = Literal["params", "metrics", "tags", "attributes"]
KINDS: Final[Mapping[str, Kind]] = {
    "params": "params",
    "param": "params",
    "metrics": "metrics",
    "metric": "metrics",
    "tags": "tags",
    "tag": "tags",
    "attributes": "attributes",
    "attribute": "attributes",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a filter of one kind of record may ask about.

    Attributes:
        kinds: Those of ``params``, ``metrics`` and ``tags`` that the records have.
        attributes: The names of their other fields.
    """

    kinds: tuple[Kind, ...]
    attributes: tuple[str, ...]

    @property
    def words(self) -> str:
        """The fields as an error names them."""
        return ", ".join([*(f"{kind}.<key>" for kind in self.kinds), *self.attributes])


RUNS: Final = Vocabulary(
    ("params", "metrics", "tags"),
    (
        *("id", "name", "experiment", "status", "parent_id", "group", "job_type", "notes"),
        *("started_at", "ended_at"),
    ),
)
DEEPEST: Final = 100
_ORDERED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<field>(?:params?|metrics?|tags?|attributes?)\.
        (?:`[^`]+`|"(?:[^"]|"")+"|[^\s()=<>!,'"`]+))
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<sign><=|>=|==|!=|<>|=|<|>|\(|\)|,)
    | (?P<word>[-+]?[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Field:
    """What a comparison is about."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against a literal: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``."""

    field: Field
    sign: str
    value: Any


@dataclass(frozen=True, slots=True)
class In:
    """A field against several literals, one of which it equals."""

    field: Field
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A text against a pattern in which ``%`` is any text and ``_`` any one character."""

    field: Field
    pattern: str
    ignore_case: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a field has no value."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a filter."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Both:
    """Two or more filters joined by ``and`` or ``or``."""

    word: Literal["and", "or"]
    parts: tuple[Filter, ...]


Filter = Comparison | In | Like | IsNull | Not | Both


@dataclass(frozen=True, slots=True)
class Order:
    """One key of a sort."""

    field: Field
    descending: bool = False


def parse(text: str, of: Vocabulary = RUNS) -> Filter | None:
    """Read a filter; None for an empty text, which every record matches.

    Raises:
        InvalidInput: If it cannot be read, pointing at the column.
    """
    return _parsed(_checked(text), of)


@lru_cache(maxsize=256)  # A page that refreshes asks the same again and again.
def _parsed(text: str, of: Vocabulary) -> Filter | None:
    parser = _Parser(text, of)
    if parser.ended:
        return None
    found = parser.either(0)
    parser.expect_end()
    return found


def parse_order(texts: Sequence[str], of: Vocabulary = RUNS) -> list[Order]:
    """Read sort keys such as ``metrics.loss desc``.

    Raises:
        InvalidInput: If one cannot be read, pointing at the column.
    """
    return [_Parser(_checked(text), of).order() for text in texts]


def matches(where: Filter, record: Any) -> bool:
    """Tell whether a record of the vocabulary, such as a run, matches a filter."""
    return _holds(where, record) is True


def fields(where: Filter) -> list[Field]:
    """Return the fields that a filter asks about, in its order."""
    if isinstance(where, Both):
        return [field for part in where.parts for field in fields(part)]
    if isinstance(where, Not):
        return fields(where.part)
    return [where.field]


def ordered(records: Iterable[_Record], keys: Sequence[Order]) -> list[_Record]:
    """Sort records; NaN and then those without a value come last, equal ones keep their order."""
    found = list(records)
    for key in reversed(keys):
        values = [(value_of(key.field, each), each) for each in found]
        there = [(value, each) for value, each in values if value is not None and value == value]  # noqa: PLR0124 - NaN
        there.sort(key=lambda pair: _rank(pair[0]), reverse=key.descending)
        found = [each for _, each in there]
        found += [each for value, each in values if value != value]  # noqa: PLR0124 - NaN
        found += [each for value, each in values if value is None]
    return found


def value_of(field: Field, record: Any) -> Any:
    """Return what a record has for a field, or None."""
    if field.kind == "attributes":
        return getattr(record, field.key)
    values: Mapping[str, Any] = getattr(record, field.kind)
    if field.key in values or field.kind != "params":
        return values.get(field.key)
    return _nested(values, field.key)


def _nested(values: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


def _holds(where: Filter, record: Any) -> bool | None:
    if isinstance(where, Both):
        return _joined(where, record)
    if isinstance(where, Not):
        inner = _holds(where.part, record)
        return None if inner is None else not inner
    value = value_of(where.field, record)
    if isinstance(where, IsNull):
        return value is None
    return None if value is None else _answered(where, value)


def _answered(where: Comparison | In | Like, value: Any) -> bool:
    if isinstance(where, In):
        return any(_compared(value, "=", each) for each in where.values)
    if isinstance(where, Like):
        return isinstance(value, str) and _like(where).fullmatch(value) is not None
    return _compared(value, where.sign, where.value)


def _joined(where: Both, record: Any) -> bool | None:
    decided = where.word == "or"
    unknown = False
    for part in where.parts:
        inner = _holds(part, record)
        if inner is decided:
            return decided
        unknown = unknown or inner is None
    return None if unknown else not decided


def _compared(value: Any, sign: str, literal: Any) -> bool:
    if isinstance(value, datetime) and isinstance(literal, str):
        literal = _time(literal)
    alike = _type(value) == _type(literal)
    if sign in ("=", "!="):
        equal = alike and (value == literal or (value != value and literal != literal))  # noqa: PLR0124 - NaN
        return equal == (sign == "=")
    return alike and bool(_ORDERED[sign](value, literal))


def _time(text: str) -> datetime | str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _type(value: Any) -> type:
    kind = type(value)
    return int if kind is float else kind


def _rank(value: Any) -> tuple[str, Any]:
    kind = _type(value)
    return kind.__name__, value if kind in (bool, int, str, datetime) else repr(value)


def _like(where: Like) -> re.Pattern[str]:
    pattern = re.escape(where.pattern).replace("%", ".*").replace("_", ".")
    return re.compile(pattern, re.DOTALL | (re.IGNORECASE if where.ignore_case else 0))


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"A filter is text, and this is {type(text).__name__}.")
    return text


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Reads one text by recursive descent: or, and, not, comparison."""

    def __init__(self, text: str, of: Vocabulary) -> None:
        self._text = text
        self._of = of
        self._tokens = self._split()
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._peek().kind == "end"

    def expect_end(self) -> None:
        if not self.ended:
            raise self._wrong("'and', 'or' or the end")

    def order(self) -> Order:
        field = self._field()
        descending = self._take("word", "desc")
        if not descending:
            self._take("word", "asc")
        if not self.ended:
            raise self._wrong("'asc', 'desc' or the end")
        return Order(field, descending)

    def either(self, depth: int) -> Filter:
        if depth > DEEPEST:
            raise self._wrong(f"at most {DEEPEST} levels of nesting")
        parts = [self._every(depth)]
        while self._take("word", "or"):
            parts.append(self._every(depth))
        return parts[0] if len(parts) == 1 else Both("or", tuple(parts))

    def _every(self, depth: int) -> Filter:
        parts = [self._one(depth)]
        while self._take("word", "and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Both("and", tuple(parts))

    def _one(self, depth: int) -> Filter:
        negated = False
        while self._take("word", "not"):
            negated = not negated
        if self._take("sign", "("):
            part = self.either(depth + 1)
            if not self._take("sign", ")"):
                raise self._wrong("')'")
        else:
            part = self._comparison()
        return Not(part) if negated else part

    def _comparison(self) -> Filter:
        field = self._field()
        if self._take("word", "is"):
            negated = self._take("word", "not")
            if not self._take("word", "null"):
                raise self._wrong("'null'")
            return Not(IsNull(field)) if negated else IsNull(field)
        negated = self._take("word", "not")
        found: Filter
        if self._take("word", "in"):
            found = In(field, self._several())
        elif (word := self._peek().text.lower()) in ("like", "ilike"):
            self._at += 1
            found = Like(field, self._pattern(), word == "ilike")
        elif negated or self._peek().text not in ("=", "==", "!=", "<>", *_ORDERED):
            raise self._wrong("an operator (= != < <= > >= in like ilike is)")
        else:
            sign = {"==": "=", "<>": "!="}.get(self._peek().text, self._peek().text)
            self._at += 1
            return Comparison(field, sign, self._literal())
        return Not(found) if negated else found

    def _field(self) -> Field:
        token = self._peek()
        if token.kind == "field":
            self._at += 1
            head, _, key = token.text.partition(".")
            if key[0] in '`"':
                key = key[1:-1].replace('""', '"') if key[0] == '"' else key[1:-1]
            kind = KINDS[head.lower()]
            if kind in self._of.kinds or (kind == "attributes" and key in self._of.attributes):
                return Field(kind, key)
        elif token.text in self._of.attributes:
            self._at += 1
            return Field("attributes", token.text)
        self._at = self._tokens.index(token)
        raise self._wrong(f"one of {self._of.words}")

    def _several(self) -> tuple[Any, ...]:
        if not self._take("sign", "("):
            raise self._wrong("'('")
        values = [self._literal()]
        while self._take("sign", ","):
            values.append(self._literal())
        if not self._take("sign", ")"):
            raise self._wrong("',' or ')'")
        return tuple(values)

    def _pattern(self) -> str:
        if self._peek().kind != "text":
            raise self._wrong("a text in quotes")
        return str(self._literal())

    def _literal(self) -> Any:
        token = self._peek()
        word = token.text.lower()
        if token.kind == "number":
            value: Any = _number(token.text)
        elif token.kind == "text":
            quote = token.text[0]
            value = token.text[1:-1].replace(quote * 2, quote)
        elif token.kind == "word" and word in ("true", "false"):
            value = word == "true"
        elif token.kind == "word" and word.lstrip("+-") in ("nan", "inf", "infinity"):
            value = float(word)
        else:
            raise self._wrong("a number, a text in quotes, true or false")
        self._at += 1
        return value

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, kind: str, text: str) -> bool:
        token = self._peek()
        if token.kind == kind and token.text.lower() == text:
            self._at += 1
            return True
        return False

    def _split(self) -> list[_Token]:
        tokens = []
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise self._error(at, "This cannot be read")
            if found.lastgroup != "space":
                tokens.append(_Token(str(found.lastgroup), found.group(), at))
            at = found.end()
        return [*tokens, _Token("end", "", len(self._text))]

    def _wrong(self, expected: str) -> InvalidInput:
        token = self._peek()
        found = repr(token.text) if token.text else "the end"
        return self._error(token.column, f"Expected {expected}, found {found}")

    def _error(self, at: int, what: str) -> InvalidInput:
        begin = max(0, at - 60)
        shown = " ".join(self._text[begin : at + 40].splitlines())
        return InvalidInput(
            f"{what} at column {at + 1} of the filter:\n  {shown}\n  {' ' * (at - begin)}^"
        )


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
