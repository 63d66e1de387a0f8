"""What a stand-in for a W&B server answers about runs, their histories and their files."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from mlopskit.testing.wandb_answers import ENTITY, VIEWER, Answers, Conflicting, Json, now, paged
from mlopskit.testing.wandb_filters import in_order, matches

if TYPE_CHECKING:
    from collections.abc import Sequence

_UPSERTED: Final = (
    ("displayName", "display"),
    ("groupName", "group"),
    ("jobType", "job"),
    ("notes", "notes"),
    ("tags", "tags"),
    ("sweep", "sweep"),
)


class RunAnswers(Answers):
    """The answers about runs."""

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
                "created": now(),
                "artifacts": [],
                "used": [],
                "sweep": given.get("sweep"),
                "files": set(),
            }
        run["beat"] = now()
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
        found = in_order([run for run in there if matches(run, wanted)], given.get("order") or "")
        page = paged([self._run(run) for run in found], given)
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
            nodes.append({**about, "sizeBytes": size, "mimetype": "", "updatedAt": now()})
        page = paged(nodes, {"cursor": given.get("fileCursor"), "perPage": given["fileLimit"]})
        about = {"fileCount": len(nodes), "files": page}
        return {"project": {"internalId": "1", "run": about}}

    # What an upload brings.

    def stream(self, id: str, said: Json) -> None:
        """Take what the file stream of a run brings; a part that comes again replaces itself."""
        run = self.runs[id]
        run["beat"] = now()
        files = said.get("files") or {}
        if "wandb-history.jsonl" in files:
            part = files["wandb-history.jsonl"]
            run["history"][part["offset"] :] = part["content"]
        if "wandb-summary.json" in files:
            run["summary"] = json.loads(files["wandb-summary.json"]["content"][-1])
        if said.get("complete"):
            run["state"] = "finished" if not said.get("exitcode") else "failed"

    # How things look.

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
            "user": VIEWER,
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


def _thin(rows: Sequence[Json], samples: int) -> list[Json]:
    if len(rows) <= samples:
        return list(rows)
    return [rows[at * len(rows) // samples] for at in range(samples)]


def _encoded(run: Json) -> str:
    said = f"Run:v1:{run['name']}:{run['project']}:{ENTITY}"
    return base64.b64encode(said.encode()).decode()


def _decoded(id: str) -> str:
    return base64.b64decode(id).decode().split(":")[2]
