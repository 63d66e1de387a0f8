"""Folders of runs that W&B's own SDK wrote, for the tests of what reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

WRITER = """
import math, pathlib, sys, wandb
import wandb.sdk.interface.interface as interface

root = pathlib.Path(sys.argv[1])
source = root / "source"
(source / "d").mkdir(parents=True)
(source / "f.txt").write_text("hello")
(source / "d" / "ü.txt").write_text("below")

def begin(**options):
    return wandb.init(mode="offline", project="p", reinit="create_new", **options)

first = begin(id="twice", config={"a": 1.0, "b": 1})
first.log({"m": 1.5}, step=3)
first.finish()

hard = begin(
    id="hard", entity="team", name="näme", group="g", job_type="train", notes="n\\nö",
    tags=["a", "ü"],
    config={
        "whole": 1.0, "minus": -0.0, "big": 2**60, "inf": math.inf, "--dashes": "x",
        "nan": math.nan,
        "nested": {"a": {"b": 1, "c.d": [1, {"x": None}]}}, "a.b": 3, "$": "$x", "ключ": "日本",
        "long": "x" * 100_000,
    },
)
hard.define_metric("val/*", step_metric="epoch")
hard.define_metric("loss", summary="min,max")
hard.log({
    "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zero": -0.0, "big": 2**60,
    "bigger": 2**53 + 1, "least": -(2**63), "beyond": 2**64, "tiny": 5e-324, "sum": 0.1 + 0.2,
    "whole": 7.0, "flag": True, "text": "ü\\x12", "none": None, "list": [1, 2.5], "a.b": 4,
    "ключ": 5, "$k": 6, "d": {"x": 1, "y": {"z": 2.5}}, "k" * 200: 8, "loss": 3,
})
hard.log({"loss": 2.0}, step=5, commit=True)
hard.log({"loss": 9.0}, step=4)
hard.log({"loss": 1.5}, commit=False)
hard.log({"epoch": 2, "val/x": 0.5})
hard.log({"loss": "diverged"})
hard.summary["best"] = {"q": {"w": 2**60}}
hard.summary["gone"] = 1
del hard.summary["gone"]
hard.config.update({"nested": {"new": 1}, "whole": 2.0}, allow_val_change=True)
hard.config["late"] = {"x": 1}
hard.tags = (*hard.tags, "later")
hard.finish(exit_code=3)

shown = begin(id="shown")
shown.log({"m": 1.0})
pixels = wandb.Image(str(root / "pixels.png"))
shown.log({
    "image": pixels, "images": [pixels, pixels], "deep": {"image": pixels, "n": 4},
    "table": wandb.Table(columns=["a"], data=[[1], [2]]),
    "histogram": wandb.Histogram(np_histogram=([1, 2], [0, 1, 2])), "m": 2.0,
})
made = wandb.Artifact("model", "model", description="what it is", metadata={"k": [1, "ü"]})
made.add_file(str(source / "f.txt"))
made.add_dir(str(source / "d"), name="dir")
made.add_reference("s3://bucket/key", name="far", checksum=False)
made.add_reference(f"file://{source}/d/ü.txt", name="near")
shown.log_artifact(made, aliases=["best"])
other = wandb.Artifact("other", "dataset", digest_algorithm="XXH128")
other.add_file(str(source / "f.txt"))
shown.log_artifact(other)
interface.MANIFEST_FILE_SIZE_THRESHOLD = 2
many = wandb.Artifact("many", "dataset")
for each in "xyz":
    with many.new_file(f"{each}.txt") as file:
        file.write(each)
shown.log_artifact(many)
shown.finish()

rows = begin(id="rows")
for i in range(20_000):
    rows.log({"loss": 1 / (i + 1), "_mk/step": 20_000 - i, "_mk/at": f"{i}:a:b", "even": i} if
             i % 2 == 0 else {"loss": 1 / (i + 1), "_mk/step": 20_000 - i, "_mk/at": f"{i}:a:b"})
rows.finish()

second = begin(id="twice", config={"c": 2})
second.log({"m": 2.5}, step=1)
second.finish()
"""


def surroundings(root: Path) -> dict[str, str]:
    """Return the environment that keeps all of W&B's files below a folder."""
    return {
        **os.environ,
        "WANDB_SERVICE": "",  # A test before may have left the name of one that is gone.
        "WANDB_DIR": str(root),
        "WANDB_DATA_DIR": str(root / "data"),
        "WANDB_CACHE_DIR": str(root / "cache"),
        "WANDB_CONFIG_DIR": str(root / "config"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_X_DISABLE_STATS": "true",
    }


def written(root: Path) -> Path:
    """Have W&B's SDK write the runs into a folder, and return it."""
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (4, 4)).save(root / "pixels.png")
    subprocess.run(
        [sys.executable, "-c", WRITER, str(root)], env=surroundings(root), check=True, timeout=120
    )
    return root


def ordered(values: dict[str, Any]) -> str:
    """Return mappings as a text that has NaN and the kind of each number in it, but no order."""
    return json.dumps(values, sort_keys=True)
