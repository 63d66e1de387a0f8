"""A W&B server on loopback that keeps runs and artifacts in memory: as much as our backend asks of.

The operations and their fields are those that wandb 0.31 sends; an answer holds more than was asked
for, which its client ignores.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

KEY = "a" * 40


class WandbServer:
    """The server. Start it with ``with``.

    Attributes:
        down: Every request is answered with 503.
        drop: So many next answers of history uploads are lost, after they were stored.
        runs: By id.
        last_filters: What the last question for runs asked of them.
    """

    def __init__(self, port: int = 0) -> None:
        self.down = False
        self.drop = 0
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.asked: dict[str, int] = {}
        self.last_filters: dict[str, Any] = {}
        self.lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def rows(self, id: str) -> list[dict[str, Any]]:
        """Return the history of a run."""
        return [json.loads(line) for line in self.runs[id]["history"]]

    # GraphQL.

    def answer(self, name: str, given: dict[str, Any]) -> Any:
        """Answer one operation."""
        with self.lock:
            self.asked[name] = self.asked.get(name, 0) + 1
            found = getattr(self, f"on_{_LIKE.get(name, name)}", None)
            if found is None:
                raise LookupError(f"unknown operation {name}")
            return found(given)

    def on_Viewer(self, given: dict[str, Any]) -> Any:
        return {"viewer": _VIEWER}

    def on_ServerFeaturesQuery(self, given: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> Any:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_OrgFeatureFlags(self, given: dict[str, Any]) -> Any:
        return {"organization": {"featureFlags": []}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> Any:
        name = given.get("name") or _decoded(given["id"])
        run = self.runs.get(name)
        inserted = run is None
        if run is None:
            run = self.runs[name] = {
                "name": name,
                "project": given["project"],
                "config": {},
                "summary": {},
                "history": [],
                "tags": [],
                "notes": "",
                "state": "running",
                "created": _now(),
                "artifacts": [],
            }
        run["beat"] = _now()
        if inserted or run["state"] != "running":
            run["state"] = "running"
        if given.get("config"):
            run["config"] = json.loads(given["config"])
        for key, own in (
            ("displayName", "display"),
            ("groupName", "group"),
            ("jobType", "job"),
            ("notes", "notes"),
            ("tags", "tags"),
        ):
            if given.get(key):
                run[own] = given[key]
        project = {"id": "p", "name": run["project"], "entity": {"id": "e", "name": "team"}}
        bucket = {**self._run(run), "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_RunResumeStatus(self, given: dict[str, Any]) -> Any:
        run = self.runs.get(given["name"])
        bucket = None
        if run is not None:
            bucket = {
                **self._run(run),
                "logLineCount": 0,
                "historyLineCount": len(run["history"]),
                "eventsLineCount": 0,
                "historyTail": json.dumps(run["history"][-1:]),
                "eventsTail": "[]",
                "wandbConfig": json.dumps({"t": 1}),
            }
        entity = {"id": "e", "name": "team"}
        return {"model": {"id": "p", "name": "p", "entity": entity, "bucket": bucket}}

    def on_Run(self, given: dict[str, Any]) -> Any:
        run = self.runs.get(given["name"])
        return {"project": {"internalId": "1", "run": None if run is None else self._run(run)}}

    def on_Runs(self, given: dict[str, Any]) -> Any:
        wanted = self.last_filters = json.loads(given.get("filters") or "{}")
        runs = [
            run
            for run in self.runs.values()
            if run["project"] == given["project"] and _matches(run, wanted)
        ]
        if not any(run["project"] == given["project"] for run in self.runs.values()):
            return {"project": None}
        runs.sort(key=lambda run: run["created"], reverse=given.get("order", "").startswith("-"))
        at = int(given.get("cursor") or 0)
        page = runs[at : at + given["perPage"]]
        edges = [
            {"node": self._run(run), "cursor": str(at + place + 1)}
            for place, run in enumerate(page)
        ]
        more = at + len(page) < len(runs)
        info = {"endCursor": str(at + len(page)), "hasNextPage": more}
        return {
            "project": {
                "internalId": "1",
                "runCount": len(runs),
                "readOnly": False,
                "runs": {"edges": edges, "pageInfo": info},
            }
        }

    def on_RunParquetHistory(self, given: dict[str, Any]) -> Any:
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}

    def on_HistoryPage(self, given: dict[str, Any]) -> Any:
        lines = self.runs[given["run"]]["history"]
        low, high = given["minStep"], given["maxStep"]
        found = [line for line in lines if low <= json.loads(line)["_step"] < high]
        return {"project": {"run": {"history": found}}}

    def on_DeleteRun(self, given: dict[str, Any]) -> Any:
        run = self.runs.pop(_decoded(given["id"]))
        for each in run["artifacts"]:
            self.artifacts.pop(each, None)
        return {"deleteRun": {"clientMutationId": None}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> Any:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{given['run']}/{name}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    # Artifacts.

    def on_CreateArtifact(self, given: dict[str, Any]) -> Any:
        said = given.get("input", given)
        name = (said.get("artifactCollectionNames") or [said.get("artifactCollectionName")])[0]
        same = [
            each
            for each in self.artifacts.values()
            if each["collection"] == name
            and each["state"] == "COMMITTED"
            and each["digest"] == said["digest"]
        ]
        if same:
            artifact = same[-1]
        else:
            own = f"A{len(self.artifacts)}x{len(self.files)}"
            artifact = self.artifacts[own] = {
                "id": own,
                "collection": name,
                "type": said["artifactTypeName"],
                "digest": said["digest"],
                "metadata": said.get("metadata"),
                "description": said.get("description"),
                "aliases": [],
                "state": "PENDING",
                "created": _now(),
                "index": sum(e["collection"] == name for e in self.artifacts.values()),
            }
        for alias in said.get("aliases") or []:
            for each in self.artifacts.values():
                if each["collection"] == name and alias["alias"] in each["aliases"]:
                    each["aliases"].remove(alias["alias"])
            artifact["aliases"].append(alias["alias"])
        run = self.runs.get(said.get("runName") or "")
        if run is not None and artifact["id"] not in run["artifacts"]:
            run["artifacts"].append(artifact["id"])
        sequence = {"id": "S", "name": name, "latestArtifact": None}
        return {
            "createArtifact": {
                "artifact": {
                    **self._artifact(artifact),
                    "artifactSequence": {
                        **self._artifact(artifact)["artifactSequence"],
                        **sequence,
                    },
                }
            }
        }

    def on_CreateArtifactManifest(self, given: dict[str, Any]) -> Any:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(given["artifactID"])}}

    def on_UpdateArtifactManifest(self, given: dict[str, Any]) -> Any:
        artifact = given["artifactManifestID"].removeprefix("M")
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(artifact)}}

    def on_CreateArtifactFiles(self, given: dict[str, Any]) -> Any:
        edges = []
        for file in given.get("input", given)["artifactFiles"]:
            path = f"blob/{file['artifactID']}/{file['name']}"
            node = {
                "id": path,
                "name": file["name"],
                "displayName": file["name"],
                "storagePath": path,
                "uploadUrl": f"{self.url}/storage/{path}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, given: dict[str, Any]) -> Any:
        artifact = self.artifacts[given["artifactID"]]
        artifact["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": self._artifact(artifact)}}

    def on_ArtifactByID(self, given: dict[str, Any]) -> Any:
        return {"artifact": self._artifact(self.artifacts[given["id"]])}

    def on_FetchArtifactManifest(self, given: dict[str, Any]) -> Any:
        artifact = given.get("id") or given["artifactID"]
        return {"artifact": {"currentManifest": self._manifest(artifact)}}

    def on_RunOutputArtifacts(self, given: dict[str, Any]) -> Any:
        run = self.runs.get(given["run"])
        if run is None:
            return {"project": {"run": None}}
        found = [self.artifacts[each] for each in run["artifacts"]]
        found = [each for each in found if each["state"] == "COMMITTED"]
        at = int(given.get("cursor") or 0)
        page = found[at : at + given["perPage"]]
        more = at + len(page) < len(found)
        return {
            "project": {
                "run": {
                    "artifacts": {
                        "totalCount": len(found),
                        "pageInfo": {"endCursor": str(at + len(page)), "hasNextPage": more},
                        "edges": [{"node": self._artifact(each)} for each in page],
                    }
                }
            }
        }

    # Files.

    def stream(self, id: str, said: dict[str, Any]) -> None:
        """Take what the file stream of a run brings."""
        with self.lock:
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

    def _manifest(self, artifact: str) -> dict[str, Any]:
        path = f"{self.url}/storage/manifest/{artifact}"
        file = {"id": path, "uploadUrl": path, "uploadHeaders": [], "directUrl": path}
        return {"id": f"M{artifact}", "file": file}

    def _run(self, run: dict[str, Any]) -> dict[str, Any]:
        steps = [json.loads(line)["_step"] for line in run["history"][-1:]]
        return {
            "id": base64.b64encode(f"Run:v1:{run['name']}:p:team".encode()).decode(),
            "projectId": "1",
            "name": run["name"],
            "displayName": run.get("display"),
            "description": None,
            "sweepName": None,
            "state": run["state"],
            "config": json.dumps(run["config"]),
            "group": run.get("group"),
            "jobType": run.get("job"),
            "commit": None,
            "readOnly": False,
            "createdAt": run["created"],
            "heartbeatAt": run["beat"],
            "notes": run["notes"],
            "tags": run["tags"],
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(run["summary"]),
            "historyLineCount": len(run["history"]),
            "user": {"name": "u", "username": "u"},
            "historyKeys": {"lastStep": steps[-1] if steps else -1, "keys": {}, "sets": []},
        }

    def _artifact(self, artifact: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "internalId": "1", "name": "churn", "entity": {"name": "team"}}
        sequence = {
            "__typename": "ArtifactSequence",
            "id": "S",
            "name": artifact["collection"],
            "project": project,
        }
        return {
            "__typename": "Artifact",
            "id": artifact["id"],
            "artifactSequence": sequence,
            "versionIndex": artifact["index"],
            "artifactType": {"name": artifact["type"]},
            "description": artifact["description"],
            "metadata": artifact["metadata"],
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
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
            "aliases": [
                {
                    "__typename": "ArtifactAlias",
                    "id": alias,
                    "alias": alias,
                    "artifactCollectionName": artifact["collection"],
                    "artifactCollection": sequence,
                }
                for alias in artifact["aliases"]
            ],
        }


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _say(self, code: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _refused(self) -> bool:
            if server.down:
                self._say(503, b"down")
            return server.down

        def do_POST(self) -> None:
            body = self._body()
            if self._refused():
                return
            given = base64.b64decode(self.headers.get("Authorization", "").partition(" ")[2])
            if self.path == "/graphql" and given != f"api:{KEY}".encode():
                self._say(401, b'{"errors": [{"message": "no such key"}]}')
            elif self.path == "/graphql":
                said = json.loads(body)
                name = said.get("operationName") or _name_of(said["query"])
                try:
                    answer = {"data": server.answer(name, said.get("variables") or {})}
                except LookupError as exc:
                    answer = {"data": None, "errors": [{"message": str(exc)}]}
                self._say(200, json.dumps(answer).encode())
            elif self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body))
                if server.drop:
                    server.drop -= 1
                    self.close_connection = True
                    self.connection.close()
                    return
                self._say(200, b"{}")
            else:
                self._say(200, b"{}")

        def do_PUT(self) -> None:
            body = self._body()
            if not self._refused():
                server.files[unquote(self.path)] = body
                digest = hashlib.md5(body).digest()
                if self.path.startswith("/storage/blob/"):
                    server.files[f"md5:{digest.hex()}"] = body
                self._say(200, b"")

        def do_GET(self) -> None:
            if self._refused():
                return
            path = unquote(self.path)
            parts = path.split("/")
            if parts[1].startswith("artifacts"):  # .../<md5 in hex>[/<name>]
                found = next(
                    (
                        server.files.get(f"md5:{part}")
                        for part in parts
                        if f"md5:{part}" in server.files
                    ),
                    None,
                )
            else:
                found = server.files.get(path)
            if found is None:
                self._say(404, b"no such file")
            else:
                self._say(200, found, "application/octet-stream")

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


# Operations that ask for less than another one.
_LIKE = {
    "GetDefaultEntity": "Viewer",
    "GetViewer": "Viewer",
    "RunHistoryKeys": "Run",
    "RunState": "Run",
}
_VIEWER = {
    "id": "u",
    "entity": "team",
    "username": "u",
    "email": "u@example.org",
    "flags": "{}",
    "admin": False,
    "teams": {"edges": []},
}


def _name_of(query: str) -> str:
    words = query.replace("(", " ").replace("{", " ").split()
    return words[[word in ("query", "mutation") for word in words].index(True) + 1]


def _decoded(id: str) -> str:
    return base64.b64decode(id).decode().split(":")[2]


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _matches(run: dict[str, Any], wanted: dict[str, Any]) -> bool:
    for key, value in wanted.items():
        if key == "$and":
            if not all(_matches(run, each) for each in value):
                return False
            continue
        if key.startswith("config."):
            held = run["config"].get(key.removeprefix("config."), {}).get("value")
        else:
            held = run.get(key)
        if isinstance(value, dict):
            if held not in value["$in"]:
                return False
        elif held != value:
            return False
    return True
