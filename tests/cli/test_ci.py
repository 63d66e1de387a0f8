"""``mlopskit ci init``: workflows that GitHub's and GitLab's own validators accept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
import yaml

import mlopskit as mk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Done

TWO = ("--model", "churn", "--model", "fraud.v2")
WORKFLOWS = Path(".github/workflows")
GITLAB = Path(".gitlab/mlopskit.yml")
# Actions of GitHub's own are pinned to a major version; zizmor wants digests of all others.
ZIZMOR = """
rules:
  unpinned-uses:
    config:
      policies:
        "actions/*": ref-pin
"""


def validator(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a validator that `pip install 'mlopskit[dev]'` brings."""
    beside = Path(sys.executable).parent / name
    program = str(beside) if beside.exists() else shutil.which(name)
    assert program, f"{name} is not installed: pip install 'mlopskit[dev]'"
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def check_github(*paths: Path) -> str:
    """Return what GitHub's validators have against workflows; nothing if they are fine."""
    shellcheck = Path(sys.executable).parent / "shellcheck"
    command = str(shellcheck) if shellcheck.exists() else "shellcheck"
    assert shutil.which(command), "shellcheck is not installed: pip install 'mlopskit[dev]'"
    Path("zizmor.yml").write_text(ZIZMOR)
    runs = [
        validator("actionlint", "-shellcheck", command, "-no-color", *paths),
        validator("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *paths),
        validator("zizmor", "--offline", "--config", "zizmor.yml", *paths),
    ]
    return "".join(f"{run.stdout}{run.stderr}" for run in runs if run.returncode)


def check_gitlab(*paths: Path) -> str:
    run = validator("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", *paths)
    return f"{run.stdout}{run.stderr}" if run.returncode else ""


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--stage", "staging"),
        ("--train", "make train NAME=\"$MODEL\" # : {x} | 'y'", "--gate", "ci/ga: 'tes'.py:all"),
    ],
    ids=["as it comes", "another stage", "awkward commands"],
)
def test_githubs_validators_accept_the_workflows(
    cli: Callable[..., Done], more: tuple[str, ...]
) -> None:
    done = cli("ci", "init", "github", *TWO, *more)

    assert done.code == 0, done.err
    paths = sorted(WORKFLOWS.iterdir())
    assert [path.name for path in paths] == ["models.yml", "promote-model.yml"]
    assert check_github(*paths) == ""


@pytest.mark.parametrize("more", [(), ("--train", "echo \"a: b\" # '{x}'")])
def test_gitlabs_validator_accepts_the_pipeline(
    cli: Callable[..., Done], more: tuple[str, ...]
) -> None:
    done = cli("ci", "init", "gitlab", *TWO, *more)

    assert done.code == 0, done.err
    assert check_gitlab(GITLAB, Path(".gitlab-ci.yml")) == ""
    assert yaml.safe_load(Path(".gitlab-ci.yml").read_text()) == {
        "include": [{"local": str(GITLAB)}]
    }


def test_the_scripts_of_gitlabs_pipeline_are_sound(cli: Callable[..., Done]) -> None:
    cli("ci", "init", "gitlab", *TWO)
    jobs = yaml.safe_load(GITLAB.read_text())
    scripts = [job["script"] for job in jobs.values() if "script" in job]

    assert len(scripts) == 4
    for number, script in enumerate(scripts):
        path = Path(f"{number}.sh")
        path.write_text("\n".join(["#!/bin/sh", "set -e", *script, ""]))
        run = validator("shellcheck", path)
        assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("runs-on: ubuntu-latest", "runs-in: ubuntu-latest", "runs-on"),
        ("needs: train", "needs: trian", "trian"),
        ("    permissions:\n      contents: read", "    permissions: write-all", "excessive-perm"),
        ("        with:\n          persist-credentials: false\n", "", "artipacked"),
        ("matrix.model", "matrix.modle", "modle"),
        ('cat "$file"', 'cat "$file', "shellcheck"),
        (
            "run: python -m pip install -r requirements.txt",
            "run: echo ${{ github.event.pull_request.title }}",
            "untrusted",
        ),
        ("actions/checkout@v6", "somebody/checkout@v6", "unpinned"),
    ],
)
def test_githubs_validators_see_a_broken_workflow(
    cli: Callable[..., Done], right: str, wrong: str, says: str
) -> None:
    cli("ci", "init", "github", *TWO)
    path = WORKFLOWS / "models.yml"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))

    assert says in check_github(path)


