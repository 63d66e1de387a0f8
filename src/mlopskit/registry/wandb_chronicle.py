"""Chronicles in W&B: links to artifacts, one collection of them for each model.

W&B has no transactions for its clients, but whoever links an artifact into a collection is given
its next index. So the links of a collection have one order, which all see. Each text says which
index the last one had that its writer had read, and counts if that is the last one before it that
counts: of writers that were equally quick the first one wins, and the others see that they lost.
"""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError, ConfigError
from mlopskit.registry.texts import Chronicle
from mlopskit.registry.wandb_artifacts import Collection
from mlopskit.registry.wandb_contents import Content
from mlopskit.registry.wandb_layout import OWN, metadata_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.registry.wandb_artifacts import Artifacts

TYPE: Final = "mlopskit-history"
ENTRIES: Final = "mlopskit-entries."
HISTORY: Final = "mlopskit-history."
FILE: Final = "lines.json"
RUN: Final = "mlopskit-registry"
LONGEST: Final = 20_000  # characters that are kept in the metadata too
LONGEST_NAME: Final = 128
# A link with a lower index may show a moment later.
LOOKS: Final = 8


@dataclass(slots=True)
class _Seen:
    """The links of one chronicle that were read."""

    after: dict[int, int] = field(default_factory=dict)
    texts: dict[int, str | None] = field(default_factory=dict)

    def valid(self) -> list[int]:
        """Return the indices of the texts that count, in their order."""
        found: list[int] = []
        for index in range(len(self.after)):
            if self.after[index] == (found[-1] if found else -1):
                found.append(index)
        return found


class WandbChronicle(Chronicle):
    """Keeps chronicles in W&B.

    Args:
        actor: Who adds to them.
        artifacts: The artifacts of the server.
        project: Returns the entity and the project that hold them.
        registry: Returns the entity and the project of the registry that they are of.
        is_registry: Tells whether there is a registry of an entity and a project.
    """

    def __init__(
        self,
        actor: str,
        artifacts: Artifacts,
        project: Callable[[], tuple[str, str]],
        registry: Callable[[], tuple[str, str]],
        is_registry: Callable[[str, str], bool],
    ) -> None:
        super().__init__(actor)
        self._artifacts = artifacts
        self._project = project
        self._registry = registry
        self._is_registry = is_registry
        self._former: set[str] = set()
        self._seen: dict[str, _Seen] = {}

    def check_project(self) -> None:
        """See that the project holds no chronicle of another registry.

        Two registries with models of one name would take each other's versions for their own.

        Raises:
            ConfigError: If it does.
        """
        if any(seen.after for seen in self._seen.values()):
            return  # One was read, and is of this registry like all others.
        entity, project = self._project()
        for each in self._artifacts.names(entity, project, TYPE):
            if each.startswith(HISTORY):
                self._read(Collection(entity, project, each))
                return

    def _texts(self, name: str) -> list[str]:
        where = Collection(*self._project(), collection_of(HISTORY, name))
        return self._read(where)[1]

    def _all_texts(self) -> dict[str, list[str]]:
        entity, project = self._project()
        found = {}
        for each in self._artifacts.names(entity, project, TYPE):
            if each.startswith(HISTORY):
                name, texts = self._read(Collection(entity, project, each))
                if texts:
                    found[name] = texts
        return found

    def _put(self, name: str, place: int, text: str) -> bool:
        entity, project = self._project()
        where = Collection(entity, project, collection_of(HISTORY, name))
        seen = self._known(where)
        valid = seen.valid()
        if len(valid) < place - 1:  # Another thread has read less since.
            return False
        after = valid[place - 2] if place > 1 else -1
        content = Content.of(FILE, text.encode())
        said = {
            "registry": "/".join(self._registry()),
            "model": name,
            "after": after,
            "text": text if len(text) <= LONGEST else None,
        }
        made = self._artifacts.put(
            Collection(entity, project, collection_of(ENTRIES, name)),
            TYPE,
            RUN,
            [content],
            {OWN: said},
        )
        index = self._artifacts.link(made["id"], where)
        if index == len(seen.after):
            self._seen[where.name] = _Seen(
                {**seen.after, index: after}, {**seen.texts, index: text}
            )
            return after == (valid[-1] if valid else -1)
        return self._stands(where, place) == text

    def _forget(self, name: str) -> None:
        super()._forget(name)
        self._seen.pop(collection_of(HISTORY, name), None)

    def _stands(self, where: Collection, place: int) -> str | None:
        texts = self._read(where)[1]
        return texts[place - 1] if len(texts) >= place else None

    def _known(self, where: Collection) -> _Seen:
        return self._seen.get(where.name, _Seen())

    def _read(self, where: Collection) -> tuple[str, list[str]]:
        """Return the model of a chronicle and its texts."""
        for number in range(LOOKS):
            seen, name = self._look(where)
            if all(index in seen.after for index in range(len(seen.after))):
                break
            time.sleep(random.uniform(0.5, 1) * 0.02 * 2**number)  # noqa: S311 - no secret
        else:
            raise BackendError(
                f"The collection {where.name!r} of W&B's project {where.entity}/{where.project} "
                "has lost links, and with them a part of what happened to a model. They must "
                "not be removed."
            )
        texts: list[str] = []
        for index in seen.valid():
            text = seen.texts[index]
            if text is None:
                # What is no text at all is not the one that its seal is of.
                text = self._artifacts.read(where, index, FILE, "a text of the history").decode(
                    errors="replace"
                )
                seen.texts[index] = text
            texts.append(text)
        self._seen[where.name] = seen
        return name, texts

    def _look(self, where: Collection) -> tuple[_Seen, str]:
        """Ask for the links that are new."""
        before = self._known(where)
        there, found = self._artifacts.versions(where, TYPE, len(before.after))
        if not found:
            return _Seen(), ""
        if there["artifacts"]["totalCount"] < len(before.after):  # It is another one.
            before = _Seen()
            _, found = self._artifacts.versions(where, TYPE)
        seen, name = _Seen(dict(before.after), dict(before.texts)), ""
        for each in found:
            said: dict[str, Any] = metadata_of(each).get(OWN) or {}
            try:
                name, index = str(said["model"]), int(each["index"])
                after, text = int(said["after"]), said["text"]
            except (KeyError, TypeError, ValueError) as exc:
                raise BackendError(
                    f"What is linked as {where.name}:v{each['index']} in W&B's project "
                    f"{where.entity}/{where.project} is no entry of a history: {exc!r}"
                ) from exc
            self._check_registry(where, said.get("registry"))
            if index not in seen.after:
                seen.after[index], seen.texts[index] = after, text
        return seen, name

    def _check_registry(self, where: Collection, other: str | None) -> None:
        own = "/".join(self._registry())
        if other in (None, own, *self._former):
            return
        entity, _, project = str(other).rpartition("/")
        if not self._is_registry(entity, project):  # It was renamed, and is this one now.
            self._former.add(str(other))
            return
        raise ConfigError(
            f"The W&B project {where.entity}/{where.project} keeps the histories of the registry "
            f"{other!r}, and this one is {own!r}. Name another project as the location: every "
            "registry needs one of its own."
        )


def collection_of(kind: str, name: str) -> str:
    """Return the name of a model's collection; W&B's names may have as many characters as ours."""
    whole = kind + name
    if len(whole) <= LONGEST_NAME:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    return f"{whole[: LONGEST_NAME - len(digest) - 1]}.{digest}"
