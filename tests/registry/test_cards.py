"""Model cards: what people write, what the registry knows, and how both are shown."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt

import mlopskit as mk
from mlopskit.errors import InvalidInput, NotFound, UnknownOption
from mlopskit.registry import (
    Signature,
    TensorSpec,
    at_least,
    by_slice,
    read_card,
    write_card,
    write_label,
)
from mlopskit.registry.cards.sections import WRITTEN
from mlopskit.registry.markup import prose, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry import Registry

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[a](javascript:alert(1)) ![b](http://evil.example/b.png)",
    "https://evil.example www.evil.example <https://evil.example>",
    "a | b || c \\| d \\",
    "`code` ``more`` ```",
    "@octocat #1 !2 ~label &amp; &lt; %3 $4$",
    "one\ntwo\r\n\n# three\n/close",
    "*b* _i_ ~~s~~ **bb**",
    "1. list",
    "- item",
    "--- rule",
    "+ item",
    "12)",
    "-0.5",
    "/merge",
    "===",
    "\x1b[31mred \u202eold",
    "{% raw %} ${{ secrets.X }}",
]


class Page(HTMLParser):
    """What is on a page: the tags, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has {name}={value}"
            assert name not in ("src", "href"), f"{tag} has {name}={value}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def rendered(markdown: str) -> Page:
    """Render Markdown as GitHub does: with tables, HTML and addresses that become links."""
    return Page(MarkdownIt("gfm-like", {"linkify": False}).enable("table").render(markdown))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with mk.open_registry(f"local:{tmp_path / 'registry'}", actor="ada") as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def known(registry: Registry, file: Path) -> Registry:
    """Register a version with all that a registry can know, refuse it, and promote it."""
    signature = Signature(
        inputs=(
            TensorSpec(name="age", dtype="int64"),
            TensorSpec(name="x", dtype="f", shape=(-1, 8)),
        ),
        outputs=(TensorSpec(name="churns", dtype="float64"),),
    )
    registry.register(
        "churn",
        file,
        metrics={"auc": 0.8125, **by_slice("auc", {"DE": 0.75, "FR": math.nan}, {"DE": 500})},
        signature=signature,
        data="sha256:cafe",
        code="0123abcd",
        run_id="run-7",
        description="Trees on the first year.",
    )
    registry.register("churn", file)
    registry.promote("churn", 1, "production", [at_least("auc", 0.9)])
    registry.promote("churn", 1, "production", [at_least("auc", 0.8)], why="good enough")
    registry.promote("churn", 2, "production", why="another version's business")
    return registry


def test_a_card_is_filled_in_with_what_is_known(known: Registry) -> None:
    card = read_card(known, "churn", 1)

    assert card.metrics == {"auc": 0.8125}
    assert card.slices["rows"] == {"DE": 500}
    assert card.slices["auc"]["DE"] == 0.75
    assert math.isnan(card.slices["auc"]["FR"])
    assert [entry.action for entry in card.decisions] == ["refused", "promoted", "displaced"]
    assert card.written == {"data": "Data with the fingerprint sha256:cafe."}
    assert card.missing("metrics", "slices", "signature", "lineage", "decisions", "data") == []
    assert card.missing("owner", "limits") == ["owner", "limits"]
    assert read_card(known, "churn", 2).missing("metrics", "signature") == ["metrics", "signature"]


def test_what_people_write_is_kept_and_can_be_taken_away(known: Registry) -> None:
    write_card(known, "churn", 1, owner="ada", limits="Not for firms.", why="review")
    assert known.history("churn")[-1].why == "review"
    assert known.get_version("churn", 1).tags == {
        "card.owner": "ada",
        "card.limits": "Not for firms.",
    }
    write_card(known, "churn", 1, owner=None)

    card = read_card(known, "churn", 1)
    assert list(card.written) == ["data", "limits"]


def test_a_version_has_the_fields_of_its_model_but_for_its_own(known: Registry) -> None:
    write_card(known, "churn", owner="ada", license="CC0")
    write_card(known, "churn", 1, owner="grace", data="May")

    first, second = read_card(known, "churn", 1), read_card(known, "churn", 2)
    assert first.written == {"owner": "grace", "data": "May", "license": "CC0"}
    assert second.written == {"owner": "ada", "license": "CC0"}


