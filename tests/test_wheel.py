"""The built wheel, in clean environments without any extra, on every Python that is here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
MEGABYTE = 1_000_000
FIRST_STEPS = """
import mlopskit as mk
assert [b.name for b in mk.backends("tracking")] == ["local", "mlflow", "wandb"]
assert not mk.backends("tracking")[1].installed
with mk.open_tracker() as tracker:
    with tracker.start_run(experiment="first", params={"lr": 0.1}) as run:
        run.log_metrics({"loss": 0.5}, step=0)
    found = tracker.search_runs(where="metrics.loss < 1", experiment="first")
    assert [r.id for r in found] == [run.id], found
    assert list(tracker.get_metric_history(run.id, "loss").values) == [0.5]
try:
    mk.open_tracker("mlflow:sqlite:///m.db")
except mk.errors.MissingDependency as exc:
    print(exc)
"""


def interpreters() -> list[str]:
    """Find this Python and every newer one, on the path and under pyenv, by their versions."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for minor in range(11, 16):
        candidates = [shutil.which(f"python3.{minor}")]
        candidates += [
            str(path)
            for path in sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
        ]
        for candidate in candidates:
            if candidate and f"3.{minor}" not in found and starts(candidate, minor):
                found[f"3.{minor}"] = candidate
    return list(found.values())


def starts(python: str, minor: int) -> bool:
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_is_small_and_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert wheel.stat().st_size < MEGABYTE
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mlopskit"}
    assert "mlopskit/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("python", interpreters())
def test_the_core_works_with_four_dependencies_and_nothing_else(
    wheel: Path, tmp_path: Path, python: str
) -> None:
    run([python, "-m", "venv", tmp_path / "venv"], tmp_path)
    own = tmp_path / "venv" / "bin" / "python"
    pip: list[str | Path] = [own, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run([*pip, "install", wheel], tmp_path)

    said = run([own, "-W", "error", "-c", FIRST_STEPS], tmp_path)
    assert said.strip() == (
        "The tracking backend 'mlflow' needs 'mlflow', which is not installed. "
        "Install it with: pip install 'mlopskit[mlflow]'"
    )
    assert "tracking" in run([own, "-m", "mlopskit", "backends"], tmp_path)

    run([*pip, "install", "pytest", "pytest-timeout"], tmp_path)
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if is_core(path)]
    run([own, "-m", "pytest", "-q", "-m", "core", "-p", "no:cacheprovider", *files], ROOT)


def is_core(path: Path) -> bool:
    return "pytestmark = pytest.mark.core\n" in path.read_text()


def run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout
