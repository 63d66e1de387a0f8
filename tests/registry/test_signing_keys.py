"""Keys and certificates of signatures: which are taken, and what is said of those that are not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit import Kit
from mlopskit.errors import ConfigError, InvalidInput, InvalidSignature, MissingDependency
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("model_signing")
pytest.importorskip("OpenSSL")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.registry.signers import public, write_key


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(home: Path, tmp_path: Path) -> Iterator[LocalRegistry]:
    source = tmp_path / "weights.bin"
    source.write_bytes(b"weights")
    with LocalRegistry(home) as opened:
        opened.register("churn", source)
        yield opened


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "release.key")


def test_a_missing_key_is_told_when_the_registry_is_opened(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"release\.pub cannot be read: No such file"):
        LocalRegistry(home, require_signature="release.pub")
    line = {"backend": "local", "require_signature": [str(tmp_path / "gone.pub")]}
    with Kit(home=str(home), registry=line) as kit, pytest.raises(ConfigError, match=r"gone\.pub"):
        kit.registry.ping()


def test_the_configuration_takes_a_key_by_its_path_or_its_text(
    registry: LocalRegistry, home: Path, key: Path
) -> None:
    registry.sign("churn", 1, key=key)
    for given in (public(key), f"${{file:{public(key)}}}", [Path(public(key)).read_text()]):
        line = {"backend": "local", "location": str(home), "require_signature": given}
        with Kit(registry=line) as kit:
            assert kit.registry.verify("churn", 1).version == 1


@pytest.mark.parametrize("given", ["", [], [""], 3, True, [None], {"a": 1}])
def test_an_option_that_names_no_key_does_not_switch_the_check_off(home: Path, given: Any) -> None:
    with pytest.raises(ConfigError, match="require_signature is"):
        LocalRegistry(home, require_signature=given)


def test_a_file_of_another_kind_is_refused_with_what_to_do(
    home: Path, key: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"openssl ec -in .* -pubout"):
        LocalRegistry(home, require_signature=str(key))
    (tmp_path / "text").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(ConfigError, match="no public key and no certificate"):
        LocalRegistry(home, require_signature=tmp_path / "text")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    (tmp_path / "rsa.pub").write_bytes(
        other.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(ConfigError, match="no elliptic-curve key"):
        LocalRegistry(home, require_signature=tmp_path / "rsa.pub")
    odd = write_key(tmp_path / "odd.key", curve=ec.SECP256K1())
    with pytest.raises(ConfigError, match="secp256k1"):
        LocalRegistry(home, require_signature=public(odd))
    with LocalRegistry(home) as registry, pytest.raises(InvalidInput, match="secp256k1"):
        registry.sign("churn", 1, key=odd)


def test_a_key_of_an_algorithm_that_nothing_reads_is_refused_like_any_other(
    registry: LocalRegistry, home: Path, tmp_path: Path
) -> None:
    private, opened = tmp_path / "sm2.key", tmp_path / "sm2.pub"
    for command in (
        ["openssl", "ecparam", "-name", "SM2", "-genkey", "-noout", "-out", str(private)],
        ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(opened)],
    ):
        if shutil.which("openssl") is None or subprocess.run(command).returncode:
            pytest.skip("openssl makes the key")
    with pytest.raises(ConfigError, match=r"sm2\.pub is no public key"):
        LocalRegistry(home, require_signature=opened)
    with pytest.raises(InvalidInput, match=r"sm2\.key is a key of another kind"):
        registry.sign("churn", 1, key=private)


def test_a_file_of_several_keys_is_refused_since_one_of_them_would_count(
    home: Path, key: Path, tmp_path: Path
) -> None:
    other = write_key(tmp_path / "other.key")
    both = tmp_path / "both.pub"
    both.write_text(Path(public(key)).read_text() + Path(public(other)).read_text())
    with pytest.raises(ConfigError, match=r"both\.pub holds 2 public keys"):
        LocalRegistry(home, require_signature=both)


@pytest.mark.parametrize("lines", [False, True], ids=["one line", "lines"])
def test_a_key_without_its_first_line_is_not_shown(
    registry: LocalRegistry, key: Path, lines: bool
) -> None:
    body = key.read_text().splitlines()[1:-1]
    bare = ("\n" if lines else "").join(body)
    with pytest.raises(ConfigError, match="look like a key") as refused:
        registry.sign("churn", 1, key=bare)
    assert body[0] not in str(refused.value)


def test_a_path_may_look_like_a_key(registry: LocalRegistry, tmp_path: Path) -> None:
    folder = Path("/tmp") / tmp_path.name.replace("-", "").replace("_", "") / ("k" * 80)
    folder.mkdir(parents=True)
    try:
        path = write_key(folder / "release")
        assert registry.sign("churn", 1, key=str(path)).version == 1
    finally:
        shutil.rmtree(folder.parent)


def test_a_private_key_in_a_wrong_list_is_not_shown(
    registry: LocalRegistry, home: Path, key: Path
) -> None:
    wrong: Any = [key.read_text(), None]
    with pytest.raises(ConfigError, match="require_signature is a list with a key in it") as one:
        LocalRegistry(home, require_signature=wrong)
    with pytest.raises(ConfigError, match="keys is a list with a key in it") as other:
        registry.verify("churn", 1, keys=wrong)
    for refused in (one, other):
        assert key.read_text().splitlines()[1] not in str(refused.value)


def test_a_private_key_that_everybody_can_read_is_told(
    registry: LocalRegistry, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key.chmod(0o600)
    registry.sign("churn", 1, key=key)
    registry.sign("churn", 1, key=key.read_text())
    assert "Everybody" not in caplog.text
    key.chmod(0o644)
    registry.sign("churn", 1, key=key)
    assert f"chmod 600 {key}" in caplog.text


def test_a_key_that_is_exchanged_later_changes_nothing(
    registry: LocalRegistry, home: Path, key: Path, tmp_path: Path
) -> None:
    with LocalRegistry(home, require_signature=public(key)) as strict:
        other = write_key(tmp_path / "other.key")
        shutil.copy(public(other), public(key))
        registry.sign("churn", 1, key=other)
        with pytest.raises(InvalidSignature):
            strict.load("churn", 1)


def test_without_keys_there_is_nothing_to_verify_with(registry: LocalRegistry) -> None:
    with pytest.raises(InvalidInput, match="no key to verify with"):
        registry.verify("churn", 1)


def test_a_missing_package_is_told_when_the_registry_is_opened(home: Path, key: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules[sys.argv[1]] = None\n"
        "from mlopskit.registry.local import LocalRegistry\n"
        "try:\n"
        "    LocalRegistry(sys.argv[2], require_signature=sys.argv[3])\n"
        "except Exception as exc:\n"
        "    print(type(exc).__name__, exc)\n"
    )
    for module, package in (("model_signing", "model-signing"), ("OpenSSL", "pyopenssl")):
        command = [sys.executable, "-c", code, module, str(home), public(key)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.startswith(MissingDependency.__name__), done
        assert package in done.stdout
        assert "pip install 'mlopskit[sign]'" in done.stdout
