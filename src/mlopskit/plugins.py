"""Find installed backends, and import exactly the one that was asked for."""

from __future__ import annotations

import ast
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pluggy

from mlopskit import hookspecs
from mlopskit.capabilities import Capabilities
from mlopskit.errors import BrokenPlugin, MissingDependency, UnknownBackend, UnknownOption

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

DOMAINS: Final = ("tracking", "registry", "serving", "features", "monitoring", "pipelines")


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One backend as it can be known without importing it.

    Attributes:
        domain: The interface it implements, such as ``"tracking"``.
        name: What the config line calls it.
        installed: Whether every package it needs is here.
        version: The version of the tool it wraps; of its own distribution where it wraps none.
        capabilities: Its declared table, or None if it declares none that can be read.
        install: The command that installs what it needs.
        distribution: The distribution that brings it.
        requires: The packages it needs, each with the range of versions it is tested with.
        missing: Those of them that are not installed.
        telemetry: What the wrapped tool sends home, and how to switch that off; empty if nothing.
    """

    domain: str
    name: str
    installed: bool
    version: str | None
    capabilities: Capabilities | None
    install: str
    distribution: str
    requires: Mapping[str, str]
    missing: tuple[str, ...]
    telemetry: str


def installed(domain: str) -> list[str]:
    """Name the backends that some installed package offers for a domain, importing none of them."""
    return sorted(_entry_points(domain))


def backends(domain: str | None = None) -> list[BackendInfo]:
    """Describe every backend, of one domain or of all, importing none of them.

    Raises:
        UnknownOption: If there is no such domain.
    """
    if domain is not None and domain not in DOMAINS:
        raise UnknownOption("domain", domain, DOMAINS)
    domains = DOMAINS if domain is None else (domain,)
    found = [(each, _entry_points(each)[name]) for each in domains for name in installed(each)]
    return [_described(each, entry) for each, entry in found]


def load(domain: str, name: str) -> pluggy.HookRelay:
    """Import one backend and return its hooks.

    Raises:
        UnknownBackend: If no installed package offers it.
        MissingDependency: If a package it needs is not installed.
        BrokenPlugin: If its own code fails to import; the failure is the cause.
    """
    entry = _entry_points(domain).get(name)
    if entry is None:
        raise UnknownBackend(domain, name, installed(domain))
    return _hooks(domain, entry)


def _hooks(domain: str, entry: EntryPoint) -> pluggy.HookRelay:
    name = entry.name
    # One manager per load: pluggy knows a plugin by its name alone, so a shared manager would skip
    # the registry's "mlflow" once tracking has loaded its own.
    manager = pluggy.PluginManager("mlopskit")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(entry.load(), name=name)
        manager.check_pending()
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package in ("", "mlopskit", entry.module.partition(".")[0]) or find_spec(package):
            # A module that the plugin itself should have brought is a bug, not a missing package.
            raise BrokenPlugin(domain, name, _distribution(entry), exc) from exc
        info = _described(domain, entry)
        raise MissingDependency(f"The {domain} backend {name!r}", package, info.install) from exc
    except Exception as exc:
        raise BrokenPlugin(domain, name, _distribution(entry), exc) from exc
    return manager.hook


def flavors() -> Mapping[str, Any]:
    """Import the flavors of models that the installed packages bring, and return them by name.

    Each call looks anew; who asks keeps what it was given.

    Raises:
        MissingDependency: If a package that one needs is not installed.
        BrokenPlugin: If one's own code fails, or it has no `make_flavor`.
    """
    found = {}
    for entry in sorted(entry_points(group="mlopskit.flavors"), key=lambda each: each.name):
        hooks = _hooks("flavors", entry)
        if not hooks.make_flavor.get_hookimpls():
            reason = TypeError("its module does not implement make_flavor")
            raise BrokenPlugin("flavors", entry.name, _distribution(entry), reason)
        found[entry.name] = hooks.make_flavor()
    return found


def listeners() -> list[pluggy.HookRelay]:
    """Import every installed listener, and return the event hooks of each.

    Raises:
        BrokenPlugin: If a listener's own code fails to import.
    """
    hooks, broken = _listeners()
    if broken:
        raise broken[0]
    return hooks


@cache
def _listeners() -> tuple[list[pluggy.HookRelay], list[BrokenPlugin]]:
    """Return the hooks of the listeners that can be imported, and why the others cannot."""
    hooks, broken = [], []
    for entry in entry_points(group="mlopskit.events"):
        # A manager for each: one that fails must not keep the next from hearing.
        manager = pluggy.PluginManager("mlopskit")
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(entry.load(), name=entry.name)
        except Exception as exc:
            found = BrokenPlugin("events", entry.name, _distribution(entry), exc)
            found.__cause__ = exc
            broken.append(found)
            logger.exception("A listener hears nothing: %s", found)
        else:
            hooks.append(manager.hook)
    return hooks, broken


def notify(event: str, **details: Any) -> None:
    """Call every installed listener to an event; one that fails is logged and harms nobody."""
    for hook in _listeners()[0]:
        try:
            getattr(hook, event)(**details)
        except Exception:
            logger.exception("A listener to %r failed.", event)


def declared(domain: str, name: str) -> Mapping[str, Any]:
    """Read the literal tables ``TOOL`` and ``CAPABILITIES`` of a backend's source, unexecuted.

    Importing a backend may take seconds of CPU and a package that is not there; its tables are
    plain literals so that neither is needed to know what it can do. Tables that cannot be read
    are left out.
    """
    return _declared(_entry_points(domain)[name])


def _declared(entry: EntryPoint) -> Mapping[str, Any]:
    source = _source(entry.module)
    tables: dict[str, Any] = {}
    if source is None:
        return tables
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError):
        return tables
    for node in tree.body:
        target, value = _assignment(node)
        if target in ("TOOL", "CAPABILITIES") and value is not None:
            try:
                tables[target] = ast.literal_eval(value)
            except ValueError:
                continue
    return tables


def _described(domain: str, entry: EntryPoint) -> BackendInfo:
    name = entry.name
    tables = _declared(entry)
    tool = _mapping(tables.get("TOOL"))
    requires = {package: str(tested) for package, tested in _mapping(tool.get("requires")).items()}
    found = {package: version_of(package) for package in requires}
    missing = tuple(package for package, number in found.items() if number is None)
    distribution = _distribution(entry)
    own = distribution == "mlopskit"
    return BackendInfo(
        domain=domain,
        name=name,
        installed=not missing,
        version=found.get(tool.get("package", ""), version_of(distribution)),
        capabilities=_capabilities(domain, name, tables.get("CAPABILITIES")),
        install=f"pip install 'mlopskit[{tool.get('extra', name)}]'"
        if own
        else f"pip install {' '.join(missing or [distribution])}",
        distribution=distribution,
        requires=requires,
        missing=missing,
        telemetry=str(tool.get("telemetry", "")),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _capabilities(domain: str, name: str, table: Any) -> Capabilities | None:
    # One plugin's malformed table must not hide every other backend; `mlopskit doctor` names it.
    try:
        return Capabilities(domain, name, table)
    except (AttributeError, ValueError):
        return None


@cache
def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@cache
def _entry_points(domain: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"mlopskit.{domain}")}


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"


def _source(module: str) -> Path | None:
    # `find_spec` of a dotted name would import its parents; the top package alone is located, and
    # the rest is a matter of files.
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def _assignment(node: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target: ast.expr = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None, None
    return (target.id, node.value) if isinstance(target, ast.Name) else (None, None)
