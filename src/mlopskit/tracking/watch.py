"""Watches a torch module: how its gradients and parameters are distributed, every so often."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any, Final, Literal

from mlopskit.errors import Conflict, InvalidInput, MissingDependency

if TYPE_CHECKING:
    from mlopskit.tracking.contents import Contents

logger = logging.getLogger(__name__)

Watched = Literal["gradients", "parameters", "all"]
CHOICES: Final = ("gradients", "parameters", "all")
# Of a larger tensor every so-many-th element is counted; its norm is that of all of them.
MOST: Final = 1_000_000


class Watch:
    """Hooks on the parameters of a module, until `stop`.

    A backward pass counts once for each parameter that it reaches. An error in a hook is logged and
    ends the watch; it never reaches training.

    Args:
        run: Where histograms and norms go.
        module: A `torch.nn.Module`.
        log: What to look at.
        every: Look at the first backward pass, and at each so-many-th after it.
        bins: Of a histogram.
        prefix: Stands before the names, for a second module of one run.

    Raises:
        InvalidInput: If it is no module, none of its parameters is trained, or an option is wrong.
        MissingDependency: If torch is not installed.
    """

    def __init__(
        self, run: Contents, module: Any, *, log: Watched, every: int, bins: int, prefix: str
    ) -> None:
        try:
            import torch  # noqa: PLC0415 - only who watches a module has one
        except ImportError as exc:
            raise MissingDependency("watch", "torch", "pip install torch") from exc
        if not isinstance(module, torch.nn.Module):
            raise InvalidInput(f"What is watched is a {type(module).__name__}, no torch.nn.Module.")
        if log not in CHOICES:
            raise InvalidInput(f"log is {log!r}; it may be {', '.join(map(repr, CHOICES))}.")
        if type(every) is not int or every < 1:
            raise InvalidInput(f"every is {every!r}; it is an int from 1.")
        trained = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
        if not trained:
            raise InvalidInput("No parameter of the module requires a gradient.")
        # The run holds its watches, and a hook must hold neither the run nor the parameter.
        self._run = weakref.ref(run)
        self._module = weakref.ref(module)
        self._double = torch.float64
        self._log = log
        self._every = every
        self._bins = bins
        self._prefix = f"{prefix}/" if prefix else ""
        self._passes = dict.fromkeys((name for name, _ in trained), 0)
        self._handles = [
            each.register_hook(  # type: ignore[no-untyped-call]  # torch gives it no types
                _hook(weakref.ref(self), name, weakref.ref(each))
            )
            for name, each in trained
        ]

    def is_of(self, module: Any) -> bool:
        """Tell whether it is this module that is watched: ids come again."""
        return self._module() is module

    def stop(self) -> None:
        """Take the hooks away. Stopping twice is fine."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()

    def see(self, name: str, gradient: Any, parameter: Any) -> None:
        """Log what one backward pass gave a parameter, if it is its turn."""
        passes = self._passes[name]
        self._passes[name] = passes + 1
        run = self._run()
        if passes % self._every or not self._handles or run is None:
            return
        try:
            if self._log != "parameters":
                self._show(run, f"gradients/{name}", gradient, passes)
            if self._log != "gradients" and parameter is not None:
                self._show(run, f"parameters/{name}", parameter, passes)
        except Conflict:  # The run has ended.
            self.stop()
        except Exception:
            logger.exception("Watching ends: %s of pass %d could not be logged.", name, passes)
            self.stop()

    def _show(self, run: Contents, what: str, tensor: Any, step: int) -> None:
        values = tensor.detach()
        values = values.to_dense() if values.is_sparse else values
        flat = values.flatten()
        if flat.device.type == "mps":  # It has no float64.
            flat = flat.cpu()
        norm = float(flat.norm(dtype=self._double))
        some = flat[:: -(-flat.numel() // MOST)].to("cpu", self._double).numpy()
        name = f"{self._prefix}{what}"
        run.log_metrics({f"{name}/norm": norm}, step=step)
        if len(some) and abs(norm) < float("inf"):
            run.log_histogram(some, f"{name}/{step:08d}", bins=self._bins, step=step)


def _hook(watch: weakref.ref[Watch], name: str, parameter: weakref.ref[Any]) -> Any:
    def hook(gradient: Any) -> None:
        seen = watch()
        if seen is not None:
            seen.see(name, gradient, parameter())

    return hook
