"""XGBoost and LightGBM: ``train``, also where their scikit-learn classes call it."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mlopskit.integrations.autolog.patches import Patches
    from mlopskit.integrations.autolog.session import Session, Sessions

XGBOOST = "xgboost"
LIGHTGBM = "lightgbm"


def patch_xgboost(module: ModuleType, sessions: Sessions, patches: Patches) -> None:
    """Log each round of ``xgboost.train``, by XGBoost's own callback."""

    class Rounds(module.callback.TrainingCallback):  # type: ignore[name-defined,misc]
        def __init__(self, session: Session) -> None:
            super().__init__()
            self._session = session

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            with self._session.wall("log a round"):
                for data, series in evals_log.items():
                    for name, values in series.items():
                        last = values[-1]
                        value = last[0] if isinstance(last, tuple) else last
                        self._session.metrics({f"{data}-{name}": value}, epoch)
            return False

    _patch(module, ("sklearn", "training"), Rounds, sessions, patches)


def patch_lightgbm(module: ModuleType, sessions: Sessions, patches: Patches) -> None:
    """Log each round of ``lightgbm.train``, by LightGBM's own callback."""

    def rounds(session: Session) -> Callable[[Any], None]:
        def after_iteration(environment: Any) -> None:
            with session.wall("log a round"):
                for data, name, value, *_ in environment.evaluation_result_list or ():
                    session.metrics({f"{data}-{name}": value}, environment.iteration)

        return after_iteration

    _patch(module, ("sklearn", "engine"), rounds, sessions, patches)


def _patch(
    module: ModuleType,
    inside: tuple[str, ...],
    callback: Callable[[Session], Any],
    sessions: Sessions,
    patches: Patches,
) -> None:
    def make(train: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(train)
        def logged(params: Any, *args: Any, **kwargs: Any) -> Any:
            outer = sessions.open
            with sessions.training(f"{module.__name__}.train") as session:
                seen = session or outer
                if seen is None:
                    return train(params, *args, **kwargs)
                if session is not None:
                    with session.wall("log params"):
                        session.params(dict(params))
                kwargs["callbacks"] = [*(kwargs.get("callbacks") or ()), callback(seen)]
                return train(params, *args, **kwargs)

        return logged

    patches.replace(module, "train", make)
    for name in inside:
        part = importlib.import_module(f"{module.__name__}.{name}")
        if hasattr(part, "train"):
            patches.replace(part, "train", make)
