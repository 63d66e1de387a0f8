"""What a W&B server answers to the questions of its SDK; `wandb_server` asks here.

Every operation of GraphQL that the SDK sends has a method ``on_<operation>``, which takes the
variables and returns the data. An answer may hold more than was asked for, which the SDK ignores;
its pydantic models refuse one that holds less.
"""

from __future__ import annotations

import base64
import json
import random
import re
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Json = dict[str, Any]

ENTITY: Final = "team"
PROJECT_ID: Final = "p"
_COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": lambda held, value: bool(held == value),
    "$ne": lambda held, value: bool(held != value),
    "$gt": lambda held, value: bool(held > value),
    "$gte": lambda held, value: bool(held >= value),
    "$lt": lambda held, value: bool(held < value),
    "$lte": lambda held, value: bool(held <= value),
    "$in": lambda held, value: held in value,
    "$nin": lambda held, value: held not in value,
    "$regex": lambda held, value: re.search(value, str(held)) is not None,
}
# What the SDK calls an attribute of a run, and what it is called here.
_ATTRIBUTES: Final = {
    "displayName": "display",
    "display_name": "display",
    "jobType": "job",
    "createdAt": "created",
    "created_at": "created",
    "heartbeatAt": "beat",
    "sweep": "sweep",
}


class Conflicting(Exception):
    """What is asked for is another's by now; the server answers 409."""


