"""Bytes at addresses: one contract for folders, fsspec's own memory, and S3 as moto serves it."""

from __future__ import annotations

import errno
import hashlib
import random
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import urllib.request
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlopskit import addresses
from mlopskit.addresses import BlobStore, RemoteBlobs, blobs_at, fetch, remote_errors, shown
from mlopskit.errors import (
    IntegrityError,
    InvalidInput,
    InvalidName,
    MissingDependency,
    MlopskitError,
    NotFound,
    StorageError,
    Unavailable,
)
from mlopskit.storage import Blobs, chunks, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.network
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
MISSING = "sha256:" + "0" * 64
MIB = 1 << 20
LARGE = random.Random(0).randbytes(37 * MIB + 1)  # three parts of S3
QUICK: dict[str, Any] = {
    "connect_timeout": 1,
    "read_timeout": 1,
    "retries": {"mode": "standard", "total_max_attempts": 1},
}


def s3_options(endpoint: str) -> dict[str, Any]:
    """Return what the file system of S3 needs to reach an endpoint."""
    return {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        "config_kwargs": QUICK,
    }


@contextmanager
def moto() -> Iterator[tuple[str, Any]]:
    """Serve S3 with one bucket, named ``bucket``; yield its address, and the server to stop it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")):
        pass
    try:
        yield endpoint, server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto() as (found, _):
        yield found


@pytest.fixture
def s3(endpoint: str) -> dict[str, Any]:
    # Two threads that replace the same object may make moto fail with a 500; S3 does not.
    patient = {**QUICK, "retries": {"mode": "standard", "total_max_attempts": 8}}
    return {**s3_options(endpoint), "config_kwargs": patient}


@contextmanager
def web(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on the loopback interface, and yield the address."""
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answering(status: int, body: bytes = b"", length: int | None = None) -> Any:
    """Return a handler that gives the same answer to all, of a length that may be a lie."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    return Handler


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


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def files_in(store: BlobStore) -> list[str]:
    """Return every file of a store, whether it is a blob or not."""
    if isinstance(store, Blobs):
        return [str(path) for path in files_below(store.root)]
    assert isinstance(store, RemoteBlobs)
    files, root = store._open()
    return list(files.find(root))


# What every store does.


@pytest.mark.parametrize(
    "content", [b"", b"hello", bytes(3 * MIB), LARGE], ids=["empty", "small", "zeros", "parts"]
)
def test_bytes_come_back_by_their_digest(blobs: BlobStore, tmp_path: Path, content: bytes) -> None:
    source, got = tmp_path / "source", tmp_path / "got" / "file"
    source.write_bytes(content)

    digest, size = blobs.put(source)
    again = blobs.put(content)
    blobs.copy(digest, got)

    assert (
        (digest, size) == again == ("sha256:" + hashlib.sha256(content).hexdigest(), len(content))
    )
    assert blobs.has(digest)
    assert got.read_bytes() == content
    assert stat.S_IMODE(got.stat().st_mode) == 0o600
    assert [each.rpartition("/")[2] for each in files_in(blobs)] == [digest.partition(":")[2]]
    blobs.remove(digest)
    blobs.remove(digest)
    assert not blobs.has(digest)


def test_what_is_not_there_is_not_found(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(b"hello")

    assert not blobs.has(MISSING)
    with pytest.raises(NotFound, match=MISSING):
        blobs.copy(MISSING, tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", "md5:" + "0" * 32])
def test_what_is_no_digest_is_nowhere(blobs: BlobStore, tmp_path: Path, digest: str) -> None:
    for call in (blobs.has, blobs.remove, lambda each: blobs.copy(each, tmp_path / "got")):
        with pytest.raises(NotFound):
            call(digest)


def test_a_known_digest_is_believed_only_if_it_is_true(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"hellO")

    for source in (b"hellO", tmp_path / "other"):
        with pytest.raises(IntegrityError):
            blobs.put(source, digest=HELLO)
    with pytest.raises(InvalidInput):
        blobs.put(b"hello", digest="sha256:hello")
    assert files_in(blobs) == []

    assert blobs.put(b"hello", digest=HELLO, link=True) == (HELLO, 5)
    blobs.copy(HELLO, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"hello"


def test_eight_threads_may_put_equal_and_different_bytes(blobs: BlobStore, tmp_path: Path) -> None:
    contents = [b"%d" % (number % 4) * 100_000 for number in range(8)]
    together, found = threading.Barrier(8), []

    def put(content: bytes) -> None:
        together.wait()
        found.append(blobs.put(content))

    threads = [threading.Thread(target=put, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len({digest for digest, _ in found}) == len(files_in(blobs)) == 4
    for digest, _ in found:
        blobs.copy(digest, tmp_path / digest[-8:])


def test_a_source_that_cannot_be_read_leaves_nothing_behind(
    blobs: BlobStore, tmp_path: Path
) -> None:
    for digest in ("", HELLO):
        with pytest.raises(StorageError, match="No such file"):
            blobs.put(tmp_path / "missing", digest=digest)

    assert files_in(blobs) == []


@pytest.mark.parametrize("size", [5, 20 * MIB], ids=["whole", "parts"])
def test_an_upload_that_breaks_off_never_appears(
    blobs: BlobStore, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(blobs, Blobs):
        pytest.skip("a folder reads its source once; the tests of storage break it off")
    (tmp_path / "source").write_bytes(bytes(size))
    digest = digest_of(tmp_path / "source")
    whole = chunks

    def broken(source: Any) -> Iterator[bytes]:
        yield from whole(source)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(addresses, "chunks", broken)
    with pytest.raises(StorageError, match=r"source cannot be used: Input/output error"):
        blobs.put(tmp_path / "source", digest=digest)

    assert not blobs.has(digest)
    assert files_in(blobs) == []


def test_bytes_that_were_cut_are_replaced_when_they_come_again(
    blobs: BlobStore, tmp_path: Path
) -> None:
    blobs.put(b"hello")
    (path,) = files_in(blobs)
    if isinstance(blobs, RemoteBlobs):
        blobs._files.pipe(path, b"hel")
    else:
        Path(path).chmod(0o600)
        Path(path).write_bytes(b"hel")

    blobs.put(b"hello")

    blobs.copy(HELLO, tmp_path / "got")


def test_changed_bytes_are_noticed(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(b"hello")
    (path,) = files_in(blobs)
    if isinstance(blobs, RemoteBlobs):
        blobs._files.pipe(path, b"jello")
    else:
        Path(path).chmod(0o600)
        Path(path).write_bytes(b"jello")

    with pytest.raises(IntegrityError, match=HELLO):
        blobs.copy(HELLO, tmp_path / "got" / "file")

    assert list((tmp_path / "got").iterdir()) == []


def test_a_sparse_file_stays_sparse_wherever_it_went(blobs: BlobStore, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.seek(20 * MIB)
        file.write(b"x")
        file.truncate(30 * MIB)

    digest, size = blobs.put(tmp_path / "large")
    blobs.copy(digest, tmp_path / "got")

    assert size == (tmp_path / "got").stat().st_size == 30 * MIB
    assert (tmp_path / "got").stat().st_blocks * 512 <= 2 * MIB
    assert digest_of(tmp_path / "got") == digest


# What a bucket adds.


def test_what_another_process_did_is_seen_at_once(s3: dict[str, Any]) -> None:
    ours = RemoteBlobs("s3://bucket/two", **s3)
    theirs = RemoteBlobs("s3://bucket/two", **s3, skip_instance_cache=True)
    assert not ours.has(HELLO)

    theirs.put(b"hello")
    assert ours._files.find("bucket/two") != []
    assert ours.has(HELLO)
    theirs.remove(HELLO)

    assert not ours.has(HELLO)


def test_parts_of_an_upload_that_broke_off_are_not_paid_for(
    s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RemoteBlobs("s3://bucket/parts", **s3)
    with pytest.raises(IntegrityError):
        store.put(LARGE, digest=HELLO)

    assert store._files.list_multipart_uploads("bucket") == []


def test_a_forked_child_reaches_the_bucket_too(endpoint: str) -> None:
    code = """
        import os, sys
        from mlopskit.addresses import blobs_at
        store = blobs_at("s3://bucket/fork", key="testing", secret="testing",
                         client_kwargs={"endpoint_url": sys.argv[1], "region_name": "us-east-1"})
        store.put(b"from the parent")
        child = os.fork()
        if not child:
            try:
                store.put(b"from the child")
                os._exit(0)
            except BaseException as exc:
                print(repr(exc), flush=True)
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.put(b"from the child", digest=sys.argv[2])[1] == 14
        assert store.has(sys.argv[2])
    """
    digest = "sha256:" + hashlib.sha256(b"from the child").hexdigest()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), endpoint, digest],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_endpoint_and_the_credentials_may_come_from_the_environment(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = blobs_at("S3://bucket/environment", skip_instance_cache=True)

    assert store.put(b"hello") == (HELLO, 5)

    store.copy(HELLO, tmp_path / "got")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_an_upload_and_a_download_hold_no_more_than_a_few_parts_in_memory(
    endpoint: str, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(10):
            file.write(LARGE[: 16 * MIB])
    code = """
        import re, sys
        from pathlib import Path
        from mlopskit.addresses import blobs_at
        def peak():  # in MiB; that of `resource` is inherited from the parent
            status = Path("/proc/self/status").read_text()
            return int(re.search("VmHWM:.*?([0-9]+)", status)[1]) >> 10
        store = blobs_at("s3://bucket/memory", key="testing", secret="testing",
                         client_kwargs={"endpoint_url": sys.argv[1], "region_name": "us-east-1"})
        store.put(b"warm")
        before = peak()
        digest, size = store.put(Path(sys.argv[2]))
        store.copy(digest, Path(sys.argv[2] + ".got"))
        store.remove(digest)
        print(size >> 20, peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), endpoint, str(tmp_path / "large")],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )

    size, grown = map(int, done.stdout.split())
    assert size == 160
    assert grown < 100, "MiB"


