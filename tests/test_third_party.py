"""A backend from a package of its own: one file, one entry point, and the public contract."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "mlopskit-jsonl"


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the example with pip where only a child process sees it."""
    folder = tmp_path_factory.mktemp("third-party")
    source = shutil.copytree(EXAMPLE, folder / "source")
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(install, check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(site)}


def run(command: list[str], environ: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def contract(environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the example's own tests, as its author would, with none of our settings."""
    tests = str(EXAMPLE / "tests")
    options = ["-q", "-x", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tests]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, tests],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
    )


def test_it_passes_the_contract(environ: dict[str, str], tmp_path: Path) -> None:
    done = contract(environ, tmp_path)

    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout.splitlines()[-1]


def test_the_contract_sees_a_backend_that_loses_records(
    environ: dict[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "site"
    shutil.copytree(environ["PYTHONPATH"], broken)
    module = broken / "mlopskit_jsonl.py"
    whole = module.read_text()
    assert "in batch.records:" in whole
    module.write_text(whole.replace("in batch.records:", "in batch.records[:3]:"))

    done = contract({**environ, "PYTHONPATH": str(broken)}, tmp_path)

    assert done.returncode == 1
    assert " failed" in done.stdout.splitlines()[-1]


def test_a_config_line_is_all_it_takes(environ: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import mlopskit as mk\n"
        "with mk.open_tracker('jsonl:my-runs') as tracker:\n"
        "    with tracker.start_run(experiment='e', name='baseline') as run:\n"
        "        run.log_metrics({'loss': 0.5}, step=0)\n"
    )
    run(["-c", code], environ, tmp_path)

    listed = run(["-m", "mlopskit", "-c", "tracking=jsonl:my-runs", "runs"], environ, tmp_path)
    assert "baseline" in listed
    assert "jsonl" in run(["-m", "mlopskit", "backends", "tracking"], environ, tmp_path)
