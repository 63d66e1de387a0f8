"""PyTorch loops: what optimizers know, and the weights of the module that they train.

A loss is never known to torch, so log it yourself.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mlopskit.tracking.within import current_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mlopskit.integrations.autolog.session import Session
    from mlopskit.tracking.run import Run

MODULE = "torch.optim.optimizer"


def hook(module: ModuleType, session: Session) -> Callable[[], object]:
    """Log the options and learning rates of optimizers that step while a run is open.

    Returns:
        What takes the hook away.
    """
    seen: weakref.WeakKeyDictionary[Any, _Seen] = weakref.WeakKeyDictionary()
    rates_of: dict[str, int] = {}
    searches: dict[str, _Search] = {}

    def after_step(optimizer: Any, *_: Any) -> None:
        run = current_run()
        if run is None:
            return
        with session.wall("log an optimizer"):
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            known = seen.get(optimizer)
            if known is None or known.run_id != run.id:
                known = seen[optimizer] = _Seen(run.id, rates_of.get(run.id, 0))
                if session.options.log_models and run.id not in searches:
                    own = {id(each) for group in optimizer.param_groups for each in group["params"]}
                    searches[run.id] = _Search(run, session, own)
                rates_of[run.id] = known.first + len(rates)
                defaults = {
                    key: repr(v) if callable(v) else v for key, v in optimizer.defaults.items()
                }
                run.log_params({f"optimizer.{type(optimizer).__name__}": defaults}, overwrite=True)
            if rates != known.rates:
                places = range(known.first, known.first + len(rates))
                keys = [f"lr/{at}" if at else "lr" for at in places]
                run.log_metrics(dict(zip(keys, rates, strict=True)), step=known.steps)
            known.steps, known.rates = known.steps + 1, rates

    handle = module.register_optimizer_step_post_hook(after_step)

    def remove() -> None:
        handle.remove()
        for search in list(searches.values()):
            search.stop()

    return remove


@dataclass(slots=True)
class _Seen:
    """An optimizer in a run.

    Attributes:
        run_id: The run.
        first: How many learning rates of other optimizers there are before its own.
        steps: How often it has stepped there.
        rates: What was logged of it last.
    """

    run_id: str
    first: int
    steps: int = 0
    rates: list[float] = field(default_factory=list)


class _Search:
    """Looks for the module that an optimizer trains, at the next forward pass after its first step.

    It is the innermost one that has all of the optimizer's parameters. Its weights are kept when
    the run ends, with what it was asked and answered here.
    """

    def __init__(self, run: Run, session: Session, parameters: set[int]) -> None:
        from torch.nn.modules.module import (  # noqa: PLC0415 - torch is there now
            register_module_forward_hook,
        )

        self._run = weakref.ref(run)
        self._session = session
        self._parameters = parameters
        self._handle: Any = register_module_forward_hook(self._after_forward)

    def stop(self) -> None:
        """Look no further."""
        self._handle.remove()

    def _after_forward(self, module: Any, given: Any, answer: Any) -> None:
        with self._session.wall("look for the module"):
            if self._parameters <= {id(each) for each in module.parameters()}:
                self.stop()
                run = self._run()
                if run is not None:
                    signature = _signature(given, answer)
                    run.at_finish(partial(_keep, self._session, self._run, module, signature))


def _signature(given: Any, answer: Any) -> Any:
    """Return what a module takes and answers, where these are tensors."""
    import torch  # noqa: PLC0415 - it is there now

    from mlopskit.registry.signatures import infer_signature  # noqa: PLC0415 - seldom needed

    tensors = [each for each in given if torch.is_tensor(each) and each.ndim]
    if len(tensors) != len(given) or not tensors or not torch.is_tensor(answer) or not answer.ndim:
        return None
    names = ["input"] if len(tensors) == 1 else [f"input_{at}" for at in range(len(tensors))]
    arrays = [each[:1].detach().cpu().numpy() for each in (*tensors, answer)]
    return infer_signature(dict(zip(names, arrays, strict=False)), {"output": arrays[-1]})


def _keep(session: Session, run: weakref.ref[Run], module: Any, signature: Any) -> None:
    with session.wall("log the model"):
        found = run()
        if found is not None:
            found.log_model(dict(module.state_dict()), "model", signature=signature)
