"""Chronicles in MLflow: the params of one run for each model.

MLflow has no transactions for its clients, but a param is written once: the store refuses another
value for a key that a run has, by a primary key of its database. So of several writers of the next
entry one succeeds.

The experiment `EXPERIMENT` has a run for each model, and one that is the index: its params name the
run of each model. A tag of the experiment names the index.
"""

from __future__ import annotations

import random
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mlflow.entities import Param, ViewType
from mlflow.exceptions import MlflowException

from mlopskit.errors import BackendError
from mlopskit.mlflow_stores import REFUSED
from mlopskit.registry.texts import Chronicle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient
    from mlflow.entities import Experiment as MlflowExperiment
    from mlflow.entities import Run as MlflowRun

    T = TypeVar("T")

EXPERIMENT: Final = "mlopskit.registry"
INDEX: Final = "mlopskit.registry.index"
MODEL: Final = "mlopskit.registry.model"
ALL: Final = "where the histories of all models are"
LONGEST: Final = 6000
PARTS: Final = 50  # In one request, which may have a million bytes.
PAGE: Final = 100
LOCKED: Final = "database is locked"
LOCKED_TRIES: Final = 20


class MlflowChronicle(Chronicle):
    """Keeps chronicles in MLflow.

    Args:
        actor: Who adds to them.
        client: Returns MLflow's client, after seeing that it answers.
        asking: Translates what MLflow raises.
        place: Where the files of all models are kept, if not where MLflow keeps those of new
            experiments.
    """

    def __init__(
        self,
        actor: str,
        client: Callable[[], MlflowClient],
        asking: Callable[[], AbstractContextManager[None]],
        place: str | None = None,
    ) -> None:
        super().__init__(actor)
        self._client = client
        self._asking = asking
        self._place = place
        self._experiment_id: str | None = None
        self._index: str | None = None
        self._runs: dict[str, str] = {}
        self._roots: dict[str, str] = {}

    def root(self, name: str) -> tuple[str, str]:
        """Return the run of a model and the address of its files; the run is made if need be."""
        with self._asking():
            run = self._run_of(name) or self._make_run(name)
            if name not in self._roots:
                self._roots[name] = str(self._client().get_run(run).info.artifact_uri)
        return run, self._roots[name]

    def roots(self) -> dict[str, str]:
        """Return the address of the files of every model that has a run."""
        with self._asking():
            return {name: str(run.info.artifact_uri) for name, run in self._all_runs().items()}

    def _texts(self, name: str) -> list[str]:
        with self._asking():
            run = self._run_of(name)
            return [] if run is None else _texts(name, self._run(run, _history(name)).data.params)

    def _all_texts(self) -> dict[str, list[str]]:
        with self._asking():
            return {name: _texts(name, run.data.params) for name, run in self._all_runs().items()}

    def _put(self, name: str, place: int, text: str) -> bool:
        with self._asking():
            run = self._run_of(name) or self._make_run(name)
            with self._writing(run, _history(name)):
                if len(text) > LONGEST:
                    text = self._parts(run, text)
                return self._write_once(run, f"h.{place:08d}", text)

    def _run(self, run: str, what: str) -> MlflowRun:
        """Return a run that must be there, since it holds something."""
        try:
            return self._client().get_run(run)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise BackendError(
                f"The run {run} of MLflow, which held {what}, is gone, by 'mlflow gc' or with the "
                "experiment. Restore MLflow's database from a copy."
            ) from exc

    @contextmanager
    def _writing(self, run: str, what: str) -> Iterator[None]:
        """Say how a deleted run is restored, into which MLflow writes no more."""
        try:
            yield
        except MlflowException as exc:
            if exc.error_code not in REFUSED:
                raise
            if self._run(run, what).info.lifecycle_stage == "active":
                raise
            raise BackendError(
                f"The run {run} of MLflow, which holds {what}, was deleted. "
                f"Restore it with 'mlflow runs restore --run-id {run}'."
            ) from exc

    def _parts(self, run: str, text: str) -> str:
        """Write a long text in parts that nobody reads yet, and return what stands for it."""
        own = secrets.token_hex(8)
        parts = [text[begin : begin + LONGEST] for begin in range(0, len(text), LONGEST)]
        params = [Param(f"p.{own}.{number:06d}", part) for number, part in enumerate(parts)]
        for begin in range(0, len(params), PARTS):
            some = params[begin : begin + PARTS]
            patiently(lambda some=some: self._client().log_batch(run, params=some))  # type: ignore[misc]
        return f"~{own}.{len(parts)}"

    def _write_once(self, run: str, key: str, value: str) -> bool:
        """Write a param that nobody has written; tell whether it has this value now."""
        try:
            patiently(lambda: self._client().log_param(run, key, value))
        except MlflowException as exc:
            if exc.error_code not in REFUSED:
                raise
            stands = self._client().get_run(run).data.params.get(key)
            if stands is None:
                raise
            return bool(stands == value)
        return True

    # Where the runs are.

    def _run_of(self, name: str) -> str | None:
        if name not in self._runs:
            index = self._find_index()
            if index is not None:
                self._runs = self._indexed(index)
        return self._runs.get(name)

    def _indexed(self, index: str) -> dict[str, str]:
        """Return the run of every model, by name."""
        return dict(self._run(index, ALL).data.params)

    def _make_run(self, name: str) -> str:
        index = self._find_index() or self._make_index()
        client = self._client()
        made = self._make_finished(str(self._experiment_id), name, {MODEL: name})
        with self._writing(index, ALL):
            if self._write_once(index, name, made):
                self._runs[name] = made
                return made
        patiently(lambda: client.delete_run(made))  # Another was quicker.
        self._runs = self._indexed(index)
        return self._runs[name]

    def _make_finished(self, experiment: str, name: str, tags: dict[str, str]) -> str:
        client = self._client()
        made = patiently(lambda: client.create_run(experiment, tags=tags, run_name=name))
        run = str(made.info.run_id)
        # `set_terminated` would print an address.
        patiently(lambda: client.update_run(run, status="FINISHED"))
        return run

    def _all_runs(self) -> dict[str, MlflowRun]:
        """Return the run of every model, by name, with its params."""
        index = self._find_index()
        if index is None:
            return {}
        self._runs = self._indexed(index)
        there = {
            run.info.run_id: run
            for run in all_pages(
                lambda token: self._client().search_runs(
                    [str(self._experiment_id)],
                    run_view_type=ViewType.ALL,
                    max_results=PAGE,
                    page_token=token,
                )
            )
        }
        return {
            name: there.get(run) or self._run(run, _history(name))
            for name, run in self._runs.items()
        }

    def _find_index(self) -> str | None:
        if self._index is None:
            found = self._client().get_experiment_by_name(EXPERIMENT)
            if found is None:
                return None
            self._experiment_id = found.experiment_id
            self._index = _index_of(found)
        return self._index

    def _make_index(self) -> str:
        """Make the experiment with its index, and give it its name, which only one can have."""
        client = self._client()
        own = f"{EXPERIMENT} {secrets.token_hex(8)}"
        temporary = patiently(lambda: client.create_experiment(own, artifact_location=self._place))
        run = self._make_finished(temporary, "index", {})
        patiently(lambda: client.set_experiment_tag(temporary, INDEX, run))
        try:
            patiently(lambda: client.rename_experiment(temporary, EXPERIMENT))
        except MlflowException:
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:  # It may be renamed yet, and stays.
                raise
            if found.experiment_id != temporary:  # Else it was renamed, and the answer lost.
                with suppress(MlflowException):
                    client.delete_experiment(temporary)
        return self._find_index() or run


