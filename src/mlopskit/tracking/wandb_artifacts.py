"""Artifacts and media as W&B's own: what `wandb_writer` logs, and what the readers make of it.

One artifact of W&B's for each name that was logged. Its metadata holds what was said, with a JSON
text ``mlopskit`` that reads back exactly. Images, tables, figures and curves are logged to the
history too, so that W&B's pages draw them.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wandb
from wandb.plot.custom_chart import CustomChart

from mlopskit.errors import InvalidInput
from mlopskit.storage import Blobs, disk_errors, make_private_folder, write_whole
from mlopskit.tracking import tables
from mlopskit.tracking.entities import Artifact
from mlopskit.tracking.wandb_layout import safe_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlopskit.tracking.entities import ArtifactLogged
    from mlopskit.tracking.wandb_kept import Kept

SAID: Final = "mlopskit"
FOLDER: Final = "artifacts"  # of the bytes, in the folder of a run
DENSE: Final = 400  # labels, of which every cell is a row
MOST_KEYS: Final = 90  # W&B takes 100 keys of metadata.
RESERVED_TYPES: Final = ("wandb-", "job", "code", "run_table")


def folder_of(run: wandb.Run) -> Path:
    """Return where the bytes of a run's artifacts lie: in W&B's folder of the run."""
    return Path(str(run.settings.sync_dir)) / FOLDER


def collection(name: str, type: str) -> str:
    """Return W&B's name for what was logged by a name; W&B has one type for each."""
    return safe_name(f"{type}-{name}")


def made(
    record: ArtifactLogged, source: str, kept: Kept, folder: Path
) -> tuple[wandb.Artifact, dict[str, Any]]:
    """Return an artifact of W&B's, and the media to log beside it.

    Args:
        record: What was logged.
        source: Its journal, as `wandb_layout.short` has it.
        kept: Its run.
        folder: Where to keep the bytes.

    Raises:
        InvalidInput: If the bytes are gone.
        StorageError: If they cannot be kept.
    """
    first = record.files[0][0]
    kind = safe_name(first.type)
    if kind.startswith(RESERVED_TYPES):
        kind = f"mlopskit-{kind}"
    paths = {
        each.name: _take(each, path, folder) for each, path in record.files if path is not None
    }
    place = f"{source}:{record.position}"
    files = [
        [each.name, each.size, each.digest, each.uri, entry_of(each)] for each, _ in record.files
    ]
    said = {
        "run": kept.id,
        "experiment": kept.about.get("experiment"),
        "at": place,
        "time_ms": record.time_ms,
        "name": record.name,
        "type": first.type,
        "metadata": first.metadata,
        "aliases": first.aliases,
        "files": files,
    }
    shown = {
        key: value
        for key, value in first.metadata.items()
        if key != SAID and _is_json(value)  # An artifact with NaN is lost in W&B.
    }
    artifact = wandb.Artifact(
        collection(record.name, first.type),
        type=kind,
        metadata={**(shown if len(shown) < MOST_KEYS else {}), SAID: json.dumps(said)},
    )
    for each, _ in record.files:
        if each.uri is None:
            _add(artifact, paths[each.name], entry_of(each))
        else:
            with suppress(
                ValueError
            ):  # An address that only mlopskit knows stands in the metadata.
                artifact.add_reference(each.uri, name=entry_of(each), checksum=False)
    # Equal bytes of two runs are two artifacts: W&B would make one of them.
    own = f"_mk/{source}-{record.position}.json"
    path = make_private_folder(folder) / own.replace("/", "-")
    write_whole(path, json.dumps({"run": kept.id, "at": place}))
    _add(artifact, path, own)
    return artifact, media(record, {name: _named(path, name) for name, path in paths.items()})


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def entry_of(artifact: Artifact) -> str:
    """Return the name of a file within its artifact of W&B's."""
    if artifact.name.startswith(f"{artifact.logged_as}/"):
        return artifact.name.removeprefix(f"{artifact.logged_as}/")
    return artifact.name.rpartition("/")[2]


def _add(artifact: wandb.Artifact, path: Path, name: str) -> None:
    artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)


def _named(path: Path, name: str) -> Path:
    """Return the path of a file under a name whose suffix says what it is, as W&B's classes ask."""
    shown = path.with_name(path.name + Path(name).suffix)
    if not shown.exists():
        with disk_errors(shown):
            os.link(path, shown)
    return shown


def _take(artifact: Artifact, path: Path, folder: Path) -> Path:
    """Keep the bytes of a file, and return where."""
    blobs = Blobs(folder)
    kept = blobs.path(artifact.digest)
    if kept.exists():
        return kept
    if not path.exists():
        raise InvalidInput(f"The bytes of {artifact.name!r} are no longer there.")
    make_private_folder(kept.parent)
    try:
        os.link(path, kept)
    except OSError:  # Another file system.
        blobs.put(path)
    return kept


# What an artifact of W&B's says.


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Tell whether mlopskit logged an artifact."""
    return isinstance(metadata.get(SAID), str)


def said_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an artifact of ours says of itself."""
    said: dict[str, Any] = json.loads(metadata[SAID])
    return said