def test_a_card_has_these_fields_and_no_others(known: Registry) -> None:
    with pytest.raises(UnknownOption, match=r"'onwer'.*'owner'"):
        write_card(known, "churn", 1, onwer="ada")
    with pytest.raises(InvalidInput, match="nothing to write"):
        write_card(known, "churn", 1)
    wrong: Any = 7
    with pytest.raises(InvalidInput):
        write_card(known, "churn", 1, owner=wrong)
    with pytest.raises(NotFound):
        read_card(known, "churn", 3)
    with pytest.raises(UnknownOption):
        read_card(known, "churn", 1).missing("onwer")


def test_a_secret_does_not_reach_a_card(registry: Registry, file: Path) -> None:
    registry.register("churn", file)
    write_card(registry, "churn", 1, contact="https://ada:hunter2@example.org/")

    assert "hunter2" not in read_card(registry, "churn", 1).to_html()


def test_a_card_as_markdown_has_every_section(known: Registry) -> None:
    write_label(known, "churn", 1)
    write_card(known, "churn", 1, owner="Ada", use_case="Offers.\n\nNot for firms.")
    text = read_card(known, "churn", 1).to_markdown()

    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# churn 1 (1.0.0)",
        "## Version",
        "## Owner",
        "## Use case",
        "## Data",
        "## Metrics",
        "## Metrics by slice",
        "## Signature",
        "## Decisions",
        "## Not filled in",
    ]
    assert (
        "| slice | rows | auc |\n| --- | --- | --- |\n| DE | 500 | 0.75 |\n| FR |  | NaN |" in text
    )
    assert "> Offers.\n>\n> Not for firms." in text
    assert "| input | x | f | any x 8 |" in text
    assert "| good enough | auc is 0.8125, at least 0.8. |" in text
    assert text.endswith("Contact, Out of scope, Evaluation, Factors, Limits, Ethics, License.\n")


def test_a_page_and_markdown_say_the_same(known: Registry) -> None:
    write_card(known, "churn", 1, owner="Ada", limits="Two lines,\nkept apart.")
    card = read_card(known, "churn", 1)
    page, markdown = Page(card.to_html()), rendered(card.to_markdown())

    def cells(page: Page) -> list[str]:
        texts = [text.strip() for text in page.texts]
        return [text for text in texts if text and not text.startswith(":root")]

    assert "Two lines,\nkept apart." in page.texts
    assert set(cells(markdown)) - {"Two lines,", "kept apart."} <= set(cells(page))
    assert cells(page).count("0.8125") == cells(markdown).count("0.8125") == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(registry: Registry, file: Path, text: str) -> None:
    flat = " ".join(text.split())
    metric = flat.replace("[", "(")[:60].encode("ascii", "ignore").decode().replace("\x1b", "")
    registry.register(
        "churn",
        file,
        description=text,
        metrics=by_slice("auc", {metric: 0.5}),
        tags={"label": text},
        signature=Signature(inputs=(TensorSpec(name=text, dtype=text),)),
    )
    registry.promote("churn", 1, "staging", why=text)
    for field in WRITTEN:
        write_card(registry, "churn", 1, **{field: text}, why="")
    card = read_card(registry, "churn", 1)

    harmless = {"html", "head", "meta", "title", "style", "body", "main", "section", "div"}
    harmless |= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "blockquote"}
    for page in (Page(card.to_html()), rendered(card.to_markdown())):
        assert set(page.tags) <= harmless
        assert not any("\x1b" in each or "\u202e" in each for each in page.texts)
    first = next(line for line in text.splitlines() if line.strip())
    if first.isprintable():
        assert any(" ".join(first.split()) in each for each in Page(card.to_html()).texts)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable()])
def test_markdown_shows_the_text_itself(text: str) -> None:
    for said in (prose(text), f"> {prose(text)}", table(["a", "b"], [[prose(text), "x"]])):
        page = rendered(said)
        assert set(page.tags) <= {"p", "blockquote", "table", "thead", "tbody", "tr", "th", "td"}
        assert text in "".join(page.texts).replace("\u2060", "")


@pytest.mark.parametrize("text", ["@octocat", "#12", "!7", "~bug", "&3", "%1", "https://a.example"])
def test_nobody_is_mentioned_and_nothing_is_linked(text: str) -> None:
    shown = "".join(rendered(prose(f"see {text}")).texts)

    assert text not in shown
    assert text in shown.replace("\u2060", "")


def test_a_very_long_text_is_cut() -> None:
    assert len(prose("a" * 100_000)) < 3000
