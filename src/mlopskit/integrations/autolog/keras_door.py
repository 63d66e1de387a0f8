"""Keras: ``Model.fit``, by the callback of `mlopskit.integrations.keras`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from mlopskit.integrations.autolog.callbacks import and_callback

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mlopskit.integrations.autolog.patches import Patches
    from mlopskit.integrations.autolog.session import Session, Sessions

MODULE = "keras"


def patch(module: ModuleType, sessions: Sessions, patches: Patches) -> None:
    """Log each epoch of ``Model.fit`` from now on."""

    def make(fit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fit)
        def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _logs_itself(kwargs.get("callbacks")):
                return fit(self, *args, **kwargs)
            with sessions.training(type(self).__name__) as session:
                if session is None or session.run is None:
                    return fit(self, *args, **kwargs)
                features = args[0] if args else kwargs.get("x")
                with session.wall("log the data"):
                    session.data(features)
                given = (self, *args)
                with session.wall("add a callback"):
                    given, kwargs = and_callback(fit, given, kwargs, _walled(session))
                with session.timed():
                    result = fit(*given, **kwargs)
                with session.wall("log the model"):
                    session.model(self, features, functools.partial(self.predict, verbose=0))
                return result

        return logged

    patches.replace(module.Model, "fit", make)


def _logs_itself(callbacks: Any) -> bool:
    """Tell whether a fit is logged by the callback of `mlopskit.integrations.keras` already."""
    from mlopskit.integrations.keras import MlopskitCallback  # noqa: PLC0415 - Keras is there now

    listed = getattr(callbacks, "callbacks", callbacks)  # A `CallbackList` has some.
    given = listed if isinstance(listed, list | tuple) else [listed]
    return any(isinstance(each, MlopskitCallback) for each in given)


def _walled(session: Session) -> Any:
    """Return the callback of `mlopskit.integrations.keras`, with no way out for its errors."""
    from mlopskit.integrations.keras import MlopskitCallback  # noqa: PLC0415 - Keras is there now

    class Walled(MlopskitCallback):
        def on_train_begin(self, logs: Any = None) -> None:
            with session.wall("log params"):
                super().on_train_begin(logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            with session.wall("log an epoch"):
                super().on_epoch_end(epoch, logs)

        def on_train_end(self, logs: Any = None) -> None:
            with session.wall("end the training"):
                super().on_train_end(logs)

    return Walled(session.run)
