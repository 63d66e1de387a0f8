"""W&B's sweep files, read as they are.

What a file says is what a sweep is given. What our search cannot honour is refused by its name, so
that no file means something else here than it does there.
See https://docs.wandb.ai/guides/sweeps/sweep-config-keys
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency, NotFound
from mlopskit.tracking.sweep_methods import Hyperband
from mlopskit.tracking.sweep_space import (
    Categorical,
    Fixed,
    Integer,
    LogUniform,
    Normal,
    Space,
    Uniform,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.tracking.sweep_methods import Direction, Sampler
    from mlopskit.tracking.sweep_space import Plain

METHODS: Final[dict[str, Sampler]] = {"bayes": "tpe", "random": "random", "grid": "grid"}
GOALS: Final[dict[str, Direction]] = {"minimize": "minimize", "maximize": "maximize"}
# What only says how W&B shows or places a sweep changes nothing here.
SHOWN: Final = {"description", "entity", "project", "apiVersion", "kind"}
READ: Final = {
    *("method", "metric", "parameters", "early_terminate", "run_cap", "name", "program", "command"),
}
MOST_BANDS: Final = 64


@dataclass(frozen=True, slots=True)
class SweepFile:
    """What a sweep file says.

    Attributes:
        space: What each param may be.
        sampler: ``method``; W&B's ``bayes`` is our ``tpe``.
        direction: ``metric.goal``, ``minimize`` if left out.
        metric: ``metric.name``, ``value`` if left out.
        pruning: ``early_terminate``.
        n_trials: ``run_cap``; None where the file has no cap.
        name: The sweep's, or None.
        program: The file that a trial runs, or None.
        command: How it is run, in words such as ``${program}`` and ``${args}``; empty if left out.
    """

    space: Mapping[str, Plain]
    sampler: Sampler
    direction: Direction = "minimize"
    metric: str = "value"
    pruning: Hyperband | None = None
    n_trials: int | None = None
    name: str | None = None
    program: str | None = None
    command: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """Return what `run_sweep` takes beside the tracker and the objective."""
        said = {
            "space": self.space,
            "n_trials": self.n_trials,
            "sampler": self.sampler,
            "direction": self.direction,
            "metric": self.metric,
            "pruning": self.pruning,
        }
        return said if self.name is None else {**said, "name": self.name}


def read_sweep_file(path: str | Path) -> SweepFile:
    """Read a W&B sweep file.

    Raises:
        NotFound: If there is no such file.
        InvalidInput: If it cannot be read, or says what cannot be honoured; the message names it.
        MissingDependency: If PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - only who reads such a file needs it
    except ImportError as exc:
        raise MissingDependency(
            "Reading a sweep file", "pyyaml", "pip install 'mlopskit[sweeps]'"
        ) from exc
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise NotFound("sweep file", str(path)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"The sweep file {str(path)!r} cannot be read: {exc}.") from exc
    try:
        return read_sweep(yaml.safe_load(text))
    except yaml.YAMLError as exc:
        raise InvalidInput(f"The sweep file {str(path)!r} is no YAML: {exc}") from exc


def read_sweep(config: Any) -> SweepFile:
    """Read what a W&B sweep file holds, as ``wandb.sweep`` takes it.

    Raises:
        InvalidInput: If it says what cannot be honoured; the message names it.
    """
    said = _mapping("The sweep", config)
    _known("the sweep", said, READ | SHOWN)
    method = said.get("method")
    if method not in METHODS:
        raise _refusal("method", method, f"it may be {', '.join(METHODS)}")
    parameters = _mapping("parameters", said.get("parameters"))
    space = {str(name): _domain(str(name), each) for name, each in parameters.items()}
    Space(space)
    metric = _mapping("metric", said.get("metric", {}))
    _known("metric", metric, {"name", "goal"})
    goal = metric.get("goal", "minimize")
    if goal not in GOALS:
        raise _refusal(
            "metric.goal", goal, f"it may be {', '.join(GOALS)}; a target is not supported"
        )
    if method == "bayes" and "name" not in metric:
        raise _refusal("metric.name", None, "the method bayes needs one")
    name, program = said.get("name"), said.get("program")
    return SweepFile(
        space=space,
        sampler=METHODS[method],
        direction=GOALS[goal],
        metric=str(metric.get("name", "value")),
        pruning=_pruning(said.get("early_terminate")),
        n_trials=_whole("run_cap", said["run_cap"]) if "run_cap" in said else None,
        name=None if name is None else str(name),
        program=None if program is None else str(program),
        command=_command(said.get("command")),
    )


