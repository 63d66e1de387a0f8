"""``mlopskit compare``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done


def test_other_domains_show_what_is_declared(cli: Callable[..., Done], tmp_path: Path) -> None:
    """On the command line, with both files."""
    html, text = tmp_path / "a.html", tmp_path / "a.md"
    shown = cli("compare", "registry", "--html", str(html), "--markdown", str(text))
    said = json.loads(cli("compare", "registry", "local", "--json").out)

    assert shown.code == 0, shown.err
    assert "Capabilities" in shown.out
    assert html.read_text().startswith("<!doctype html>")
    assert "## Capabilities" in text.read_text()
    assert (said["domain"], said["results"]) == ("registry", [])
