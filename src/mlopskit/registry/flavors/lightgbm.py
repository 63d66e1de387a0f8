"""LightGBM's own text format, whose trees are checked before compiled code reads them.

Version 4.7 ends the whole process on a malformed tree. The trees are read here, checked, and what
was checked is handed on.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency
from mlopskit.registry.flavors.json_files import read_json

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
# A deeper tree overruns the stack when it is explained.
DEEPEST: Final = 1024
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|inf|nan)\Z")
_KEYS: Final = re.compile(r"[a-z_0-9]+\Z")
_HEAD: Final = (
    *("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx"),
    *("objective", "average_output", "feature_names", "monotone_constraints", "feature_infos"),
    "tree_sizes",
)
_FLAGS: Final = ("average_output",)
_COUNTS: Final = ("num_class", "num_tree_per_iteration", "label_index", "max_feature_idx")
_COUNT: Final = re.compile(r"-?[0-9]{1,9}\Z")
_INFO: Final = re.compile(r"(none|\[[-+.0-9a-z]+:[-+.0-9a-z]+\]|-?[0-9]+(:-?[0-9]+)*)\Z")
_WORD: Final = re.compile(r"[a-z_0-9]+\Z")
_SETTING: Final = re.compile(r"[a-z_0-9]+(:[-+.0-9a-z]+)?\Z")
_PARAMETER: Final = re.compile(r"\[[A-Za-z_0-9]+: .*\]\Z")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_NO_OBJECTIVE: Final = ("none", "null", "custom", "na")
_MOST_LINES: Final = 21
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
    (folder / FILE).write_text(text, encoding="utf-8")
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
        text = _check(path.read_text(encoding="utf-8"), label)
        aside = read_json(folder / ASIDE, label) if len(names) == 2 else {}
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


def _check(text: str, label: str) -> str:
    """Return the text anew, with nothing at its head but what was checked."""
    whole, end, rest = text.partition("\nend of trees")
    head, *blocks = whole.split("\nTree=")
    top = _head(head, label)
    features, groups = int(top["max_feature_idx"]) + 1, int(top["num_class"])
    sizes = [int(each) for each in top["tree_sizes"].split()]
    sound = (
        end
        and 0 < features < 1 << 24
        and 0 < groups <= 65536
        and int(top["num_tree_per_iteration"]) == groups
        and len(blocks) % groups == 0
        and (blocks or groups == 1)
        and -1 <= int(top["label_index"]) <= features
        and len(top["feature_names"].split(" ")) == features
        and len(top["feature_infos"].split(" ")) == features
        and all(_INFO.match(each) for each in top["feature_infos"].split(" "))
        and len(top.get("monotone_constraints", " " * (features - 1)).split(" ")) == features
        # LightGBM seeks by these, and would read from the middle of a tree.
        and _sizes_are_sound(text, len(head), sizes, len(blocks))
    )
    if not sound or not all(_tree_is_sound(block, features) for block in blocks):
        raise InvalidModel(f"{label} holds a tree that leads outside itself.")
    _check_objective(top.get("objective"), groups, label)
    _check_parameters(rest, label)
    lines = ["tree", *(_line(key, top[key]) for key in _HEAD if key in top)]
    body = "".join(f"\nTree={block}" for block in blocks)
    return "\n".join([*lines, ""]) + body + end + rest


def _line(key: str, value: str) -> str:
    return f"{key}={value}" if value or key not in _FLAGS else key


def _head(head: str, label: str) -> dict[str, str]:
    """Return the fields before the trees, each there once and without a second meaning."""
    first, *lines = head.split("\n")
    found: dict[str, str] = {}
    for line in filter(None, lines):
        key, equals, value = line.partition("=")
        sound = key in _HEAD and key not in found and value == value.strip(" ")
        if not sound or bool(equals) == (key in _FLAGS) or _CONTROL.search(value):
            raise InvalidModel(f"{label} has a head with {line[:80]!r}.")
        if key in _COUNTS and not _COUNT.match(value):
            raise InvalidModel(f"{label} has a {key} of {value[:80]!r}.")
        found[key] = value
    if first != "tree":
        raise InvalidModel(f"{label} begins with {first[:80]!r}.")
    return found


def _check_objective(objective: str | None, groups: int, label: str) -> None:
    """Compare what turns scores into answers, in place, with how many scores there are."""
    if objective is None:
        return
    name, *settings = objective.split(" ")
    found = dict(each.split(":") for each in settings if ":" in each)
    sound = len(found) == sum(":" in each for each in settings)
    sound = sound and bool(_WORD.match(name)) and all(_SETTING.match(each) for each in settings)
    if name in ("multiclass", "multiclassova"):
        sound = sound and bool(_COUNT.match(found.get("num_class", "")))
        sound = sound and int(found["num_class"]) == groups
    else:
        sound = sound and "num_class" not in found and (groups == 1 or name in _NO_OBJECTIVE)
    if not sound:
        raise InvalidModel(f"{label} has the objective {objective!r} for {groups} scores a row.")


def _check_parameters(rest: str, label: str) -> None:
    """Check the lines after the trees, of which LightGBM takes the values without looking."""
    inside = False
    for line in rest.split("\n"):
        if _CONTROL.search(line):
            raise InvalidModel(f"{label} ends with {line[:80]!r}.")
        if line == "end of parameters":
            return
        if inside and line and not _PARAMETER.match(line):
            raise InvalidModel(f"{label} has the parameter {line[:80]!r}.")
        inside = inside or line == "parameters:"


def _sizes_are_sound(text: str, head: int, sizes: list[int], count: int) -> bool:
    if len(sizes) != count:
        return False
    raw, at = text[head + 1 :].encode(), 0
    for number, size in enumerate(sizes):
        if size <= 0 or not raw.startswith(b"Tree=%d\n" % number, at):
            return False
        at += size
    return not count or raw.startswith(b"end of trees", at)


def _tree_is_sound(block: str, features: int) -> bool:  # noqa: PLR0911
    found: dict[str, list[str]] = {}
    lines = block.rstrip("\n").split("\n")[1:]
    # LightGBM reads so many, and none after an empty one.
    if not block.isascii() or len(lines) > _MOST_LINES:
        return False
    for line in lines:
        key, _, value = line.partition("=")
        if not _KEYS.match(key) or key in found or _CONTROL.search(line):
            return False
        found[key] = value.split()
    if not all(_NUMBER.match(each) for values in found.values() for each in values):
        return False
    if any(len(found.get(key, "x")) != 1 for key in ("num_leaves", "num_cat", "shrinkage")):
        return False
    leaves, sets = int(found["num_leaves"][0]), int(found["num_cat"][0])
    linear = found.get("is_linear", ["0"])
    if leaves < 1 or len(found["leaf_value"]) != leaves or linear not in (["0"], ["1"]):
        return False
    if linear == ["1"] and not _lines_are_sound(found, leaves, features):
        return False
    if leaves == 1:
        return sets == 0 and linear == ["0"]
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


def _lines_are_sound(found: Mapping[str, list[str]], leaves: int, features: int) -> bool:
    """Check the line that each leaf of a linear tree holds."""
    sizes = [int(each) for each in found["num_features"]]
    used = [int(each) for each in found["leaf_features"]]
    return (
        len(found["leaf_const"]) == len(sizes) == leaves
        and all(size >= 0 for size in sizes)
        and sum(sizes) == len(used) == len(found["leaf_coeff"])
        and all(0 <= each < features for each in used)
    )


def _children_are_sound(found: Mapping[str, list[str]], inner: int) -> bool:
    """Every inner node but the first, and every leaf, is the child of exactly one node."""
    children = [int(each) for key in ("left_child", "right_child") for each in found[key]]
    if sorted(children) != [*range(-inner - 1, 0), *range(1, inner)]:
        return False
    reached, depth, level = 0, 0, [0]
    while level and depth < DEEPEST:
        reached, depth = reached + len(level), depth + 1
        both = (child for at in level for child in (children[at], children[at + inner]))
        level = [child for child in both if child > 0]
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
