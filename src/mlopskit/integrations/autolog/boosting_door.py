"""XGBoost and LightGBM: ``train``, also where their scikit-learn classes call it."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from mlopskit.integrations.autolog.callbacks import and_callback

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
        def logged(*args: Any, **kwargs: Any) -> Any:
            outer = sessions.open
            with sessions.training(f"{module.__name__}.train") as session:
                seen = session or (outer if outer and outer.takes_rounds else None)
                if seen is None:
                    return train(*args, **kwargs)
                if session is not None:
                    with session.wall("log params"):
                        session.params(_params(args[0] if args else kwargs["params"]))
                with seen.wall("add a callback"):
                    # XGBoost asks no callback after the one that stops a training.
                    args, kwargs = and_callback(train, args, kwargs, callback(seen), first=True)
                return train(*args, **kwargs)

        return logged

    # One and the same everywhere, so that pickle finds it where it is defined.
    logged = make(module.train)
    patches.replace(module, "train", lambda _: logged)
    for name in inside:
        part = importlib.import_module(f"{module.__name__}.{name}")
        if hasattr(part, "train"):
            patches.replace(part, "train", lambda _: logged)


def _params(given: Any) -> dict[str, Any]:
    """Return params as a mapping; in a list of pairs XGBoost takes one name several times."""
    if hasattr(given, "keys"):
        return dict(given)
    several: dict[str, list[Any]] = {}
    for key, value in given:
        several.setdefault(key, []).append(value)
    return {key: values if len(values) > 1 else values[0] for key, values in several.items()}
