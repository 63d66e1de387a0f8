"""Sweeps: many trials of one objective, each a run of its own, over a space of params.

The search is Optuna's, asked and told (Akiba et al., KDD 2019); this module gives every trial its
run, keeps all that a search needs in these runs, and takes a sweep that was cut off up again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from mlopskit.errors import Conflict, InvalidInput
from mlopskit.names import check_label
from mlopskit.storage import make_private_folder
from mlopskit.tracking import sweep_search
from mlopskit.tracking.progress import bar
from mlopskit.tracking.ranks import several, this_rank
from mlopskit.tracking.sweep_methods import (
    Hyperband,
    MedianPruning,
    check_direction,
    check_pruning,
    check_sampler,
)
from mlopskit.tracking.sweep_result import SweepResult
from mlopskit.tracking.sweep_run import Sweep, Wanted
from mlopskit.tracking.sweep_space import (
    Categorical,
    Domain,
    Fixed,
    Integer,
    LogUniform,
    Normal,
    Space,
    Uniform,
    When,
)
from mlopskit.tracking.sweep_trials import (
    Done,
    Trial,
    TrialPruned,
)
from mlopskit.tracking.values import same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.sweep_methods import Direction, Pruning, Sampler
    from mlopskit.tracking.sweep_remote import Client

__all__ = [
    "Categorical",
    "Domain",
    "Done",
    "Fixed",
    "Hyperband",
    "Integer",
    "LogUniform",
    "MedianPruning",
    "Normal",
    "SweepResult",
    "Trial",
    "TrialPruned",
    "Uniform",
    "When",
    "run_sweep",
]

logger = logging.getLogger(__name__)


def run_sweep(
    tracker: Tracker,
    objective: Callable[[Trial], Any],
    space: Mapping[str, Domain],
    n_trials: int | None = None,
    *,
    name: str | None = None,
    experiment: str | None = None,
    direction: Direction = "minimize",
    metric: str = "value",
    sampler: Sampler = "tpe",
    pruning: Pruning | str | None = None,
    seed: int | None = None,
    workers: int = 1,
    engine: Literal["optuna", "wandb"] = "optuna",
    client: Client | None = None,
    reopen: Callable[[], Tracker] | None = None,
    resume: bool = True,
    progress: bool = False,
) -> SweepResult:
    """Search a space for the params of the best value; every trial is a run, child of one.

    An objective that raises or exits fails its trial, and the sweep goes on.

    Args:
        tracker: Where the runs go.
        objective: Is given a `Trial` and returns a number.
        space: What each param may be.
        n_trials: How many trials there are in the end, those of before counted. All points of a
            grid if left out.
        name: A sweep of that name, in that experiment, is taken up again; made up if left out.
        experiment: Of all the runs.
        direction: ``"minimize"`` or ``"maximize"``.
        metric: What the returned value is logged as.
        sampler: ``"tpe"`` (Bergstra et al., NIPS 2011), ``"random"`` or ``"grid"``.
        pruning: ``"median"``, ``"hyperband"``, a `MedianPruning` or a `Hyperband`; None for none.
        seed: The same seed gives the same trials, one at a time; made up if left out, and kept.
        workers: How many trials run side by side, in forked processes or by the client.
        engine: ``"wandb"`` lets W&B's server search, where the tracker is W&B's, online: one trial
            at a time, without conditions, steps and other scales, and not by the seed.
        client: Runs trials elsewhere: a client of Dask, or an executor of `concurrent.futures`.
            The objective has to be importable there, or something that it can pickle.
        reopen: Opens the tracker where a client runs a trial; picklable.
        resume: Whether a sweep of that name may be taken up.
        progress: Show a bar, on a terminal or in a notebook.

    Raises:
        InvalidInput: If the space or an option cannot be taken, or the program has several ranks;
            the message names it.
        MissingDependency: If Optuna is not installed.
        Conflict: If the sweep of that name searches otherwise, runs in another process, or must not
            be taken up.
        BackendError: If the client takes no more trials; those that ended are kept.
    """
    if not callable(objective):
        raise InvalidInput(
            f"The objective is {objective!r}; it has to be a function that takes a Trial and "
            "returns a number."
        )
    if several() and tracker.ranks == "first":
        raise InvalidInput(
            f"A sweep runs in one process, and this is rank {this_rank()} of several; only the "
            "first one logs. Sweep in a program of its own, whose objective starts the ranks."
        )
    with warnings.catch_warnings():
        # The bars of Optuna's own, which are not used here, miss a package of notebooks.
        warnings.filterwarnings("ignore", "IProgress not found")
        sweep_search.load()
    wanted = Wanted(
        space=Space(space),
        sampler=check_sampler(sampler),
        pruning=check_pruning(pruning),
        direction=check_direction(direction),
        metric=check_label("metric", metric),
        engine=engine,
    )
    if type(workers) is not int or workers < 1:
        raise InvalidInput(f"workers is {workers!r}; it must be 1 or more.")
    if engine not in ("optuna", "wandb"):
        raise InvalidInput(f"The engine is {engine!r}; it may be 'optuna' or 'wandb'.")
    if engine == "wandb" and (workers > 1 or client is not None):
        raise InvalidInput("engine='wandb' runs one trial at a time: leave workers and client out.")
    if engine == "wandb" and seed is not None:
        raise InvalidInput(
            "engine='wandb' heeds no seed, since W&B's server chooses: leave it out."
        )
    if client is not None and reopen is None:
        raise InvalidInput("With a client the tracker has to be a line, which workers open too.")
    total = _total(wanted, n_trials)
    _check_seed(seed)
    _check_secrets(tracker, wanted.space)
    title = check_label("sweep", name) if name is not None else f"sweep-{secrets.token_hex(4)}"
    group = check_label("experiment", experiment if experiment is not None else "default")
    if engine == "wandb":
        from mlopskit.tracking import wandb_sweep  # noqa: PLC0415 - few have a server of W&B's

        wandb_sweep.config_of(wanted, title)
        wandb_sweep.check_online(tracker)
    with _alone(tracker, group, title) as let_go:
        sweep = Sweep(tracker, wanted, title, group, let_go)
        if client is not None and reopen is not None:
            sweep.elsewhere = client, reopen
        with bar("trials", asked=progress) as sweep.shown:
            return sweep.run(objective, total, seed=seed, workers=workers, resume=resume)


@contextmanager
def _alone(tracker: Tracker, experiment: str, name: str) -> Iterator[Callable[[], None]]:
    """Be the only process that runs this sweep.

    Yields:
        What a forked child calls: it must not hold the lock of a parent that dies.

    Raises:
        Conflict: If another process does.
    """
    folder = tracker.context.home / "tracking" / "sweeps"
    make_private_folder(folder)
    digest = hashlib.sha256(json.dumps([tracker.target, experiment, name]).encode()).hexdigest()
    fd = os.open(folder / f"{digest[:32]}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"The sweep {name!r} of the experiment {experiment!r} is running already, in "
                "another process or thread."
            ) from None
        yield lambda: os.close(fd)
    finally:
        os.close(fd)


def _total(wanted: Wanted, n_trials: int | None) -> int:
    if n_trials is not None and (type(n_trials) is not int or n_trials < 1):
        raise InvalidInput(f"n_trials is {n_trials!r}; it must be 1 or more.")
    if wanted.sampler == "grid":
        size = len(wanted.space.grid())
        return size if n_trials is None else min(size, n_trials)
    if n_trials is None:
        raise InvalidInput(f"sampler={wanted.sampler!r} goes on for ever: say n_trials.")
    return n_trials


def _check_seed(seed: object) -> None:
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**53):
        raise InvalidInput(f"The seed is {seed!r}; it must be an int from 0 to 2**53.")


def _check_secrets(tracker: Tracker, space: Space) -> None:
    """Refuse params that would not be kept: a sweep could not be taken up again."""
    for name, values in space.constants().items():
        if not same(tracker.context.redactor.value({name: values}), {name: values}):
            raise InvalidInput(
                f"The parameter {name!r} of the sweep looks like a secret, and secrets are not "
                "kept. Give it another name."
            )
