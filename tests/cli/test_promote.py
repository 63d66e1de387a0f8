"""``mlopskit promote``, ``card`` and ``label``."""

from __future__ import annotations

import json
import os
import stat
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from markdown_it import MarkdownIt

import mlopskit as mk
from mlopskit.cli.gate_file import gates_of
from mlopskit.cli.output import write_report
from mlopskit.errors import InvalidInput, NotFound, StorageError
from mlopskit.registry.gates import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Done

    from mlopskit.registry import HistoryEntry, ModelVersion

GATES = """
from mlopskit.registry import at_least, better_than
from limits import FLOOR

GATES = [at_least("auc", FLOOR), better_than("production", "auc", by=0.01)]


def gate_never(context):
    return False


def small(context):
    return context.candidate.size < 100
"""


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name == "limits" or name.startswith("_mlopskit_")]:
        del sys.modules[name]


@pytest.fixture
def models(tmp_path: Path) -> None:
    """Register three versions, put the first into production, and write a file of gates."""
    with mk.load() as kit:
        for number, auc in ((1, 0.7), (2, 0.75), (3, 0.6)):
            file = tmp_path / f"{number}.bin"
            file.write_bytes(b"model" * number)
            kit.registry.register("churn", file, metrics={"auc": auc}, description=f"try {number}")
        kit.registry.promote("churn", 1, "production", why="the first")
    Path("ci").mkdir()
    Path("ci/limits.py").write_text("FLOOR = 0.65\n")
    Path("ci/gates.py").write_text(GATES)


def version(ref: int | str) -> ModelVersion:
    with mk.load() as kit:
        return kit.registry.get_version("churn", ref)


def history() -> list[HistoryEntry]:
    with mk.load() as kit:
        return kit.registry.history("churn")


