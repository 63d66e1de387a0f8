"""Every example on the page of the integrations runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
EXAMPLES = dict(
    re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)


def test_the_page_has_an_example_of_each() -> None:
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_leaves_finished_runs(name: str) -> None:
    (needed,) = re.findall(r"mlopskit\.integrations\.(\w+)", EXAMPLES[name])
    for module in ("torch", needed):
        if module != "stdlib_logging" and find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    check = (
        "import mlopskit as mk\n"
        "with mk.open_tracker('local') as tracker:\n"
        "    assert {run.status for run in tracker.search_runs()} == {'finished'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{EXAMPLES[name]}\n{check}"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert done.returncode == 0, done.stderr
