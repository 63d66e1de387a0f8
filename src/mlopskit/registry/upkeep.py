"""Keeping a registry in order: editing, finding, comparing, deleting, and collecting bytes."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import Conflict, InvalidInput, InvalidModel, NotFound
from mlopskit.names import check_identifier, check_label
from mlopskit.registry import blobs, search
from mlopskit.registry.backend import RegistryBackend
from mlopskit.registry.details import check_text, checked_edit
from mlopskit.registry.entities import Collection, VersionComparison
from mlopskit.registry.moves import held_since
from mlopskit.registry.signatures import compare_signatures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlopskit.registry.blobs import Manifest
    from mlopskit.registry.entities import HistoryEntry, ModelVersion, RegisteredModel
    from mlopskit.registry.references import Ref

MONTH: Final = timedelta(days=30)


class Upkeep(RegistryBackend):
    """The part of the registry's interface that changes nothing of what a version is."""

    def get_model(self, name: str) -> RegisteredModel:
        """Return one model.

        Raises:
            NotFound: If there is no such model.
        """
        check_identifier("model", name)
        models = self.list_models()
        for model in models:
            if model.name == name:
                return model
        raise NotFound("model", name, (model.name for model in models))

    def update_model(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        why: str = "",
    ) -> RegisteredModel:
        """Change the description or the tags of a model, and return it.

        Args:
            name: The model's name.
            description: A new one; the old one stays if left out.
            tags: New values by name; None takes a tag away. Tags that are not named stay.
            why: A reason for the history.

        Raises:
            NotFound: If there is no such model.
            InvalidName: If the name of a tag could not be kept.
            InvalidInput: If a text is none, or nothing changes.
        """
        check_identifier("model", name)
        edit = checked_edit(self.context.redactor, description, tags)
        self._edit_model(name, edit, self.context.redactor.text(check_text("why", why)))
        return self.get_model(name)

    def update_version(
        self,
        name: str,
        ref: Ref,
        *,
        description: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        why: str = "",
    ) -> ModelVersion:
        """Change the description or the tags of a version, and return it.

        Takes what `update_model` takes. The bytes, the metrics and the signature never change.
        """
        edit = checked_edit(self.context.redactor, description, tags)
        why = self.context.redactor.text(check_text("why", why))
        return self._edit_version(name, self.get_version(name, ref).version, edit, why)

    def search_versions(
        self,
        where: str = "",
        name: str | None = None,
        *,
        order_by: str | Sequence[str] = (),
        limit: int | None = 100,
    ) -> list[ModelVersion]:
        """Find versions, by name and number unless `order_by` says otherwise.

        Args:
            where: A filter such as ``metrics.auc > 0.8 and stage = 'production'``; see
                `mlopskit.filters`. Versions have ``metrics.<key>``, ``tags.<key>``, ``name``,
                ``version``, ``stage``, ``flavor``, ``size``, ``digest``, ``run_id``,
                ``description`` and ``created_at``.
            name: Only versions of this model.
            order_by: Such as ``"metrics.auc desc"``; versions without the value come last.
            limit: At most so many; None for all.

        Raises:
            NotFound: If there is no such model.
            InvalidInput: If the filter or the order cannot be read, with the column of the error.
        """
        names = [model.name for model in self.list_models()] if name is None else [name]
        versions = (version for each in names for version in self.list_versions(each))
        return search.found(versions, where, order_by, limit, search.VERSIONS)

    def search_models(
        self, where: str = "", *, order_by: str | Sequence[str] = (), limit: int | None = 100
    ) -> list[RegisteredModel]:
        """Find models, by name unless `order_by` says otherwise.

        Takes what `search_versions` takes. Models have ``tags.<key>``, ``name``, ``versions``,
        ``latest``, ``description``, ``created_at`` and ``updated_at``.
        """
        return search.found(self.list_models(), where, order_by, limit, search.MODELS)

    def best_version(
        self, name: str, metric: str, *, higher_is_better: bool = True, where: str = ""
    ) -> ModelVersion:
        """Return the version whose registered metric is best; of equal ones the latest.

        Args:
            name: The model's name.
            metric: The metric. Versions without it, or with NaN, are passed over.
            higher_is_better: False for a loss.
            where: A filter that it has to match, as `search_versions` takes it.

        Raises:
            NotFound: If there is no such model, or no version with that metric matches.
        """
        check_label("metric", metric)
        able = [
            version
            for version in self.search_versions(where, name, limit=None)
            if not math.isnan(version.metrics.get(metric, math.nan))
        ]
        if not able:
            known = {key for each in self.list_versions(name) for key in each.metrics}
            raise NotFound(f"version of {name!r} with the metric", metric, known)
        sign = 1 if higher_is_better else -1
        return max(able, key=lambda version: (sign * version.metrics[metric], version.version))

    def manifest(self, name: str, ref: Ref) -> Manifest:
        """Return what a version consists of: its files with their digests, and what made them.

        Raises:
            NotFound: If there is no such version.
            IntegrityError: If the manifest is not the one that was registered.
        """
        return self._read_manifest(self.get_version(name, ref))

    def compare_versions(self, name: str, a: Ref, b: Ref) -> VersionComparison:
        """Return what differs between two versions of a model; neither is loaded.

        Raises:
            NotFound: If there is no such version.
        """
        one, other = self.get_version(name, a), self.get_version(name, b)
        files = [
            {file.path: file.sha256 for file in self._read_manifest(each).files}
            for each in (one, other)
        ]
        both = one.signature is not None and other.signature is not None
        return VersionComparison(
            a=one,
            b=other,
            metrics=search.differing(dict(one.metrics), dict(other.metrics)),
            tags=search.differing(dict(one.tags), dict(other.tags)),
            lineage=search.differing(_lineage(one), _lineage(other)),
            files=search.differing(*files),
            flavor=(one.flavor, other.flavor) if one.flavor != other.flavor else None,
            signature=compare_signatures(one.signature, other.signature)
            if both and one.signature and other.signature
            else None,
        )

    def delete_version(self, name: str, ref: Ref, *, consent: bool = False, why: str = "") -> None:
        """Delete a version. Its number is not given again, and its history stays.

        Its bytes stay until `gc` finds that nothing needs them.

        Args:
            name: The model's name.
            ref: Which version.
            consent: True, because this cannot be undone.
            why: A reason for the history.

        Raises:
            InvalidInput: If `consent` is not True.
            NotFound: If there is no such version.
            Conflict: If the version is in a stage that others rely on, or has an alias.
        """
        found = self.get_version(name, ref)
        _check_consent(consent, f"version {found.version} of {name!r}")
        self._check_free(found)
        text = self.context.redactor.text(check_text("why", why))
        self._delete_versions(name, [found.version], text)

    def delete_model(self, name: str, *, consent: bool = False, why: str = "") -> None:
        """Delete every version of a model. Takes what `delete_version` takes.

        The history stays, and numbers go on after it if the name is registered again.

        Raises:
            InvalidInput: If `consent` is not True.
            NotFound: If there is no such model.
            Conflict: If one of its versions may not be deleted; none is then.
        """
        versions = self.list_versions(name)
        _check_consent(consent, f"{name!r} with {len(versions)} versions")
        for version in versions:
            self._check_free(version)
        text = self.context.redactor.text(check_text("why", why))
        self._delete_versions(name, [version.version for version in versions], text)

    def gc(
        self,
        *,
        window: timedelta = MONTH,
        keep_last: int | None = None,
        dry_run: bool = True,
    ) -> Collection:
        """Remove bytes that nothing needs, or say what would be removed.

        The bytes of a version stay while it exists, and for a while after it was deleted. What a
        killed `register` left behind goes.

        Args:
            window: The time for which nothing that was held or deleted in it is removed.
            keep_last: Delete versions too that nothing holds, all but so many of the latest of them
                in each model. A version is held if it is or was within the window in a stage that
                others rely on, has an alias, or was registered within the window.
            dry_run: Only say what would go. Pass False to remove it.

        Raises:
            InvalidInput: If the window or the number is negative.
            StorageError: If bytes cannot be removed; what was removed until then is gone.
        """
        if window < timedelta(0):
            raise InvalidInput(f"The window is {window}; it must not be negative.")
        if keep_last is not None and keep_last < 0:
            raise InvalidInput(f"keep_last is {keep_last}; it must be 0 or more.")
        since = datetime.now(UTC) - window
        names: list[str] = []
        keep: set[str] = set()
        going: dict[str, set[int]] = {}
        for model in self._all_models():
            entries, versions = self._known_of(model)
            spare = self._spare(versions, held_since(entries, since, self._unheld), since)
            free = [] if keep_last is None else spare[: max(0, len(spare) - keep_last)]
            if free and not dry_run:
                why = f"Not among the last {keep_last}."
                self._delete_versions(model, [version.version for version in free], why)
            gone = going[model] = {version.version for version in free}
            names += [f"{model}/{number}" for number in sorted(gone)]
            # With consent given by `keep_last` their bytes go at once: none was held in the window.
            keep |= {version.digest for version in versions if version.version not in gone}
            keep |= {
                str(entry.details.get("digest", ""))
                for entry in entries
                if entry.action == "deleted" and entry.at > since and entry.version not in gone
            }
        removed = self._collect(keep - {""}, going, dry_run=dry_run)
        return Collection(dry_run=dry_run, versions=tuple(names), removed=tuple(removed))

    def _spare(
        self, versions: list[ModelVersion], held: set[int], since: datetime
    ) -> list[ModelVersion]:
        """Return the versions that nothing holds, the first ones first."""
        return [
            version
            for version in versions
            if version.version not in held
            and not version.aliases
            and version.stage in self._unheld
            and version.created_at <= since
        ]

    def _all_models(self) -> list[str]:
        """Return the names of all models that have a history, also those without versions."""
        return [model.name for model in self.list_models()]

    def _known_of(self, name: str) -> tuple[list[HistoryEntry], list[ModelVersion]]:
        """Return the history and the versions of a model; a tool may have a name with neither."""
        entries: list[HistoryEntry] = []
        versions: list[ModelVersion] = []
        with suppress(NotFound):
            entries = self.history(name)
            versions = self.list_versions(name)
        return entries, versions

    def _read_manifest(self, version: ModelVersion) -> Manifest:
        what = f"version {version.version} of {version.name!r}"
        manifest = blobs.read(self._manifest(version), what)
        if manifest.digest != version.digest:
            raise InvalidModel(
                f"The manifest of {what} has the digest {manifest.digest}, and the version was "
                f"registered with {version.digest}."
            )
        return manifest

    def _check_free(self, version: ModelVersion) -> None:
        what = f"Version {version.version} of {version.name!r}"
        if version.stage not in self._unheld:
            raise Conflict(
                f"{what} is in {version.stage!r} and cannot be deleted. Promote another version "
                "there first, or move this one on."
            )
        if version.aliases:
            aliases = ", ".join(f"@{alias}" for alias in version.aliases)
            raise Conflict(
                f"{what} is what {aliases} points to, and cannot be deleted. "
                "Point it to another version, or delete it first."
            )


def _lineage(version: ModelVersion) -> dict[str, Any]:
    known = version.lineage
    return {
        "run": version.run_id,
        "data": known.data,
        "code": known.code,
        "python": known.python,
        **known.libraries,
    }


def _check_consent(consent: bool, what: str) -> None:
    if consent is not True:
        raise InvalidInput(f"Deleting {what} cannot be undone. Pass consent=True if it is meant.")
