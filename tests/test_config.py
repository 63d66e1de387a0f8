from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlopskit import config
from mlopskit.errors import ConfigError, UnknownOption, UnknownProfile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.core


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "deep" / "er").mkdir(parents=True)
    return folder


def read(project: Path, **given: Any) -> config.Settings:
    return config.read(project, environ=given.pop("environ", {}), **given)


def tracking(settings: config.Settings) -> tuple[str, str | None, dict[str, Any]]:
    (line,) = settings.lines["tracking"]
    return line.backend, line.location, line.options


def test_with_nothing_said_everything_is_local(project: Path) -> None:
    settings = read(project)

    assert {line.backend for lines in settings.lines.values() for line in lines} == {"local"}
    assert settings.home == project / ".mlopskit"
    assert {value.origin for value in settings.values()} == {"default"}


@pytest.mark.parametrize(
    ("text", "backend", "location"),
    [
        ("mlflow", "mlflow", None),
        ("mlflow:sqlite:///mlflow.db", "mlflow", "sqlite:///mlflow.db"),
        ("mlflow:http://127.0.0.1:5000", "mlflow", "http://127.0.0.1:5000"),
        ("local:/data/runs", "local", "/data/runs"),
        ("wandb:team/churn", "wandb", "team/churn"),
    ],
)
def test_a_line_is_a_backend_and_a_location(
    project: Path, text: str, backend: str, location: str | None
) -> None:
    settings = read(project, lines={"tracking": text})

    assert tracking(settings) == (backend, location, {})


def test_each_source_outranks_the_ones_below_it(project: Path, tmp_path: Path) -> None:
    user = tmp_path / "user-config" / "mlopskit"
    user.mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(user.parent)}
    expected = []

    (user / "config.toml").write_text('tracking = "user"\n[profile.p]\ntracking = "profile"\n')
    expected.append(("user", str(user / "config.toml")))
    assert origin(read(project, environ=environ)) == expected[-1]

    (project / "mlopskit.toml").write_text('tracking = "file"\n')
    assert origin(read(project, environ=environ)) == ("file", str(project / "mlopskit.toml"))

    environ["MLOPSKIT_PROFILE"] = "p"
    assert origin(read(project, environ=environ)) == (
        "profile",
        f"profile p of {user / 'config.toml'}",
    )

    environ["MLOPSKIT_TRACKING"] = "variable"
    assert origin(read(project, environ=environ)) == ("variable", "MLOPSKIT_TRACKING")

    command_line = ["tracking=option"]
    assert origin(read(project, environ=environ, command_line=command_line)) == (
        "option",
        "command line",
    )
    assert origin(
        read(project, environ=environ, command_line=command_line, lines={"tracking": "code"})
    ) == ("code", "argument")


def origin(settings: config.Settings) -> tuple[str, str]:
    return settings.lines["tracking"][0].backend, settings.origins["tracking"]


def test_the_nearest_file_upwards_is_the_projects(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.mlopskit]\ntracking = "outer"\n')
    (project / "deep" / "pyproject.toml").write_text('[project]\nname = "says-nothing"\n')
    deep = read(project / "deep" / "er")
    assert deep.lines["tracking"][0].backend == "outer"
    assert deep.home == project / ".mlopskit", "state lives beside the file, not where one stands"

    (project / "deep" / "mlopskit.toml").write_text('tracking = "inner"\n')
    assert read(project / "deep" / "er").lines["tracking"][0].backend == "inner"


def test_a_table_has_options_and_the_environment_lays_options_over_it(project: Path) -> None:
    (project / "mlopskit.toml").write_text(
        '[tracking]\nbackend = "mlflow"\nlocation = "http://x"\nretries = 3\n'
    )
    environ = {"MLOPSKIT_TRACKING__RETRIES": "5", "MLOPSKIT_TRACKING__NAME": "a b"}
    settings = read(project, environ=environ)

    assert tracking(settings) == ("mlflow", "http://x", {"retries": 5, "name": "a b"})
    origins = {value.key: value.origin for value in settings.values()}
    assert origins["tracking.retries"] == "MLOPSKIT_TRACKING__RETRIES"
    assert origins["tracking.backend"] == str(project / "mlopskit.toml")

    replaced = read(project, environ=environ, lines={"tracking": "local"})
    assert tracking(replaced) == ("local", None, {}), "an option never crosses to a higher line"


def test_a_list_of_lines_fans_out(project: Path) -> None:
    (project / "mlopskit.toml").write_text(
        'tracking = ["local", {backend = "wandb", location = "t/c", mode = "offline"}]\n'
    )
    lines = read(project).lines["tracking"]

    assert [line.backend for line in lines] == ["local", "wandb"]
    assert lines[1].options == {"mode": "offline"}
    with pytest.raises(ConfigError, match="has 2 backends"):
        read(project, environ={"MLOPSKIT_TRACKING__MODE": "online"})


