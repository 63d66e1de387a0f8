"""A kit: the configured tool of each domain, opened when it is first used."""

from __future__ import annotations

import inspect
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

from mlopskit import config, plugins
from mlopskit.errors import ConfigError, UnknownOption
from mlopskit.redaction import Redactor
from mlopskit.tool import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from mlopskit.config import Line, Settings
    from mlopskit.features.base import FeatureStore
    from mlopskit.monitoring.base import DriftDetector
    from mlopskit.pipelines.base import Runner
    from mlopskit.registry.base import Registry
    from mlopskit.serving.base import Server
    from mlopskit.tool import Tool
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import RunRecord
    from mlopskit.tracking.snapshot import Source
    from mlopskit.tracking.sweep_result import SweepResult
    from mlopskit.tracking.sweep_space import Domain
    from mlopskit.tracking.sweep_trials import Trial
    from mlopskit.tracking.transfer import Told, TransferReport

    Flavors = Callable[[], Mapping[str, Any]]

MAKERS: Final = {
    "tracking": "make_tracker",
    "registry": "make_registry",
    "serving": "make_server",
    "features": "make_feature_store",
    "monitoring": "make_drift_detector",
    "pipelines": "make_runner",
}


class BestModel(NamedTuple):
    """A run, the name of a model that it logged, and that model, loaded."""

    run: RunRecord
    name: str
    model: Any


