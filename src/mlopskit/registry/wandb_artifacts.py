"""Artifacts of W&B's: how a version of one is stored, linked and read, question by question."""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import string
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError, IntegrityError
from mlopskit.registry import wandb_questions as questions
from mlopskit.registry.wandb_api import Clash, Refused
from mlopskit.registry.wandb_contents import Content, unheard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlopskit.registry.wandb_api import Api

    Json = dict[str, Any]

PAGE: Final = 100
TOGETHER: Final = 100
COMMIT_S: Final = 60.0
LOOK_S: Final = 0.2
# As the SDK asks; others would be those that are being stored, or were deleted.
STORED: Final = '{"state": "COMMITTED"}'
# What the server does with a large artifact takes longer than an answer.
SLOW_S: Final = 60.0
# How often what the server did not do, or may not have done, is asked for.
TRIES: Final = 5
# How many names there are for a run. Each one that was deleted costs a question.
RUNS: Final = 9
# How W&B says that an artifact lives as long as nobody deletes it, whatever its team's rule is.
FOR_EVER: Final = -2
MANIFEST: Final = "wandb_manifest.json"
POLICY: Final = {
    "version": 1,
    "storagePolicy": "wandb-storage-policy-v1",
    "storagePolicyConfig": {"storageLayout": "V2"},
}


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of W&B's: the versions of one artifact, or links to some."""

    entity: str
    project: str
    name: str


