"""scikit-learn: every estimator's ``fit``, also of classes that are defined later."""

from __future__ import annotations

import copy
import functools
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from mlopskit.integrations.autolog.patches import Patches
    from mlopskit.integrations.autolog.session import Session, Sessions

MODULE = "sklearn.base"
# Predicting more rows than that again, for a score of the training data, may take long.
MOST_SCORED = 100_000


def patch(module: ModuleType, sessions: Sessions, patches: Patches) -> None:
    """Log the fits of estimators from now on."""
    base = module.BaseEstimator
    several = module.MetaEstimatorMixin

    def door(cls: type) -> None:
        if "fit" in vars(cls):
            patches.replace(cls, "fit", lambda fit: _logged(fit, sessions, several))

    for cls in _below(base):
        door(cls)

    def make(before: Any) -> Any:
        def init_subclass(cls: type, /, **given: Any) -> None:
            before.__func__(cls, **given)
            door(cls)

        return classmethod(init_subclass)

    patches.replace(base, "__init_subclass__", make)


def _below(cls: type) -> Iterator[type]:
    seen: set[type] = {cls}
    waiting: list[type] = [cls]
    while waiting:
        one = waiting.pop()
        yield one
        subclasses: list[type] = one.__subclasses__()
        new = [each for each in subclasses if each not in seen]
        seen.update(new)
        waiting += new


class _Fit:
    """A ``fit`` that is logged, in the namespace of its class.

    Of a class that is pickled whole, as those of a notebook are for workers, it is the ``fit`` that
    it stands for: nothing there needs what logs here.
    """

    def __init__(self, fit: Callable[..., Any], logged: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fit)
        self._fit = fit
        self._logged = logged

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        return self._logged if estimator is None else MethodType(self._logged, estimator)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._logged(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self._fit,)  # Of a function, it is the function.


def _logged(fit: Callable[..., Any], sessions: Sessions, several: type) -> _Fit:
    @functools.wraps(fit)
    def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
        with sessions.training(type(self).__name__) as session:
            if session is None:
                return fit(self, *args, **kwargs)
            session.one = not isinstance(self, several)
            with session.wall("log params"):
                session.params(self.get_params(deep=True))
            features = args[0] if args else kwargs.get("X")
            target = args[1] if len(args) > 1 else kwargs.get("y")
            with session.wall("log the data"):
                session.data(features)
            with session.timed():
                result = fit(self, *args, **kwargs)
            _log_fitted(session, self, features, target)
            return result

    return _Fit(fit, logged)


def _log_fitted(session: Session, estimator: Any, features: Any, target: Any) -> None:
    with session.wall("log a search"):
        if hasattr(estimator, "best_params_"):
            session.metrics({"best_cv_score": estimator.best_score_})
            session.params({"best": estimator.best_params_})
    with session.wall("log the score"):
        if target is not None and hasattr(estimator, "score") and _rows(features) <= MOST_SCORED:
            session.metrics({"training_score": estimator.score(features, target)})
    with session.wall("log the model"):
        # A search holds its scorers and splitters, which no file that is safe to load can keep.
        kept = getattr(estimator, "best_estimator_", estimator)
        session.model(kept, features, getattr(kept, "predict", lambda rows: rows))


def _rows(features: Any) -> int:
    """Count rows; a sparse matrix has a shape and no length."""
    return int(features.shape[0]) if hasattr(features, "shape") else len(features)
