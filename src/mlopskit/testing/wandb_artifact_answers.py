"""What a stand-in for a W&B server answers about artifacts."""

from __future__ import annotations

import base64
import json
from typing import Any, Final
from uuid import uuid4

from mlopskit.testing.wandb_answers import Conflicting, Json, now, paged, typed
from mlopskit.testing.wandb_run_answers import RunAnswers

# The schema lets more be left out than the server does.
_REQUIRED: Final = (
    "artifactCollectionName",
    "clientID",
    "sequenceClientID",
    "digest",
    "digestAlgorithm",
)


class ArtifactAnswers(RunAnswers):
    """The answers about artifacts, beside those about the runs that make and use them."""

    def on_CreateArtifact(self, given: Json) -> Any:
        said = given.get("input", given)
        for key in _REQUIRED:
            if not said.get(key):
                raise LookupError(f"CreateArtifactInput.{key} is required")
        name = said["artifactCollectionName"]
        project = said.get("projectName") or "churn"
        versions = [
            each
            for each in self.artifacts.values()
            if (each["collection"], each["project"]) == (name, project)
        ]
        # Equal content is an equal version.
        same = [e for e in versions if e["state"] == "COMMITTED" and e["digest"] == said["digest"]]
        if same:
            artifact = same[-1]
        else:
            own = base64.b64encode(f"Artifact:{uuid4().hex}".encode()).decode()
            artifact = self.artifacts[own] = {
                "id": own,
                "collection": name,
                "project": project,
                "type": said["artifactTypeName"],
                "digest": said["digest"],
                "metadata": said.get("metadata"),
                "description": said.get("description"),
                "ttl": said.get("ttlDurationSeconds") or -1,
                "aliases": [],
                "state": "PENDING",
                "created": now(),
                "index": max((each["index"] for each in versions), default=-1) + 1,
                "by": None,
                "users": [],
            }
        for alias in [*(each["alias"] for each in said.get("aliases") or []), "latest"]:
            self._move_alias(artifact, alias)
        run = self.runs.get(said.get("runName") or "")
        if run is not None and artifact["id"] not in run["artifacts"]:
            run["artifacts"].append(artifact["id"])
            artifact["by"] = artifact["by"] or run["name"]
        shown = self._artifact(artifact)
        shown["artifactSequence"]["latestArtifact"] = None
        return {"createArtifact": {"artifact": shown}}

    def on_CreateArtifactManifest(self, given: Json) -> Any:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(given["artifactID"])}}

    def on_UpdateArtifactManifest(self, given: Json) -> Any:
        artifact = given["artifactManifestID"].removeprefix("M")
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(artifact)}}

    def on_CreateArtifactFiles(self, given: Json) -> Any:
        edges = []
        for file in given.get("input", given)["artifactFiles"]:
            path = f"blob/{file['artifactID']}/{file['name']}"
            birth = self._birth(base64.b64decode(file["md5"]).hex())
            self._born[file["artifactID"], file["name"]] = birth or file["artifactID"]
            node = {
                "id": path,
                "name": file["name"],
                "displayName": file["name"],
                "storagePath": path,
                "uploadUrl": None if birth else f"{self.url}/storage/{path}",
                "uploadHeaders": None if birth else [f"Content-MD5:{file['md5']}"],
                "uploadMultipartUrls": None,
                "artifact": {"id": birth or file["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, given: Json) -> Any:
        artifact = self.artifacts[given["artifactID"]]
        text = self.files.get(f"/storage/manifest/{artifact['id']}", b'{"contents": {}}')
        for name, entry in json.loads(text)["contents"].items():
            born = self._born.get((artifact["id"], name))
            if born is not None and entry["birthArtifactID"] != born:
                raise Conflicting(f"{name!r} was born in {born}, not {entry['birthArtifactID']}")
        artifact["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": self._artifact(artifact)}}

    def on_ArtifactByID(self, given: Json) -> Any:
        return {"artifact": self._artifact(self.artifacts[given["id"]])}

    def on_ArtifactType(self, given: Json) -> Any:
        found = self._named(given["name"], given.get("projectName") or given.get("project"))
        return {"project": {"artifact": None if found is None else self._artifact(found)}}

    def on_ArtifactMembershipByName(self, given: Json) -> Any:
        found = self._named(given["name"], given["project"])
        member = None if found is None else self._member(found)
        return {"project": {"artifactCollectionMembership": member}}

    def on_FetchArtifactManifest(self, given: Json) -> Any:
        artifact = given.get("id") or given["artifactID"]
        return {"artifact": {"currentManifest": self._manifest(artifact)}}

    def on_GetArtifactMembershipFileUrls(self, given: Json) -> Any:
        found = self._named(f"{given['collection']}:{given['alias']}", given["project"])
        content = self.files[f"/storage/manifest/{found['id']}"] if found else b'{"contents": {}}'
        nodes = []
        for name, entry in json.loads(content)["contents"].items():
            if "ref" in entry:
                continue  # It lies elsewhere.
            digest = base64.b64decode(entry["digest"]).hex()
            at = f"{self.url}/artifacts/{digest}"
            nodes.append({"__typename": "File", "name": name, "directUrl": at})
        members = {
            "__typename": "ArtifactSequence",
            "artifactMembership": {"files": paged(nodes, given)},
        }
        return {"project": {"artifactCollection": members}}

    def on_RunOutputArtifacts(self, given: Json) -> Any:
        return self._artifacts_of(given, "artifacts")

    def on_RunInputArtifacts(self, given: Json) -> Any:
        return self._artifacts_of(given, "used")

    def on_ProjectArtifactTypes(self, given: Json) -> Any:
        names = sorted({each["type"] for each in self.artifacts.values()})
        types = [
            {**typed("ArtifactType", name), "description": None, "createdAt": now()}
            for name in names
        ]
        return {"project": {"artifactTypes": paged(types, given)}}

    def on_ProjectArtifacts(self, given: Json) -> Any:
        found = [
            each
            for each in self.artifacts.values()
            if (each["collection"], each["project"]) == (given["collection"], given["project"])
            and each["state"] == "COMMITTED"
        ]
        page = paged([self._artifact(each) for each in reversed(found)], given)
        for edge in page["edges"]:
            edge["version"] = f"v{edge['node']['versionIndex']}"
        members = {"__typename": "ArtifactSequence", "artifacts": page}
        return {"project": {"artifactType": {"artifactCollection": members}}}

    def on_UseArtifact(self, given: Json) -> Any:
        said = given.get("input", given)
        artifact = self.artifacts[said["artifactID"]]
        run = self.runs[said.get("runName") or given["runName"]]
        if artifact["id"] not in run["used"]:
            run["used"].append(artifact["id"])
            artifact["users"].append(run["name"])
        return {"useArtifact": {"artifact": self._artifact(artifact)}}

    def on_ArtifactUsedBy(self, given: Json) -> Any:
        users = [self._run_of(each) for each in self.artifacts[given["id"]]["users"]]
        return {"artifact": {"usedBy": {"edges": [{"node": each} for each in users]}}}

    def on_ArtifactCreatedBy(self, given: Json) -> Any:
        by = self.artifacts[given["id"]]["by"]
        return {"artifact": {"createdBy": None if by is None else self._run_of(by)}}

    def on_UpdateArtifact(self, given: Json) -> Any:
        said = given["input"]
        artifact = self.artifacts[said["artifactID"]]
        artifact["metadata"] = said.get("metadata") or artifact["metadata"]
        if said.get("description") is not None:
            artifact["description"] = said["description"]
        if said.get("aliases") is not None:
            artifact["aliases"] = []
            for each in said["aliases"]:
                self._move_alias(artifact, each["alias"])
        return {"result": {"artifact": self._artifact(artifact)}}

    def on_AddAliases(self, given: Json) -> Any:
        for each in given["input"]["aliases"]:
            self._move_alias(self.artifacts[given["input"]["artifactID"]], each["alias"])
        return {"result": {"success": True}}

    def on_DeleteAliases(self, given: Json) -> Any:
        gone = {each["alias"] for each in given["input"]["aliases"]}
        artifact = self.artifacts[given["input"]["artifactID"]]
        artifact["aliases"] = [each for each in artifact["aliases"] if each not in gone]
        return {"result": {"success": True}}

    def on_DeleteArtifact(self, given: Json) -> Any:
        artifact = self.artifacts.pop(given["input"]["artifactID"])
        return {"result": {"artifact": {**self._artifact(artifact), "state": "DELETED"}}}

    # How things look.

    def _manifest(self, artifact: str) -> Json:
        path = f"{self.url}/storage/manifest/{artifact}"
        file = {"id": path, "uploadUrl": path, "uploadHeaders": [], "directUrl": path}
        return {"id": f"M{artifact}", "file": file}

    def _artifact(self, artifact: Json) -> Json:
        sequence = {
            **typed("ArtifactSequence", artifact["collection"]),
            "project": self._project(artifact["project"]),
        }
        return {
            "__typename": "Artifact",
            "id": artifact["id"],
            "artifactSequence": sequence,
            "versionIndex": artifact["index"],
            "artifactType": {"name": artifact["type"]},
            "description": artifact["description"],
            "metadata": artifact["metadata"],
            "ttlDurationSeconds": artifact["ttl"],
            "ttlIsInherited": artifact["ttl"] == -1,
            "tags": [],
            "historyStep": None,
            "state": artifact["state"],
            "size": 0,
            "digest": artifact["digest"],
            "digestAlgorithm": None,
            "commitHash": artifact["id"],
            "fileCount": 0,
            "createdAt": artifact["created"],
            "updatedAt": None,
            "aliases": [self._alias(artifact, alias) for alias in artifact["aliases"]],
        }

    def _alias(self, artifact: Json, alias: str) -> Json:
        collection = {
            **typed("ArtifactSequence", artifact["collection"]),
            "project": self._project(artifact["project"]),
        }
        return {
            "__typename": "ArtifactAlias",
            "id": alias,
            "alias": alias,
            "artifactCollectionName": artifact["collection"],
            "artifactCollection": collection,
        }

    def _member(self, artifact: Json) -> Json:
        collection, index = artifact["collection"], artifact["index"]
        return {
            **typed("ArtifactCollectionMembership", f"{collection}:{index}"),
            "versionIndex": index,
            "createdAt": artifact["created"],
            "aliases": [self._alias(artifact, alias) for alias in artifact["aliases"]],
            "artifactCollection": {
                **typed("ArtifactSequence", collection),
                "project": self._project(artifact["project"]),
            },
            "artifact": self._artifact(artifact),
        }

    def _named(self, name: str, project: str | None) -> Json | None:
        """Find the artifact of ``collection:alias`` or ``collection:v3`` in a project."""
        collection, _, alias = name.partition(":")
        for each in reversed(list(self.artifacts.values())):
            if each["collection"] != collection or project not in (None, each["project"]):
                continue
            if (alias or "latest") in {*each["aliases"], f"v{each['index']}"}:
                return each
        return None

    def _artifacts_of(self, given: Json, which: str) -> Any:
        run = self.runs.get(given["run"])
        if run is None:
            return {"project": {"run": None}}
        found = [self.artifacts[each] for each in run[which] if each in self.artifacts]
        shown = [self._artifact(each) for each in found if each["state"] == "COMMITTED"]
        return {"project": {"run": {"artifacts": paged(shown, given)}}}

    def _birth(self, digest: str) -> str | None:
        """Return the artifact that bytes came with first; None if they have to be sent."""
        born = self.births.get(digest)
        if born in self.artifacts and f"md5:{digest}" in self.files:
            return born
        self.births.pop(digest, None)
        return None

    def _move_alias(self, artifact: Json, alias: str) -> None:
        place = (artifact["collection"], artifact["project"])
        for each in self.artifacts.values():
            if (each["collection"], each["project"]) == place and alias in each["aliases"]:
                each["aliases"].remove(alias)
        artifact["aliases"].append(alias)
