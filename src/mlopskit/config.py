"""Which tool stands behind each interface, and who said so.

Precedence, highest first: an argument in code, ``-c domain=line`` on the command line,
``MLOPSKIT_<DOMAIN>`` (and ``MLOPSKIT_<DOMAIN>__<OPTION>``), the profile, the nearest project file
upwards, the user's file, the default ``local``. A line replaces the whole line below it; an option
in the environment is laid over the line that won, if that line is not ranked above the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from mlopskit.errors import ConfigError, UnknownOption, UnknownProfile
from mlopskit.redaction import REDACTED, Redactor, has_url_password, is_secret_key

DOMAINS: Final = ("tracking", "registry", "serving", "features", "monitoring", "pipelines")
FILE_NAME: Final = "mlopskit.toml"
HOME_NAME: Final = ".mlopskit"
PREFIX: Final = "MLOPSKIT_"
LARGEST_FILE: Final = 1 << 20

_LINE = re.compile(r"(?P<backend>[A-Za-z0-9_.-]+)(?::(?P<location>.*))?\Z", re.DOTALL)
_REFERENCE = re.compile(r"\$\{(?P<kind>[a-z]+):(?P<what>[^}]*)\}")


class Line(BaseModel):
    """One backend with its location and options, as they were written: secrets not yet fetched."""

    model_config = ConfigDict(frozen=True)

    backend: str = "local"
    location: str | None = None
    options: dict[str, Any] = {}

    def masked(self) -> dict[str, Any]:
        """Return the line's values with everything secret in them hidden, for showing."""
        shown: dict[str, Any] = {"backend": self.backend}
        if self.location is not None:
            shown["location"] = _masked("location", self.location)
        return shown | {key: _masked(key, value) for key, value in self.options.items()}


class Value(BaseModel):
    """One configured value and where it came from."""

    model_config = ConfigDict(frozen=True)

    key: str
    value: Any
    origin: str


class Settings(BaseModel):
    """A whole configuration: for each domain its lines (tracking may have several), and the home.

    Attributes:
        home: The folder under which embedded backends keep their state.
        profile: The name of the profile in force, or None.
        lines: The lines of every domain, by domain.
        origins: For each domain, and for ``home``, ``profile`` and ``<domain>.<option>`` where an
            option came from elsewhere than its line, who said so.
        files: The configuration files that were read.
    """

    model_config = ConfigDict(frozen=True)

    home: Path
    profile: str | None = None
    lines: dict[str, tuple[Line, ...]]
    origins: dict[str, str]
    files: tuple[Path, ...] = ()

    def values(self) -> list[Value]:
        """List every value with its origin, secrets masked."""
        found = [Value(key="home", value=str(self.home), origin=self.origins["home"])]
        if self.profile:
            found.append(Value(key="profile", value=self.profile, origin=self.origins["profile"]))
        for domain in DOMAINS:
            lines = self.lines[domain]
            for number, line in enumerate(lines):
                prefix = domain if len(lines) == 1 else f"{domain}[{number}]"
                for key, value in line.masked().items():
                    origin = self.origins.get(f"{domain}.{key}", self.origins[domain])
                    found.append(Value(key=f"{prefix}.{key}", value=value, origin=origin))
        return found