class Kit:
    """The tools of one configuration. Each is opened at its first use, and closed with the kit.

    ``Kit(tracking="mlflow:sqlite:///m.db")`` reads no file and no environment: it is for a library
    that embeds mlopskit. `load` makes one from the configuration.

    Args:
        lines: A config line for each domain that should not be ``local``, and ``home``.

    Raises:
        ConfigError: If a line cannot be read.
    """

    def __init__(self, **lines: Any) -> None:
        self._begin(config.only(lines))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make a kit of settings that were read before."""
        kit = cls.__new__(cls)
        kit._begin(settings)
        return kit

    def _begin(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._opened: dict[str, Tool] = {}
        self._flavors: Flavors = cache(plugins.flavors)

    @property
    def home(self) -> Path:
        """The folder under which embedded backends keep their state."""
        return self.settings.home

    @property
    def tracker(self) -> Tracker:
        """The configured experiment tracker."""
        return cast("Tracker", self._tool("tracking"))

    @property
    def registry(self) -> Registry:
        """The configured model registry."""
        return cast("Registry", self._tool("registry"))

    @property
    def server(self) -> Server:
        """The configured model server."""
        return cast("Server", self._tool("serving"))

    @property
    def feature_store(self) -> FeatureStore:
        """The configured feature store."""
        return cast("FeatureStore", self._tool("features"))

    @property
    def drift_detector(self) -> DriftDetector:
        """The configured drift detector."""
        return cast("DriftDetector", self._tool("monitoring"))

    @property
    def runner(self) -> Runner:
        """The configured pipeline runner."""
        return cast("Runner", self._tool("pipelines"))

    def tool(self, domain: str) -> Tool:
        """Return the configured tool of a domain that is known only by name.

        Raises:
            UnknownOption: If there is no such domain.
        """
        if domain not in MAKERS:
            raise UnknownOption("domain", domain, MAKERS)
        return self._tool(domain)

    def close(self) -> None:
        """Close every tool that was opened, the last opened first. Closing twice is fine."""
        with self._lock:
            opened, self._opened = self._opened, {}
        with ExitStack() as stack:
            for tool in opened.values():
                stack.callback(tool.close)

    def _tool(self, domain: str) -> Tool:
        with self._lock:
            if domain not in self._opened:
                lines = self.settings.lines[domain]
                tool = _open(domain, lines, self.settings.home, self._flavors)
                if domain == "registry":
                    tool.context = replace(tool.context, fetch_model=self._fetch_model)
                self._opened[domain] = tool
            return self._opened[domain]

    def best_model(
        self,
        metric: str,
        *,
        name: str | None = None,
        higher_is_better: bool = True,
        experiment: str | None = None,
        where: str = "",
        trusted: bool = False,
    ) -> BestModel:
        """Return the run whose last value of a metric is best, and a model that it logged.

        Args:
            metric: The metric.
            name: Of the model in the run; left out where the run logged one only.
            higher_is_better: False for a loss.
            experiment: Only runs of this experiment.
            where: A filter, as `Tracker.search_runs` takes it.
            trusted: Whether to run code that the model's files may hold; see `Registry.load`.

        Raises:
            NotFound: If no run that matches has the metric, or it logged no such model.
            InvalidInput: If the run logged several models and no name is given.
            UntrustedModel: As `Registry.load` does.
        """
        from mlopskit.tracking.models import best_run, only_model  # noqa: PLC0415 - few ask

        run = best_run(
            self.tracker,
            metric,
            higher_is_better=higher_is_better,
            experiment=experiment,
            where=where,
        )
        model = name or only_model(self.tracker, run.id)
        loaded = self.registry.load(f"runs:/{run.id}/{model}", trusted=trusted)
        return BestModel(run, model, loaded)

    def _fetch_model(self, run_id: str, name: str, folder: Path) -> Mapping[str, Any]:
        from mlopskit.tracking.models import fetch_model  # noqa: PLC0415 - few registries ask

        return fetch_model(self.tracker, run_id, name, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        lines = ", ".join(
            f"{domain}={'+'.join(line.backend for line in lines)}"
            for domain, lines in self.settings.lines.items()
        )
        return f"<Kit {lines}>"


def load(path: str | Path | None = None, *, profile: str | None = None, **lines: Any) -> Kit:
    """Make a kit from the configuration in force.

    Args:
        path: A configuration file, or the folder where the search for one begins.
        profile: The profile to use instead of ``MLOPSKIT_PROFILE``.
        lines: Config lines by domain, and ``home``; they outrank everything else.

    Raises:
        ConfigError: If the configuration cannot be read, with its place.
    """
    return Kit.of(config.read(path, profile=profile, lines=lines))


def open_tracker(line: Any = None, *, require: Iterable[str] = (), **options: Any) -> Tracker:
    """Open one experiment tracker: the one of the line, or the configured one where there is none.

    Args:
        line: ``"<backend>"``, ``"<backend>:<location>"``, a table, or a list of these to fan out.
        require: Capabilities that the backend must have.
        options: The backend's options, laid over the line's.

    Raises:
        ConfigError: If the line, a backend or an option is unknown, or a package is missing.
        Unsupported: If a required capability is absent, with the backend's reason.
    """
    return cast("Tracker", _opened("tracking", line, require, options))


def open_registry(line: Any = None, *, require: Iterable[str] = (), **options: Any) -> Registry:
    """Open one model registry. Takes what `open_tracker` takes."""
    registry = cast("Registry", _opened("registry", line, require, options))
    registry.context = replace(registry.context, fetch_model=_fetch_configured)
    return registry


def open_server(line: Any = None, *, require: Iterable[str] = (), **options: Any) -> Server:
    """Open one model server, not yet started. Takes what `open_tracker` takes."""
    return cast("Server", _opened("serving", line, require, options))


def open_feature_store(
    line: Any = None, *, require: Iterable[str] = (), **options: Any
) -> FeatureStore:
    """Open one feature store. Takes what `open_tracker` takes."""
    return cast("FeatureStore", _opened("features", line, require, options))


def open_drift_detector(
    line: Any = None, *, require: Iterable[str] = (), **options: Any
) -> DriftDetector:
    """Open one drift detector. Takes what `open_tracker` takes."""
    return cast("DriftDetector", _opened("monitoring", line, require, options))


def open_runner(line: Any = None, *, require: Iterable[str] = (), **options: Any) -> Runner:
    """Open one pipeline runner. Takes what `open_tracker` takes."""
    return cast("Runner", _opened("pipelines", line, require, options))


def transfer(
    src: Any,
    dst: Any,
    where: str = "",
    *,
    experiment: str | None = None,
    verify: bool = True,
    replace: bool = False,
    told: Told | None = None,
    progress: bool = False,
) -> TransferReport:
    """Copy runs from one tracker to another: every point, param, tag, time, parent and file.

    May be repeated: what is there and equal is left alone, and what a kill or an outage cut short
    goes on. Nothing is half-written at the destination.

    Args:
        src: A tracker, a config line as `open_tracker` takes it, or the `Path` of a folder that
            `export_runs` made.
        dst: A tracker, or a config line.
        where: A filter, as `Tracker.search_runs` takes it.
        experiment: Only runs of this experiment.
        verify: Read every copy back and compare it with its source.
        replace: Delete a run of the same id that differs, where it would be refused.
        told: Is given how many runs are done, how many there are, and the run that comes next.
        progress: Show a bar, on a terminal or in a notebook.

    Raises:
        Conflict: If the destination has a run of the same id that differs, cannot have a run
            replaced, or is the source under another name; nothing is written.
        NotCopied: If a run cannot be read to its end; the rest is copied nevertheless.
        CopyDiffers: If a copy does not read back equal; the rest is copied nevertheless.
        NotFound: If the file or folder of the source does not exist; it is not made.
        Unavailable: If either end cannot be reached; call again to go on.
        InvalidInput: If the filter cannot be read, or a folder is no export.
        ConfigError: If a line is unknown, or a package is missing.
    """
    from mlopskit.tracking.base import Tracker  # noqa: PLC0415 - who opens a kit need not move runs
    from mlopskit.tracking.exported import ExportedRuns  # noqa: PLC0415
    from mlopskit.tracking.transfer import transfer_runs  # noqa: PLC0415

    with ExitStack() as opening:

        def opened(end: Any) -> Tracker:
            return end if isinstance(end, Tracker) else opening.enter_context(open_tracker(end))

        there = opened(dst)
        source: Source = ExportedRuns(src) if isinstance(src, Path) else opened(src)
        if isinstance(source, Tracker):
            source.sync()
        return transfer_runs(
            source,
            there,
            where,
            experiment,
            verify=verify,
            replace=replace,
            told=told,
            progress=progress,
        )


def sweep(
    objective: Callable[[Trial], Any],
    space: Mapping[str, Domain],
    n_trials: int | None = None,
    *,
    tracker: Tracker | Any = None,
    **options: Any,
) -> SweepResult:
    """Search a space for the params of the best value; every trial is a run, child of one.

    Args:
        objective: Is given a `Trial` and returns a number.
        space: What each param may be, such as ``{"lr": LogUniform(1e-4, 1e-1)}``.
        n_trials: How many trials there are in the end, those of before counted.
        tracker: An open tracker, or the line of one, which is closed at the end; the configured
            one if left out.
        options: What `mlopskit.tracking.sweeps.run_sweep` takes beside: ``name``, ``experiment``,
            ``direction``, ``metric``, ``sampler``, ``pruning``, ``seed``, ``workers``,
            ``engine``, ``client``, ``resume``, ``progress``.

    Raises:
        InvalidInput: If the space or an option cannot be taken; the message names it.
        ConfigError: If the line cannot be opened.
        MissingDependency: If Optuna is not installed.
        Conflict: If the sweep of that name searches otherwise, or runs in another process.
    """
    from mlopskit.tracking.base import Tracker  # noqa: PLC0415 - opening a server needs neither
    from mlopskit.tracking.sweeps import run_sweep  # noqa: PLC0415

    if isinstance(tracker, Tracker):
        return run_sweep(tracker, objective, space, n_trials, **options)
    settings = config.read(lines={"tracking": tracker})
    reopen = partial(_reopened, settings.lines["tracking"], settings.home)
    with reopen() as opened:
        return run_sweep(opened, objective, space, n_trials, reopen=reopen, **options)


def _reopened(lines: tuple[Line, ...], home: Path) -> Tracker:
    """Open a tracker of lines that were read before, also in another process."""
    return cast("Tracker", _open("tracking", lines, home))


def _opened(domain: str, line: Any, require: Iterable[str], options: dict[str, Any]) -> Tool:
    settings = config.read(lines={domain: line})
    lines = settings.lines[domain]
    if options:
        if len(lines) > 1:
            raise ConfigError(
                f"{domain} has {len(lines)} backends here, so it is not clear whose options these "
                f"are: {', '.join(sorted(options))}. Write them in the list."
            )
        lines = (lines[0].model_copy(update={"options": {**lines[0].options, **options}}),)
    tool = _open(domain, lines, settings.home)
    try:
        tool.capabilities.require([require] if isinstance(require, str) else require)
    except BaseException:
        tool.close()
        raise
    return tool


def _open(domain: str, lines: tuple[Line, ...], home: Path, flavors: Flavors | None = None) -> Tool:
    flavors = flavors or cache(plugins.flavors)
    if len(lines) == 1:
        return _open_one(domain, lines[0], home, flavors)
    if domain != "tracking":
        raise ConfigError(f"Only tracking takes a list of backends; {domain} has {len(lines)}.")
    from mlopskit.tracking.fanout import FanOutTracker  # noqa: PLC0415 - few ask for several

    with ExitStack() as opening:
        trackers: list[Tracker] = []
        for line in lines:
            trackers.append(cast("Tracker", _open_one(domain, line, home, flavors)))
            opening.callback(trackers[-1].close)
        fan_out = FanOutTracker(trackers)
        opening.pop_all()
    fan_out.context = trackers[0].context
    return fan_out


def _open_one(domain: str, line: Line, home: Path, flavors: Flavors) -> Tool:
    hooks = plugins.load(domain, line.backend)
    resolved, secrets = config.fetch_secrets(line)
    redactor = Redactor(secrets)
    context = Context(
        home=home,
        redactor=redactor,
        notify=plugins.notify,
        save_model=partial(_save_model, redactor, flavors),
        flavors=flavors,
    )
    make = getattr(hooks, MAKERS[domain])
    if not make.get_hookimpls():
        raise ConfigError(
            f"The {domain} backend {line.backend!r} has no {MAKERS[domain]}: its module must "
            "implement that hook of mlopskit.hookspecs."
        )
    try:
        tool: Tool = make(location=resolved.location, options=resolved.options, context=context)
    except TypeError as exc:
        raise _explained(exc, domain, line, make) from exc
    tool.context = context
    return tool


def _fetch_configured(run_id: str, name: str, folder: Path) -> Mapping[str, Any]:
    """Fetch a model of a run of the configured tracker, opened for this alone."""
    from mlopskit.tracking.models import fetch_model  # noqa: PLC0415 - few registries ask

    with open_tracker() as tracker:
        return fetch_model(tracker, run_id, name, folder)


def _save_model(
    redactor: Redactor, flavors: Flavors, model: Any, folder: Path, example: Any
) -> Mapping[str, Any]:
    """Write a model into an empty folder as the registry does, for `Context.save_model`."""
    from mlopskit.registry.sources import save  # noqa: PLC0415 - only who logs a model needs it

    return save(model, folder, example, redactor=redactor, more=flavors)


def _explained(error: TypeError, domain: str, line: Line, make: Any) -> Exception:
    """Name the nearest right option where a constructor refused one; else return the error."""
    text = str(error)
    marker = "unexpected keyword argument "
    if marker not in text:
        return error
    name = text.partition(marker)[2].split("'")[1]
    if name not in line.options:
        return error
    return UnknownOption("option", name, _options(make), f"the {domain} backend {line.backend!r}")


def _options(make: Any) -> list[str]:
    """Name the keyword options of the class that a backend's hook builds."""
    plugin = make.get_hookimpls()[0].plugin
    classes = [each for each in vars(plugin).values() if inspect.isclass(each)]
    own = [each for each in classes if each.__module__ == getattr(plugin, "__name__", "")]
    found: set[str] = set()
    for each in own:
        if hasattr(each, "capabilities"):
            # Options that a class hands on as `**options` are named by the class that takes them.
            for one in inspect.getmro(each):
                found.update(_named(vars(one).get("__init__", object.__init__)))
    return sorted(found - {"self", "args", "kwargs"})


def _named(call: Any) -> list[str]:
    parameters = inspect.signature(call).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
