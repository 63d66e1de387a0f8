"""What changes a step's digest, and what does not. Sources are compiled as a user's files are."""

from __future__ import annotations

import importlib
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.pipelines.fingerprint import CodeReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.core


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that writes modules, imports them anew, and digests `flow.work`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written: set[str] = set()

    def forget() -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in written:
                del sys.modules[name]
        importlib.invalidate_caches()

    def digested(flow: str, **modules: str) -> str:
        for name, source in {"flow": flow, **modules}.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source))
            written.add(path.relative_to(tmp_path).parts[0].removesuffix(".py"))
        forget()
        work: Any = importlib.import_module("flow").work
        return CodeReader().digest(getattr(work, "function", work))

    yield digested
    forget()


PLAIN = """
def work(x):
    return x + 1
"""


def test_the_same_source_has_the_same_digest(digest: Callable[..., str]) -> None:
    assert digest(PLAIN) == digest(PLAIN)


def test_what_does_not_run_does_not_count(digest: Callable[..., str]) -> None:
    dressed = '''
    # A comment.

    def work(x: "int") -> "int":
        """Say what it does."""
        # Another one.
        return (x  +  1)

    def unused(): return 3
    '''
    assert digest(dressed) == digest(PLAIN)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def work(x):\n    return x + 1", "def work(x):\n    return x + 2"),
        ("def work(x):\n    return x + 1", "def work(x):\n    return x - 1"),
        ("def work(x):\n    return x + 1", "def work(x):\n    return x + 1.0"),
        ("def work(x):\n    return x + 1", "def work(x):\n    return x + True"),
        ("def work(x=1):\n    return x", "def work(x=2):\n    return x"),
        ("def work(*, x=1):\n    return x", "def work(*, x=2):\n    return x"),
        ("LIMIT = 1\ndef work():\n    return LIMIT", "LIMIT = 2\ndef work():\n    return LIMIT"),
        ("L = {'a': [1]}\ndef work():\n    return L", "L = {'a': [2]}\ndef work():\n    return L"),
        ("def f():\n  return 1\ndef work():\n  return f()",
         "def f():\n  return 2\ndef work():\n  return f()"),
        ("def f():\n  return 1\nT = [f]\ndef work():\n  return T[0]()",
         "def f():\n  return 2\nT = [f]\ndef work():\n  return T[0]()"),
        ("def f():\n  return 1\nT = {'f': f}\ndef work():\n  return T['f']()",
         "def f():\n  return 2\nT = {'f': f}\ndef work():\n  return T['f']()"),
        ("def work():\n  return [i * 2 for i in (1, 2)]",
         "def work():\n  return [i * 3 for i in (1, 2)]"),
        ("def work():\n  def inner():\n    return 1\n  return inner()",
         "def work():\n  def inner():\n    return 2\n  return inner()"),
        ("import math\nf = math.sin\ndef work():\n  return f(1)",
         "import math\nf = math.cos\ndef work():\n  return f(1)"),
        ("import re\nR = re.compile('a')\ndef work():\n  return R.sub('', 'a')\nV = 1",
         "import re\nR = re.compile('a')\ndef work():\n  return R.sub('b', 'a')\nV = 1"),
    ],
)  # fmt: skip
def test_what_runs_counts(digest: Callable[..., str], before: str, after: str) -> None:
    assert digest(before) != digest(after)


def class_source(method: str = "return 1", base: str = "return 2", attribute: int = 3) -> str:
    return f"""
class Base:
    def of_base(self):
        {base}

class Model(Base):
    size = {attribute}

    @staticmethod
    def build():
        return Model()

    @property
    def seen(self):
        {method}

def work():
    return Model.build().seen
"""


def test_a_class_counts_with_its_methods_its_bases_and_its_attributes(
    digest: Callable[..., str],
) -> None:
    digests = [
        digest(class_source()),
        digest(class_source(method="return 9")),
        digest(class_source(base="return 9")),
        digest(class_source(attribute=9)),
    ]
    assert len(set(digests)) == 4
    assert digest(class_source()) == digests[0]