def test_an_address_takes_options_of_its_file_system(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory: Any = fsspec.get_filesystem_class("memory")
    given: list[dict[str, Any]] = []

    class Cloud(memory):  # type: ignore[misc]  # fsspec has no types
        protocol = "gs"

        def __init__(self, **options: Any) -> None:
            given.append(options)
            super().__init__()

    fsspec.register_implementation("gs", Cloud, clobber=True)
    try:
        store = blobs_at("gs://bucket/prefix", project="p1", token="t1")
    finally:
        sys.modules["fsspec.registry"]._registry.pop("gs")

    assert isinstance(store, RemoteBlobs)
    assert given == [{"project": "p1", "token": "t1", "use_listings_cache": False}]


# What goes wrong on the way.


def calls(store: BlobStore, folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: store.put(b"hello"),
        lambda: store.has(HELLO),
        lambda: store.copy(HELLO, folder / "got"),
        lambda: store.remove(HELLO),
    ]


def test_a_bucket_that_is_not_there_is_named_in_every_error(
    s3: dict[str, Any], tmp_path: Path
) -> None:
    store = blobs_at("s3://nowhere-at-all/x", **s3)

    for call in calls(store, tmp_path)[:3]:
        with pytest.raises(StorageError, match=r"s3://nowhere-at-all/x.*Does the bucket"):
            call()


def test_a_server_that_was_stopped_is_unavailable_and_may_come_back(tmp_path: Path) -> None:
    with moto() as (endpoint, server):
        port = server.get_host_and_port()[1]
        store = blobs_at("s3://bucket/x", **s3_options(endpoint))
        store.put(b"hello")
        server.stop()

        for call in calls(store, tmp_path):
            with pytest.raises(Unavailable, match="s3://bucket/x"):
                call()
        again = type(server)(ip_address="127.0.0.1", port=port)
        again.start()
        assert store.put(b"hello") == (HELLO, 5)
        again.stop()
    assert files_below(tmp_path) == []


def test_a_server_that_never_answers_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = s3_options(f"http://127.0.0.1:{silent.getsockname()[1]}")
        options["config_kwargs"] = {**QUICK, "read_timeout": 0.1}

        with pytest.raises(Unavailable):
            blobs_at("s3://bucket/x", **options).has(HELLO)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (400, StorageError, "cannot be used"),
        (403, StorageError, "refuses.*credentials.*permission"),
        (429, Unavailable, "cannot be reached"),
        (500, Unavailable, "cannot be reached"),
        (503, Unavailable, "cannot be reached"),
    ],
)
def test_what_a_bucket_answers_decides_the_error(
    status: int, error: type[MlopskitError], says: str, tmp_path: Path
) -> None:
    pytest.importorskip("s3fs")
    with web(answering(status)) as endpoint:
        store = blobs_at("s3://bucket/x", **s3_options(endpoint))

        for call in calls(store, tmp_path):
            with pytest.raises(error, match=rf"s3://bucket/x\S* {says}") as caught:
                call()
            assert type(caught.value) is error
            assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, StorageError),
        (403, StorageError),
        (404, NotFound),
        (410, StorageError),
        (429, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
    ],
)
def test_what_a_web_server_answers_decides_the_error(
    status: int, error: type[MlopskitError], tmp_path: Path
) -> None:
    with (
        web(answering(status)) as address,
        pytest.raises(error, match=address) as caught,
    ):
        fetch(f"{address}/x?signature=hush9", tmp_path / "got")

    assert type(caught.value) is error
    assert "hush9" not in str(caught.value)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("raised", "error", "says"),
    [
        (OSError("Forbidden: https://h/o?token=hush9"), StorageError, "refuses: Forbidden"),
        (OSError(errno.EIO, "Input/output error"), Unavailable, "cannot be reached: Input"),
        (OSError(errno.ENOSPC, "No space left"), StorageError, "cannot be used: No space"),
        (NotImplementedError(), StorageError, "for reading only"),
        (ValueError("a key of 2000 bytes"), StorageError, "cannot be used: a key"),
        (TimeoutError(), Unavailable, "cannot be reached: TimeoutError"),
    ],
)
def test_what_a_file_system_raises_becomes_an_error_of_ours(
    raised: Exception, error: type[MlopskitError], says: str
) -> None:
    with (
        pytest.raises(error, match=f"gs://bucket/x.*{says}") as caught,
        remote_errors("gs://bucket/x"),
    ):
        raise raised

    assert type(caught.value) is error
    assert caught.value.__cause__ is raised
    assert "hush9" not in str(caught.value)