@pytest.mark.parametrize("where", ["environ", "command_line"])
def test_a_list_or_table_may_be_written_anywhere(project: Path, where: str) -> None:
    text = '["local", {backend = "wandb", mode = "offline"}]'
    given: dict[str, Any] = (
        {"environ": {"MLOPSKIT_TRACKING": text}}
        if where == "environ"
        else {"command_line": [f"tracking={text}"]}
    )
    lines = read(project, **given).lines["tracking"]

    assert [line.backend for line in lines] == ["local", "wandb"]


def test_home_is_seen_from_whoever_names_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mlopskit.toml").write_text('home = "state"\n')
    monkeypatch.chdir(tmp_path)

    assert read(project / "deep").home == project / "state"
    assert read(project, environ={"MLOPSKIT_HOME": "here"}).home == tmp_path / "here"


def test_an_unknown_key_names_the_nearest_right_one(project: Path) -> None:
    file = project / "mlopskit.toml"
    file.write_text('trackin = "local"\n')
    with pytest.raises(UnknownOption, match=r"no key 'trackin' in .*Did you mean 'tracking'"):
        read(project)

    file.write_text('[profile.a]\nfeature = "local"\n')
    with pytest.raises(UnknownOption, match=r"\[profile.a\].*Did you mean 'features'"):
        read(project, profile="a")

    file.unlink()
    with pytest.raises(UnknownOption, match="Did you mean 'MLOPSKIT_TRACKING'"):
        read(project, environ={"MLOPSKIT_TRAKING": "local"})
    with pytest.raises(UnknownOption, match="Did you mean 'serving'"):
        read(project, command_line=["servin=local"])


def test_an_unknown_profile_names_the_nearest_right_one(project: Path) -> None:
    (project / "mlopskit.toml").write_text('[profile.wandb]\ntracking = "wandb"\n')

    with pytest.raises(UnknownProfile, match=r"'wanbd'\. Did you mean 'wandb'"):
        read(project, profile="wanbd")


def test_a_toml_error_names_the_file_and_the_line(project: Path) -> None:
    file = project / "mlopskit.toml"
    file.write_text('tracking = "local"\nregistry = \n')

    with pytest.raises(ConfigError, match=rf"^{file}, line 2, column 12: Invalid value\.$"):
        read(project)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = 1\n" * 200_000])
def test_a_file_that_is_no_configuration_is_refused(project: Path, content: bytes) -> None:
    (project / "mlopskit.toml").write_bytes(content)

    with pytest.raises(ConfigError, match=r"mlopskit\.toml"):
        read(project)


def test_a_path_that_is_not_there_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file or folder"):
        read(project / "nowhere")


@pytest.mark.parametrize("line", [7, "", "two words", [], {"backend": 3}, {"location": ["x"]}])
def test_what_is_no_line_is_refused(project: Path, line: object) -> None:
    with pytest.raises(ConfigError, match="argument: tracking"):
        read(project, lines={"tracking": line})


def test_a_password_in_a_url_is_refused_with_the_fix(project: Path) -> None:
    url = "postgresql://me:" + "hunter2@db/x"
    for line in (f"mlflow:{url}", {"backend": "mlflow", "store": url}):
        with pytest.raises(ConfigError, match=r"write \$\{env:NAME\}") as refused:
            read(project, lines={"tracking": line})
        assert "hunter2" not in str(refused.value)

    fine = "mlflow:postgresql://me:${env:PW}@db/x"
    (kept,) = read(project, lines={"tracking": fine}).lines["tracking"]
    resolved, secrets = config.fetch_secrets(kept, {"PW": "hunter2"})
    assert resolved.location == url
    assert secrets == {"hunter2"}


def test_secrets_come_from_the_environment_and_from_files(project: Path) -> None:
    (project / "key.txt").write_text("s3cr3t\n")
    (project / "mlopskit.toml").write_text(
        '[tracking]\nbackend = "mlflow"\ntoken = "${file:key.txt}"\n'
    )
    settings = read(project / "deep")
    (line,) = settings.lines["tracking"]

    assert config.fetch_secrets(line, {})[0].options == {"token": "s3cr3t"}
    assert "s3cr3t" not in str(settings.values())
    for missing in ("${env:NOPE}", "${file:/no/such/file}", "${vault:x}"):
        with pytest.raises(ConfigError):
            config.fetch_secrets(config.Line(location=missing), {})


def test_a_secret_written_plainly_is_masked_when_it_is_shown(project: Path) -> None:
    settings = read(project, lines={"tracking": {"backend": "x", "api_key": "abc", "n": 1}})
    shown = {value.key: value.value for value in settings.values()}

    assert shown["tracking.api_key"] == "[redacted]"
    assert shown["tracking.n"] == 1


def test_a_kit_for_a_library_reads_no_file_and_no_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mlopskit.toml").write_text("not toml at all")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLOPSKIT_TRACKING", "nonsense")

    settings = config.only({"registry": "mlflow"})

    assert settings.lines["registry"][0].backend == "mlflow"
    assert settings.lines["tracking"][0].backend == "local"


def test_an_empty_variable_says_nothing(project: Path) -> None:
    environ = {"MLOPSKIT_HOME": "", "MLOPSKIT_TRACKING": "", "MLOPSKIT_PROFILE": ""}

    assert read(project, environ=environ) == read(project)