WRAPPED = {
    "enum": """
        import enum
        class C(enum.Enum):
            A = {}
        def work():
            return C.A.value
        """,
    "dataclass": """
        from dataclasses import dataclass
        @dataclass
        class C:
            a: int = {}
        def work():
            return C()
        """,
    "pydantic default": """
        from pydantic import BaseModel
        class C(BaseModel):
            a: int = {}
        def work():
            return C()
        """,
    "pydantic rule": """
        from pydantic import BaseModel, Field
        class C(BaseModel):
            a: int = Field(ge={})
        def work():
            return C(a=9)
        """,
    "partial": """
        import functools
        def f(x):
            return x
        g = functools.partial(f, {})
        def work():
            return g()
        """,
    "lru_cache": """
        import functools
        @functools.lru_cache
        def f():
            return {}
        def work():
            return f()
        """,
    "cached_property": """
        import functools
        class C:
            @functools.cached_property
            def a(self):
                return {}
        def work():
            return C().a
        """,
    "decorator": """
        def deco(f):
            return lambda: f() + {}
        @deco
        def g():
            return 1
        def work():
            return g()
        """,
    "step": """
        import mlopskit as mk
        @mk.step
        def g():
            return {}
        @mk.step
        def work():
            return g()
        """,
    "instance": """
        class C:
            def m(self):
                return {}
        c = C()
        def work():
            return c.m()
        """,
    "bound method": """
        class C:
            def m(self):
                return {}
        m = C().m
        def work():
            return m()
        """,
}


@pytest.mark.parametrize(
    "template",
    WRAPPED.values(),
    ids=WRAPPED.keys(),
)
def test_a_change_behind_a_wrapper_counts(digest: Callable[..., str], template: str) -> None:
    assert digest(template.format(1)) == digest(template.format(1))
    assert digest(template.format(1)) != digest(template.format(2))


HELPERS = (
    "def clean(x):\n  return deep(x)\ndef deep(x):\n  return x + {}\ndef other():\n  return {}"
)


@pytest.mark.parametrize(
    "flow",
    [
        "import helpers\ndef work(x):\n  return helpers.clean(x)",
        "import helpers as h\ndef work(x):\n  return h.clean(x)",
        "from helpers import clean\ndef work(x):\n  return clean(x)",
        "def work(x):\n  from helpers import clean\n  return clean(x)",
    ],
)
def test_of_a_helper_module_only_what_is_reached_counts(
    digest: Callable[..., str], flow: str
) -> None:
    before = digest(flow, helpers=HELPERS.format(1, 1))

    assert digest(flow, helpers=HELPERS.format(1, 2)) == before
    assert digest(flow, helpers=HELPERS.format(2, 1)) != before


def test_a_module_that_is_imported_whole_inside_a_step_counts_whole(
    digest: Callable[..., str],
) -> None:
    flow = "def work(x):\n  import helpers\n  return helpers.clean(x)"
    before = digest(flow, helpers=HELPERS.format(1, 1))

    assert digest(flow, helpers=HELPERS.format(1, 2)) != before


def test_a_package_is_followed_through_relative_imports(digest: Callable[..., str]) -> None:
    flow = "from project.main import work"
    main = "def work(x):\n  from .tools import clean\n  return clean(x)"
    modules = {"project__main": main}
    one = digest(flow, **modules, project__tools="def clean(x):\n  return 1")
    two = digest(flow, **modules, project__tools="def clean(x):\n  return 2")

    assert one != two


def test_functions_that_call_each_other_in_a_circle_are_digested(
    digest: Callable[..., str],
) -> None:
    source = "def f(n):\n  return g(n)\ndef g(n):\n  return f(n) + {}\ndef work():\n  return f(1)"

    assert digest(source.format(1)) != digest(source.format(2))


def test_a_list_that_holds_itself_is_digested(digest: Callable[..., str]) -> None:
    assert digest("L = [print]\nL.append(L)\ndef work():\n  return L")


def test_what_is_installed_counts_by_name_and_is_not_walked(digest: Callable[..., str]) -> None:
    reader = CodeReader()
    flow = "import json, textwrap\ndef work(x):\n  return json.dumps(textwrap.dedent(x))"
    digest(flow)
    reader.digest(sys.modules["flow"].work)

    assert len(reader._read) == 1


def test_a_path_in_the_code_is_a_text_and_not_its_contents(
    digest: Callable[..., str], tmp_path: Path
) -> None:
    flow = f"from pathlib import Path\nROOT = Path({str(tmp_path)!r})\ndef work():\n  return ROOT"
    before = digest(flow)
    (tmp_path / "new.txt").write_text("x")

    assert digest(flow) == before


def test_the_code_that_runs_counts_not_a_file_that_was_changed_since(
    digest: Callable[..., str], tmp_path: Path
) -> None:
    before = digest(PLAIN)
    (tmp_path / "flow.py").write_text("def work(x):\n    return 0\n")

    assert CodeReader().digest(sys.modules["flow"].work) == before


def test_the_digest_does_not_depend_on_the_seed_of_hashes(tmp_path: Path) -> None:
    import os
    import subprocess

    (tmp_path / "flow.py").write_text(
        "NAMES = {'a', 'b', 'c', 'd'}\n"
        "def work(x):\n  return x in {'a', 'b', 'c', 'd', 'e'} or x in NAMES\n"
    )
    code = (
        "import flow; from mlopskit.pipelines.fingerprint import CodeReader;"
        "print(CodeReader().digest(flow.work))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
