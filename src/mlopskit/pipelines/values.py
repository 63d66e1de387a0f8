"""Values as documents: exact, without pickle, and with a digest.

A value becomes a JSON document. What JSON has not is an object with one key that begins with
``$``; larger bytes are kept beside it by digest. Equal documents mean equal values, so a digest of
the document identifies the value.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from mlopskit.errors import IntegrityError, StorageError
from mlopskit.pipelines import frames
from mlopskit.pipelines.files import Unstorable, described
from mlopskit.pipelines.promises import Promise
from mlopskit.storage import digest_of, disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.pipelines.files import Files
    from mlopskit.storage import Blobs

    Put = Callable[[Path | bytes], tuple[str, int]]

INLINE: Final = 16 << 10  # bytes; anything larger is stored beside its document
LONGEST_INT: Final = 4000  # bits; Python refuses to read much longer decimals


def digest(document: Any) -> str:
    """Return the digest of a document as 64 hex digits."""
    return hashlib.sha256(dumped(document).encode()).hexdigest()


def dumped(document: Any) -> str:
    """Return the text of a document, all ASCII; equal documents have equal texts."""
    return json.dumps(document, separators=(",", ":"))


def only_digest(source: Path | bytes) -> tuple[str, int]:
    """Return a digest and a size as `Blobs.put` would, storing nothing."""
    if isinstance(source, bytes):
        return "sha256:" + hashlib.sha256(source).hexdigest(), len(source)
    return digest_of(source), source.stat().st_size


class Encoder:
    """Turns values into documents.

    Args:
        put: Where larger bytes and files go: `Blobs.put`, or `only_digest`.
        promised: The document that stands for a promise; without it a promise is refused.

    Attributes:
        mutable: Whether anything in the values so far can be changed in place.
        files: Whether a file or a folder was among them.
    """

    def __init__(self, put: Put, promised: Callable[[Promise], Any] | None = None) -> None:
        self.mutable = False
        self.files = False
        self._put = put
        self._promised = promised

    def document(self, value: Any) -> Any:
        """Return a value's document.

        Raises:
            Unstorable: If it has none.
            StorageError: If its bytes cannot be read or written.
        """
        try:
            return self._document(value)
        except RecursionError:
            raise Unstorable("it is nested too deeply, or holds itself") from None

    def _document(self, value: Any) -> Any:
        kind = type(value)
        if kind in (str, bool, float, type(None)):
            return value
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, value)
        if isinstance(value, Path):
            return self._path(value)
        if isinstance(value, BaseModel):
            return self._model(value)
        if isinstance(value, Promise) and self._promised is not None:
            return self._promised(value)
        data = frames.to_bytes(value)
        if data is None:
            raise Unstorable(f"there is no exact way to store a {_called(kind)}")
        if isinstance(data, str):
            raise Unstorable(f"a {_called(kind)} is not kept exactly: {data}")
        self.mutable = True
        return {"$data": {"kind": data[0], **self._bytes(data[1])}}

    def _int(self, value: int) -> Any:
        return value if value.bit_length() < LONGEST_INT else {"$int": hex(value)}

    def _list(self, value: list[Any]) -> Any:
        self.mutable = True
        return [self._document(item) for item in value]

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        return {"$tuple": [self._document(item) for item in value]}

    def _dict(self, value: dict[Any, Any]) -> Any:
        self.mutable = True
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self._document(item) for key, item in value.items()}
        return {"$dict": [[self._document(k), self._document(v)] for k, v in value.items()]}

    def _set(self, value: set[Any] | frozenset[Any]) -> Any:
        self.mutable = self.mutable or isinstance(value, set)
        # A set has no order of its own; its document must.
        items = sorted((self._document(item) for item in value), key=dumped)
        return {"$" + type(value).__name__: items}

    def _complex(self, value: complex) -> Any:
        return {"$complex": [value.real, value.imag]}

    def _raw(self, value: bytes) -> Any:
        return {"$bytes": self._bytes(value)}

    def _datetime(self, value: datetime) -> Any:
        naive = value.replace(tzinfo=None).isoformat()
        return {"$datetime": [naive, value.fold, _zone(value.tzinfo)]}

    def _date(self, value: date) -> Any:
        return {"$date": value.isoformat()}

    def _timedelta(self, value: timedelta) -> Any:
        return {"$timedelta": [value.days, value.seconds, value.microseconds]}

    def _path(self, path: Path) -> Any:
        document = described(path, self._put)
        self.files = self.files or "text" not in document
        return {"$path": document}

    def _model(self, model: BaseModel) -> Any:
        kind = type(model)
        name = f"{kind.__module__}:{kind.__qualname__}"
        if _found(name) is not kind:
            raise Unstorable(f"its class {name} cannot be imported by that name")
        if model.__pydantic_private__:
            raise Unstorable(f"a {name} has private attributes, which only pickle would keep")
        self.mutable = True
        values = dict(model.__dict__)
        extra = model.__pydantic_extra__
        return {
            "$model": {
                "class": name,
                "values": self._dict(values),
                "extra": None if extra is None else self._dict(extra),
                "set": sorted(model.model_fields_set),
            }
        }

    def _bytes(self, content: bytes) -> dict[str, Any]:
        if len(content) <= INLINE:
            return {"inline": base64.b64encode(content).decode()}
        digest, size = self._put(content)
        return {"blob": digest, "size": size}


_ENCODERS: Final[dict[type, Callable[[Encoder, Any], Any]]] = {
    int: Encoder._int,
    list: Encoder._list,
    tuple: Encoder._tuple,
    dict: Encoder._dict,
    set: Encoder._set,
    frozenset: Encoder._set,
    complex: Encoder._complex,
    bytes: Encoder._raw,
    datetime: Encoder._datetime,
    date: Encoder._date,
    timedelta: Encoder._timedelta,
}


class Decoder:
    """Turns documents back into values; every file and every larger value is verified."""

    def __init__(self, blobs: Blobs, files: Files) -> None:
        self._blobs = blobs
        self._files = files

    def value(self, document: Any) -> Any:
        """Return the value of a document, a new object every time.

        Raises:
            StorageError: If bytes of it are gone or have changed, or its class is gone.
        """
        if isinstance(document, list):
            return [self.value(item) for item in document]
        if not isinstance(document, dict):
            return document
        tag = next(iter(document), "")
        if not tag.startswith("$"):
            return {key: self.value(item) for key, item in document.items()}
        return _DECODERS[tag](self, document[tag])

    def problem(self, document: Any) -> str:
        """Say why a document cannot be read back, as far as that is known without reading it all.

        Returns an empty text where nothing is known to be wrong. A file that was cut short is
        removed, so that it can be stored anew.
        """
        if isinstance(document, list):
            return next(filter(None, map(self.problem, document)), "")
        if not isinstance(document, dict):
            return ""
        if set(document) >= {"blob", "size"}:
            path = self._blobs.path(document["blob"])
            if not path.is_file() or path.stat().st_size != document["size"]:
                path.unlink(missing_ok=True)
                return f"{path} is gone or cut short"
        if "$model" in document and _found(document["$model"]["class"]) is None:
            return f"the class {document['$model']['class']} is gone"
        return next(filter(None, map(self.problem, document.values())), "")

    def _dict(self, pairs: list[list[Any]]) -> Any:
        return {self.value(key): self.value(item) for key, item in pairs}

    def _data(self, document: dict[str, Any]) -> Any:
        return frames.from_bytes(document["kind"], self._bytes(document))

    def _datetime(self, parts: list[Any]) -> datetime:
        naive, fold, zone = parts
        return datetime.fromisoformat(naive).replace(fold=fold, tzinfo=_tzinfo(zone))

    def _model(self, document: dict[str, Any]) -> BaseModel:
        kind = _found(document["class"])
        if kind is None:
            raise StorageError(f"A stored value is a {document['class']}, and there is none now.")
        model = kind.__new__(kind)
        extra = document["extra"]
        model.__setstate__(
            {
                "__dict__": self.value(document["values"]),
                "__pydantic_extra__": None if extra is None else self.value(extra),
                "__pydantic_fields_set__": set(document["set"]),
                "__pydantic_private__": None,
            }
        )
        return model

    def _bytes(self, document: dict[str, Any]) -> bytes:
        if "inline" in document:
            return base64.b64decode(document["inline"])
        path = self._blobs.path(document["blob"])
        with disk_errors(path):
            content = path.read_bytes()
        found = "sha256:" + hashlib.sha256(content).hexdigest()
        if found != document["blob"]:
            path.unlink(missing_ok=True)  # so that the next run makes it anew
            raise IntegrityError(str(path), document["blob"], found)
        return content


_DECODERS: Final[dict[str, Callable[[Decoder, Any], Any]]] = {
    "$int": lambda _, text: int(text, 16),
    "$tuple": lambda self, items: tuple(self.value(item) for item in items),
    "$dict": Decoder._dict,
    "$set": lambda self, items: {self.value(item) for item in items},
    "$frozenset": lambda self, items: frozenset(self.value(item) for item in items),
    "$complex": lambda _, parts: complex(*parts),
    "$bytes": Decoder._bytes,
    "$data": Decoder._data,
    "$datetime": Decoder._datetime,
    "$date": lambda _, text: date.fromisoformat(text),
    "$timedelta": lambda _, parts: timedelta(*parts),
    "$path": lambda self, document: self._files.checkout(document),
    "$model": Decoder._model,
}


def part_of(document: Any, path: tuple[Any, ...]) -> Any:
    """Return the document of an item of a list, tuple or dict.

    Raises:
        KeyError: If the document does not show that item on its own.
    """
    for index in path:
        if isinstance(document, dict) and "$tuple" in document:
            document = document["$tuple"]
        if isinstance(document, list) and type(index) is int and -len(document) <= index:
            if index >= len(document):
                raise KeyError(index)
            document = document[index]
        elif isinstance(document, dict) and type(index) is str and not index.startswith("$"):
            document = document[index]
        else:
            raise KeyError(index)
    return document


def _tzinfo(zone: str | float | None) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return UTC if zone == "UTC" else ZoneInfo(zone.removeprefix("zone:"))
    return timezone(timedelta(seconds=zone))


def _zone(zone: tzinfo | None) -> str | float | None:
    if zone is None:
        return None
    if zone is UTC:
        return "UTC"
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        if zone.tzname(None) == timezone(offset).tzname(None):
            return offset.total_seconds()
    if type(zone) is ZoneInfo and zone.key:
        return "zone:" + zone.key
    raise Unstorable(f"the time zone {zone!r} cannot be kept")


def _found(name: str) -> type[BaseModel] | None:
    """Return the class of models that has this name now, or None."""
    module, _, qualname = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _called(kind: type) -> str:
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return prefix + kind.__qualname__