@pytest.mark.parametrize(
    ("right", "wrong"), [("  when: always", "  when: perhaps"), ("  timeout: 1h", "  timeout: [1]")]
)
def test_gitlabs_validator_sees_a_broken_pipeline(
    cli: Callable[..., Done], right: str, wrong: str
) -> None:
    cli("ci", "init", "gitlab", *TWO)
    text = GITLAB.read_text()
    assert right in text
    GITLAB.write_text(text.replace(right, wrong))

    assert "Schema validation errors" in check_gitlab(GITLAB)


def workflow(name: str) -> Any:
    return yaml.safe_load((WORKFLOWS / name).read_text())


def test_a_token_may_do_what_its_job_needs_and_no_more(cli: Callable[..., Done]) -> None:
    cli("ci", "init", "github", *TWO)

    for name, writes in (("models.yml", "comment"), ("promote-model.yml", "release")):
        found = workflow(name)
        assert found["permissions"] == {}
        for job, each in found["jobs"].items():
            allowed = set(each["permissions"].values())
            assert allowed == ({"write"} if job == writes else {"read"}), job
            runs = " ".join(step.get("run", "") for step in each["steps"])
            assert not (job == writes and "pip install" in runs), "it runs nobody's code"


def test_nothing_that_somebody_typed_is_part_of_a_script(cli: Callable[..., Done]) -> None:
    cli("ci", "init", "github", *TWO)

    for path in WORKFLOWS.iterdir():
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                assert "${{" not in step.get("run", "")


def test_the_head_names_the_environment_as_the_job_has_it(cli: Callable[..., Done]) -> None:
    cli("ci", "init", "github", *TWO, "--stage", "staging")

    assert '# - the environment "staging", where' in (WORKFLOWS / "models.yml").read_text()


def test_the_models_are_those_that_were_named(cli: Callable[..., Done]) -> None:
    cli("ci", "init", "github", *TWO, "--stage", "staging", "--gate", "ci/checks.py")
    found, by_hand = workflow("models.yml"), workflow("promote-model.yml")

    for job in ("train", "promote"):
        assert found["jobs"][job]["strategy"]["matrix"]["model"] == ["churn", "fraud.v2"]
    assert found["env"]["STAGE"] == found["jobs"]["promote"]["environment"] == "staging"
    assert found["env"]["GATES"] == "ci/checks.py"
    inputs = by_hand[True]["workflow_dispatch"]["inputs"]  # YAML 1.1 takes "on" for a bool.
    assert inputs["model"]["options"] == ["churn", "fraud.v2"]
    assert inputs["stage"]["default"] == "staging"


