"""PyTorch loops: what optimizers know. A loss is never known to torch, so log it yourself."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from mlopskit.tracking.run import current_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mlopskit.integrations.autolog.session import Session

MODULE = "torch.optim.optimizer"


def hook(module: ModuleType, session: Session) -> Callable[[], object]:
    """Log the options and learning rates of optimizers that step while a run is open.

    Returns:
        What takes the hook away.
    """
    seen: weakref.WeakKeyDictionary[Any, tuple[int, list[Any]]] = weakref.WeakKeyDictionary()

    def after_step(optimizer: Any, *_: Any) -> None:
        run = current_run()
        if run is None:
            return
        with session.wall("log an optimizer"):
            steps, before = seen.get(optimizer, (0, []))
            name = type(optimizer).__name__
            if not steps:
                defaults = {
                    key: repr(v) if callable(v) else v for key, v in optimizer.defaults.items()
                }
                run.log_params({f"optimizer.{name}": defaults}, overwrite=True)
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            if rates != before:
                keys = [f"lr/{at}" if at else "lr" for at in range(len(rates))]
                run.log_metrics(dict(zip(keys, rates, strict=True)), step=steps)
            seen[optimizer] = steps + 1, rates

    handle = module.register_optimizer_step_post_hook(after_step)
    removed: Callable[[], object] = handle.remove
    return removed
