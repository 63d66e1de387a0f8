from __future__ import annotations

import enum
import math
import struct
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

from mlopskit.errors import IntegrityError
from mlopskit.pipelines.files import Files, Unstorable
from mlopskit.pipelines.values import Decoder, Encoder, digest, only_digest, part_of
from mlopskit.storage import Blobs


class Point(BaseModel):
    x: float
    tags: list[str] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    point: Point


class Shy(BaseModel):
    _secret: int = PrivateAttr(default=1)


class Color(enum.Enum):
    RED = 1


class Store:
    def __init__(self, root: Path) -> None:
        self.blobs = Blobs(root / "blobs")
        self.decoder = Decoder(self.blobs, Files(root / "files", self.blobs))

    def document(self, value: Any) -> Any:
        return Encoder(self.blobs.put).document(value)

    def there_and_back(self, value: Any) -> Any:
        document = self.document(value)
        assert digest(document) == digest(Encoder(only_digest).document(value))
        assert self.decoder.problem(document) == ""
        return self.decoder.value(document)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def exact(value: Any) -> Any:
    """Return what tells values apart that are equal to `==`."""
    if isinstance(value, float):
        return ("float", struct.pack("d", value))
    if isinstance(value, dict):
        return ("dict", [(exact(key), exact(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [exact(item) for item in value])
    if isinstance(value, frozenset):
        return ("frozenset", sorted(map(repr, value)))
    return (type(value).__name__, value)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary()
    | st.text(st.characters()) | st.complex_numbers(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.just(UTC)) | st.dates() | st.timedeltas()
)  # fmt: skip
keys = st.text() | st.integers() | st.tuples(st.text(), st.booleans())
values = st.recursive(
    scalars | st.frozensets(st.integers() | st.text()),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_nesting_of_plain_values_comes_back_exactly(store: Store, value: Any) -> None:
    assert exact(store.there_and_back(value)) == exact(value)


@given(one=values, other=values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_two_values_have_one_digest_only_if_they_are_the_same(one: Any, other: Any) -> None:
    digests = [digest(Encoder(only_digest).document(value)) for value in (one, other)]

    assert (digests[0] == digests[1]) == (exact(one) == exact(other))


def test_a_bytes_value_of_any_size_comes_back(store: Store) -> None:
    for size in (0, 1, (16 << 10), (16 << 10) + 1, 1 << 20):
        content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert store.there_and_back(content) == content


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - without a zone on purpose
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")),
        datetime(2026, 1, 1, microsecond=1, tzinfo=UTC),
    ],
)
def test_a_moment_keeps_its_zone_and_its_fold(store: Store, moment: datetime) -> None:
    back = store.there_and_back(moment)

    assert repr(back) == repr(moment)
    assert (back.fold, back.utcoffset()) == (moment.fold, moment.utcoffset())


def test_a_model_comes_back_as_it_was_not_as_its_validators_would_make_it(store: Store) -> None:
    value = Open(point=Point(x=math.inf), extra=(1, 2))
    back = store.there_and_back(
        [value, Point.model_construct(None, **dict[str, Any](x="not a number"))]
    )

    assert back[0] == value
    assert back[0].model_fields_set == {"point", "extra"}
    assert back[0].point.model_fields_set == {"x"}
    assert type(back[0].extra) is tuple
    assert back[1].x == "not a number"


class Custom(list[int]):
    pass


def looped() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def local_model() -> BaseModel:
    class Local(BaseModel):
        x: int = 1

    return Local()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "no exact way to store a object"),
        (Color.RED, r"no exact way to store a .*\.Color"),
        (Custom([1]), r"\.Custom"),
        (lambda: 1, "no exact way to store a function"),
        (looped(), "nested too deeply, or holds itself"),
        (Shy(), "private attributes"),
        (local_model(), "cannot be imported by that name"),
        ({"deep": [(1, {2: object()})]}, "object"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "named")), "time zone"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused_with_the_reason(
    store: Store, value: Any, reason: str
) -> None:
    with pytest.raises(Unstorable, match=reason):
        store.document(value)


