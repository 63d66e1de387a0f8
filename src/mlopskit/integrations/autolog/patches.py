"""Attributes of other libraries that are replaced, and put back exactly as they were."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NOTHING: Final = object()


class Patches:
    """What was replaced, in the order of it."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, object, object]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put what `make` makes of an attribute in its place.

        An attribute that is inherited is hidden, not replaced where it stands.
        """
        before = vars(owner).get(name, _NOTHING)
        after = make(getattr(owner, name))
        setattr(owner, name, after)
        self._done.append((owner, name, before, vars(owner).get(name)))

    def undo(self) -> None:
        """Put everything back that nobody has replaced again in the meantime."""
        done, self._done = self._done, []
        for owner, name, before, after in reversed(done):
            if vars(owner).get(name) is not after:
                continue
            if before is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


class AfterImport(MetaPathFinder):
    """Calls back when modules have been imported for the first time, and never fails an import.

    Args:
        calls: By the full name of a module.
    """

    def __init__(self, calls: dict[str, Callable[[ModuleType], object]]) -> None:
        self._calls = calls

    def start(self) -> None:
        """Wait for those that are not there yet, and call at once for those that are."""
        for name in list(self._calls):
            module = sys.modules.get(name)
            if module is not None:
                self._calls.pop(name)(module)
        if self._calls:
            sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Wait no more."""
        self._calls.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is waited for, with a loader that calls afterwards."""
        if fullname not in self._calls:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Calling(spec.loader, fullname, self._calls)
        return spec


class _Calling(Loader):
    """A loader that calls back after another one has done its work."""

    def __init__(
        self, loader: Loader, name: str, calls: dict[str, Callable[[ModuleType], object]]
    ) -> None:
        self._loader = loader
        self._name = name
        self._calls = calls

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the other one."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then call."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        call = self._calls.pop(self._name, None)
        if call is not None:
            call(module)