def _domain(name: str, given: Any) -> Plain:
    said = _mapping(f"parameters.{name}", given)
    where = f"parameters.{name}"
    if "parameters" in said:
        raise _refusal(f"{where}.parameters", "a nested space", "write its params side by side")
    if "probabilities" in said:
        _check_even(where, said)
        said = {key: each for key, each in said.items() if key != "probabilities"}
    distribution = said.get("distribution") or _guessed(where, said)
    if distribution not in DISTRIBUTIONS:
        raise _refusal(
            f"{where}.distribution", distribution, f"it may be {', '.join(DISTRIBUTIONS)}"
        )
    make, keys = DISTRIBUTIONS[distribution]
    _known(where, said, {"distribution", *keys})
    try:
        return make(said)
    except KeyError as exc:
        raise InvalidInput(
            f"{where} of the sweep file is a {distribution} and lacks {exc.args[0]!r}."
        ) from None
    except (TypeError, ValueError, ArithmeticError) as exc:
        raise InvalidInput(
            f"{where} of the sweep file is {dict(said)!r}, which is no {distribution}: {exc}."
        ) from exc


def _check_even(where: str, said: Mapping[str, Any]) -> None:
    """Take probabilities that say what is so without them."""
    given, values = said["probabilities"], said.get("values")
    whole = isinstance(given, list) and isinstance(values, list) and len(given) == len(values)
    if not whole or any(each != given[0] for each in given):
        raise _refusal(f"{where}.probabilities", given, "every value is as likely here")