class Artifacts:
    """The artifacts of a server.

    Args:
        api: The server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._runs: dict[tuple[str, str, str], str] = {}

    # Writing.

    def put(
        self,
        where: Collection,
        type: str,
        run: str,
        contents: Sequence[Content],
        metadata: Mapping[str, Any],
        *,
        description: str = "",
        told: Callable[[int], object] = unheard,
    ) -> Json:
        """Store an artifact, and return it when the server has committed it.

        Nothing of it shows before. No two calls may bring equal contents: W&B would take them for
        one version. It is stored from the beginning again if another writer was given the number
        of the version that was to be.

        Args:
            where: The collection, which is made if there is none.
            type: Of which artifacts the collection is.
            run: The run that it is said to be from; another one, if one of that name was deleted.
            contents: The files.
            metadata: What stands beside them.
            description: A text for people.
            told: Is told of bytes that were sent.
        """
        said = {
            "artifactTypeName": type,
            "description": description or None,
            "metadata": json.dumps(metadata),
        }
        for number in range(TRIES - 1):
            try:
                return self._put(where, run, contents, said, told)
            except Clash:
                _pause(number)
                told = unheard
        return self._put(where, run, contents, said, told)

    def link(self, artifact: str, where: Collection) -> int:
        """Link an artifact into a collection, which is made if there is none.

        Returns:
            The index that the collection has it under, counted from 0.
        """
        said = {
            "artifactID": artifact,
            "entityName": where.entity,
            "projectName": where.project,
            "artifactPortfolioName": where.name,
            "aliases": [],
        }
        for number in range(TRIES):
            try:
                answer = self._api.ask(questions.LINK, {"input": said}, SLOW_S)
                return int(answer["result"]["versionIndex"])
            except Refused:
                raise
            except BackendError as exc:
                index = self._linked(artifact, where)  # The answer may have been lost.
                if index is not None:
                    return index
                failed = exc
            _pause(number)
        raise failed

    def delete(self, artifact: str) -> None:
        """Delete an artifact and its files."""
        self._api.ask(questions.DELETE, {"input": {"artifactID": artifact, "deleteAliases": True}})

    # Reading.

    def versions(self, where: Collection, type: str, known: int = 0) -> tuple[Json, list[Json]]:
        """Return a collection and its versions, each with its index as ``index``.

        Args:
            where: The collection.
            type: Of which artifacts it is.
            known: How many of the first versions need not be read again. The server may tell of
                some all the same: the order is its own.

        Returns:
            The collection, empty if there is none, and what was read of its versions.
        """
        given = {**_place(where), "collection": where.name, "type": type, "filters": STORED}
        found: list[Json] = []
        path = ("project", "artifactType", "artifactCollection")
        collection: Json = {}
        for collection in self._pages(questions.VERSIONS, given, path, "artifacts"):
            page = collection["artifacts"]
            found += [
                {**edge["node"], "index": int(str(edge["version"]).lstrip("v"))}
                for edge in page["edges"]
            ]
            new = sum(each["index"] >= known for each in found)
            if new + known >= page["totalCount"]:
                break
        return collection, found

    def version(self, where: Collection, index: int) -> Json | None:
        """Return one version of a collection."""
        given = {**_place(where), "name": f"{where.name}:v{index}"}
        said = self._api.ask(questions.MEMBER, given)
        member = _deep(said, "project", "artifactCollectionMembership")
        artifact = None if member is None else member.get("artifact")
        if artifact is None or artifact["state"] != "COMMITTED":
            return None
        return {**artifact, "index": int(member["versionIndex"])}

    def names(self, entity: str, project: str, type: str) -> list[str]:
        """Return the names of the collections of a type."""
        given = {"entity": entity, "project": project, "type": type}
        path = ("project", "artifactType")
        pages = self._pages(questions.COLLECTIONS, given, path, "artifactCollections")
        return [
            str(edge["node"]["name"])
            for each in pages
            for edge in each["artifactCollections"]["edges"]
        ]

    def addresses(
        self, where: Collection, index: int, names: Sequence[str] | None = None
    ) -> dict[str, str]:
        """Return where the files of a version can be fetched, by name."""
        given = {
            **_place(where),
            "collection": where.name,
            "alias": f"v{index}",
            "fileNames": None if names is None else list(names),
        }
        path = ("project", "artifactCollection", "artifactMembership")
        pages = self._pages(questions.FILES, given, path, "files")
        nodes = (edge["node"] for each in pages for edge in each["files"]["edges"])
        return {str(node["name"]): str(node["directUrl"]) for node in nodes}

    def read(self, where: Collection, index: int, name: str, digest: str) -> bytes:
        """Return the bytes of a small file of a version.

        Raises:
            IntegrityError: If it is missing.
        """
        address = self.addresses(where, index, [name]).get(name)
        if address is None:
            raise IntegrityError(f"The file {name!r} of {where.name}:v{index}", digest, "missing")
        return b"".join(self._api.fetch(address, f"The file {name!r}"))

    def _pages(
        self, question: str, given: Mapping[str, Any], path: tuple[str, ...], paged: str
    ) -> Iterator[Json]:
        """Yield what is at a path of the answer, once for every page of a part of it."""
        cursor = None
        while True:
            said = self._api.ask(question, {**given, "cursor": cursor, "perPage": PAGE})
            there = _deep(said, *path)
            if there is None or there[paged] is None:
                return
            yield there
            info = there[paged]["pageInfo"]
            if not info["hasNextPage"]:
                return
            cursor = info["endCursor"]

    # Steps.

    def _make_run(self, where: Collection, run: str) -> str:
        """Make the run, and the project with it, once.

        Returns:
            Its name: W&B gives none again that a deleted run had.

        Raises:
            Refused: If all names that it may have were those of deleted ones.
        """
        key = (where.entity, where.project, run)
        if key in self._runs:
            return self._runs[key]
        said = {"entity": where.entity, "project": where.project}
        shown = {"displayName": run, "jobType": "mlopskit-registry", "state": "finished"}
        for name in (run, *(f"{run}-{number}" for number in range(2, RUNS + 1))):
            try:
                self._api.ask(questions.UPSERT_RUN, {**said, **shown, "name": name})
            except (Refused, Clash) as exc:
                if not _is_of_deleted(exc):
                    raise
                failed = exc
            else:
                self._runs[key] = name
                return name
        project = f"{where.entity}/{where.project}"
        raise Refused(
            f"{self._api.name} takes no run {run!r} in {project}, nor any up to {name!r}: {failed} "
            "Choose another project."
        ) from failed

    def _put(
        self,
        where: Collection,
        run: str,
        contents: Sequence[Content],
        also: Mapping[str, Any],
        told: Callable[[int], object],
    ) -> Json:
        run = self._make_run(where, run)
        said = {
            "entityName": where.entity,
            "projectName": where.project,
            "runName": run,
            "artifactCollectionName": where.name,
            "clientID": _client_id(),
            "sequenceClientID": _client_id(),
            "digest": _digest(contents),
            "digestAlgorithm": "MANIFEST_MD5",
            "aliases": [],
            "enableDigestDeduplication": True,
            "ttlDurationSeconds": FOR_EVER,
            **also,
        }
        answer = self._api.ask(questions.CREATE, {"input": said})["createArtifact"]["artifact"]
        made = str(answer["id"])
        if answer["state"] == "COMMITTED":  # By a try before this one.
            return self._by_id(made)
        manifest = str(self._make_manifest(where, run, made)["id"])
        births: dict[str, str] = {}
        for begin in range(0, len(contents), TOGETHER):
            births |= self._send(made, manifest, contents[begin : begin + TOGETHER], told)
        self._send_manifest(where, run, made, contents, births)
        return self._committed(made)

    def _send(
        self, id: str, manifest: str, contents: Sequence[Content], told: Callable[[int], object]
    ) -> dict[str, str]:
        """Send the files that the server has not got.

        Returns:
            The artifact that the server keeps each file for: an earlier one, if it had the bytes.
        """
        specs = [
            {
                "artifactID": id,
                "artifactManifestID": manifest,
                "name": each.name,
                "md5": each.md5,
            }
            for each in contents
        ]
        said = {"artifactFiles": specs, "storageLayout": "V2"}
        answer = self._api.ask(questions.CREATE_FILES, {"input": said}, SLOW_S)
        edges = answer["createArtifactFiles"]["files"]["edges"]
        if len(edges) != len(contents):
            raise BackendError(
                f"{self._api.name} gave {len(edges)} addresses for {len(contents)} files."
            )
        for each, edge in zip(contents, edges, strict=True):
            address = edge["node"]["uploadUrl"]
            if address is None:  # It has them.
                told(each.size)
            else:
                headers = edge["node"].get("uploadHeaders") or []
                self._api.send(address, headers, each.again(told), each.size)
        return {
            each.name: str(edge["node"]["artifact"]["id"])
            for each, edge in zip(contents, edges, strict=True)
        }

    def _make_manifest(self, where: Collection, run: str, id: str, digest: str = "") -> Json:
        """Make the manifest of an artifact; with its digest, to get an address for its text."""
        said = {
            "artifactID": id,
            "baseArtifactID": None,
            "name": MANIFEST,
            "digest": digest,
            "entityName": where.entity,
            "projectName": where.project,
            "runName": run,
            "manifestType": "FULL",
            "includeUpload": bool(digest),
        }
        answer = self._api.ask(questions.CREATE_MANIFEST, said, SLOW_S)
        made: Json = answer["createArtifactManifest"]["artifactManifest"]
        return made

    def _send_manifest(
        self,
        where: Collection,
        run: str,
        id: str,
        contents: Sequence[Content],
        births: Mapping[str, str],
    ) -> None:
        entries = {
            each.name: {
                "digest": each.md5,
                "birthArtifactID": births[each.name],
                "size": each.size,
            }
            for each in contents
        }
        text = json.dumps({**POLICY, "contents": entries}).encode()
        content = Content.of(MANIFEST, text)
        file = self._make_manifest(where, run, id, content.md5)["file"]
        headers = file.get("uploadHeaders") or []
        self._api.send(file["uploadUrl"], headers, content.again(unheard), content.size)

    def _committed(self, artifact: str) -> Json:
        """Commit an artifact, and wait until the server has checked it."""
        deadline = time.monotonic() + COMMIT_S
        found = self._commit(artifact)
        while found["state"] != "COMMITTED":
            if time.monotonic() > deadline:
                raise BackendError(
                    f"{self._api.name} has not committed the artifact {artifact} within "
                    f"{COMMIT_S:.0f} s: it is {found['state']}."
                )
            time.sleep(LOOK_S)
            found = self._by_id(artifact)
        return found

    def _commit(self, artifact: str) -> Json:
        """Ask for a commit; once more, if the server failed and has not done it."""
        for number in range(TRIES):
            try:
                answer = self._api.ask(questions.COMMIT, {"artifactID": artifact}, SLOW_S)
                found: Json = answer["commitArtifact"]["artifact"]
            except (Refused, Clash):
                raise
            except BackendError as exc:
                found = self._by_id(artifact)  # The answer may have been lost.
                failed = exc
            else:
                return found
            if found["state"] == "COMMITTED":
                return found
            _pause(number)
        raise failed

    def _by_id(self, artifact: str) -> Json:
        found: Json = self._api.ask(questions.BY_ID, {"id": artifact})["artifact"]
        return found or {"state": "gone"}

    def _linked(self, artifact: str, where: Collection) -> int | None:
        said = self._api.ask(questions.LINKED, {"artifactID": artifact})
        page = _deep(said, "artifact", "artifactMemberships") or {"edges": []}
        for edge in page["edges"]:
            if is_of(edge["node"]["artifactCollection"], where):
                return int(edge["node"]["versionIndex"])
        return None


def is_of(collection: Mapping[str, Any] | None, where: Collection) -> bool:
    """Tell whether a collection, as the server tells of it, is one that is meant."""
    if collection is None or collection["name"] != where.name:
        return False
    project = collection["project"]
    return bool(project["name"] == where.project and project["entity"]["name"] == where.entity)


def _is_of_deleted(exc: BackendError) -> bool:
    """Tell whether a run is refused because one of its name was deleted."""
    return isinstance(exc, Clash) or "deleted" in str(exc)


def _client_id() -> str:
    """Return an id as W&B's SDK makes one for every artifact, before the server has."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(128))


def _pause(number: int) -> None:
    """Wait longer from try to try."""
    time.sleep(random.uniform(0.5, 1) * 0.1 * 2**number)  # noqa: S311 - no secret


def _place(where: Collection) -> Json:
    return {"entity": where.entity, "project": where.project}


def _digest(contents: Sequence[Content]) -> str:
    """Return the digest of an artifact as W&B's SDK makes it."""
    digest = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for each in sorted(contents, key=lambda each: each.name):
        digest.update(f"{each.name}:{each.md5}\n".encode())
    return digest.hexdigest()


def _deep(said: Any, *keys: str) -> Any:
    for key in keys:
        if said is None:
            return None
        said = said.get(key)
    return said
