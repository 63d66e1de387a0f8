"""What a W&B server answers about links: collections of artifacts of other projects.

A registry of W&B's is a project ``wandb-registry-<name>`` of the organization's entity, and a
collection of it holds links. Any other project may have such collections too.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from mlopskit.testing.wandb_answers import ENTITY, Json, now, paged, typed
from mlopskit.testing.wandb_sweep_answers import SweepAnswers

ORGANIZATION: Final = "org"
ORG_ENTITY: Final = "org-entity"
PREFIX: Final = "wandb-registry-"


class RegistryAnswers(SweepAnswers):
    """The answers, those about links among them.

    A collection is kept under ``entity/project/name``, with the artifact of each index, or None
    where it was unlinked: no index is given twice.

    Attributes:
        registries: The projects of the organization that are registries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.registries = {f"{PREFIX}model"}

    def on_FetchOrgInfoFromEntity(self, given: Json) -> Any:
        if given["entity"] not in (ENTITY, ORG_ENTITY):
            return {"entity": None}
        found = {"name": ORGANIZATION, "orgEntity": {"name": ORG_ENTITY}}
        return {"entity": {"organization": found, "user": None}}

    def on_FetchRegistry(self, given: Json) -> Any:
        there = given["entity"] == ORG_ENTITY and given["name"] in self.registries
        project = self._project(given["name"], ORG_ENTITY) if there else None
        return {"entity": {"project": project}}

    # Linking.

    def on_LinkArtifact(self, given: Json) -> Any:
        said = given["input"]
        entity, project = said["entityName"], said["projectName"]
        if project.startswith(PREFIX) and project not in self.registries:
            raise LookupError(f"project {entity}/{project} not found")
        artifact = self.artifacts[said["artifactID"]]
        key = f"{entity}/{project}/{said['artifactPortfolioName']}"
        new = {
            "name": said["artifactPortfolioName"],
            "entity": entity,
            "project": project,
            "type": artifact["type"],
            "description": None,
            "members": [],
            "aliases": {},
            "created": now(),
        }
        linked = self.collections.setdefault(key, new)
        if artifact["id"] not in linked["members"]:
            linked["members"].append(artifact["id"])
        index = linked["members"].index(artifact["id"])
        for alias in [*(each["alias"] for each in said.get("aliases") or []), "latest"]:
            linked["aliases"][alias] = index
        member = self._linked_member(linked, index)
        version = {"versionIndex": index, "artifactMembership": member}
        return {"result": version, "linkArtifact": version}

    def on_UnlinkArtifact(self, given: Json) -> Any:
        said = given["input"]
        linked = self.collections[_key(said["artifactPortfolioID"])]
        index = linked["members"].index(said["artifactID"])
        linked["members"][index] = None
        linked["aliases"] = {k: at for k, at in linked["aliases"].items() if at != index}
        return {"result": {"success": True}}

    def on_FetchLinkedArtifacts(self, given: Json) -> Any:
        found = [
            self._linked_member(linked, linked["members"].index(given["artifactID"]))
            for linked in self.collections.values()
            if given["artifactID"] in linked["members"]
        ]
        return {"artifact": {"artifactMemberships": {"edges": [{"node": e} for e in found]}}}

    def on_DeleteArtifact(self, given: Json) -> Any:
        gone = given["input"]["artifactID"]
        for linked in self.collections.values():
            if gone in linked["members"]:
                said = {"artifactID": gone, "artifactPortfolioID": _id(linked)}
                self.on_UnlinkArtifact({"input": said})
        return super().on_DeleteArtifact(given)

    # Aliases and texts.

    def on_AddAliases(self, given: Json) -> Any:
        return self._aliases(given, super().on_AddAliases, add=True)

    def on_DeleteAliases(self, given: Json) -> Any:
        return self._aliases(given, super().on_DeleteAliases, add=False)

    def _aliases(self, given: Json, otherwise: Any, *, add: bool) -> Any:
        said = given["input"]
        for each in said["aliases"]:
            place = (each["entityName"], each["projectName"], each["artifactCollectionName"])
            linked = self.collections.get("/".join(place))
            if linked is None:
                otherwise({"input": {**said, "aliases": [each]}})
            elif add:
                linked["aliases"][each["alias"]] = linked["members"].index(said["artifactID"])
            else:
                linked["aliases"].pop(each["alias"], None)
        return {"result": {"success": True}}

    def on_UpdateArtifactPortfolio(self, given: Json) -> Any:
        linked = self.collections[_key(given["input"]["artifactPortfolioID"])]
        if given["input"].get("description") is not None:
            linked["description"] = given["input"]["description"]
        return {"result": {"artifactCollection": self._collection(linked)}}

    # Reading.

    def on_ProjectArtifacts(self, given: Json) -> Any:
        linked = self._linked(given, given["collection"])
        if linked is None:
            answer = super().on_ProjectArtifacts(given)
            found = answer["project"]["artifactType"]["artifactCollection"]
            found |= {"id": given["collection"], "name": given["collection"], "description": None}
            if not found["artifacts"]["edges"]:
                answer["project"]["artifactType"]["artifactCollection"] = None
            return answer
        there = [(at, each) for at, each in enumerate(linked["members"]) if each is not None]
        page = paged([{"at": at, "artifact": each} for at, each in reversed(there)], given)
        for edge in page["edges"]:
            edge["version"] = f"v{edge['node']['at']}"
            edge["node"] = self._artifact(self.artifacts[edge["node"]["artifact"]])
        collection = {**self._collection(linked), "artifacts": page}
        return {"project": {"artifactType": {"artifactCollection": collection}}}

    def on_ArtifactMembershipByName(self, given: Json) -> Any:
        collection, _, alias = given["name"].partition(":")
        linked = self._linked(given, collection)
        if linked is None:
            return super().on_ArtifactMembershipByName(given)
        index = _index(linked, alias)
        member = None if index is None else self._linked_member(linked, index)
        return {"project": {"artifactCollectionMembership": member}}

    def on_ArtifactMembershipFiles(self, given: Json) -> Any:
        member = self.on_ArtifactMembershipByName(
            {**given, "name": f"{given['collection']}:{given['alias']}"}
        )["project"]["artifactCollectionMembership"]
        files = None
        if member is not None:
            files = {"files": paged(self._files(member["artifact"]["id"], given), given)}
        found = {"__typename": "ArtifactPortfolio", "artifactMembership": files}
        return {"project": {"artifactCollection": found}}

    on_GetArtifactMembershipFileUrls = on_ArtifactMembershipFiles

    def on_ArtifactTypeArtifactCollections(self, given: Json) -> Any:
        found = [
            self._collection(each)
            for each in self.collections.values()
            if (each["entity"], each["project"]) == (given["entity"], given["project"])
            and each["type"] == given["type"]
        ]
        sequences = {
            each["collection"]: each
            for each in self.artifacts.values()
            if (each["project"], each["type"]) == (given["project"], given["type"])
            and given["entity"] == ENTITY
        }
        found += [self._sequence(each) for each in sequences.values()]
        return {"project": {"artifactType": {"artifactCollections": paged(found, given)}}}

    def on_ProjectArtifactCollection(self, given: Json) -> Any:
        linked = self._linked(given, given["name"])
        found = None if linked is None else self._collection(linked)
        return {"project": {"artifactType": {"artifactCollection": found}}}

    # How things look.

    def _linked(self, given: Json, name: str) -> Json | None:
        return self.collections.get(f"{given['entity']}/{given['project']}/{name}")

    def _collection(self, linked: Json) -> Json:
        return {
            **typed("ArtifactPortfolio", linked["name"]),
            "id": _id(linked),
            "description": linked["description"],
            "createdAt": linked["created"],
            "updatedAt": None,
            "project": self._project(linked["project"], linked["entity"]),
            "type": {"name": linked["type"]},
            "tags": {"edges": []},
        }

    def _sequence(self, artifact: Json) -> Json:
        return {
            **typed("ArtifactSequence", artifact["collection"]),
            "description": None,
            "createdAt": artifact["created"],
            "updatedAt": None,
            "project": self._project(artifact["project"]),
            "type": {"name": artifact["type"]},
            "tags": {"edges": []},
        }

    def _artifact(self, artifact: Json) -> Json:
        shown = super()._artifact(artifact)
        for linked in self.collections.values():
            if artifact["id"] in linked["members"]:
                at = linked["members"].index(artifact["id"])
                shown["aliases"] += self._linked_aliases(linked, at)
        return shown

    def _linked_member(self, linked: Json, index: int) -> Json:
        artifact = self.artifacts[linked["members"][index]]
        return {
            **typed("ArtifactCollectionMembership", f"{linked['name']}:{index}"),
            "versionIndex": index,
            "createdAt": artifact["created"],
            "aliases": self._linked_aliases(linked, index),
            "artifactCollection": self._collection(linked),
            "artifact": self._artifact(artifact),
        }

    def _linked_aliases(self, linked: Json, index: int) -> list[Json]:
        return [
            {
                "__typename": "ArtifactAlias",
                "id": f"{_id(linked)}:{alias}",
                "alias": alias,
                "artifactCollectionName": linked["name"],
                "artifactCollection": self._collection(linked),
            }
            for alias, at in linked["aliases"].items()
            if at == index
        ]

    def _files(self, artifact: str, given: Json) -> list[Json]:
        content = self.files.get(f"/storage/manifest/{artifact}", b'{"contents": {}}')
        found = []
        for name, entry in json.loads(content)["contents"].items():
            if "ref" in entry or (given.get("fileNames") and name not in given["fileNames"]):
                continue
            at = f"{self.url}/artifacts/{base64.b64decode(entry['digest']).hex()}"
            about = {"__typename": "File", "id": name, "name": name, "url": at, "directUrl": at}
            size = {"sizeBytes": entry.get("size", 0), "storagePath": None, "mimetype": None}
            digests = {"digest": entry["digest"], "md5": entry["digest"], "updatedAt": None}
            found.append({**about, **size, **digests})
        return found


def _index(linked: Json, alias: str) -> int | None:
    if alias.startswith("v") and alias[1:].isdigit():
        at = int(alias[1:])
    else:
        at = linked["aliases"].get(alias or "latest", -1)
    return at if 0 <= at < len(linked["members"]) and linked["members"][at] else None


def _id(linked: Json) -> str:
    key = f"{linked['entity']}/{linked['project']}/{linked['name']}"
    return base64.b64encode(f"ArtifactCollection:{key}".encode()).decode()


def _key(id: str) -> str:
    return base64.b64decode(id).decode().partition(":")[2]