def test_a_download_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    with (
        web(answering(200, b"hel", length=5)) as address,
        pytest.raises(Unavailable, match=address),
    ):
        fetch(f"{address}/x", tmp_path / "got")

    assert files_below(tmp_path) == []


def test_an_address_where_nobody_listens_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/x"

    with pytest.raises(Unavailable, match=address):
        fetch(address + "?signature=hush9", tmp_path / "got")


def test_a_destination_that_cannot_be_written_is_not_the_stores_fault(
    s3: dict[str, Any], tmp_path: Path
) -> None:
    store = blobs_at("s3://bucket/full", **s3)
    store.put(b"hello")
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match=r"file.*cannot be"):
        store.copy(HELLO, tmp_path / "file" / "below")


# Fetching.


def test_a_file_at_an_address_is_fetched_and_verified(s3: dict[str, Any], tmp_path: Path) -> None:
    store = RemoteBlobs("s3://bucket/f", **s3)
    store._files.pipe("bucket/f/hello.txt", b"hello")
    store._files.pipe("bucket/f/deep/er.txt", b"deeper")
    store._files.pipe("bucket/f/deep/", b"")  # what consoles leave where they show a folder

    assert fetch("s3://bucket/f/hello.txt", tmp_path / "a", HELLO, **s3) == 5
    for number, uri in enumerate(["s3://bucket/f", "s3://bucket/f/"]):
        folder = tmp_path / f"all{number}"
        assert fetch(uri, folder, **s3) == 11
        assert {str(each.relative_to(folder)) for each in folder.rglob("*.*")} == {
            "hello.txt",
            "deep/er.txt",
        }
        assert (folder / "deep" / "er.txt").read_bytes() == b"deeper"

    assert (tmp_path / "a").read_bytes() == b"hello"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    with pytest.raises(IntegrityError):
        fetch("s3://bucket/f/hello.txt", tmp_path / "b", MISSING, **s3)
    assert not (tmp_path / "b").exists()
    with pytest.raises(NotFound, match=r"s3://bucket/none"):
        fetch("s3://bucket/none", tmp_path / "c", **s3)
    with pytest.raises(StorageError, match=r"Does the bucket"):
        fetch("s3://nowhere-at-all/none", tmp_path / "c", **s3)
    with pytest.raises(InvalidInput, match="is a folder"):
        fetch("s3://bucket/f", tmp_path / "d", HELLO, **s3)
    with pytest.raises(InvalidInput, match="no digest"):
        fetch("s3://bucket/f/hello.txt", tmp_path / "d", "hello", **s3)


