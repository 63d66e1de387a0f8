"""Artifacts of W&B's: how a version of one is stored, linked and read, question by question."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import BackendError, IntegrityError, StorageError
from mlopskit.registry import wandb_questions as questions
from mlopskit.registry.wandb_api import CHUNK, Refused
from mlopskit.storage import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mlopskit.registry.wandb_api import Api

    Json = dict[str, Any]

PAGE: Final = 100
TOGETHER: Final = 100
COMMIT_S: Final = 60.0
LOOK_S: Final = 0.2
# What S3 and its likes take in one request.
LARGEST: Final = 5 << 30
# As the SDK asks; others would be those that are being stored, or were deleted.
STORED: Final = '{"state": "COMMITTED"}'
# What the server does with a large artifact takes longer than an answer.
SLOW_S: Final = 60.0
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


@dataclass(frozen=True, slots=True)
class Content:
    """A file to be.

    Attributes:
        name: Its path in the artifact.
        size: Its bytes.
        md5: Their digest in base64, as W&B has it.
        source: The bytes, or where they lie.
    """

    name: str
    size: int
    md5: str
    source: bytes | Path

    @classmethod
    def of(
        cls, name: str, source: bytes | Path, also: Callable[[bytes], object] | None = None
    ) -> Content:
        """Read bytes once.

        Args:
            name: Their path in the artifact.
            source: The bytes, or where they lie.
            also: Is told each piece of them.
        """
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        for piece in _pieces(source):
            digest.update(piece)
            if also is not None:
                also(piece)
            size += len(piece)
        if size > LARGEST:
            raise StorageError(
                f"{name!r} has {size} bytes, and W&B takes {LARGEST} in one request. Split it."
            )
        return cls(name, size, base64.b64encode(digest.digest()).decode(), source)

    def again(self, told: Callable[[int], object]) -> Iterator[bytes]:
        """Yield the bytes once more.

        Raises:
            StorageError: If they have changed.
        """
        digest = hashlib.md5(usedforsecurity=False)
        left = self.size
        for piece in _pieces(self.source):
            digest.update(piece)
            left -= len(piece)
            same = base64.b64encode(digest.digest()).decode() == self.md5
            if left < 0 or (left == 0 and not same):
                break
            told(len(piece))
            yield piece
        if left or base64.b64encode(digest.digest()).decode() != self.md5:
            raise StorageError(
                f"{self.source!s} was changed while it was stored. Nothing was made."
            )


def unheard(size: int) -> None:
    """Be told how many bytes were sent, where nobody wants to know."""


def _pieces(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with disk_errors(source), source.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


class Artifacts:
    """The artifacts of a server.

    Args:
        api: The server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._runs: set[tuple[str, str, str]] = set()

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
        one version.

        Args:
            where: The collection, which is made if there is none.
            type: Of which artifacts the collection is.
            run: The run that it is said to be from.
            contents: The files.
            metadata: What stands beside them.
            description: A text for people.
            told: Is told of bytes that were sent.
        """
        self._make_run(where, run)
        digest = _digest(contents)
        said = {
            "entityName": where.entity,
            "projectName": where.project,
            "runName": run,
            "artifactTypeName": type,
            "artifactCollectionNames": [where.name],
            "digest": digest,
            "description": description or None,
            "metadata": json.dumps(metadata),
            "aliases": [],
            "enableDigestDeduplication": True,
        }
        answer = self._api.ask(questions.CREATE, {"input": said})
        made = str(answer["createArtifact"]["artifact"]["id"])
        manifest = self._api.ask(
            questions.CREATE_MANIFEST,
            {
                "artifactID": made,
                "baseArtifactID": None,
                "name": MANIFEST,
                "digest": "",
                "entityName": where.entity,
                "projectName": where.project,
                "runName": run,
                "manifestType": "FULL",
            },
        )["createArtifactManifest"]["artifactManifest"]["id"]
        for begin in range(0, len(contents), TOGETHER):
            self._send(made, manifest, contents[begin : begin + TOGETHER], told)
        self._send_manifest(made, manifest, contents)
        return self._committed(made)

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
        try:
            answer = self._api.ask(questions.LINK, {"input": said}, SLOW_S)
            return int(answer["result"]["versionIndex"])
        except Refused:
            raise
        except BackendError:
            index = self._linked(artifact, where)  # The answer may have been lost.
            if index is None:
                raise
            return index

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

    def _make_run(self, where: Collection, run: str) -> None:
        """Make the run, and the project with it, once."""
        key = (where.entity, where.project, run)
        if key in self._runs:
            return
        said = {"entity": where.entity, "project": where.project, "name": run}
        shown = {"displayName": run, "jobType": "mlopskit-registry", "state": "finished"}
        self._api.ask(questions.UPSERT_RUN, {**said, **shown})
        self._runs.add(key)

    def _send(
        self, id: str, manifest: str, contents: Sequence[Content], told: Callable[[int], object]
    ) -> None:
        specs = [
            {
                "artifactID": id,
                "artifactManifestID": manifest,
                "name": each.name,
                "md5": each.md5,
                "mimetype": "application/octet-stream",
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

    def _send_manifest(self, id: str, manifest: str, contents: Sequence[Content]) -> None:
        entries = {
            each.name: {"digest": each.md5, "birthArtifactID": id, "size": each.size}
            for each in contents
        }
        text = json.dumps({**POLICY, "contents": entries}).encode()
        content = Content.of(MANIFEST, text)
        said = {"artifactManifestID": manifest, "digest": content.md5, "baseArtifactID": None}
        answer = self._api.ask(questions.UPDATE_MANIFEST, said, SLOW_S)
        file = answer["updateArtifactManifest"]["artifactManifest"]["file"]
        headers = file.get("uploadHeaders") or []
        self._api.send(file["uploadUrl"], headers, content.again(unheard), content.size)

    def _committed(self, artifact: str) -> Json:
        """Commit an artifact, and wait until the server has checked it."""
        deadline = time.monotonic() + COMMIT_S
        answer = self._api.ask(questions.COMMIT, {"artifactID": artifact}, SLOW_S)
        found: Json = answer["commitArtifact"]["artifact"]
        while found["state"] != "COMMITTED":
            if time.monotonic() > deadline:
                raise BackendError(
                    f"{self._api.name} has not committed the artifact {artifact} within "
                    f"{COMMIT_S:.0f} s: it is {found['state']}."
                )
            time.sleep(LOOK_S)
            answer = self._api.ask(questions.BY_ID, {"id": artifact})
            found = answer["artifact"] or {"state": "gone"}
        return found

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
