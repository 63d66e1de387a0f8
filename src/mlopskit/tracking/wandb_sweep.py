"""W&B's own sweeps: its server chooses, its agent asks, and the objective runs here.

The agent is a process of its own: it sets variables of the environment and ends W&B's service
before each trial, which would take the runs of this process with it. What it is told to try, it
tells us; what the objective reports, we tell it. W&B's run of a trial has the params and the
metric, by which its server searches; all that the objective logs goes to the run of ours.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from mlopskit.errors import BackendError, InvalidInput
from mlopskit.tracking.sweep_methods import Hyperband
from mlopskit.tracking.sweep_space import Categorical, Fixed, Integer, LogUniform, Uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.sweep_run import Wanted
    from mlopskit.tracking.sweep_space import Domain, Point
    from mlopskit.tracking.sweep_trials import Outcome

METHODS: Final = {"tpe": "bayes", "random": "random", "grid": "grid"}
AGENT: Final = "mlopskit.tracking.wandb_agent"
LONGEST_ERROR: Final = 2000


def config_of(wanted: Wanted, name: str) -> dict[str, Any]:
    """Return what ``wandb.sweep`` takes.

    Raises:
        InvalidInput: If W&B cannot search it exactly; the message names the parameter.
    """
    domains = wanted.space.domains
    config: dict[str, Any] = {
        "name": name,
        "method": METHODS[wanted.sampler],
        "metric": {"name": wanted.metric, "goal": wanted.direction},
        "parameters": {each: _parameter(each, domain) for each, domain in domains.items()},
    }
    if isinstance(wanted.pruning, Hyperband):
        config["early_terminate"] = {
            "type": "hyperband",
            "min_iter": wanted.pruning.min_steps,
            "eta": wanted.pruning.factor,
        }
    elif wanted.pruning is not None:
        raise InvalidInput("W&B's own sweeps prune by Hyperband only.")
    return config


def check_online(tracker: Tracker) -> None:
    """Refuse a tracker that has no server of W&B's.

    Raises:
        InvalidInput: If it is another tool's, or offline.
    """
    if getattr(tracker, "mode", None) != "online" or not tracker.target.startswith("wandb:"):
        raise InvalidInput(
            "engine='wandb' needs a tracker of W&B that is online; this one writes to "
            f"{tracker.target}."
        )


def point_of(domains: Mapping[str, Domain], given: Mapping[str, Any]) -> Point:
    """Return the coordinates of what W&B's server chose."""
    point: Point = {}
    for name, domain in domains.items():
        if isinstance(domain, Categorical):
            point[name] = _place(name, domain, given[name])
        elif isinstance(domain, Integer):
            point[name] = int(given[name])
        elif not isinstance(domain, Fixed):
            point[name] = float(given[name])
    return point


def _place(name: str, domain: Categorical, given: object) -> int:
    for at, each in enumerate(domain.choices):
        if _alike(each, given):
            return at
    raise BackendError(f"W&B's server chose {given!r} for {name!r}, which is none of its values.")


