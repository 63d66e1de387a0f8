"""Bytes at addresses: one contract for folders, fsspec's own memory, and S3 as moto serves it."""

from __future__ import annotations

import os
import stat
import sys
import threading
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit.addresses import BlobStore, RemoteBlobs, blobs_at, fetch, shown
from mlopskit.errors import (
    IntegrityError,
    InvalidInput,
    InvalidName,
    MissingDependency,
    NotFound,
    StorageError,
    Unavailable,
)
from mlopskit.storage import Blobs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
MISSING = "sha256:" + "0" * 64
QUICK: dict[str, Any] = {"connect_timeout": 2, "read_timeout": 2, "retries": {"max_attempts": 1}}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """Serve S3 on the loopback interface; return what a file system needs to reach it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    options = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"},
        "config_kwargs": QUICK,
    }
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
    ):
        pass
    yield options
    server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    own = uuid.uuid4().hex
    if request.param == "folder":
        return blobs_at(tmp_path / "blobs")
    if request.param == "memory":
        pytest.importorskip("fsspec")
        return blobs_at(f"memory://{own}/blobs")
    options = request.getfixturevalue("s3")
    return blobs_at(f"s3://bucket/{own}/blobs", **options)


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(5 << 20)], ids=len)
def test_bytes_come_back_by_their_digest(blobs: BlobStore, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)

    digest, size = blobs.put(source)
    again = blobs.put(content)
    blobs.copy(digest, tmp_path / "got" / "file")

    assert (digest, size) == again
    assert size == len(content)
    assert blobs.has(digest)
    assert (tmp_path / "got" / "file").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "got" / "file").stat().st_mode) == 0o600
    blobs.remove(digest)
    blobs.remove(digest)
    assert not blobs.has(digest)


def test_what_is_not_there_is_not_found(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(b"hello")

    assert not blobs.has(MISSING)
    with pytest.raises(NotFound, match=MISSING):
        blobs.copy(MISSING, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_threads_may_put_equal_and_different_bytes(blobs: BlobStore, tmp_path: Path) -> None:
    contents = [b"%d" % (number % 4) * 100_000 for number in range(8)]
    found: list[tuple[str, int]] = []
    threads = [
        threading.Thread(target=lambda content=content: found.append(blobs.put(content)))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len({digest for digest, _ in found}) == 4
    for digest, _ in found:
        blobs.copy(digest, tmp_path / digest[-8:])


def test_a_sparse_file_stays_sparse(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.seek(100 << 20)
        file.write(b"x")
        file.truncate(200 << 20)
    store = Blobs(tmp_path / "blobs")

    digest, size = store.put(large)
    store.copy(digest, tmp_path / "got")

    assert size == 200 << 20
    assert (tmp_path / "got").stat().st_size == size
    assert (tmp_path / "got").stat().st_blocks * 512 < 8 << 20
    with (tmp_path / "got").open("rb") as file:
        file.seek((100 << 20) - 1)
        assert file.read(3) == b"\0x\0"


def test_changed_bytes_are_noticed(s3: dict[str, Any], tmp_path: Path) -> None:
    store = RemoteBlobs("s3://bucket/changed", **s3)
    digest, _ = store.put(b"hello")
    (key,) = store._files.find("bucket/changed")
    store._files.pipe(key, b"jello")

    with pytest.raises(IntegrityError):
        store.copy(digest, tmp_path / "got")

    assert list(tmp_path.iterdir()) == [] or not (tmp_path / "got").exists()


def test_a_bucket_that_is_not_there_is_an_error_that_names_it(s3: dict[str, Any]) -> None:
    store = blobs_at("s3://nowhere-at-all/x", **s3)

    with pytest.raises(StorageError, match="nowhere-at-all"):
        store.put(b"hello")


def test_a_store_that_does_not_answer_is_unavailable(s3: dict[str, Any], tmp_path: Path) -> None:
    gone = {**s3, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "x"}}
    store = blobs_at("s3://bucket/x", **gone)

    for call in (
        lambda: store.put(b"hello"),
        lambda: store.has(HELLO),
        lambda: store.copy(HELLO, tmp_path / "got"),
    ):
        with pytest.raises(Unavailable, match="s3://bucket/x"):
            call()


def test_a_file_at_an_address_is_fetched_and_verified(s3: dict[str, Any], tmp_path: Path) -> None:
    store = RemoteBlobs("s3://bucket/f", **s3)
    store._files.pipe("bucket/f/hello.txt", b"hello")
    store._files.pipe("bucket/f/deep/er.txt", b"deeper")

    assert fetch("s3://bucket/f/hello.txt", tmp_path / "a", HELLO, **s3) == 5
    assert fetch("s3://bucket/f", tmp_path / "all", **s3) == 11

    assert (tmp_path / "a").read_bytes() == b"hello"
    assert (tmp_path / "all" / "deep" / "er.txt").read_bytes() == b"deeper"
    with pytest.raises(IntegrityError):
        fetch("s3://bucket/f/hello.txt", tmp_path / "b", MISSING, **s3)
    assert not (tmp_path / "b").exists()
    with pytest.raises(NotFound, match=r"s3://bucket/none"):
        fetch("s3://bucket/none", tmp_path / "c", **s3)
    with pytest.raises(InvalidInput, match="is a folder"):
        fetch("s3://bucket/f", tmp_path / "d", HELLO, **s3)


def test_files_of_this_machine_are_fetched_without_fsspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "hello.txt").write_bytes(b"hello")

    assert fetch((folder / "hello.txt").as_uri(), tmp_path / "got", HELLO) == 5
    assert fetch(folder.as_uri(), tmp_path / "all") == 5

    assert (tmp_path / "all" / "hello.txt").read_bytes() == b"hello"
    with pytest.raises(NotFound):
        fetch((tmp_path / "none").as_uri(), tmp_path / "x")
    with pytest.raises(MissingDependency, match=r"mlopskit\[s3\]"):
        fetch("s3://bucket/x", tmp_path / "y")


def test_a_hostile_key_leaves_no_folder(s3: dict[str, Any], tmp_path: Path) -> None:
    store = RemoteBlobs("s3://bucket/h", **s3)
    store._files.pipe("bucket/h/../x.txt", b"evil")

    with pytest.raises(InvalidName):
        fetch("s3://bucket/h", tmp_path / "in" / "deep", **s3)

    assert not (tmp_path / "in" / "x.txt").exists()


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("az", "azure"), ("abfs", "azure")])
def test_the_extra_for_an_address_is_named(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    for package in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingDependency, match=rf"mlopskit\[{extra}\]"):
        blobs_at(f"{scheme}://bucket/x")


def test_an_address_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")

    with pytest.raises(InvalidInput, match="gopher"):
        blobs_at("gopher://x/y")
    with pytest.raises(InvalidInput, match="takes no options"):
        blobs_at(tmp_path, key="x")


def test_an_address_is_shown_without_its_secrets() -> None:
    assert shown("s3://u:pw9@bucket/key?sig=abc#x") == "s3://bucket/key"
    assert shown("file:///a/b") == "file:///a/b"
    assert blobs_at("file:///a%20b").__dict__ == {"root": Path("/a b")}