def read(
    path: str | Path | None = None,
    *,
    profile: str | None = None,
    lines: Mapping[str, Any] | None = None,
    command_line: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the configuration in force.

    Args:
        path: A configuration file, or the folder from which the nearest one is looked for upwards.
            The current folder by default.
        profile: The profile to use; ``MLOPSKIT_PROFILE`` by default.
        lines: Lines given in code, by domain, and ``home``.
        command_line: Texts ``domain=line``, as ``-c`` takes them, and ``home=...`` and
            ``profile=...``.
        environ: The environment variables; those of the process by default.

    Raises:
        ConfigError: If a file or a line cannot be read, with its place.
        UnknownOption: If a key or domain is unknown.
        UnknownProfile: If no file has the profile.
    """
    environ = os.environ if environ is None else environ
    files = _files(path, environ)
    layers = [_File(file) for file in files]
    on_top = _from_command_line(command_line)
    name, name_origin = _profile(profile, on_top.pop("profile", None), environ)
    builder = _Builder(_default_home(path, layers))
    for layer in reversed(layers):
        builder.lay(layer.lines(), str(layer.path))
    if name:
        known = {each for layer in layers for each in layer.profiles}
        if name not in known:
            raise UnknownProfile(name, known)
        for layer in reversed(layers):
            if name in layer.profiles:
                builder.lay(layer.lines(name), f"profile {name} of {layer.path}")
        builder.origins["profile"] = name_origin
    builder.lay_environment(environ)
    builder.lay(on_top, "command line")
    builder.lay(dict(lines or {}), "argument")
    return builder.settings(name, tuple(files))


def only(lines: Mapping[str, Any]) -> Settings:
    """Build settings from these lines and the defaults alone: no file and no environment is read.

    Raises:
        ConfigError: If a line cannot be read.
    """
    builder = _Builder(Path(HOME_NAME))
    builder.lay(dict(lines), "argument")
    return builder.settings(None, ())


def parse_line(value: Any, where: str) -> tuple[Line, ...]:
    """Read one config line: a text, a table, or a list of either.

    Raises:
        ConfigError: If it is none of these, or holds a password in a URL.
    """
    if isinstance(value, Line):
        return (value,)
    if isinstance(value, str):
        return (_text_line(value, where),)
    if isinstance(value, Mapping):
        return (_table_line(value, where),)
    if isinstance(value, Sequence) and not isinstance(value, bytes) and value:
        return tuple(line for item in value for line in parse_line(item, where))
    raise ConfigError(
        f"{where}: {value!r} is no config line. Write '<backend>' or '<backend>:<location>', "
        "or a table with backend, location and options."
    )


def fetch_secrets(
    line: Line, environ: Mapping[str, str] | None = None
) -> tuple[Line, frozenset[str]]:
    """Return the line with every ``${env:NAME}`` and ``${file:PATH}`` replaced, and what they held.

    Raises:
        ConfigError: If a variable is not set, a file cannot be read, or the kind is unknown.
    """
    environ = os.environ if environ is None else environ
    secrets: set[str] = set()

    def fetched(match: re.Match[str]) -> str:
        kind, what = match["kind"], match["what"]
        if kind == "env":
            if what not in environ:
                raise ConfigError(f"{match[0]}: the environment variable {what!r} is not set.")
            text = environ[what]
        elif kind == "file":
            try:
                text = Path(what).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise ConfigError(f"{match[0]}: the file cannot be read: {exc}.") from exc
        else:
            raise UnknownOption("reference", match[0], ["${env:NAME}", "${file:PATH}"])
        secrets.add(text)
        return text

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(fetched, value)
        if isinstance(value, Mapping):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return value

    resolved = Line(backend=line.backend, location=walk(line.location), options=walk(line.options))
    return resolved, frozenset(secrets)


class _File:
    """One configuration file: its own lines and its profiles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        table = _toml(path)
        if path.name == "pyproject.toml":
            table = table.get("tool", {}).get("mlopskit", {})
        profiles = table.pop("profile", {})
        if not isinstance(profiles, dict) or not all(
            isinstance(p, dict) for p in profiles.values()
        ):
            raise ConfigError(f"{path}: a profile is a table, [profile.NAME].")
        self._table: dict[str, Any] = table
        self.profiles: dict[str, dict[str, Any]] = profiles

    def lines(self, profile: str | None = None) -> dict[str, Any]:
        """Return the file's own lines, or a profile's, with paths made absolute."""
        table = self._table if profile is None else self.profiles[profile]
        where = str(self.path) + (f" [profile.{profile}]" if profile else "")
        for key in table:
            if key not in (*DOMAINS, "home"):
                raise UnknownOption("key", key, [*DOMAINS, "home", "profile"], where)
        folder = self.path.parent
        found: dict[str, Any] = {key: _rooted(value, folder) for key, value in table.items()}
        if "home" in found:
            if not isinstance(found["home"], str):
                raise ConfigError(f"{where}: home is a path, and this is {found['home']!r}.")
            found["home"] = folder / Path(found["home"]).expanduser()
        return found


class _Builder:
    """Lays sources over one another, lowest first, and remembers where each value came from."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lines: dict[str, tuple[Line, ...]] = dict.fromkeys(DOMAINS, (Line(),))
        self.origins: dict[str, str] = dict.fromkeys((*DOMAINS, "home"), "default")

    def lay(self, lines: Mapping[str, Any], origin: str) -> None:
        for key, value in lines.items():
            if value is None:
                continue
            if key == "home":
                self.home = Path(value).expanduser()
            elif key in DOMAINS:
                self.lines[key] = parse_line(value, f"{origin}: {key}")
                for stale in [k for k in self.origins if k.startswith(key + ".")]:
                    del self.origins[stale]
            else:
                raise UnknownOption("domain", key, [*DOMAINS, "home"], origin)
            self.origins[key] = origin

    def lay_environment(self, environ: Mapping[str, str]) -> None:
        options: list[tuple[str, str, str]] = []
        for name, text in sorted(environ.items()):
            if not text or not name.startswith(PREFIX) or name == PREFIX + "PROFILE":
                continue  # An empty variable is how a shell says that there is none.
            key, _, option = name.removeprefix(PREFIX).lower().partition("__")
            if key not in (*DOMAINS, "home") or (option and key == "home"):
                known = [PREFIX + each.upper() for each in (*DOMAINS, "home", "profile")]
                raise UnknownOption("environment variable", name, known)
            if option:
                options.append((name, key, option))
            else:
                self.lay({key: text if key == "home" else _listed(text)}, name)
        for name, key, option in options:
            lines = self.lines[key]
            if len(lines) > 1:
                raise ConfigError(
                    f"{name}: {key} has {len(lines)} backends, so it is not clear whose option "
                    f"this is. Write the whole list in a file or in {PREFIX}{key.upper()}."
                )
            table = {"backend": lines[0].backend, "location": lines[0].location}
            given = {**table, **lines[0].options, option: _scalar(environ[name])}
            self.lines[key] = (_table_line(given, name),)
            self.origins[f"{key}.{option}"] = name

    def settings(self, profile: str | None, files: tuple[Path, ...]) -> Settings:
        home = Path(os.path.abspath(self.home))  # The process may change its folder later.
        return Settings(
            home=home, profile=profile, lines=self.lines, origins=self.origins, files=files
        )


def _files(path: str | Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Return the files to read, the most specific first."""
    files: list[Path] = []
    start = Path(path) if path is not None else Path.cwd()
    if start.is_file():
        files.append(start)
    elif not start.is_dir():
        raise ConfigError(f"There is no configuration file or folder {str(start)!r}.")
    else:
        nearest = _nearest_file(start.resolve())
        files += [nearest] if nearest else []
    base = environ.get("XDG_CONFIG_HOME") or str(
        Path(environ.get("HOME", "~"), ".config").expanduser()
    )
    user = Path(base, "mlopskit", "config.toml")
    if user.is_file():
        files.append(user)
    return files


def _nearest_file(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        own = folder / FILE_NAME
        if own.is_file():
            return own
        shared = folder / "pyproject.toml"
        if shared.is_file() and "mlopskit" in _toml(shared).get("tool", {}):
            return shared
    return None


def _default_home(path: str | Path | None, layers: Sequence[_File]) -> Path:
    """Return the folder beside the project file, or beside where the search began."""
    for layer in layers:
        if layer.path.name in (FILE_NAME, "pyproject.toml"):
            return layer.path.parent / HOME_NAME
    start = Path(path) if path is not None else Path.cwd()
    return (start.parent if start.is_file() else start) / HOME_NAME


def _toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} is larger than {LARGEST_FILE} bytes: no configuration file.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        reason, _, place = str(exc).rpartition(" (at ")
        line = place.removesuffix(")") or "end of file"
        raise ConfigError(f"{path}, {line}: {reason or exc}.") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}.") from exc