def test_a_file_that_shares_its_name_with_a_prefix_is_the_file(
    s3: dict[str, Any], tmp_path: Path
) -> None:
    files = RemoteBlobs("s3://bucket/both", **s3)._files
    files.pipe("bucket/both/name", b"hello")
    files.pipe("bucket/both/name/below", b"other")

    assert fetch("s3://bucket/both/name", tmp_path / "got", HELLO, **s3) == 5


def test_files_of_this_machine_are_fetched_without_fsspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "hello.txt").write_bytes(b"hello")

    assert fetch((folder / "hello.txt").as_uri(), tmp_path / "got", HELLO) == 5
    assert fetch(str(folder / "hello.txt"), tmp_path / "got", HELLO) == 5
    assert fetch(folder.as_uri(), tmp_path / "all") == 5

    assert (tmp_path / "all" / "hello.txt").read_bytes() == b"hello"
    with pytest.raises(NotFound):
        fetch((tmp_path / "none").as_uri(), tmp_path / "x")
    with pytest.raises(IntegrityError):
        fetch((folder / "hello.txt").as_uri(), tmp_path / "x", MISSING)
    with pytest.raises(InvalidInput, match="is a folder"):
        fetch(folder.as_uri(), tmp_path / "x", HELLO)
    assert not (tmp_path / "x").exists()
    with pytest.raises(MissingDependency, match=r"mlopskit\[s3\]"):
        fetch("s3://bucket/x", tmp_path / "y")


