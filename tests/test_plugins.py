"""Loading backends, ours and other people's, seen from a process that starts afresh."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mlopskit import plugins
from mlopskit.errors import UnknownBackend, UnknownOption

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.core

GOOD = """
CAPABILITIES = {"fan": "native", "resume": "absent: it has no memory"}
TOOL = {"package": "pluggy", "requires": {"pluggy": ">=1.0,<9"}, "telemetry": "none"}
raise SystemExit("a table is read without running the module")
"""


def run(code: str, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_domain_has_its_embedded_default() -> None:
    for domain in plugins.DOMAINS:
        assert "local" in plugins.installed(domain)


def test_an_unknown_backend_names_the_nearest_right_one() -> None:
    with pytest.raises(UnknownBackend, match=r"'mlfow'\. Did you mean 'mlflow'\?.*local, mlflow"):
        plugins.load("tracking", "mlfow")


def test_an_unknown_domain_names_the_nearest_right_one() -> None:
    with pytest.raises(UnknownOption, match="Did you mean 'tracking'"):
        plugins.backends("trackin")


def test_only_the_chosen_backend_is_imported() -> None:
    code = (
        "import sys; from mlopskit import plugins; plugins.load('tracking', 'local');"
        "print('mlflow' in sys.modules, 'mlopskit.registry.local' in sys.modules)"
    )
    assert run(code) == "False False"


def test_describing_every_backend_imports_none() -> None:
    code = (
        "import sys, json, mlopskit as mk; found = mk.backends();"
        "print(json.dumps([[b.domain, b.name, b.capabilities is not None] for b in found]));"
        "print([n for n in sys.modules if n.endswith('.local') or n in ('mlflow', 'numpy')])"
    )
    first, second = run(code).splitlines()

    assert second == "[]"
    found = json.loads(first)
    assert [domain for domain, name, _ in found if name == "local"] == list(plugins.DOMAINS)
    assert all(declared for _, _, declared in found)


def test_a_table_is_read_from_source(install: Callable[..., dict[str, str]]) -> None:
    environ = install("acme-tracking", {"acme": GOOD}, {"mlopskit.tracking": {"acme": "acme"}})
    code = (
        "import mlopskit as mk; b = {b.name: b for b in mk.backends('tracking')}['acme'];"
        "print(b.distribution, b.installed, b.telemetry, [c.name for c in b.capabilities])"
    )

    assert run(code, environ) == "acme-tracking True none ['fan', 'resume']"


def test_a_plugin_that_breaks_shows_its_own_failure_and_spares_the_others(
    install: Callable[..., dict[str, str]],
) -> None:
    environ = install(
        "acme-broken",
        {"acme_broken": "value = 1 / 0\n"},
        {"mlopskit.tracking": {"acme": "acme_broken"}},
    )
    code = (
        "import mlopskit as mk; from mlopskit import errors, plugins\n"
        "try: plugins.load('tracking', 'acme')\n"
        "except errors.BrokenPlugin as exc: print(exc); print(repr(exc.__cause__))\n"
        "print(type(mk.open_tracker('local')).__name__)"
    )
    said, cause, other = run(code, environ).splitlines()

    assert "'acme' of the distribution 'acme-broken' failed to import (ZeroDivisionError" in said
    assert cause == "ZeroDivisionError('division by zero')"
    assert other == "LocalTracker"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import surely_not_installed", "MissingDependency"),
        ("import acme_missing.part", "BrokenPlugin"),
        ("from mlopskit import no_such_module", "BrokenPlugin"),
        ("import json.no_such_module", "BrokenPlugin"),
        ("syntax error", "BrokenPlugin"),
    ],
)
def test_a_bug_in_a_plugin_is_never_called_a_missing_package(
    install: Callable[..., dict[str, str]], source: str, error: str
) -> None:
    environ = install(
        "acme", {"acme_missing": source}, {"mlopskit.tracking": {"acme": "acme_missing"}}
    )
    code = (
        "from mlopskit import plugins\n"
        "try: plugins.load('tracking', 'acme')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )

    said = run(code, environ)

    assert said.startswith(error)
    if error == "MissingDependency":
        assert said.endswith(
            "'surely_not_installed', which is not installed. Install it with: pip install acme"
        )


def test_a_misspelt_hook_names_the_plugin(install: Callable[..., dict[str, str]]) -> None:
    source = "from mlopskit.hookspecs import hookimpl\n@hookimpl\ndef make_traker(): ...\n"
    environ = install("acme", {"acme": source}, {"mlopskit.tracking": {"acme": "acme"}})
    code = (
        "from mlopskit import plugins\n"
        "try: plugins.load('tracking', 'acme')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )

    assert "make_traker" in run(code, environ)


def test_a_listener_hears_events_and_its_failure_harms_nobody(
    install: Callable[..., dict[str, str]],
) -> None:
    source = (
        "from mlopskit.hookspecs import hookimpl\n"
        "@hookimpl\ndef run_finished(run):\n    print('heard', run.name)\n"
        "    raise OSError('down')\n"
    )
    environ = install("acme", {"acme": source}, {"mlopskit.events": {"acme": "acme"}})
    code = (
        "import logging, mlopskit as mk; logging.disable()\n"
        "with mk.open_tracker('local') as tracker:\n"
        "    with tracker.start_run(experiment='e', name='r') as run: pass\n"
        "    print(tracker.get_run(run.id).status)"
    )

    assert run(code, environ).splitlines() == ["heard r", "finished"]


def test_listeners_of_one_name_and_a_broken_one_keep_nobody_from_hearing(
    install: Callable[..., dict[str, str]],
) -> None:
    hears = (
        "from mlopskit.hookspecs import hookimpl\n"
        "@hookimpl\ndef run_finished(run):\n    print('{} heard')\n    {}\n"
    )
    install(
        "one",
        {"one": hears.format("one", "raise OSError('down')")},
        {"mlopskit.events": {"chat": "one"}},
    )
    install("bad", {"bad": "raise ValueError('broken')"}, {"mlopskit.events": {"bad": "bad"}})
    environ = install("two", {"two": hears.format("two", "")}, {"mlopskit.events": {"chat": "two"}})
    code = (
        "import logging, mlopskit as mk; logging.disable()\n"
        "with mk.open_tracker('local') as tracker:\n"
        "    tracker.start_run().finish()\n"
        "from mlopskit import plugins\n"
        "try: plugins.listeners()\n"
        "except Exception as exc: print(type(exc).__name__)"
    )

    assert sorted(run(code, environ).splitlines()) == ["BrokenPlugin", "one heard", "two heard"]
