"""Which flavors a registry knows is a matter of its kit, and of nothing that others have opened."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.errors import BrokenPlugin, InvalidModel
from mlopskit.kit import Kit
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.core

FLAVOR = """
from mlopskit.hookspecs import hookimpl

class Texts:
    TAKES, LIBRARIES, SUFFIXES, FOLDERS = "a {kind} of words", (), (".{name}",), False
    def takes(self, model, example=None):
        return isinstance(model, {kind})
    def recognises(self, files):
        return len(files) == 1 and files[0][1].read_bytes().startswith(b"{name}")
    def save(self, model, folder, example=None):
        (folder / "model.{name}").write_text("{name} " + " ".join(model))
    def load(self, folder, label, *, trusted):
        return next(folder.iterdir()).read_text().split()[1:]

@hookimpl
def make_flavor():
    return Texts()
"""
WORDS = FLAVOR.format(kind="list", name="words")


class Words:
    """Keeps lists of words."""

    TAKES, LIBRARIES, SUFFIXES, FOLDERS = "a list of words", (), (".words",), False

    def takes(self, model: Any, example: Any = None) -> bool:
        return isinstance(model, list)

    def recognises(self, files: Any) -> bool:
        return len(files) == 1 and files[0][1].read_bytes().startswith(b"WORDS")

    def save(self, model: Any, folder: Path, example: Any = None) -> None:
        (folder / "model.words").write_text("WORDS " + " ".join(model))

    def load(self, folder: Path, label: str, *, trusted: bool) -> Any:
        return next(folder.iterdir()).read_text().split()[1:]


def run(code: str, environ: dict[str, str] | None, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_registry_knows_the_flavors_of_its_own_context_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.words"
    path.write_bytes(b"WORDS d")
    with LocalRegistry(tmp_path / "one") as one, LocalRegistry(tmp_path / "other") as other:
        one.context = replace(one.context, flavors=lambda: {"words": Words()})

        assert one.register("m", ["a", "b"]).flavor == "words"
        assert one.register("m", path).flavor == "words"
        assert [one.load("m", each) for each in (1, 2)] == [["a", "b"], ["d"]]
        assert other.register("m", path).flavor == "file"
        with pytest.raises(InvalidModel, match=r"No flavor takes a builtins\.list"):
            other.register("m", ["a", "b"])


def test_a_registry_built_by_hand_knows_the_built_in_flavors_whatever_was_opened_before(
    install: Callable[..., dict[str, str]],
) -> None:
    environ = install("acme", {"acme": WORDS}, {"mlopskit.flavors": {"words": "acme"}})
    code = (
        "import mlopskit as mk; from mlopskit.errors import InvalidModel\n"
        "from mlopskit.registry.local import LocalRegistry\n"
        "with mk.open_registry('local:opened') as opened:\n"
        "    print(opened.register('m', ['a']).flavor)\n"
        "with LocalRegistry('by-hand') as registry:\n"
        "    try: registry.register('m', ['a'])\n"
        "    except InvalidModel: print('refused')"
    )

    assert run(code, environ).split() == ["words", "refused"]


TWO_KITS = """
import sys
import mlopskit as mk
from mlopskit.errors import InvalidModel

def refused(kit, model):
    refusals = []
    for log in (lambda: kit.registry.register("n", model), lambda: logged(kit, model)):
        try:
            log()
        except InvalidModel:
            refusals.append(True)
    return len(refusals) == 2

def logged(kit, model):
    with kit.tracker.start_run("e") as run:
        run.log_model(model, "m")
    return kit.registry.load(f"runs:/{run.id}/m")

one, two = sys.argv[1:]
sys.path.insert(0, one)
with mk.Kit(home="one") as first:
    print(first.registry.register("m", ["a"]).flavor, logged(first, ["b"]))
    sys.path[0] = two
    with mk.Kit(home="two") as second:
        print(second.registry.register("m", ("c",)).flavor, logged(second, ("d",)))
        print(refused(second, ["a"]), refused(first, ("c",)))
        print(first.registry.load("m", 1), second.registry.load("m", 1))
"""


def test_two_kits_of_one_process_keep_their_flavors_apart(tmp_path: Path) -> None:
    sites = []
    for kind, name in (("list", "words"), ("tuple", "pairs")):
        site = tmp_path / name
        info = site / f"acme_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mlopskit.flavors]\n{name} = acme_{name}\n")
        (site / f"acme_{name}.py").write_text(FLAVOR.format(kind=kind, name=name))
        sites.append(str(site))

    assert run(TWO_KITS, None, *sites).splitlines() == [
        "words ['b']",
        "pairs ['d']",
        "True True",
        "['a'] ['c']",
    ]


def test_a_flavor_that_lacks_its_package_says_so_each_time(
    install: Callable[..., dict[str, str]],
) -> None:
    code = (
        "import mlopskit as mk\n"
        "with mk.Kit(home='home') as kit:\n"
        "    for _ in range(2):\n"
        "        try: kit.registry.register('m', ['a'])\n"
        "        except Exception as exc: print(type(exc).__name__, exc)"
    )
    environ = install("acme", {"acme": "import not_there"}, {"mlopskit.flavors": {"acme": "acme"}})

    first, again = run(code, environ).splitlines()

    assert first == again
    assert first.startswith("MissingDependency")
    assert first.endswith("pip install acme")


def test_a_module_without_the_hook_is_a_broken_flavor(
    install: Callable[..., dict[str, str]],
) -> None:
    environ = install("acme", {"acme": ""}, {"mlopskit.flavors": {"acme": "acme"}})
    code = (
        "import mlopskit as mk\n"
        "with mk.Kit(home='home') as kit:\n"
        "    try: kit.registry.register('m', ['a'])\n"
        "    except Exception as exc: print(type(exc).__name__, exc)"
    )

    said = run(code, environ)

    assert said.startswith(BrokenPlugin.__name__)
    assert "make_flavor" in said


def test_opening_a_kit_imports_no_flavor(install: Callable[..., dict[str, str]]) -> None:
    environ = install("acme", {"acme": WORDS}, {"mlopskit.flavors": {"words": "acme"}})
    code = (
        "import sys, mlopskit as mk\n"
        "with mk.Kit(home='home') as kit:\n"
        "    kit.registry.list_models(), kit.tracker.search_runs()\n"
        "    print('acme' in sys.modules)\n"
        "    kit.registry.register('m', ['a'])\n"
        "    print('acme' in sys.modules)"
    )

    assert run(code, environ).split() == ["False", "True"]


def test_the_tools_of_a_kit_share_one_object_of_each_flavor(tmp_path: Path) -> None:
    with Kit(home=tmp_path) as kit, Kit(home=tmp_path) as other:
        assert kit.registry.context.flavors is kit.tracker.context.flavors
        assert kit.registry.context.flavors is not other.registry.context.flavors