def _text_line(text: str, where: str) -> Line:
    match = _LINE.match(text.strip())
    if not match:
        raise ConfigError(
            f"{where}: {text!r} is no config line. Write '<backend>' or '<backend>:<location>'."
        )
    line = Line(backend=match["backend"], location=match["location"] or None)
    _refuse_passwords(line, where)
    return line


def _table_line(table: Mapping[str, Any], where: str) -> Line:
    options = dict(table)
    backend = options.pop("backend", "local")
    location = options.pop("location", None)
    if not isinstance(backend, str) or not isinstance(location, str | None):
        raise ConfigError(f"{where}: backend and location are texts.")
    line = Line(backend=backend, location=location, options=options)
    _refuse_passwords(line, where)
    return line


def _refuse_passwords(line: Line, where: str) -> None:
    for key, value in {"location": line.location, **line.options}.items():
        if isinstance(value, str) and has_url_password(_REFERENCE.sub("", value)):
            raise ConfigError(
                f"{where}: there is a password inside the URL of {key!r}. Put it in an environment "
                "variable and write ${env:NAME} in its place."
            )


def _from_command_line(texts: Sequence[str]) -> dict[str, Any]:
    lines: dict[str, Any] = {}
    for text in texts:
        domain, equals, line = text.partition("=")
        if not equals:
            raise ConfigError(
                f"-c {text!r}: write domain=line, such as tracking=mlflow:sqlite:///m.db"
            )
        key = domain.strip()
        lines[key] = line if key in ("home", "profile") else _listed(line)
    return lines


def _profile(
    argument: str | None, on_command_line: str | None, environ: Mapping[str, str]
) -> tuple[str | None, str]:
    """Return the name of the profile in force and who said so."""
    if argument:
        return argument, "argument"
    if on_command_line:
        return on_command_line, "command line"
    return environ.get(PREFIX + "PROFILE") or None, PREFIX + "PROFILE"


def _listed(text: str) -> Any:
    """Read a TOML list or table of lines where a text begins like one; else return the text."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return tomllib.loads(f"line = {text}")["line"]
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{text!r} is no TOML list or table: {exc}.") from exc


def _scalar(text: str) -> Any:
    """Read a number, a bool, a list or a table as TOML would, and anything else as a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _rooted(value: Any, folder: Path) -> Any:
    """Make the paths of ``${file:...}`` absolute, seen from the file that names them."""
    if isinstance(value, str):
        return _REFERENCE.sub(
            lambda m: (
                f"${{file:{folder / Path(m['what']).expanduser()}}}"
                if m["kind"] == "file"
                else m[0]
            ),
            value,
        )
    if isinstance(value, dict):
        return {key: _rooted(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_rooted(item, folder) for item in value]
    return value


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _masked(k, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_masked(key, item) for item in value]
    if not isinstance(value, str):
        return value
    if is_secret_key(key) and not _REFERENCE.fullmatch(value):
        return REDACTED
    # A reference names a secret and is none: only what stands around it is looked at.
    parts = zip_longest(_REFERENCE.split(value)[::3], _REFERENCE.finditer(value))
    return "".join(Redactor().text(text) + (ref[0] if ref else "") for text, ref in parts)