class Answers:
    """The state of a server, and its answers.

    Attributes:
        runs: By id; ``config``, ``summary``, ``history`` (lines of JSON), ``tags`` and so on.
        artifacts: By id.
        collections: What artifacts were linked into; see `wandb_registry_answers`.
        sweeps: By name.
        files: Bytes by path.
        asked: How often each operation was asked.
        unknown: Operations that there is no answer to.
        last_filters: What the last question for runs asked of them.
        births: For each MD5 in hex, the artifact that its bytes came with first.
        gone: The names of runs that were deleted: W&B does not give them again.
    """

    url: str

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}
        self.artifacts: dict[str, Json] = {}
        self.collections: dict[str, Json] = {}
        self.sweeps: dict[str, Json] = {}
        self.files: dict[str, bytes] = {}
        self.asked: dict[str, int] = {}
        self.unknown: list[str] = []
        self.last_filters: Json = {}
        self.births: dict[str, str] = {}
        self.gone: set[str] = set()
        self._born: dict[tuple[str, str], str] = {}
        self._chance = random.Random(0)  # noqa: S311 - for sweeps

    def answer(self, name: str, given: Json) -> Any:
        """Answer one operation.

        Raises:
            LookupError: If it is none that the SDK of this server sends.
            Conflicting: If it asks for what is another's.
        """
        self.asked[name] = self.asked.get(name, 0) + 1
        found = getattr(self, f"on_{name}", None)
        if found is None:
            self.unknown.append(name)
            raise LookupError(f"unknown operation {name}")
        return found(given)

    # Who is there.

    def on_Viewer(self, given: Json) -> Any:
        return {"viewer": _VIEWER}

    on_GetDefaultEntity = on_GetViewer = on_Viewer

    def on_ServerFeaturesQuery(self, given: Json) -> Any:
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, given: Json) -> Any:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_OrgFeatureFlags(self, given: Json) -> Any:
        return {"organization": {"featureFlags": []}}

    def on_GetProjects(self, given: Json) -> Any:
        names = sorted({run["project"] for run in self.runs.values()})
        return {"models": _page([self._project(name) for name in names], given)}

    def on_GetProject(self, given: Json) -> Any:
        return {"project": self._project(given.get("name") or given["project"])}

    # Runs.

    def on_UpsertBucket(self, given: Json) -> Any:
        name = given.get("name") or _decoded(given["id"])
        if name in self.gone:
            raise Conflicting(f"run {name} was previously created and deleted; try a new run name")
        run = self.runs.get(name)
        inserted = run is None
        if run is None:
            run = self.runs[name] = {
                "name": name,
                "project": given["project"],
                "state": "running",
                "notes": "",
                "config": {},
                "summary": {},
                "history": [],
                "tags": [],
                "created": _now(),
                "artifacts": [],
                "used": [],
                "sweep": given.get("sweep"),
                "files": set(),
            }
        run["beat"] = _now()
        run["state"] = given.get("state") or "running"
        if given.get("config"):
            run["config"] = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run["summary"] = json.loads(given["summaryMetrics"])
        for key, own in _UPSERTED:
            if given.get(key) is not None:
                run[own] = given[key]
        bucket = {**self._run(run), "project": self._project(run["project"])}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_RunResumeStatus(self, given: Json) -> Any:
        run = self.runs.get(given["name"])
        bucket = None
        if run is not None:
            bucket = {
                **self._run(run),
                "logLineCount": 0,
                "eventsLineCount": 0,
                "historyTail": json.dumps(run["history"][-1:]),
                "eventsTail": "[]",
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {**self._project("p"), "bucket": bucket}}

    def on_Run(self, given: Json) -> Any:
        run = self.runs.get(given["name"])
        found = None if run is None else self._run(run)
        return {"project": {"internalId": "1", "run": found}}

    on_RunHistoryKeys = on_RunState = on_RunConfig = on_Run

    def on_Runs(self, given: Json) -> Any:
        wanted = self.last_filters = json.loads(given.get("filters") or "{}")
        there = [run for run in self.runs.values() if run["project"] == given["project"]]
        if not there:
            return {"project": None}
        found = _sorted([run for run in there if matches(run, wanted)], given.get("order") or "")
        page = _page([self._run(run) for run in found], given)
        return {
            "project": {
                "internalId": "1",
                "runCount": len(found),
                "readOnly": False,
                "runs": page,
            }
        }

    def on_DeleteRun(self, given: Json) -> Any:
        run = self.runs.pop(_decoded(given["id"]))
        self.gone.add(run["name"])
        for each in run["artifacts"]:
            self.artifacts.pop(each, None)
        return {"deleteRun": {"clientMutationId": None}}

    # History.

    def on_RunParquetHistory(self, given: Json) -> Any:
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}

    def on_HistoryPage(self, given: Json) -> Any:
        low, high = given["minStep"], given["maxStep"]
        found = [row for row in self.rows(given["run"]) if low <= row["_step"] < high]
        return {"project": {"run": {"history": [json.dumps(row) for row in found]}}}

    def on_SampledHistoryPage(self, given: Json) -> Any:
        spec = json.loads(given["spec"])
        return {"project": {"run": {"sampledHistory": [self._sampled(given["run"], spec)]}}}

    def on_RunFullHistory(self, given: Json) -> Any:
        rows = _thin(self.rows(given["name"]), given.get("samples") or 500)
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}

    def on_RunSampledHistory(self, given: Json) -> Any:
        found = [self._sampled(given["name"], json.loads(spec)) for spec in given["specs"]]
        return {"project": {"run": {"sampledHistory": found}}}

    def rows(self, id: str) -> list[Json]:
        """Return the history of a run."""
        return [json.loads(line) for line in self.runs[id]["history"]]

    def _sampled(self, id: str, spec: Json) -> list[Json]:
        low, high = spec.get("minStep", 0), spec.get("maxStep", float("inf"))
        keys, rows = spec["keys"], self.rows(id)
        rows = [row for row in rows if low <= row["_step"] <= high]
        rows = [{key: row[key] for key in keys} for row in rows if all(key in row for key in keys)]
        return _thin(rows, spec.get("samples") or 500)

    # Files of runs.

    def on_CreateRunFiles(self, given: Json) -> Any:
        run = given["run"]
        self.runs[run]["files"].update(given["files"])
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def on_RunFiles(self, given: Json) -> Any:
        run, wanted = given["name"], given.get("fileNames")
        nodes = []
        for name in sorted(self.runs[run]["files"]):
            path = f"/storage/{run}/{name}"
            if (wanted and name not in wanted) or path not in self.files:
                continue
            at = f"{self.url}{path}"
            about = {"id": path, "name": name, "url": at, "directUrl": at, "md5": ""}
            size = len(self.files[path])
            nodes.append({**about, "sizeBytes": size, "mimetype": "", "updatedAt": _now()})
        page = _page(nodes, {"cursor": given.get("fileCursor"), "perPage": given["fileLimit"]})
        about = {"fileCount": len(nodes), "files": page}
        return {"project": {"internalId": "1", "run": about}}

    # Artifacts.

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
                "created": _now(),
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
            "artifactMembership": {"files": _page(nodes, given)},
        }
        return {"project": {"artifactCollection": members}}

    def on_RunOutputArtifacts(self, given: Json) -> Any:
        return self._artifacts_of(given, "artifacts")

    def on_RunInputArtifacts(self, given: Json) -> Any:
        return self._artifacts_of(given, "used")

    def on_ProjectArtifactTypes(self, given: Json) -> Any:
        names = sorted({each["type"] for each in self.artifacts.values()})
        types = [
            {**_typed("ArtifactType", name), "description": None, "createdAt": _now()}
            for name in names
        ]
        return {"project": {"artifactTypes": _page(types, given)}}

    def on_ProjectArtifacts(self, given: Json) -> Any:
        found = [
            each
            for each in self.artifacts.values()
            if (each["collection"], each["project"]) == (given["collection"], given["project"])
            and each["state"] == "COMMITTED"
        ]
        page = _page([self._artifact(each) for each in reversed(found)], given)
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

    # Sweeps.

    def on_UpsertSweep(self, given: Json) -> Any:
        name = given.get("name") or given.get("id") or f"s{len(self.sweeps)}"
        sweep = self.sweeps.setdefault(name, {"name": name, "state": "RUNNING", "runs": []})
        sweep["config"] = given.get("config") or sweep.get("config")
        sweep["state"] = given.get("state") or sweep["state"]
        project = self._project(given.get("projectName") or "p")
        shown = {"id": name, "name": name, "project": project}
        return {"upsertSweep": {"sweep": shown, "configValidationWarnings": []}}

    def on_CreateAgent(self, given: Json) -> Any:
        return {"createAgent": {"agent": {"id": f"agent-{given.get('sweep')}"}}}

    def on_Heartbeat(self, given: Json) -> Any:
        """Give an agent its next run: parameters by chance, as W&B's search ``random`` does."""
        name = given["id"].removeprefix("agent-")
        sweep = self.sweeps[name]
        args = {}
        for key, space in _parameters(sweep["config"]).items():
            args[key] = {"value": _picked(space, self._chance)}
        sweep["runs"].append(f"{name}r{len(sweep['runs'])}")
        command = {"type": "run", "run_id": sweep["runs"][-1], "args": args}
        answer = {"agent": {"id": given["id"]}, "commands": json.dumps([command])}
        return {"agentHeartbeat": answer}

    def on_GetSweeps(self, given: Json) -> Any:
        found = [self._sweep(each) for each in self.sweeps.values()]
        page = _page(found, given)
        return {"project": {"sweeps": page, "totalSweeps": len(found), **self._project("p")}}

    def on_Sweep(self, given: Json) -> Any:
        sweep = self.sweeps.get(given.get("name") or given.get("sweep") or "")
        return {"project": {"sweep": None if sweep is None else self._sweep(sweep)}}

    on_GetSweep = on_GetSweepLegacy = on_Sweep

    # What an upload brings.

    def stream(self, id: str, said: Json) -> None:
        """Take what the file stream of a run brings; a part that comes again replaces itself."""
        run = self.runs[id]
        run["beat"] = _now()
        files = said.get("files") or {}
        if "wandb-history.jsonl" in files:
            part = files["wandb-history.jsonl"]
            run["history"][part["offset"] :] = part["content"]
        if "wandb-summary.json" in files:
            run["summary"] = json.loads(files["wandb-summary.json"]["content"][-1])
        if said.get("complete"):
            run["state"] = "finished" if not said.get("exitcode") else "failed"

    # How things look.

    def _project(self, name: str, owner: str = ENTITY) -> Json:
        entity = {"id": "e", "name": owner, "organization": None}
        about: Json = {"id": PROJECT_ID, "internalId": "1", "name": name, "entityName": owner}
        about |= {"createdAt": _now(), "isBenchmark": False, "user": _VIEWER, "entity": entity}
        return {"__typename": "Project", **about}

    def _run(self, run: Json) -> Json:
        steps = [json.loads(line)["_step"] for line in run["history"][-1:]]
        keys = {key for line in run["history"][:1] for key in json.loads(line)}
        return {
            "id": _encoded(run),
            "projectId": "1",
            "name": run["name"],
            "state": run["state"],
            "displayName": run.get("display"),
            "description": None,
            "commit": None,
            "sweepName": run.get("sweep"),
            "config": json.dumps(run["config"]),
            "group": run.get("group"),
            "jobType": run.get("job"),
            "readOnly": False,
            "createdAt": run["created"],
            "heartbeatAt": run["beat"],
            "notes": run["notes"],
            "tags": run["tags"],
            "systemMetrics": "{}",
            "user": _VIEWER,
            "summaryMetrics": json.dumps(run["summary"]),
            "historyLineCount": len(run["history"]),
            "historyKeys": {
                "lastStep": steps[-1] if steps else -1,
                "keys": {key: {"typeCounts": [], "monotonic": False} for key in sorted(keys)},
                "sets": [],
            },
        }

    def _run_of(self, name: str) -> Json:
        run = self.runs[name]
        about = {"__typename": "Run", "project": self._project(run["project"])}
        return {**self._run(run), **about}

    def _sweep(self, sweep: Json) -> Json:
        runs = [self._run(self.runs[each]) for each in sweep["runs"] if each in self.runs]
        return {
            **_typed("Sweep", sweep["name"]),
            "displayName": None,
            "method": "random",
            "state": sweep["state"],
            "description": None,
            "config": sweep["config"],
            "bestLoss": None,
            "createdAt": _now(),
            "updatedAt": _now(),
            "runCount": len(runs),
            "runCountExpected": None,
            "priorRuns": None,
            "controller": None,
            "user": _VIEWER,
            "runs": _page(runs, {}),
        }

    def _manifest(self, artifact: str) -> Json:
        path = f"{self.url}/storage/manifest/{artifact}"
        file = {"id": path, "uploadUrl": path, "uploadHeaders": [], "directUrl": path}
        return {"id": f"M{artifact}", "file": file}

    def _artifact(self, artifact: Json) -> Json:
        sequence = {
            **_typed("ArtifactSequence", artifact["collection"]),
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
            **_typed("ArtifactSequence", artifact["collection"]),
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
            **_typed("ArtifactCollectionMembership", f"{collection}:{index}"),
            "versionIndex": index,
            "createdAt": artifact["created"],
            "aliases": [self._alias(artifact, alias) for alias in artifact["aliases"]],
            "artifactCollection": {
                **_typed("ArtifactSequence", collection),
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
        return {"project": {"run": {"artifacts": _page(shown, given)}}}

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


# The schema lets more be left out than the server does.
_REQUIRED: Final = (
    "artifactCollectionName",
    "clientID",
    "sequenceClientID",
    "digest",
    "digestAlgorithm",
)
_UPSERTED: Final = (
    ("displayName", "display"),
    ("groupName", "group"),
    ("jobType", "job"),
    ("notes", "notes"),
    ("tags", "tags"),
    ("sweep", "sweep"),
)
_VIEWER: Final[Json] = {
    "id": "u",
    "entity": ENTITY,
    "name": "u",
    "username": "u",
    "email": "u@example.org",
    "flags": "{}",
    "admin": False,
    "deletedAt": None,
    "teams": {"edges": []},
    "apiKeys": {"edges": []},
}


def matches(run: Json, wanted: Json) -> bool:
    """Tell whether a run matches a filter of MongoDB's, as W&B's API takes it."""
    for key, value in wanted.items():
        if key == "$and":
            held = all(matches(run, each) for each in value)
        elif key == "$or":
            held = any(matches(run, each) for each in value)
        elif key == "$nor":
            held = not any(matches(run, each) for each in value)
        else:
            held = _meets(_held(run, key), value)
        if not held:
            return False
    return True


def _meets(held: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict) or not any(key.startswith("$") for key in wanted):
        return bool(held == wanted) or (isinstance(held, list) and wanted in held)
    for sign, value in wanted.items():
        if sign == "$not":
            met = not _meets(held, value)
        elif sign == "$exists":
            met = (held is not None) == bool(value)
        elif isinstance(held, list) and sign in ("$in", "$nin"):
            met = bool({*held} & {*value}) == (sign == "$in")
        else:
            try:
                met = _COMPARED[sign](held, value)
            except TypeError:
                met = False
        if not met:
            return False
    return True


def _held(run: Json, key: str) -> Any:
    head, _, rest = key.partition(".")
    if head == "config":
        found = run["config"].get(rest.removesuffix(".value"))
        if found is not None:
            return found.get("value")
        return _deep({k: v.get("value") for k, v in run["config"].items()}, rest)
    if head in ("summary", "summary_metrics", "summaryMetrics"):
        return run["summary"].get(rest, _deep(run["summary"], rest))
    return run.get(_ATTRIBUTES.get(key, key))


def _deep(values: Any, path: str) -> Any:
    for part in path.split("."):
        if part == "value":
            continue
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def _sorted(runs: list[Json], order: str) -> list[Json]:
    """Sort as ``+summary_metrics.loss`` says, runs without the value last."""
    key = order.lstrip("+-") or "createdAt"
    there = [run for run in runs if _held(run, key) is not None]
    there.sort(key=lambda run: _held(run, key), reverse=order.startswith("-"))
    return there + [run for run in runs if _held(run, key) is None]


def _page(nodes: Sequence[Json], given: Json) -> Json:
    at = int(given.get("cursor") or 0)
    page = nodes[at : at + (given.get("perPage") or 50)]
    end = at + len(page)
    info = {"__typename": "PageInfo", "endCursor": str(end), "hasNextPage": end < len(nodes)}
    edges: list[Json] = [{"node": each, "cursor": str(at + n + 1)} for n, each in enumerate(page)]
    return {"totalCount": len(nodes), "pageInfo": info, "edges": edges}


def _thin(rows: Sequence[Json], samples: int) -> list[Json]:
    if len(rows) <= samples:
        return list(rows)
    return [rows[at * len(rows) // samples] for at in range(samples)]


def _parameters(config: str) -> Json:
    """Read the parameters of a sweep, whose configuration is JSON or YAML."""
    try:
        found: Json = json.loads(config)["parameters"]
    except ValueError:
        found = import_module("yaml").safe_load(config)["parameters"]  # It comes with wandb.
    return found


def _picked(space: Json, chance: random.Random) -> Any:
    if "value" in space:
        return space["value"]
    if "values" in space:
        return chance.choice(space["values"])
    low, high = space["min"], space["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    return chance.randint(low, high) if whole else chance.uniform(low, high)


def _typed(kind: str, name: str) -> Json:
    own = base64.b64encode(f"{kind}:{name}".encode()).decode()
    return {"__typename": kind, "id": own, "name": name}


def _encoded(run: Json) -> str:
    said = f"Run:v1:{run['name']}:{run['project']}:{ENTITY}"
    return base64.b64encode(said.encode()).decode()


def _decoded(id: str) -> str:
    return base64.b64decode(id).decode().split(":")[2]


def _now() -> str:
    return datetime.now(UTC).isoformat()
