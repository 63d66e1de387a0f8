"""Keras: ``Model.fit``, by the callback of `mlopskit.integrations.keras`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mlopskit.integrations.autolog.patches import Patches
    from mlopskit.integrations.autolog.session import Sessions

MODULE = "keras"


def patch(module: ModuleType, sessions: Sessions, patches: Patches) -> None:
    """Log each epoch of ``Model.fit`` from now on."""

    def make(fit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fit)
        def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
            with sessions.training(type(self).__name__) as session:
                if session is None or session.run is None:
                    return fit(self, *args, **kwargs)
                with session.wall("add the callback"):
                    from mlopskit.integrations.keras import (  # noqa: PLC0415 - Keras is there now
                        MlopskitCallback,
                    )

                    given = kwargs.get("callbacks") or ()
                    several = given if isinstance(given, list | tuple) else [given]
                    kwargs["callbacks"] = [*several, MlopskitCallback(session.run)]
                features = args[0] if args else kwargs.get("x")
                with session.wall("log the data"):
                    session.data(features)
                return fit(self, *args, **kwargs)

        return logged

    patches.replace(module.Model, "fit", make)