def files_of(said: Mapping[str, Any]) -> list[tuple[Artifact, str]]:
    """Return the files of an artifact of ours, each with its entry at W&B."""
    return [
        (
            Artifact(
                name=name,
                size=size,
                digest=digest,
                uri=uri,
                type=said["type"],
                metadata=said["metadata"],
                aliases=tuple(said["aliases"]),
                logged_as=said["name"],
                logged_at=datetime.fromtimestamp(said["time_ms"] / 1000, UTC),
            ),
            entry,
        )
        for name, size, digest, uri, entry in said["files"]
    ]


# Media.


def media(record: ArtifactLogged, paths: Mapping[str, Path]) -> dict[str, Any]:
    """Return the row of the history that draws what was logged; empty if W&B has no picture of it.

    A figure that cannot be drawn is none: its bytes are in the artifact.
    """
    draw = _DRAWN.get(record.files[0][0].type)
    if draw is None or len(paths) != len(record.files):
        return {}
    try:
        drawn = draw(record, paths)
    except Exception:  # noqa: BLE001 - whatever W&B's classes and Plotly raise
        return {}
    return {} if drawn is None else {record.name: drawn}


def bind(run: wandb.Run, row: dict[str, Any], step: int) -> None:
    """Copy the tables of a row into the run's folder.

    W&B would make one more artifact of each, with bytes in a folder outside.
    """
    bound: Any  # W&B's method has no types.
    for key, value in row.items():
        if isinstance(value, CustomChart):
            value.set_key(key)
            bound = value.table
            bound.bind_to_run(run, value.spec.table_key, step)
        elif isinstance(value, wandb.Table):
            bound = value
            bound.bind_to_run(run, key, step)


def _image(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    return wandb.Image(
        str(paths[record.files[0][0].name]), caption=record.files[0][0].metadata.get("caption")
    )


def _images(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    captions = record.files[0][0].metadata.get("captions") or [None] * len(record.files)
    return [
        wandb.Image(str(paths[each.name]), caption=caption)
        for (each, _), caption in zip(record.files, captions, strict=True)
    ]


def _audio(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    first = record.files[0][0]
    return wandb.Audio(str(paths[first.name]), caption=first.metadata.get("caption"))


def _html(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    return wandb.Html(paths[record.files[0][0].name].read_text(errors="replace"), inject=False)


def _figure(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    first = record.files[0][0]
    kind = first.metadata.get("format")
    path = paths[first.name]
    if kind in ("png", "jpg", "jpeg"):
        return wandb.Image(str(path))
    if kind in ("json", "plotly"):
        from plotly import io  # noqa: PLC0415 - only who logs such a figure has it

        return wandb.Plotly(io.from_json(path.read_text()))
    if kind in ("svg", "html"):
        return wandb.Html(path.read_text(), inject=False)
    return None


def _table(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    named = {
        each.name.removeprefix(f"{record.name}/"): path for each, path in _files(record, paths)
    }
    rows = named.get(tables.ROWS) or next(iter(paths.values()))
    said = json.loads(rows.read_text())
    data: list[Any] = [[_cell(cell, named) for cell in row] for row in said["data"]]
    return wandb.Table(columns=said["columns"], data=data, allow_mixed_types=True)


def _cell(cell: Any, named: Mapping[str, Path]) -> Any:
    if not isinstance(cell, dict) or tables.MARK not in cell:
        return cell
    text = cell["v"]
    if cell[tables.MARK] != "file":
        return text
    return wandb.Image(str(named[text])) if text.endswith((".png", ".jpg", ".webp")) else text


def _histogram(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    said = _data(record, paths)
    return wandb.Histogram(np_histogram=(said["counts"], said["edges"]))


def _confusion(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    said = _data(record, paths)
    names = [str(each) for each in said["labels"]]
    data: list[Any] = [
        [names[true], names[guess], count]
        for true, row in enumerate(said["matrix"])
        for guess, count in enumerate(row)
        # W&B's tables end at 200,000 rows: of a large matrix those that are not zero.
        if count or len(names) <= DENSE
    ]
    columns: list[Any] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=columns, data=data),
        {each: each for each in columns},
        {"title": record.name},
    )


def _curve(x: str, y: str) -> Callable[[ArtifactLogged, Mapping[str, Path]], Any]:
    def drawn(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
        said = _data(record, paths)
        data: list[Any] = [
            [str(curve["label"]), *point]
            for curve in said["curves"]
            for point in zip(curve[x], curve[y], strict=True)
        ]
        return wandb.plot_table(
            "wandb/area-under-curve/v0",
            wandb.Table(columns=["class", x, y], data=data),
            {"x": x, "y": y, "class": "class"},
            {"title": record.name, "x-axis-title": x, "y-axis-title": y},
        )

    return drawn


def _data(record: ArtifactLogged, paths: Mapping[str, Path]) -> Any:
    return json.loads(paths[f"{record.name}/data.json"].read_text())


def _files(record: ArtifactLogged, paths: Mapping[str, Path]) -> list[tuple[Artifact, Path]]:
    return [(each, paths[each.name]) for each, _ in record.files]


_DRAWN: Final[Mapping[str, Callable[[ArtifactLogged, Mapping[str, Path]], Any]]] = {
    "image": _image,
    "images": _images,
    "audio": _audio,
    "html": _html,
    "figure": _figure,
    "table": _table,
    "histogram": _histogram,
    "confusion_matrix": _confusion,
    "roc_curve": _curve("fpr", "tpr"),
    "pr_curve": _curve("recall", "precision"),
}