class Table(HTMLParser):
    """The cells of rendered Markdown, row by row."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(MarkdownIt("gfm-like", {"linkify": False}).render(markdown))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


@pytest.mark.usefixtures("models")
def test_a_version_that_every_gate_lets_pass_is_promoted(cli: Callable[..., Done]) -> None:
    done = cli("promote", "churn", "2", "production", "--gate", "ci/gates.py", "--why", "May")

    assert done.code == 0, done.err
    assert done.records[0][:2] == ["at_least(auc)", "passed"]
    assert done.records[1][:2] == ["better_than(production, auc)", "passed"]
    assert done.out.splitlines()[-1] == "churn 2 entered production."
    assert version("production").version == 2
    assert next(each for each in history() if each.after == "production" and each.version == 2).why


@pytest.mark.usefixtures("models")
def test_a_refusal_exits_with_1_and_is_told_as_markdown(cli: Callable[..., Done]) -> None:
    done = cli(
        *("promote", "churn", "3", "production", "--gate", "ci/gates.py"),
        *("--markdown", "decision.md", "--notes", "notes.md", "--why", "in a hurry | really"),
    )

    assert done.code == 1
    assert done.err == ""
    assert done.out.splitlines()[-1] == "churn 3 did not enter production."
    assert version("production").version == 1
    assert history()[-1].action == "refused"
    text = Path("decision.md").read_text()
    assert text.startswith("## churn 3 may not enter production\n\nin a hurry")
    rows = Table(text).rows
    assert ["at_least(auc)", "refused", "auc is 0.6, not at least 0.65."] in rows
    assert ["auc", "0.6", "0.7", "-0.1"] in rows
    assert not Path("notes.md").exists(), "what was not promoted has no release notes"


@pytest.mark.usefixtures("models")
def test_a_dry_run_asks_and_changes_nothing(cli: Callable[..., Done]) -> None:
    before = history()
    gate = ("--gate", "ci/gates.py", "--dry-run")

    assert cli("promote", "churn", "3", "production", *gate).code == 1
    done = cli("promote", "churn", "2", "production", *gate, "--markdown", "d.md")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "churn 2 would enter production."
    assert Path("d.md").read_text().startswith("## churn 2 may enter production")
    assert history() == before


@pytest.mark.usefixtures("models")
def test_release_notes_tell_what_happened_since_the_last_promotion(
    cli: Callable[..., Done],
) -> None:
    gate = ("--gate", "ci/gates.py")
    cli("promote", "churn", "3", "production", *gate, "--why", "too early")
    done = cli("promote", "churn", "2", "production", *gate, "--why", "May", "--notes", "n.md")

    assert done.code == 0, done.err
    notes = Path("n.md").read_text()
    assert notes.startswith("# churn 2 in production, 20")
    assert "try 2\n\nMay\n\n### Against version 1" in notes
    happened = notes.partition("### What happened to churn since version 1\n\n")[2].splitlines()
    told = [line.split(" ", 3)[3] for line in happened]
    assert told[0].startswith("version 3 refused (production) by ")
    assert "too early auc is 0.6, not at least 0.65." in told[0]
    assert told[-1].startswith("version 2 promoted (production) by ")
    assert len(told) == 2


@pytest.mark.usefixtures("models")
def test_json_has_the_whole_decision(cli: Callable[..., Done]) -> None:
    done = cli("promote", "churn", "3", "production", "--gate", "ci/gates.py", "--json")

    assert done.code == 1
    found = json.loads(done.out)
    assert found["approved"] is False
    assert found["failed"] == ["at_least(auc)", "better_than(production, auc)"]
    assert found["evidence"]["at_least(auc)"] == {"metric": "auc", "candidate": 0.6, "limit": 0.65}
    assert (found["name"], found["version"], found["holder"]) == ("churn", 3, 1)


@pytest.mark.usefixtures("models")
def test_gates_of_several_files_and_names_are_all_asked(cli: Callable[..., Done]) -> None:
    done = cli(
        *("promote", "churn", "latest", "staging", "--gate", "ci/gates.py:small"),
        *("--gate", "ci/gates.py:gate_never"),
    )

    assert done.code == 1
    assert [record[:2] for record in done.records[:2]] == [
        ["small", "passed"],
        ["gate_never", "refused"],
    ]


@pytest.mark.usefixtures("models")
def test_without_gates_a_version_moves_and_says_so(cli: Callable[..., Done]) -> None:
    done = cli("promote", "churn", "3", "staging")

    assert done.code == 0
    assert done.out == "No gate was asked.\nchurn 3 entered staging.\n"


@pytest.mark.usefixtures("models")
def test_a_move_that_the_stages_do_not_allow_writes_nothing(cli: Callable[..., Done]) -> None:
    done = cli("promote", "churn", "1", "staging", "--markdown", "d.md")

    assert done.code == 1
    assert "cannot be promoted to 'staging'" in done.err
    assert not Path("d.md").exists()


@pytest.mark.usefixtures("models")
def test_what_could_not_be_written_is_told_before_anything_moves(cli: Callable[..., Done]) -> None:
    done = cli("promote", "churn", "2", "production", "--markdown", "nowhere/d.md")

    assert done.code == 2
    assert "nowhere" in done.err
    assert version(2).stage == "none"


@pytest.mark.usefixtures("models")
def test_hostile_reasons_stay_in_their_cells(cli: Callable[..., Done]) -> None:
    Path("hostile.py").write_text(
        "from mlopskit.registry import GateResult\n"
        "def gate_x(context):\n"
        "    text = '<img src=x> | [a](http://b) @team ` \\n/close \\x1b[31m'\n"
        "    return GateResult(passed=False, reason=text, evidence={text: text})\n"
    )
    done = cli("promote", "churn", "2", "staging", "--gate", "hostile.py", "--markdown", "d.md")

    assert done.code == 1
    text = Path("d.md").read_text()
    page = Table(text)
    ours = {"h2", "h3", "p", "ul", "li", "details", "summary"}
    assert page.tags <= ours | {"table", "thead", "tbody", "tr", "th", "td"}
    row = next(row for row in page.rows if row[0] == "gate_x")
    assert row[2].replace("\u2060", "") == "<img src=x> | [a](http://b) @team ` /close \\x1b[31m"
    assert "@team" not in row[2]
    assert not any(line.startswith("/") for line in text.splitlines())


# Files of gates.


def names(said: str) -> list[str]:
    return [name_of(gate) for gate in gates_of(said)]


def test_a_file_of_gates_is_its_list_or_what_it_calls_gate(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from mlopskit.registry import at_least\n"
        "def helper(): ...\n"
        "def gate_b(context): return True\n"
        "gate_a = at_least('auc', 0.5)\n"
        "class gate_class: ...\n"
        "gate_limit = 3\n"
        "several = (gate_b, gate_a)\n"
    )
    assert names(str(path)) == ["gate_b", "at_least(auc)"]
    assert names(f"{path}:gate_a") == ["at_least(auc)"]
    assert names(f"{path}:several") == ["gate_b", "at_least(auc)"]
    path.write_text(
        "def fine(context): return True\nGATES = [fine]\ndef gate_b(context): return True\n"
    )
    assert names(str(path)) == ["fine"]


def test_what_makes_gates_or_was_imported_is_no_gate(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from functools import partial\n"
        "from math import sqrt\n"
        "from mlopskit.registry import at_least, better_than\n"
        "from mlopskit.registry.gates import Gate\n"
        "def small(context): return True\n"
        "class Within:\n"
        "    def __call__(self, context): return True\n"
        "within = Within()\n"
        "floor = at_least('auc', 0.5)\n"
        "part = partial(small)\n"
        "both = [small, floor]\n"
        "LIMIT = 3\n"
        "empty = []\n"
    )
    for name in ("at_least", "Within", "Gate", "sqrt", "nope"):
        with pytest.raises(NotFound) as told:
            gates_of(f"{path}:{name}")
        assert str(told.value).endswith("There is: both, floor, part, small, within.")
    for name in ("floor", "part", "small", "within", "both"):
        assert gates_of(f"{path}:{name}")
    with pytest.raises(InvalidInput, match="holds 3, which is no gate"):
        gates_of(f"{path}:LIMIT")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n\nraise ValueError('no limits')\n", r"line 3: ValueError: no limits"),
        ("def gate(:\n", r"line 1: SyntaxError"),
        ("import nowhere_at_all\n", "ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
        ("x = 1\n", "has no gates"),
        ("GATES = []\n", "is empty"),
        ("GATES = [0.8]\n", r"GATES .* holds 0\.8"),
    ],
)
@pytest.mark.usefixtures("models")
def test_a_file_that_is_no_file_of_gates_is_told(
    cli: Callable[..., Done], source: str, says: str
) -> None:
    import re

    Path("wrong.py").write_text(source)
    with pytest.raises(InvalidInput, match=says) as told:
        gates_of("wrong.py")
    done = cli("promote", "churn", "2", "production", "--gate", "wrong.py")

    assert done.code == 2
    assert re.search(says, done.err)
    assert str(told.value).splitlines()[0] in done.err
    assert version(2).stage == "none"


@pytest.mark.usefixtures("models")
def test_a_file_or_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(NotFound, match=r"nowhere\.py"):
        gates_of("nowhere.py")
    with pytest.raises(NotFound, match=r"gate_nevr.*gate_never"):
        gates_of("ci/gates.py:gate_nevr")


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("churn", "2", "production", "--gate", "nofile.py"), "nofile.py"),
        (("churn", "2", "production", "--gate", "ci/gates.py:nope"), "nope"),
        (("chrn", "2", "production"), "chrn"),
        (("churn", "9", "production"), "9"),
        (("churn", "2", "produktion"), "production"),
        (("churn", "2", "produktion", "--dry-run"), "production"),
    ],
    ids=str,
)
def test_what_was_asked_wrongly_is_no_refusal(
    cli: Callable[..., Done], wrong: tuple[str, ...], says: str
) -> None:
    done = cli("promote", *wrong)

    assert done.code == 2
    assert done.err.startswith("Error: There is no ")
    assert says in done.err
    assert history()[-1].version == 1


@pytest.mark.usefixtures("models")
def test_a_gate_that_misses_something_refuses(cli: Callable[..., Done]) -> None:
    Path("lost.py").write_text(
        "def gate_lost(context): return context.registry.get_version('nobody', 1)\n"
    )
    done = cli("promote", "churn", "2", "production", "--gate", "lost.py")

    assert done.code == 1
    assert done.records[0][:2] == ["gate_lost", "refused"]
    assert done.err == ""


@pytest.mark.usefixtures("models")
def test_a_gate_may_import_what_lies_beside_it_when_it_is_asked(cli: Callable[..., Done]) -> None:
    Path("ci/late.py").write_text(
        "def gate_late(context):\n"
        "    from limits import FLOOR\n"
        "    return context.metrics['auc'] > FLOOR\n"
    )
    assert cli("promote", "churn", "2", "production", "--gate", "ci/late.py").code == 0


# Reports.


@pytest.mark.usefixtures("models")
def test_others_may_read_a_report_as_the_umask_has_it(cli: Callable[..., Done]) -> None:
    umask = os.umask(0o027)
    try:
        cli("card", "churn", "2", "--html", "c.html", "--markdown", "c.md")
        cli("promote", "churn", "2", "production", "--markdown", "d.md", "--notes", "n.md")
    finally:
        os.umask(umask)

    for name in ("c.html", "c.md", "d.md", "n.md"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o640, name


@pytest.mark.usefixtures("models")
def test_a_card_makes_no_folder_and_then_keeps_no_field(cli: Callable[..., Done]) -> None:
    for option in ("--html", "--markdown"):
        done = cli("card", "churn", "2", "--set", "owner=Ada", option, "nowhere/card")
        assert done.code == 2
        assert "nowhere" in done.err
    assert not Path("nowhere").exists()
    assert version(2).tags == {}


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        write_report(tmp_path, "text")
    with pytest.raises(click.UsageError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "page", "text")


# Cards and labels.


@pytest.mark.usefixtures("models")
def test_a_card_is_filled_in_shown_and_written(cli: Callable[..., Done]) -> None:
    done = cli("card", "churn", "2", "--set", "owner=Ada", "--set", "limits=a=b")
    assert done.code == 0, done.err
    assert done.out.startswith("# churn 2\n")
    assert "## Owner\n\n> Ada\n" in done.out
    assert "> a=b\n" in done.out

    cli("card", "churn", "1", "--model", "--set", "license=CC0")
    done = cli("card", "churn", "2", "--html", "card.html", "--markdown", "card.md", "--json")
    assert json.loads(done.out)["written"] == {"owner": "Ada", "limits": "a=b", "license": "CC0"}
    assert Path("card.html").read_text().startswith("<!doctype html>")
    assert "> CC0" in Path("card.md").read_text()
    cli("card", "churn", "2", "--set", "owner=")
    assert "## Owner" not in cli("card", "churn", "2").out


@pytest.mark.usefixtures("models")
def test_on_a_terminal_a_card_is_no_markup(
    cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("card", "churn", "2", "--set", "owner=<Ada> & co\x1b[31m")
    monkeypatch.setattr("mlopskit.cli.card.on_terminal", lambda: True)
    lines = cli("card", "churn", "2").out.splitlines()

    assert lines[:3] == ["churn 2", "", "Version"]
    assert lines[lines.index("Owner") + 1] == "<Ada> & co\\x1b[31m"
    assert not any("\\<" in line or line.startswith("#") for line in lines)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("said", ["onwer=Ada", "owner", "why=x", "name=x"])
def test_a_field_that_no_card_has_is_told(cli: Callable[..., Done], said: str) -> None:
    done = cli("card", "churn", "2", "--set", said)

    assert done.code == 2
    assert "owner" in done.err
    assert version(2).tags == {}


@pytest.mark.usefixtures("models")
def test_a_label_is_proposed_and_written(cli: Callable[..., Done]) -> None:
    assert cli("label", "churn", "1").out.startswith("1.0.0 (first)\n")
    assert version(1).tags == {}
    assert cli("label", "churn", "1", "--write").code == 0
    assert version(1).tags == {"label": "1.0.0"}

    done = cli("label", "churn", "latest", "--json")
    found = json.loads(done.out)
    assert (found["version"], found["label"], found["change"]) == (3, "1.0.1", "patch")
    assert found["written"] is False
    done = cli("label", "churn", "3")
    assert done.out == "1.0.1 (patch after 1.0.0)\n  Files that differ: 2.\n"
