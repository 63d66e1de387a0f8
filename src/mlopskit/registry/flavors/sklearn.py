"""scikit-learn models in the skops format, which names every type and runs no code to be read.

skops builds only types that it trusts; those it does not trust by itself are held against
`REVIEWED`. Anything else is refused by name.
"""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidModel, MissingDependency, UntrustedModel
from mlopskit.registry.flavors.archives import check_archive
from mlopskit.registry.flavors.native import check_native
from mlopskit.registry.flavors.skops_schema import check_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlopskit.registry.flavors import Files

TAKES = "a scikit-learn estimator"
LIBRARIES: tuple[str, ...] = ("scikit-learn", "skops", "numpy")
SUFFIXES: tuple[str, ...] = (".skops",)
FOLDERS = False
FILE: Final = "model.skops"
MAGIC: Final = b"PK\x03\x04"
# Types of scikit-learn and NumPy that skops asks about, each read for what building one can do:
# none of them calls a value of the file, opens a file, or imports by name. The first three hold
# indices that compiled code follows; `check_native` looks at these, and at what the estimators that
# skops trusts hold of that kind, before the model is handed out.
REVIEWED: Final = frozenset(
    [
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        # Losses and links: numbers only.
        "sklearn._loss.link.HalfLogitLink",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.AbsoluteError",
        "sklearn._loss.loss.ExponentialLoss",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfGammaLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfPoissonLoss",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn._loss.loss.HuberLoss",
        "sklearn._loss.loss.PinballLoss",
        # Parts of public estimators.
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.utils._bunch.Bunch",
        # Functions that pipelines name; each computes on the arrays it is given.
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.utils.validation.check_array",
        # Building a partial calls nothing, and its function has to be reviewed by itself.
        "functools.partial",
        "numpy.dtype",
        "numpy.random._generator.Generator",
        "numpy.random.mtrand.RandomState",
    ]
)


def takes(model: Any, example: Any = None) -> bool:  # noqa: ARG001
    """Tell whether an object is an estimator of scikit-learn, or of a class built on one."""
    if isinstance(model, type):
        return False
    kinds = type(model).__mro__
    if kinds[0].__module__.partition(".")[0] in ("xgboost", "lightgbm"):
        return False  # These have formats of their own.
    return any(
        kind.__module__ == "sklearn.base" and kind.__name__ == "BaseEstimator" for kind in kinds
    )


def recognises(files: Files) -> bool:
    """Tell by its first bytes and its table of contents whether a file is of skops."""
    if len(files) != 1:
        return False
    path = files[0][1]
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "schema.json" in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def save(model: Any, folder: Path, example: Any = None) -> None:  # noqa: ARG001 - no tracing
    """Write a model that can be loaded again without trusting it.

    Raises:
        InvalidModel: If skops cannot write it, or it holds a type that would not be loaded.
        MissingDependency: If skops is not installed.
    """
    io = _skops()
    path = folder / FILE
    try:
        io.dump(model, path)
        foreign = sorted(set(io.get_untrusted_types(file=path)) - REVIEWED)
    except Exception as exc:
        raise InvalidModel(f"skops cannot save the {type(model).__name__}: {exc}") from exc
    if foreign:
        raise InvalidModel(
            f"The {type(model).__name__} holds {', '.join(foreign)}, which would not be loaded "
            "again without trust in the file. Take it out of the model, or save the model with "
            "the library of your choice, and register the path."
        )
    check_native(model, f"the {type(model).__name__}")


def load(folder: Path, label: str, *, trusted: bool) -> Any:
    """Read a model; a type that nobody reviewed is refused by name, unless it is trusted.

    Raises:
        UntrustedModel: Naming the types.
        InvalidModel: If the file is broken, or its trees lead outside themselves.
    """
    io = _skops()
    (path,) = folder.iterdir()
    check_archive(path, label)
    with _sound(label):
        unknown = sorted(io.get_untrusted_types(file=path))
    foreign = [name for name in unknown if name not in REVIEWED]
    if foreign and trusted is not True:
        raise UntrustedModel(label, f"it holds types nobody reviewed: {', '.join(foreign)}")
    if trusted is not True:
        check_schema(path, label)
    with _sound(label):
        model = io.load(path, trusted=unknown)
    if trusted is not True:
        check_native(model, label)
    return model


@contextmanager
def _sound(label: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # A broken file makes skops raise almost anything.
        raise InvalidModel(f"{label} is no sound skops file: {exc}") from exc


def _skops() -> Any:
    try:
        from skops import io  # noqa: PLC0415 - takes a second, and few processes need it
    except ModuleNotFoundError as exc:
        raise MissingDependency(
            "A scikit-learn model", "skops", "pip install 'mlopskit[sklearn]'"
        ) from exc
    return io