def _guessed(where: str, said: Mapping[str, Any]) -> str:
    """Say which distribution W&B takes where none is named."""
    if "values" in said:
        return "categorical"
    if "value" in said:
        return "constant"
    if "min" in said and "max" in said:
        whole = all(type(said[end]) is int for end in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise _refusal(where, dict(said), "it has neither value, values, nor min and max")


def _uniform(said: Mapping[str, Any]) -> Plain:
    return Uniform(_number(said["min"]), _number(said["max"]))


def _q_uniform(said: Mapping[str, Any]) -> Plain:
    """W&B rounds to multiples of q; the first and the last of them are the ends."""
    q = Decimal(str(_number(said.get("q", 1))))
    low, high = (
        float((Decimal(str(_number(said[end]))) / q).quantize(Decimal(1), ROUND_HALF_EVEN) * q)
        for end in ("min", "max")
    )
    return Uniform(low, high, step=float(q))


def _log_uniform(said: Mapping[str, Any]) -> Plain:
    """The ends are exponents of e."""
    return LogUniform(math.exp(_number(said["min"])), math.exp(_number(said["max"])), _q(said))


def _log_uniform_values(said: Mapping[str, Any]) -> Plain:
    return LogUniform(_number(said["min"]), _number(said["max"]), _q(said))


def _inv_log_uniform(said: Mapping[str, Any]) -> Plain:
    """The logarithm of one through the value is uniform between the ends."""
    return LogUniform(math.exp(-_number(said["max"])), math.exp(-_number(said["min"])))


def _normal(said: Mapping[str, Any]) -> Plain:
    return Normal(_number(said.get("mu", 0.0)), _number(said.get("sigma", 1.0)), _q(said))


def _log_normal(said: Mapping[str, Any]) -> Plain:
    mu, sigma = _number(said.get("mu", 0.0)), _number(said.get("sigma", 1.0))
    return Normal(mu, sigma, _q(said), log=True)


def _q(said: Mapping[str, Any]) -> float | None:
    """Return what the values are rounded to: 1 where a quantised distribution does not say."""
    if not str(said.get("distribution", "")).startswith("q_"):
        return None
    return _number(said.get("q", 1))


def _number(value: Any) -> float:
    # YAML reads 1e-3 as a text, and so W&B takes it for a number.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _integer(said: Mapping[str, Any]) -> Plain:
    return Integer(_int(said["min"]), _int(said["max"]))


def _int(value: Any) -> Any:
    """Return the int that W&B takes a float or a text for; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        return int(value)
    return value


def _whole(what: str, value: Any) -> int:
    value = _int(value)
    if type(value) is not int or value < 1:
        raise _refusal(what, value, "it must be an int from 1 on")
    return value


DISTRIBUTIONS: Final[dict[str, tuple[Callable[[Mapping[str, Any]], Plain], set[str]]]] = {
    "constant": (lambda said: Fixed(said["value"]), {"value"}),
    "categorical": (lambda said: Categorical(said["values"]), {"values"}),
    "int_uniform": (_integer, {"min", "max"}),
    "uniform": (_uniform, {"min", "max"}),
    "q_uniform": (_q_uniform, {"min", "max", "q"}),
    "log_uniform": (_log_uniform, {"min", "max"}),
    "log_uniform_values": (_log_uniform_values, {"min", "max"}),
    "q_log_uniform": (_log_uniform, {"min", "max", "q"}),
    "q_log_uniform_values": (_log_uniform_values, {"min", "max", "q"}),
    "inv_log_uniform": (_inv_log_uniform, {"min", "max"}),
    "inv_log_uniform_values": (_log_uniform_values, {"min", "max"}),
    "normal": (_normal, {"mu", "sigma"}),
    "q_normal": (_normal, {"mu", "sigma", "q"}),
    "log_normal": (_log_normal, {"mu", "sigma"}),
    "q_log_normal": (_log_normal, {"mu", "sigma", "q"}),
}


def _pruning(given: Any) -> Hyperband | None:
    if given is None:
        return None
    said = _mapping("early_terminate", given)
    if said.get("type") != "hyperband":
        raise _refusal("early_terminate.type", said.get("type"), "it may be hyperband")
    _known("early_terminate", said, {"type", "min_iter", "max_iter", "s", "eta"})
    eta = _whole("early_terminate.eta", said.get("eta", 3))
    if eta < 2:
        raise _refusal("early_terminate.eta", eta, "it must be 2 or more")
    if "min_iter" in said:
        least = _whole("early_terminate.min_iter", said["min_iter"])
        return Hyperband(least, max(_most(said, least, eta), least), eta)
    if "max_iter" not in said:
        raise _refusal("early_terminate", dict(said), "it needs min_iter or max_iter")
    # W&B has s brackets, the first of which ends at max_iter / eta ** s.
    most = _whole("early_terminate.max_iter", said["max_iter"])
    s = _whole("early_terminate.s", said.get("s", 1))
    if s > MOST_BANDS:
        raise _refusal("early_terminate.s", s, f"it may be {MOST_BANDS} at most")
    return Hyperband(max(1, most // eta**s), most, eta)


def _most(said: Mapping[str, Any], least: int, eta: int) -> int:
    """W&B names no last step beside min_iter; four rungs above it are as good as none."""
    if "max_iter" in said:
        return _whole("early_terminate.max_iter", said["max_iter"])
    return least * int(eta**4)


def _command(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise _refusal("command", given, "it must be a list of words")
    return tuple(str(word) for word in given)


def _mapping(what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} of the sweep file is {value!r}; it must be a mapping.")
    return value


def _known(what: str, said: Mapping[str, Any], known: set[str]) -> None:
    for key in said:
        if key not in known:
            raise _refusal(f"{key} of {what}", said[key], f"known are {', '.join(sorted(known))}")


def _refusal(what: str, value: Any, why: str) -> InvalidInput:
    return InvalidInput(f"The sweep file says {what}: {value!r}, which cannot be honoured: {why}.")
