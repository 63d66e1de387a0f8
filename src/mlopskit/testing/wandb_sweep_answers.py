"""What a stand-in for a W&B server answers about sweeps."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlopskit.testing.wandb_answers import VIEWER, Json, now, paged, typed
from mlopskit.testing.wandb_artifact_answers import ArtifactAnswers

if TYPE_CHECKING:
    import random


class SweepAnswers(ArtifactAnswers):
    """The answers about sweeps, beside those about runs and artifacts."""

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
        page = paged(found, given)
        return {"project": {"sweeps": page, "totalSweeps": len(found), **self._project("p")}}

    def on_Sweep(self, given: Json) -> Any:
        sweep = self.sweeps.get(given.get("name") or given.get("sweep") or "")
        return {"project": {"sweep": None if sweep is None else self._sweep(sweep)}}

    on_GetSweep = on_GetSweepLegacy = on_Sweep

    def _sweep(self, sweep: Json) -> Json:
        runs = [self._run(self.runs[each]) for each in sweep["runs"] if each in self.runs]
        return {
            **typed("Sweep", sweep["name"]),
            "displayName": None,
            "method": "random",
            "state": sweep["state"],
            "description": None,
            "config": sweep["config"],
            "bestLoss": None,
            "createdAt": now(),
            "updatedAt": now(),
            "runCount": len(runs),
            "runCountExpected": None,
            "priorRuns": None,
            "controller": None,
            "user": VIEWER,
            "runs": paged(runs, {}),
        }


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
