"""scikit-learn: every estimator's ``fit``, also of classes that are defined later."""

from __future__ import annotations

import functools
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

    def door(cls: type) -> None:
        if "fit" in vars(cls):
            patches.replace(cls, "fit", lambda fit: _logged(fit, sessions))

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


def _logged(fit: Callable[..., Any], sessions: Sessions) -> Callable[..., Any]:
    @functools.wraps(fit)
    def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
        with sessions.training(type(self).__name__) as session:
            if session is None:
                return fit(self, *args, **kwargs)
            with session.wall("log params"):
                session.params(self.get_params(deep=True))
            features = args[0] if args else kwargs.get("X")
            target = args[1] if len(args) > 1 else kwargs.get("y")
            with session.wall("log the data"):
                session.data(features)
            result = fit(self, *args, **kwargs)
            _log_fitted(session, self, features, target)
            return result

    return logged


def _log_fitted(session: Session, estimator: Any, features: Any, target: Any) -> None:
    with session.wall("log a search"):
        if hasattr(estimator, "best_params_"):
            session.metrics({"best_cv_score": estimator.best_score_})
            session.params({"best": estimator.best_params_})
    with session.wall("log the score"):
        if target is not None and hasattr(estimator, "score") and len(features) <= MOST_SCORED:
            session.metrics({"training_score": estimator.score(features, target)})
    with session.wall("log the model"):
        session.model(estimator, features, getattr(estimator, "predict", lambda rows: rows))