def test_the_digest_of_a_set_does_not_depend_on_its_order(store: Store) -> None:
    names = [f"name{number}" for number in range(100)]

    assert store.there_and_back(set(names)) == set(names)
    assert digest(store.document(set(names))) == digest(
        store.document(set(names[50:] + names[:50]))
    )
    assert digest(store.document({1})) != digest(store.document(frozenset({1})))


def test_a_part_of_a_value_has_the_digest_that_it_has_alone(store: Store) -> None:
    document = store.document(({"a": [10, 20]}, "x"))

    assert part_of(document, (0, "a", -1)) == store.document(20)
    for path in [(2,), (-3,), (0, "b"), (0, "a", "b"), (1, 0), ("$tuple",), (slice(1),)]:
        with pytest.raises(KeyError):
            part_of(document, path)


def test_a_path_that_leads_nowhere_is_its_text(store: Store, tmp_path: Path) -> None:
    assert store.there_and_back(tmp_path / "missing") == tmp_path / "missing"
    assert store.document(Path("a")) != store.document("a")


def test_a_path_is_known_by_its_contents_and_its_name(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one/a.txt", "two/a.txt", "two/b.txt")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("same")
    one, two, other = (digest(store.document(path)) for path in paths)
    assert one == two != other

    paths[0].write_text("changed")
    assert digest(store.document(paths[0])) != one


def test_a_folder_is_known_by_all_that_is_in_it(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    seen = [digest(store.document(folder))]
    (folder / "empty").mkdir()
    seen.append(digest(store.document(folder)))
    for text in ("1", "2"):
        (folder / "a").write_text(text)
        seen.append(digest(store.document(folder)))
    (folder / "a").rename(folder / "empty/a")
    seen.append(digest(store.document(folder)))

    assert len(set(seen)) == 5


@pytest.mark.parametrize("name", ["a\u202eb", "back\\slash", "con", "new\nline"])
def test_a_file_that_not_every_system_can_name_is_refused(
    store: Store, tmp_path: Path, name: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("x")

    with pytest.raises(Unstorable):
        store.document(tmp_path / "data")


def test_a_link_out_of_a_folder_is_not_followed_into_other_folders(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "loop").symlink_to(tmp_path)

    with pytest.raises(Unstorable, match="link to a folder"):
        store.document(tmp_path / "data")


def test_a_document_cannot_lead_a_file_out_of_its_place(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    document = store.document(tmp_path / "a")
    for name in ("../evil", "/tmp/evil", ".."):
        document["$path"]["name"] = name
        with pytest.raises(ValueError, match="cannot name a file"):
            store.decoder.value(document)


def test_a_laid_out_file_is_whole_again_when_somebody_changed_it(
    store: Store, tmp_path: Path
) -> None:
    source = tmp_path / "a.txt"
    source.write_text("right")
    document = store.document(source)
    place = store.decoder.value(document)
    (place.parent / "stranger").write_text("x")

    assert store.decoder.value(document) == place
    assert [each.name for each in place.parent.iterdir()] == ["a.txt"]

    place.unlink()
    assert store.decoder.value(document).read_text() == "right"


def test_bytes_that_changed_on_the_disk_are_noticed_and_put_away(
    store: Store, tmp_path: Path
) -> None:
    source = tmp_path / "a.txt"
    source.write_text("right")
    for value in (source, bytes(range(256)) * 400):
        document = store.document(value)
        blob = next(path for path in store.blobs.root.rglob("*") if path.is_file())
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[::-1])
        with pytest.raises(IntegrityError):
            store.decoder.value(document)
        assert "is gone" in store.decoder.problem(document)


def test_a_date_is_no_datetime(store: Store) -> None:
    assert type(store.there_and_back(date(2026, 1, 1))) is date
