"""Hostile and broken model files, loaded by default in a child process: none of them runs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlopskit

for needed in ("h5py", "joblib", "lightgbm", "onnx", "safetensors", "skops", "torch", "xgboost"):
    pytest.importorskip(needed)

SCRIPT = Path(__file__).parent / "files.py"


def cases() -> dict[str, tuple[str, Any]]:
    spec = importlib.util.spec_from_file_location("hostile_files", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, tuple[str, Any]] = module.CASES
    return found


CASES = cases()


def sing(package: Path, folder: Path, *without: str) -> dict[str, dict[str, Any]]:
    """Load every case with the package that lies in a folder, and return what came of each."""
    environ = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *without],
        env=environ,
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    died = {} if done.returncode == 0 else {"died": {"error": done.stderr[-2000:], "sang": True}}
    return {**{row["case"]: row for row in rows}, **died}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return sing(Path(mlopskit.__file__).parent.parent, tmp_path_factory.mktemp("hostile") / "all")


def test_there_are_many_and_the_process_outlives_them_all(
    results: dict[str, dict[str, Any]],
) -> None:
    assert len(CASES) >= 60
    assert results.keys() == CASES.keys(), results.get("died")


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_by_type_and_runs_nothing(
    results: dict[str, dict[str, Any]], name: str
) -> None:
    assert results[name]["error"] in CASES[name][0].split()
    assert not results[name]["sang"]


WEAKER = {
    "pickled.py": ("if trusted is not True:", "if False:"),
    "torch_file.py": ("weights_only=trusted is not True", "weights_only=False"),
    "torch.py": ("content = _rebuilt(torch, path, label)", "content = str(path)"),
    "predictor.py": ("if trusted is not True:", "if False:"),
}


def test_a_build_with_weaker_gates_is_caught(tmp_path: Path) -> None:
    package = tmp_path / "src"
    shutil.copytree(Path(mlopskit.__file__).parent, package / "mlopskit")
    for name, (gate, weak) in WEAKER.items():
        path = package / "mlopskit" / "registry" / "flavors" / name
        text = path.read_text()
        assert gate in text
        path.write_text(text.replace(gate, weak))

    results = sing(package, tmp_path / "weak", "torch.export computing a power for ever")

    sang = {name for name, row in results.items() if row["sang"]}
    for name in ("pickle protocol 2", "torch.save of an object", "predictor of any module"):
        assert name in sang
    assert any(name.startswith("torch.export") for name in sang)
    wrong = {name for name, row in results.items() if row["error"] not in CASES[name][0].split()}
    assert len(wrong) > 20