def _alike(one: object, other: object) -> bool:
    """Tell whether a server that writes JSON may take one value for the other: 1 for 1.0."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _check_choices(name: str, choices: Sequence[Any]) -> None:
    for at, one in enumerate(choices):
        for other in choices[:at]:
            if _alike(one, other):
                raise InvalidInput(
                    f"W&B's own sweeps cannot tell {other!r} from {one!r} in the parameter "
                    f"{name!r}; engine='optuna' can."
                )


def _parameter(name: str, domain: Domain) -> dict[str, Any]:
    match domain:
        case Uniform(low, high, None):
            return {"distribution": "uniform", "min": float(low), "max": float(high)}
        case LogUniform(low, high, None):
            return {"distribution": "log_uniform_values", "min": float(low), "max": float(high)}
        case Integer(low, high, 1, False):
            return {"distribution": "int_uniform", "min": low, "max": high}
        case Categorical(choices) if all(map(_plain, choices)):
            _check_choices(name, choices)
            return {"values": list(choices)}
        case Fixed(constant) if _plain(constant):
            return {"value": constant}
    raise InvalidInput(
        f"W&B's own sweeps cannot search the parameter {name!r} as {domain!r}; engine='optuna' can."
    )


def _plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # JSON has no other.
    return value is None or isinstance(value, bool | int | str)


class Agent:
    """W&B's agent, in a process of its own. A context manager, which ends it.

    Args:
        tracker: The W&B tracker, online.
        config: What ``wandb.sweep`` takes.
        sweep_id: The sweep to go on with; None for a new one.
        count: How many trials to ask for.

    Raises:
        BackendError: If the agent cannot begin.
    """

    def __init__(
        self, tracker: Tracker, config: Mapping[str, Any], sweep_id: str | None, count: int
    ) -> None:
        found: Any = tracker
        environment = {**os.environ, "WANDB_BASE_URL": found.base_url, "WANDB_SILENT": "true"}
        environment["WANDB_AGENT_DISABLE_FLAPPING"] = "true"
        if (key := getattr(found, "_api_key", None)) is not None:
            environment["WANDB_API_KEY"] = key
        folder = found.folder / "agents"
        folder.mkdir(parents=True, exist_ok=True)
        environment["WANDB_DIR"] = str(folder)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", AGENT, str(theirs_in), str(theirs_out)],
            pass_fds=(theirs_in, theirs_out),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out = os.fdopen(ours_out, "w", buffering=1)
        self._in = os.fdopen(ours_in, "rb", buffering=0)
        # `select.select` takes no descriptor above 1023, and a long program has many.
        self._heard = selectors.DefaultSelector()
        self._heard.register(self._in, selectors.EVENT_READ)
        self._stopped = False
        self._say(
            {
                "config": dict(config),
                "sweep_id": sweep_id,
                "count": count,
                "entity": found.entity,
                "project": found.project,
            }
        )
        try:
            self.sweep_id: str = self._hear()["sweep_id"]
        except BaseException:
            self.close()
            raise

    def run(self, each: Callable[[str, Mapping[str, Any], Agent], Outcome]) -> None:
        """Call back with the id of W&B's run and the params of each trial.

        Raises:
            BackendError: If the agent failed.
        """
        while "end" not in (said := self._hear()):
            if "run_id" not in said:
                continue  # That a trial which has ended meanwhile was to be stopped.
            self._stopped = False
            outcome = each(said["run_id"], said["params"], self)
            with suppress(BrokenPipeError):
                self._say({"code": int(outcome.state == "failed")})

    def log(self, values: Mapping[str, float]) -> None:
        """Log to W&B's run of the trial."""
        with suppress(BrokenPipeError):
            self._say({"log": dict(values)})

    @property
    def stopped(self) -> bool:
        """Whether W&B's server has given the trial up."""
        while not self._stopped and self._heard.select(0):
            self._stopped = "stopped" in self._hear()
        return self._stopped

    def close(self) -> None:
        """End the agent."""
        with suppress(BrokenPipeError):
            self._out.close()
        self._heard.close()
        self._in.close()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")

    def _hear(self) -> dict[str, Any]:
        line = self._in.readline()
        if not line:
            self._process.wait()
            said = self._process.stderr.read() if self._process.stderr is not None else ""
            raise BackendError(f"W&B's agent has ended: {said[-LONGEST_ERROR:].strip()}")
        message: dict[str, Any] = json.loads(line)
        return message


class Judge:
    """W&B's server, which hears what a trial reports."""

    def __init__(self, agent: Agent, metric: str) -> None:
        self._agent = agent
        self._metric = metric
        self.reported: dict[int, float] = {}

    def report(self, value: float, step: int) -> None:
        """Hear of a value on the way."""
        self.reported[step] = value
        self._agent.log({self._metric: value, "step": step})

    def should_prune(self) -> bool:
        """Tell whether the server has given the trial up."""
        return self._agent.stopped
