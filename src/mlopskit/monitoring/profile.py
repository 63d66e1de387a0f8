"""Profiles: what a drift report needs of a frame, in a few kilobytes that merge exactly.

A profile counts values in groups that were fixed by the reference. Counts are integers, and sums
are exact rationals, so that the order of rows and of partitions changes nothing at all.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import isfinite, sqrt
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from mlopskit.errors import InvalidInput, NotFound
from mlopskit.monitoring.entities import Record, summary

PROFILE_VERSION: Final = 1
# An exact sum of doubles has at most 2200 bits on either side of its fraction bar.
LONGEST_FRACTION: Final = 1500


def _fraction(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str) and len(value) <= LONGEST_FRACTION and "e" not in value.lower():
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError) as exc:
            raise ValueError("an exact sum is written as 'numerator/denominator'") from exc
    raise ValueError("an exact sum is written as 'numerator/denominator'")


Exact = Annotated[Fraction, PlainValidator(_fraction), PlainSerializer(str, return_type=str)]


class Column(Record):
    """What every column has: its rows, and how many of them have no value."""

    dtype: str
    n: NonNegativeInt
    nulls: NonNegativeInt = 0
    nans: NonNegativeInt = 0

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return self.n - self.nulls - self.nans

    @property
    def missing_share(self) -> float:
        """The share of rows without a value, null or NaN; 0 where there are no rows."""
        return (self.nulls + self.nans) / self.n if self.n else 0.0

    @model_validator(mode="after")
    def _rows_add_up(self) -> Self:
        if self.present < 0:
            raise ValueError("more values are missing than there are rows")
        return self


class NumericColumn(Column):
    """Numbers, counted between fixed edges.

    Attributes:
        edges: Ascending, finite, E of them.
        counts: E + 1 of them: values up to the first edge, up to the second, ..., above the last.
            Infinities are counted at the ends.
        centre: The point around which squares are summed; it belongs to the groups.
        positive_infinities: How many values are +inf.
        negative_infinities: How many are -inf.
        minimum: The least finite value, or None.
        maximum: The greatest finite value, or None.
        total: The exact sum of the finite values.
        squares: The exact sum of ``(value - centre) ** 2``, each rounded once to a double; None
            where one of them is too large for a double.
    """

    kind: Literal["numeric"] = "numeric"
    edges: tuple[float, ...]
    counts: tuple[NonNegativeInt, ...]
    centre: float
    positive_infinities: NonNegativeInt = 0
    negative_infinities: NonNegativeInt = 0
    minimum: float | None = None
    maximum: float | None = None
    total: Exact = Fraction(0)
    squares: Exact | None = Fraction(0)

    @property
    def finite(self) -> int:
        """How many values are finite."""
        return self.present - self.positive_infinities - self.negative_infinities

    @property
    def mean(self) -> float | None:
        """The mean of the finite values, correctly rounded; None where there are none."""
        return _float(self.total / self.finite) if self.finite else None

    @property
    def std(self) -> float | None:
        """The population standard deviation of the finite values; None where it is unknown."""
        if not self.finite or self.squares is None:
            return None
        offset = self.total / self.finite - Fraction(self.centre)
        variance = max(self.squares / self.finite - offset * offset, Fraction(0))
        value = _float(variance)
        return None if value is None else sqrt(value)

    def same_groups(self, other: Column) -> bool:
        """Tell whether the counts of both mean the same."""
        return (
            isinstance(other, NumericColumn)
            and self.edges == other.edges
            and self.centre == other.centre
        )

    @model_validator(mode="after")
    def _counts_add_up(self) -> Self:
        if len(self.counts) != len(self.edges) + 1 or sum(self.counts) != self.present:
            raise ValueError("the counts do not fit the edges and the rows")
        if any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError("the edges do not ascend")
        if self.finite < 0 or (self.finite > 0) != (self.minimum is not None):
            raise ValueError("the least value does not fit the counts")
        if (self.minimum is None) != (self.maximum is None):
            raise ValueError("a least value needs a greatest")
        return self


class CategoricalColumn(Column):
    """Text, categories and truth values, counted by value.

    Attributes:
        counts: The count of each value that the reference fixed, most frequent first there.
        other: How many values are none of these.
        complete: Whether the reference had no value but these, so that any other is new.
    """

    kind: Literal["categorical"] = "categorical"
    counts: dict[str, NonNegativeInt]
    other: NonNegativeInt = 0
    complete: bool = True

    def same_groups(self, other: Column) -> bool:
        """Tell whether the counts of both mean the same."""
        return (
            isinstance(other, CategoricalColumn)
            and self.complete == other.complete
            and list(self.counts) == list(other.counts)
        )

    @model_validator(mode="after")
    def _counts_add_up(self) -> Self:
        if sum(self.counts.values()) + self.other != self.present:
            raise ValueError("the counts do not fit the rows")
        return self


class OtherColumn(Column):
    """A column whose values are not compared: times, lists, bytes, identifiers."""

    kind: Literal["other"] = "other"

    def same_groups(self, other: Column) -> bool:
        """Tell whether the counts of both mean the same."""
        return isinstance(other, OtherColumn)


AnyColumn = Annotated[NumericColumn | CategoricalColumn | OtherColumn, Field(discriminator="kind")]


class Profile(Record):
    """A frame in a few kilobytes: counts in fixed groups, exact sums, missing values.

    Profiles of partitions that were made like the same profile, merged in any order, equal the
    profile of the whole.
    """

    n: NonNegativeInt
    columns: dict[str, AnyColumn]
    version: Literal[1] = PROFILE_VERSION

    def __getitem__(self, name: str) -> NumericColumn | CategoricalColumn | OtherColumn:
        """Return one column.

        Raises:
            NotFound: If there is none of that name.
        """
        if name not in self.columns:
            raise NotFound("column", name, self.columns)
        return self.columns[name]

    def merge(self, other: Profile) -> Profile:
        """Return the profile of the rows of both.

        A column whose type differs between the two is no longer compared.

        Raises:
            InvalidInput: If they have other columns, or were not made with the same groups.
        """
        if not isinstance(other, Profile):
            raise InvalidInput(f"A {type(other).__name__} is no profile, so it cannot be merged.")
        if set(self.columns) != set(other.columns):
            odd = sorted(set(self.columns) ^ set(other.columns))
            raise InvalidInput(
                f"Only one of the profiles has {', '.join(map(repr, odd[:12]))}. Merge profiles of "
                "partitions of one table."
            )
        columns = {name: _merged(name, own, other[name]) for name, own in self.columns.items()}
        return Profile(n=self.n + other.n, columns=columns)

    def to_json(self) -> str:
        """Return the profile as JSON that `from_json` reads back equal."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Profile:
        """Read a profile back.

        Raises:
            InvalidInput: If the text is no profile of this version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as exc:
            raise InvalidInput(f"This is no profile: {summary(exc)}.") from exc

    @model_validator(mode="after")
    def _columns_have_the_rows(self) -> Self:
        if any(column.n != self.n for column in self.columns.values()):
            raise ValueError("a column has another number of rows than the profile")
        return self


def _merged(name: str, one: AnyColumn, two: AnyColumn) -> AnyColumn:
    rows = {
        "n": one.n + two.n,
        "nulls": one.nulls + two.nulls,
        "nans": one.nans + two.nans,
        "dtype": _dtype(one.dtype, two.dtype),
    }
    if one.kind != two.kind:
        return OtherColumn(**rows)
    if not one.same_groups(two):
        raise InvalidInput(
            f"The column {name!r} was counted in other groups in each profile, so the counts do "
            "not add up. Make both like one profile: fit(frame, like=profile)."
        )
    if isinstance(one, NumericColumn) and isinstance(two, NumericColumn):
        return NumericColumn(
            **rows,
            edges=one.edges,
            counts=tuple(a + b for a, b in zip(one.counts, two.counts, strict=True)),
            centre=one.centre,
            positive_infinities=one.positive_infinities + two.positive_infinities,
            negative_infinities=one.negative_infinities + two.negative_infinities,
            minimum=_least(one.minimum, two.minimum),
            maximum=_greatest(one.maximum, two.maximum),
            total=one.total + two.total,
            squares=None
            if one.squares is None or two.squares is None
            else one.squares + two.squares,
        )
    if isinstance(one, CategoricalColumn) and isinstance(two, CategoricalColumn):
        return CategoricalColumn(
            **rows,
            counts={value: count + two.counts[value] for value, count in one.counts.items()},
            other=one.other + two.other,
            complete=one.complete,
        )
    return OtherColumn(**rows)


def _dtype(one: str, two: str) -> str:
    """Return the type of both. An order of partitions changes nothing, so neither is the first."""
    return one if one == two else ", ".join(sorted({*one.split(", "), *two.split(", ")}))


def _least(one: float | None, two: float | None) -> float | None:
    given = [value for value in (one, two) if value is not None]
    return min(given, default=None)


def _greatest(one: float | None, two: float | None) -> float | None:
    given = [value for value in (one, two) if value is not None]
    return max(given, default=None)


def _float(value: Fraction) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None
