"""LightGBM's own text format, whose trees are checked before compiled code reads them.

Version 4.7 ends the whole process on a malformed tree. The trees are read here, checked, and what
was checked is handed on.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "a LightGBM Booster or scikit-learn style model"
LIBRARIES: tuple[str, ...] = ("lightgbm",)
SUFFIXES: tuple[str, ...] = ()
FOLDERS = False
FILE: Final = "model.txt"
ASIDE: Final = "estimator.json"
# The only classes that a file can name.
CLASSES: Final = ("Booster", "LGBMClassifier", "LGBMRegressor", "LGBMRanker")
MOST_BYTES: Final = 2 << 30
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|inf|nan)\Z")
_KEYS: Final = re.compile(r"[a-z_0-9]+\Z")
_LEAVES: Final = ("leaf_value", "leaf_weight", "leaf_count")
_INNER: Final = (
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"),
    *("internal_value", "internal_weight", "internal_count"),
)


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is a booster, or one of LightGBM's estimators."""
    kind = type(model)
    return kind.__module__.startswith("lightgbm.") and kind.__name__ in CLASSES


def recognises(files: Files) -> bool:
    """Tell by its first words whether a file is of LightGBM."""
    by_name = dict(files)
    lone = len(files) == 1
    if not lone and set(by_name) != {FILE, ASIDE}:
        return False
    path = files[0][1] if lone else by_name[FILE]
    with path.open("rb") as file:
        return file.read(13) == b"tree\nversion="


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write the text, and beside it what an estimator knows of its classes."""
    kind = type(model).__name__
    booster = model if kind == "Booster" else model.booster_
    text = booster.model_to_string(num_iteration=-1)
    _check(text, f"the {kind}")
    (folder / FILE).write_text(text)
    if kind != "Booster":
        labels = getattr(model, "classes_", None)
        kept = {"class": kind, "classes": None if labels is None else labels.tolist()}
        (folder / ASIDE).write_text(json.dumps(kept))


def load(folder: Path, label: str, *, trusted: bool) -> Any:  # noqa: ARG001 - trust changes nothing
    """Read a booster, or the estimator that was saved.

    Raises:
        InvalidModel: If the file is broken, or a tree leads outside itself.
    """
    names = sorted(path.name for path in folder.iterdir())
    path = folder / (FILE if len(names) == 2 else names[0])
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidModel(f"{label} is larger than {MOST_BYTES} bytes.")  # noqa: TRY301
        text = path.read_text()
        _check(text, label)
        aside = json.loads((folder / ASIDE).read_text()) if len(names) == 2 else {}
        kind, labels = aside.get("class", "Booster"), aside.get("classes")
    except InvalidModel:
        raise
    except Exception as exc:  # A broken file lacks anything, or has it in another shape.
        raise InvalidModel(
            f"{label} is no sound model of LightGBM: {type(exc).__name__} {exc}"
        ) from exc
    if kind not in CLASSES:
        raise InvalidModel(
            f"{label} names the class {kind!r}, and these are built: {', '.join(CLASSES)}."
        )
    library = _lightgbm()
    try:
        booster = library.Booster(model_str=text)
        return booster if kind == "Booster" else _estimator(library, kind, booster, labels)
    except Exception as exc:
        raise InvalidModel(f"{label} is no sound model of LightGBM: {exc}") from exc


def _estimator(library: Any, kind: str, booster: Any, labels: Any) -> Any:
    """Return an estimator around a booster, as `fit` leaves it."""
    model = getattr(library, kind)()
    model._Booster = booster
    model._n_features = model._n_features_in = booster.num_feature()
    model._objective = booster.params.get("objective")
    model.fitted_ = True
    if kind == "LGBMClassifier":
        import numpy as np  # noqa: PLC0415 - LightGBM needs it
        from sklearn.preprocessing import LabelEncoder  # noqa: PLC0415 - and this

        encoder = LabelEncoder().fit(np.asarray(labels))
        model._le, model._classes = encoder, encoder.classes_
        model._n_classes = len(encoder.classes_)
        model._class_map = {each: at for at, each in enumerate(encoder.classes_)}
    return model


def _check(text: str, label: str) -> None:
    head, *blocks = text.split("\nTree=")
    top = dict(line.partition("=")[::2] for line in head.splitlines() if "=" in line)
    features = int(top["max_feature_idx"]) + 1
    per_step, groups = int(top["num_tree_per_iteration"]), int(top["num_class"])
    sizes = [int(each) for each in top["tree_sizes"].split()] if "tree_sizes" in top else None
    blocks[-1:] = [each.partition("\nend of trees")[0] for each in blocks[-1:]]
    sound = (
        "\nend of trees" in text
        and 0 < features < 1 << 24
        and per_step in (1, groups)
        and 0 < groups <= 65536
        and len(blocks) % per_step == 0
        and len(top["feature_names"].split()) == features
        and len(top["feature_infos"].split()) == features
        # LightGBM seeks by these, and would read from the middle of a tree.
        and _sizes_are_sound(text, sizes, len(blocks))
    )
    if not sound or not all(_tree_is_sound(block, features) for block in blocks):
        raise InvalidModel(f"{label} holds a tree that leads outside itself.")


def _sizes_are_sound(text: str, sizes: list[int] | None, count: int) -> bool:
    if sizes is None or len(sizes) != count:
        return False
    raw = text.encode()
    at = raw.find(b"Tree=0\n") if count else 0
    for number, size in enumerate(sizes):
        if size <= 0 or not raw.startswith(b"Tree=%d\n" % number, at):
            return False
        at += size
    return not count or raw.startswith(b"end of trees", at)


def _tree_is_sound(block: str, features: int) -> bool:  # noqa: PLR0911
    found: dict[str, list[str]] = {}
    for line in block.splitlines()[1:]:
        if not line:
            continue
        key, _, value = line.partition("=")
        if not _KEYS.match(key) or key in found:
            return False
        found[key] = value.split()
    if not all(_NUMBER.match(each) for values in found.values() for each in values):
        return False
    leaves, sets = int(found["num_leaves"][0]), int(found["num_cat"][0])
    if leaves < 1 or len(found["leaf_value"]) != leaves or found.get("is_linear", ["0"]) != ["0"]:
        return False
    if leaves == 1:
        return sets == 0
    inner = leaves - 1
    if any(len(found.get(key, [])) not in (leaves, 0) for key in _LEAVES):
        return False
    if any(len(found.get(key, [])) != inner for key in _INNER):
        return False
    return (
        _children_are_sound(found, inner)
        and all(0 <= int(each) < features for each in found["split_feature"])
        and _sets_are_sound(found, sets)
    )


def _children_are_sound(found: Mapping[str, list[str]], inner: int) -> bool:
    """Every inner node but the first, and every leaf, is the child of exactly one node."""
    children = [int(each) for key in ("left_child", "right_child") for each in found[key]]
    if sorted(children) != [*range(-inner - 1, 0), *range(1, inner)]:
        return False
    reached, waiting = 0, [0]
    while waiting:
        at = waiting.pop()
        reached += 1
        waiting += [each for each in (children[at], children[at + inner]) if each > 0]
    return reached == inner


def _sets_are_sound(found: Mapping[str, list[str]], sets: int) -> bool:
    kinds = [int(each) for each in found["decision_type"]]
    sorting = [at for at, kind in enumerate(kinds) if kind & 1]
    if not sets:
        return not sorting
    edges = [int(each) for each in found["cat_boundaries"]]
    return (
        len(edges) == sets + 1
        and edges[0] == 0
        and edges == sorted(edges)
        and edges[-1] == len(found["cat_threshold"])
        and all(0 <= int(each) < 1 << 32 for each in found["cat_threshold"])
        and all(float(found["threshold"][at]) in range(sets) for at in sorting)
    )


def _lightgbm() -> Any:
    try:
        import lightgbm  # noqa: PLC0415 - takes a second, and few processes need it
    except ModuleNotFoundError as exc:
        raise MissingDependency(
            "A LightGBM model", "lightgbm", "pip install 'mlopskit[lightgbm]'"
        ) from exc
    return lightgbm