def test_a_page_is_one_file_whatever_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page.html").write_text("<a href='other.html'>other</a>")
    (tmp_path / "site" / "large").write_bytes(LARGE)

    class Handler(SimpleHTTPRequestHandler):  # knows no ranges, as many servers
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "site"))

        def log_message(self, *_: object) -> None:
            pass

    with web(Handler) as address:
        assert fetch(f"{address}/page.html", tmp_path / "page") == 30
        digest = digest_of(tmp_path / "site" / "large")
        assert fetch(f"{address}/large", tmp_path / "large", digest) == len(LARGE)

    assert (tmp_path / "page").is_file()


@pytest.mark.parametrize("key", ["h/../x.txt", "h/deep/../../x.txt", "h//x.txt"])
def test_a_hostile_key_leaves_no_folder(s3: dict[str, Any], tmp_path: Path, key: str) -> None:
    own = uuid.uuid4().hex
    RemoteBlobs("s3://bucket/h", **s3)._files.pipe(f"bucket/{own}/{key}", b"evil")

    with pytest.raises(InvalidName):
        fetch(f"s3://bucket/{own}/h", tmp_path / "in" / "deep", **s3)

    assert files_below(tmp_path) == []


# Addresses.


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [
        ("s3", "s3fs", "s3"),
        ("gs", "gcsfs", "gcs"),
        ("gcs", "gcsfs", "gcs"),
        ("az", "adlfs", "azure"),
        ("abfs", "adlfs", "azure"),
        ("https", "aiohttp", "s3"),
    ],
)
def test_the_extra_for_an_address_is_named(
    scheme: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = pytest.importorskip("fsspec.registry")
    monkeypatch.delitem(registry._registry, scheme, raising=False)
    for name in ("s3fs", "gcsfs", "adlfs", "aiohttp", "fsspec.implementations.http"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(MissingDependency, match=rf"'{package}'.*mlopskit\[{extra}\]"):
        blobs_at(f"{scheme}://bucket/x")


def test_an_address_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")

    with pytest.raises(InvalidInput, match="gopher"):
        blobs_at("gopher://x/y")
    with pytest.raises(InvalidInput, match="takes no options"):
        blobs_at(tmp_path, key="x")
    with pytest.raises(InvalidInput, match="another machine"):
        blobs_at("file://host/x")
    with pytest.raises(InvalidInput, match="max_concurrency") as caught:
        blobs_at("s3://bucket/x", max_concurrency=0, secret="hush9")
    assert "hush9" not in str(caught.value)


def test_an_address_is_shown_without_its_secrets() -> None:
    assert shown("s3://u:pw9@bucket/key?sig=abc#x") == "s3://bucket/key"
    assert shown("https://u:p@w9@host/a://b") == "https://host/a://b"
    assert shown("file:///a/b") == "file:///a/b"
    assert shown("zip://a.csv::s3://u:pw9@bucket/key") == "zip://a.csv::s3://bucket/key"


def test_a_path_and_an_address_of_this_machine_are_folders() -> None:
    for address in ("/a b", Path("/a b"), "file:///a%20b", "file:/a%20b", "FILE://localhost/a%20b"):
        assert blobs_at(address).__dict__ == {"root": Path("/a b")}
    assert blobs_at("~/x").__dict__ == {"root": Path.home() / "x"}


def test_a_chain_of_addresses_is_remote(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    blobs_at("memory://chain").put(b"hello")

    store = blobs_at("simplecache::memory://chain")

    store.copy(HELLO, tmp_path / "got")


def test_importing_addresses_imports_none_of_the_clouds_packages() -> None:
    code = (
        "import sys; import mlopskit.addresses, mlopskit.storage\n"
        "mlopskit.addresses.blobs_at('/tmp/x').has('sha256:' + '0' * 64)\n"
        "print({'fsspec', 's3fs', 'aiohttp', 'botocore'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
