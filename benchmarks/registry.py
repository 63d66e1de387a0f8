"""The embedded registry and MLflow's on SQLite: registering, moving an alias, finding a version.

Medians of the same work in one process, interleaved; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mlopskit import open_registry

if TYPE_CHECKING:
    from collections.abc import Callable

Work = dict[str, "Callable[[], object]"]
LIMIT_US = 200.0


def ours(folder: Path, source: Path) -> Work:
    registry = open_registry(f"local:{folder / 'registry'}")
    registry.register("churn", source)
    registry.register("churn", source)
    registry.set_alias("churn", "champion", 1)
    turn = iter(range(10**9))
    return {
        "register": lambda: registry.register("churn", source, metrics={"auc": 0.5}),
        "set_alias": lambda: registry.set_alias("churn", "champion", 1 + next(turn) % 2),
        "get by alias": lambda: registry.get_version("churn", "@champion"),
        "download": lambda: registry.download("churn", 1, folder / f"out{next(turn)}"),
    }


def mlflow(folder: Path, source: Path) -> Work:
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    client.create_registered_model("churn")
    for _ in range(2):
        client.create_model_version("churn", str(source.parent))
    client.set_registered_model_alias("churn", "champion", "1")
    turn = iter(range(10**9))

    def download() -> object:
        out = folder / f"mlflow{next(turn)}"
        return download_artifacts(str(source.parent), dst_path=str(out), tracking_uri=uri)

    return {
        # Only the row: MLflow neither copies nor reads the bytes here.
        "register": lambda: client.create_model_version("churn", str(source.parent)),
        "set_alias": lambda: client.set_registered_model_alias(
            "churn", "champion", str(1 + next(turn) % 2)
        ),
        "get by alias": lambda: client.get_model_version_by_alias("churn", "champion"),
        "download": download,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        source = folder / "model" / "weights.bin"
        source.write_bytes(bytes(1 << 20))
        teams = {"mlopskit": ours(folder, source)}
        if find_spec("mlflow"):
            teams["mlflow"] = mlflow(folder, source)
        took: dict[tuple[str, str], list[float]] = {}
        for _ in range(repeats):
            for team, work in teams.items():
                for act, call in work.items():
                    before = time.perf_counter()
                    call()
                    took.setdefault((act, team), []).append(time.perf_counter() - before)
    micro = {key: statistics.median(times) * 1e6 for key, times in took.items()}
    print(f"{'p50, microseconds':18}" + "".join(f"{team:>12}" for team in teams) + f"{'ratio':>8}")
    for act in teams["mlopskit"]:
        row = [micro[act, team] for team in teams]
        ratio = f"{row[1] / row[0]:8.1f}" if len(row) > 1 else ""
        print(f"{act:18}" + "".join(f"{value:12.0f}" for value in row) + ratio)
    found = micro["get by alias", "mlopskit"]
    print(f"get by alias: {found:.0f} of {LIMIT_US:.0f} us")
    return 0 if found <= LIMIT_US else 1


if __name__ == "__main__":
    raise SystemExit(main())
