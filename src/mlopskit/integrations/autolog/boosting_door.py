"""XGBoost and LightGBM: ``train``, also where their scikit-learn classes call it."""

from __future__ import annotations

import functools
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from mlopskit.integrations.autolog.callbacks import and_callback
from mlopskit.integrations.autolog.session import EXAMPLE_ROWS

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

    def example(data: Any) -> Any:
        rows = data.slice(range(min(EXAMPLE_ROWS, data.num_row()))).get_data()
        columns = [rows[:, at].toarray().ravel() for at in range(rows.shape[1])]
        names = data.feature_names or [f"f{at}" for at in range(len(columns))]
        return dict(zip(names, columns, strict=True))

    def predict(model: Any, columns: Any) -> Any:
        rows = _matrix(columns)
        return model.predict(module.DMatrix(rows, feature_names=model.feature_names))

    _patch(module, ("sklearn", "training"), Rounds, sessions, patches, asked=(example, predict))


def patch_lightgbm(module: ModuleType, sessions: Sessions, patches: Patches) -> None:
    """Log each round of ``lightgbm.train``, by LightGBM's own callback."""

    def rounds(session: Session) -> Callable[[Any], None]:
        def after_iteration(environment: Any) -> None:
            with session.wall("log a round"):
                for data, name, value, *_ in environment.evaluation_result_list or ():
                    session.metrics({f"{data}-{name}": value}, environment.iteration)

        return after_iteration

    def example(data: Any) -> Any:
        rows = data.data[:EXAMPLE_ROWS]  # `get_data` refuses before it is constructed.
        if hasattr(rows, "columns"):
            return rows
        given = data.feature_name
        names = given if isinstance(given, list) else [f"Column_{at}" for at in range(len(rows[0]))]
        return {name: rows[:, at] for at, name in enumerate(names)}

    def predict(model: Any, columns: Any) -> Any:
        if hasattr(columns, "columns"):
            return model.predict(columns)
        return model.predict(_matrix(columns))

    _patch(module, ("sklearn", "engine"), rounds, sessions, patches, asked=(example, predict))


def _patch(
    module: ModuleType,
    inside: tuple[str, ...],
    callback: Callable[[Session], Any],
    sessions: Sessions,
    patches: Patches,
    *,
    asked: tuple[Callable[[Any], Any], Callable[[Any, Any], Any]],
) -> None:
    def make(train: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(train)
        def logged(*args: Any, **kwargs: Any) -> Any:
            outer = sessions.open
            with sessions.training(f"{module.__name__}.train") as session:
                seen = session or (outer if outer and outer.one else None)
                if seen is None:
                    return train(*args, **kwargs)
                if session is not None:
                    with session.wall("log params"):
                        session.params(_params(args[0] if args else kwargs["params"]))
                with seen.wall("add a callback"):
                    # XGBoost asks no callback after the one that stops a training.
                    args, kwargs = and_callback(train, args, kwargs, callback(seen), first=True)
                if session is None:
                    return train(*args, **kwargs)
                data = args[1] if len(args) > 1 else kwargs.get("dtrain", kwargs.get("train_set"))
                rows = None
                with session.wall("log the data"):
                    session.data(getattr(data, "data", None))  # XGBoost's matrix has no such rows.
                with session.wall("take an example"):
                    rows = asked[0](data)  # LightGBM forgets the rows when it begins.
                with session.timed():
                    model = train(*args, **kwargs)
                with session.wall("log the model"):
                    session.model(model, rows, partial(asked[1], model))
                return model

        return logged

    # One and the same everywhere, so that pickle finds it where it is defined.
    logged = make(module.train)
    patches.replace(module, "train", lambda _: logged)
    for name in inside:
        part = importlib.import_module(f"{module.__name__}.{name}")
        if hasattr(part, "train"):
            patches.replace(part, "train", lambda _: logged)


def _matrix(columns: dict[str, Any]) -> Any:
    """Return columns beside each other, as an array of rows."""
    import numpy as np  # noqa: PLC0415 - who trains has it

    return np.stack(list(columns.values()), axis=1)


def _params(given: Any) -> dict[str, Any]:
    """Return params as a mapping; in a list of pairs XGBoost takes one name several times."""
    if hasattr(given, "keys"):
        return dict(given)
    several: dict[str, list[Any]] = {}
    for key, value in given:
        several.setdefault(key, []).append(value)
    return {key: values if len(values) > 1 else values[0] for key, values in several.items()}