def patiently(ask: Callable[[], T]) -> T:
    """Ask again while MLflow's database says that others are writing."""
    for number in range(LOCKED_TRIES):
        try:
            return ask()
        except MlflowException as exc:
            if LOCKED not in str(exc):
                raise
            time.sleep(random.uniform(0, min(1.0, 0.05 * 2**number)))  # noqa: S311 - no secret
    return ask()


def all_pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """Return what is on all pages of an answer of MLflow's."""
    found: list[Any] = []
    token = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


def _history(name: str) -> str:
    return f"what happened to {name!r}"


def _texts(name: str, params: Mapping[str, str]) -> list[str]:
    """Return the texts that the params of a run hold, in their order."""
    keys = sorted(key for key in params if key.startswith("h."))
    if keys and keys[-1] != f"h.{len(keys):08d}":
        raise BackendError(f"The chronicle of {name!r} in MLflow has lost an entry.")
    return [_whole(name, params, params[key]) for key in keys]


def _whole(name: str, params: Mapping[str, Any], text: str) -> str:
    if not text.startswith("~"):
        return text
    own, _, count = text[1:].partition(".")
    try:
        return "".join(params[f"p.{own}.{number:06d}"] for number in range(int(count)))
    except KeyError as exc:
        raise BackendError(
            f"The chronicle of {name!r} in MLflow has lost a part of an entry: {exc}"
        ) from exc


def _index_of(experiment: MlflowExperiment) -> str:
    if experiment.lifecycle_stage != "active":
        raise BackendError(
            f"The experiment {EXPERIMENT!r} was deleted in MLflow, and with it what mlopskit's "
            "registry knows. Restore it with "
            f"'mlflow experiments restore -x {experiment.experiment_id}'."
        )
    if INDEX not in experiment.tags:
        raise BackendError(
            f"MLflow has an experiment {EXPERIMENT!r} that mlopskit's registry did not make. "
            "Rename it: the registry needs the name."
        )
    return str(experiment.tags[INDEX])
