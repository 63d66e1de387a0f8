from __future__ import annotations

import pytest

from mlopskit.errors import InvalidName
from mlopskit.names import check_identifier, check_label, check_path

pytestmark = pytest.mark.core

HOSTILE = [
    "",
    " ",
    "\0",
    "a\0b",
    "a\nb",
    "\x1b[31mred",
    "x" * 10_000,
    " padded ",
    "a\u202eb",
    "a\u200bb",
    "\ud800",
    "a\u2028b",
]
ESCAPES = [
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "./a",
    "a/.",
    "C:/x",
    "c:\\x",
    "a\\b",
    "\\\\host\\share",
    "con",
    "a/NUL.txt",
    "com1",
    "a/ b",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("check", [check_label, check_identifier, check_path])
def test_what_cannot_be_printed_names_nothing(check: object, name: str) -> None:
    assert callable(check)
    with pytest.raises(InvalidName):
        check("thing", name)


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
@pytest.mark.parametrize("check", [check_identifier, check_path])
def test_no_path_or_identifier_leaves_its_folder(check: object, name: str) -> None:
    assert callable(check)
    with pytest.raises(InvalidName):
        check("thing", name)


@pytest.mark.parametrize(
    "name", ["acc@1", "val/loss", "f1(macro)", "größe", "损失", "a b", "x" * 250]
)
def test_a_label_may_be_any_printable_text(name: str) -> None:
    assert check_label("metric", name) == name


@pytest.mark.parametrize("name", ["plots/roc.png", "größe.txt", "a b/c d", "x" * 255, "...a"])
def test_a_path_may_have_folders(name: str) -> None:
    assert check_path("artifact", name) == name


def test_a_part_of_a_path_counts_its_bytes() -> None:
    with pytest.raises(InvalidName, match="255 bytes"):
        check_path("artifact", "ü" * 128)


@pytest.mark.parametrize("name", ["churn", "late-arrivals", "v2.1", "_x", "A" * 128])
def test_an_identifier_is_plain(name: str) -> None:
    assert check_identifier("model", name) == name


@pytest.mark.parametrize(
    "name", [".hidden", "-flag", "a b", "a/b", "a:b", "a@b", "größe", "A" * 129]
)
def test_an_identifier_is_nothing_else(name: str) -> None:
    with pytest.raises(InvalidName):
        check_identifier("model", name)


def test_a_name_is_text() -> None:
    with pytest.raises(InvalidName, match="this is int"):
        check_label("run", 7)  # type: ignore[arg-type]  # what an untyped caller may do
