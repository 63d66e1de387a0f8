"""W&B's own client of its artifacts, which its registry links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import wandb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlopskit.config import Line

STAGE: Final = "production"
TYPE: Final = "model"


class Client:
    """A run that logs artifacts, and `wandb.Api`. Metrics and tags are an artifact's metadata.

    Versions are those of the project: a link into a registry of the organization adds nothing to
    what is kept.
    """

    def __init__(self, line: Line, folder: Path, has: frozenset[str]) -> None:
        self.folder, self.has, self._line = folder, has, line
        options = line.options
        entity, _, project = (line.location or "").rpartition("/")
        chosen = {name: options[name] for name in ("base_url", "api_key") if options.get(name)}
        where = options.get("base_url")
        self._run: Any = wandb.init(
            entity=options.get("entity") or entity or None,
            project=project or None,
            dir=str(folder),
            mode=options.get("mode"),
            settings=wandb.Settings(**chosen),
            reinit="create_new",
        )
        self._at = f"{self._run.entity}/{self._run.project}"
        self._api = wandb.Api(
            api_key=options.get("api_key"), overrides={"base_url": where} if where else None
        )

    def register(
        self,
        name: str,
        source: Path,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
    ) -> int:
        made = wandb.Artifact(
            name, TYPE, description=description, metadata={**(tags or {}), **(metrics or {})}
        )
        made.add_dir(str(source))
        return _number(self._run.log_artifact(made).wait())

    def download(self, name: str, version: int, to: Path) -> Path:
        # As on a machine that does not have the bytes yet.
        self._version(name, f"v{version}").download(str(to), skip_cache=True)
        return to

    def tags(self, name: str, version: int) -> Mapping[str, str]:
        found: Mapping[str, str] = self._version(name, f"v{version}").metadata
        return found

    def metrics(self, name: str, version: int) -> Mapping[str, float]:
        found: Mapping[str, float] = self._version(name, f"v{version}").metadata
        return found

    def description(self, name: str, version: int) -> str:
        return str(self._version(name, f"v{version}").description or "")

    def set_alias(self, name: str, alias: str, version: int) -> None:
        found = self._version(name, f"v{version}")
        found.aliases.append(alias)
        found.save()

    def by_alias(self, name: str, alias: str) -> int:
        return _number(self._version(name, alias))

    def promote(self, name: str, version: int) -> None:
        self.set_alias(name, STAGE, version)

    def in_production(self, name: str) -> list[int]:
        found = self._api.artifacts(TYPE, f"{self._at}/{name}")
        return [_number(each) for each in found if STAGE in each.aliases]

    def delete(self, name: str, version: int) -> None:
        self._version(name, f"v{version}").delete(delete_aliases=True)

    def delete_model(self, name: str) -> None:
        self._api.artifact_collection(TYPE, f"{self._at}/{name}").delete()

    def register_pickle(self, name: str, model: object, scratch: Path) -> int:  # noqa: ARG002
        raise LookupError("W&B's client loads no models")

    def load(self, name: str, version: int) -> object:  # noqa: ARG002
        raise LookupError("W&B's client loads no models")

    def history(self, name: str) -> list[tuple[str, int | None]]:  # noqa: ARG002
        raise LookupError("wandb.Api has no call that tells it")

    def another(self) -> Client:
        return Client(self._line, self.folder, self.has)

    def close(self) -> None:
        self._run.finish()

    def _version(self, name: str, ref: str) -> Any:
        return self._api.artifact(f"{self._at}/{name}:{ref}", TYPE)


def _number(version: Any) -> int:
    return int(str(version.version).removeprefix("v"))
