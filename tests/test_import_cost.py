"""What importing costs, counted in modules: seconds belong in benchmarks/."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.core

HEAVY = "numpy pandas pyarrow duckdb scipy sklearn mlflow uvicorn msgspec pydantic rich pluggy"


def loaded_after(code: str) -> set[str]:
    listing = f"import sys; {code}; sys.stdout = sys.__stdout__; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")[-2].split())


def test_importing_the_library_imports_no_backend_and_nothing_heavy() -> None:
    loaded = loaded_after("import mlopskit")

    assert loaded & set(HEAVY.split()) == set()
    assert {name for name in loaded if name.startswith("mlopskit")} == {
        "mlopskit",
        "mlopskit._version",
    }


def test_asking_for_help_imports_no_command() -> None:
    code = (
        "import io; sys.stdout = io.StringIO(); from mlopskit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
    )
    listing = f"import sys\n{code}\nsys.stdout = sys.__stdout__; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split("\n")[-2].split())

    assert loaded & set(HEAVY.split()) == set()


@pytest.mark.parametrize(
    "domain", ["tracking", "registry", "serving", "features", "monitoring", "pipelines"]
)
def test_an_interface_is_imported_without_its_backends(domain: str) -> None:
    loaded = loaded_after(f"import mlopskit.{domain}")

    assert loaded & {"numpy", "pandas", "pyarrow", "duckdb", "scipy", "sklearn", "mlflow"} == set()
    assert f"mlopskit.{domain}.local" not in loaded