def test_without_a_name_the_models_are_those_that_are_registered(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    done = cli("ci", "init", "gitlab")
    assert done.code == 2
    assert "--model" in done.err
    assert not GITLAB.exists()

    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    with mk.load() as kit:
        for name in ("b", "a"):
            kit.registry.register(name, file)
    assert cli("ci", "init", "gitlab").code == 0
    found = yaml.safe_load(GITLAB.read_text())
    assert found[".models"]["parallel"]["matrix"] == [{"MODEL": ["a", "b"]}]


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_what_is_there_is_replaced_only_by_force(cli: Callable[..., Done], system: str) -> None:
    files = [WORKFLOWS / "promote-model.yml"] if system == "github" else [GITLAB]
    others = [Path("gates.py"), Path(".gitlab-ci.yml")]
    for path in [*files, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
    done = cli("ci", "init", system, *TWO)

    assert done.code == 1
    assert str(files[0]) in done.err
    assert "--force" in done.err
    assert all(path.read_text() == "mine\n" for path in [*files, *others])
    assert not (WORKFLOWS / "models.yml").exists(), "nothing is written by halves"
    assert cli("ci", "init", system, *TWO, "--force").code == 0
    assert all(path.read_text() != "mine\n" for path in files)
    assert all(path.read_text() == "mine\n" for path in others), "these are never replaced"


@pytest.mark.parametrize(
    "more",
    [
        ("--model", "../x"),
        ("--model", "a${{ secrets.X }}"),
        ("--train", "a\nb"),
        ("--train", " "),
        ("--train", "echo ${{ github.event.issue.title }}"),
        ("--gate", ""),
        ("--gate", "gates.py:import"),
        ("--stage", "nowhere"),
    ],
    ids=str,
)
def test_what_would_break_out_of_the_file_is_refused(
    cli: Callable[..., Done], more: tuple[str, ...]
) -> None:
    done = cli("ci", "init", "github", *(() if more[0] == "--model" else TWO), *more)

    assert done.code in (1, 2)
    assert done.err.startswith("Error: ")
    assert not WORKFLOWS.exists()


def test_the_file_of_gates_to_begin_with_works(cli: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    with mk.load() as kit:
        kit.registry.register("churn", file)
    cli("ci", "init", "github")
    done = cli("promote", "churn", "latest", "production", "--gate", "gates.py")

    assert done.code == 0, done.err
    assert [record[0] for record in done.records[:3]] == [
        "digest_verified",
        "signature_compatible",
        "environment_known",
    ]


def test_the_gates_to_begin_with_are_called_as_the_workflow_asks(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    with mk.load() as kit:
        kit.registry.register("churn", file)
    said = "ci: x/mine.py:STRICT"
    cli("ci", "init", "github", "--gate", said)
    done = cli("promote", "churn", "latest", "production", "--gate", said)

    assert workflow("models.yml")["env"]["GATES"] == said
    assert done.code == 0, done.err
    assert len(done.records) == 4


STUB = """#!/bin/sh
# Stands for GitHub's own client: keeps what it was asked, and answers with an id if there is one.
printf '%s\\n' "$*" >> calls.txt
case "$*" in *--paginate*) cat ids.txt ;; esac
"""


@pytest.mark.parametrize("there", ["", "77\n"], ids=["first comment", "comment again"])
def test_one_comment_is_kept_up_to_date(
    cli: Callable[..., Done], tmp_path: Path, there: str
) -> None:
    cli("ci", "init", "github", *TWO)
    (step,) = (each for each in workflow("models.yml")["jobs"]["comment"]["steps"] if "run" in each)
    for model in ("b", "a"):
        Path(f"told/told-{model}").mkdir(parents=True)
        Path(f"told/told-{model}/decision.md").write_text(f"## {model}\n")
    Path("ids.txt").write_text(there)
    stub = tmp_path / "bin" / "gh"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    environ = {"PATH": f"{stub.parent}:/usr/bin:/bin", "GH_REPO": "o/r", "NUMBER": "5"}
    run = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert Path("comment.md").read_text() == "<!-- mlopskit -->\n## a\n\n## b\n\n"
    last = Path("calls.txt").read_text().splitlines()[-1]
    if there:
        assert "PATCH repos/o/r/issues/comments/77 -F body=@comment.md" in last
    else:
        assert "POST repos/o/r/issues/5/comments -F body=@comment.md" in last


def test_a_long_comment_is_cut_to_what_github_takes(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    cli("ci", "init", "github", *TWO)
    (step,) = (each for each in workflow("models.yml")["jobs"]["comment"]["steps"] if "run" in each)
    Path("told/told-a").mkdir(parents=True)
    Path("told/told-a/decision.md").write_text("long line of a table\n" * 5000)
    Path("ids.txt").write_text("")
    stub = tmp_path / "bin" / "gh"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    environ = {"PATH": f"{stub.parent}:/usr/bin:/bin", "GH_REPO": "o/r", "NUMBER": "5"}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], env=environ, check=True)

    text = Path("comment.md").read_text()
    assert len(text) < 65_536
    assert text.endswith("The rest is in the artifacts of the job.\n")


@contextmanager
def gitlab(notes: list[dict[str, Any]], asked: list[tuple[str, str, str]]) -> Iterator[str]:
    """Answer as GitLab does to who is user 7, and keep what was asked."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            assert self.headers["PRIVATE-TOKEN"] == "secret"
            asked.append((self.command, self.path, "".join(parse_qs(body).get("body", []))))
            found: Any = {"id": 7} if self.path.endswith("/user") else notes
            content = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of the standard library

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api/v4"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.network
@pytest.mark.parametrize("again", [False, True], ids=["first note", "note again"])
def test_one_note_is_kept_up_to_date(cli: Callable[..., Done], again: bool) -> None:
    cli("ci", "init", "gitlab", *TWO)
    (script,) = yaml.safe_load(GITLAB.read_text())["comment"]["script"]
    for model in ("b", "a"):
        Path(f"told/{model}").mkdir(parents=True)
        Path(f"told/{model}/decision.md").write_text(f"## {model} & <ü>\n")
    notes = [
        {"id": 1, "author": {"id": 9}, "body": "<!-- mlopskit --> somebody else's"},
        {"id": 2, "author": {"id": 7}, "body": "another tool's"},
        {"id": 3, "author": {"id": 7}, "body": "<!-- mlopskit -->\nof last time"},
    ]
    asked: list[tuple[str, str, str]] = []
    with gitlab(notes if again else notes[:2], asked) as api:
        environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "CI_API_V4_URL": api,
            "CI_PROJECT_ID": "12",
            "CI_MERGE_REQUEST_IID": "5",
            "MLOPSKIT_NOTE_TOKEN": "secret",
        }
        run = subprocess.run(["sh", "-e", "-c", script], env=environ, capture_output=True)

    assert run.returncode == 0, run.stderr
    method, path, body = asked[-1]
    assert body == "<!-- mlopskit -->\n## a & <ü>\n\n## b & <ü>\n"
    where = "/api/v4/projects/12/merge_requests/5/notes"
    assert (method, path) == (("PUT", f"{where}/3") if again else ("POST", where))


def test_the_promotion_fails_the_job_and_is_told_all_the_same(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    with mk.load() as kit:
        kit.registry.register("churn", file, metrics={"auc": 0.5})
    cli("ci", "init", "github")
    Path("gates.py").write_text("def gate_never(context): return False\n")
    steps = workflow("models.yml")["jobs"]["promote"]["steps"]
    (step,) = (each for each in steps if each.get("name") == "Promote")
    Path("told").mkdir()
    Path("told/candidate.txt").write_text("1\n")
    program = tmp_path / "bin" / "mlopskit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlopskit "$@"\n')
    program.chmod(0o755)

    def promote() -> int:
        environ = {
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "MODEL": "churn",
            "STAGE": "production",
            "GATES": "gates.py",
            "WHY": "`x` $(y)",
            "GITHUB_STEP_SUMMARY": "summary.md",
        }
        command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
        return subprocess.run(command, env=environ, capture_output=True, check=False).returncode

    assert promote() == 1
    assert "may not enter production" in Path("summary.md").read_text()
    Path("gates.py").write_text("def gate_fine(context): return True\n")
    assert promote() == 0
    assert re.search(r"^# churn 1 in production", Path("summary.md").read_text(), re.MULTILINE)
    with mk.load() as kit:
        last = kit.registry.history("churn")[-1]
    assert (last.action, last.why) == ("promoted", "`x` $(y)")
