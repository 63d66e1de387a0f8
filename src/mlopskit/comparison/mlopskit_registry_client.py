"""Any registry, through mlopskit."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

from mlopskit.kit import Kit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.config import Line
    from mlopskit.registry.entities import ModelVersion
    from mlopskit.registry.references import Ref

STAGE: Final = "production"
ACTIONS: Final = {"alias_set": "alias", "promoted": STAGE, "deleted": "deleted"}


class Client:
    """`Registry`, with its defaults."""

    def __init__(self, line: Line, folder: Path, has: frozenset[str]) -> None:
        self.folder, self.has, self._line = folder, has, line
        self._kit = Kit(registry=line, home=folder / "home")
        self._registry = self._kit.registry

    def register(self, name: str, source: Path, **given: Any) -> int:
        return self._registry.register(name, source, **given).version

    def download(self, name: str, version: int, to: Path) -> Path:
        return self._registry.download(name, version, to)

    def tags(self, name: str, version: int) -> Mapping[str, str]:
        return self._version(name, version).tags

    def metrics(self, name: str, version: int) -> Mapping[str, float]:
        return self._version(name, version).metrics

    def description(self, name: str, version: int) -> str:
        return self._version(name, version).description

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._registry.set_alias(name, alias, version)

    def by_alias(self, name: str, alias: str) -> int:
        return self._version(name, f"@{alias}").version

    def promote(self, name: str, version: int) -> None:
        self._registry.promote(name, version, STAGE)

    def in_production(self, name: str) -> list[int]:
        return [each.version for each in self._registry.list_versions(name) if each.stage == STAGE]

    def delete(self, name: str, version: int) -> None:
        self._registry.delete_version(name, version, consent=True)

    def delete_model(self, name: str) -> None:
        self._registry.delete_model(name, consent=True)

    def register_pickle(self, name: str, model: object, scratch: Path) -> int:
        path = scratch / "model.pkl"
        path.write_bytes(pickle.dumps(model))
        return self._registry.register(name, path).version

    def load(self, name: str, version: int) -> object:
        loaded: object = self._registry.load(name, version)
        return loaded

    def history(self, name: str) -> list[tuple[str, int | None]]:
        return [
            (ACTIONS[each.action], each.version)
            for each in self._registry.history(name)
            if each.action in ACTIONS
        ]

    def another(self) -> Client:
        return Client(self._line, self.folder, self.has)

    def close(self) -> None:
        self._kit.close()

    def _version(self, name: str, ref: Ref) -> ModelVersion:
        return self._registry.get_version(name, ref)
