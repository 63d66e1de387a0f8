"""What a run can hold beside numbers: files, media, data, models. `Run` inherits all of it."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit import storage
from mlopskit.errors import Conflict, InvalidInput, InvalidName
from mlopskit.names import check_label, check_path
from mlopskit.tracking import charts, datasets, media, models, tables
from mlopskit.tracking.entities import Artifact
from mlopskit.tracking.values import check_step, check_text
from mlopskit.tracking.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from mlopskit.redaction import Redactor
    from mlopskit.tracking.base import Tracker
    from mlopskit.tracking.entities import ArtifactUse, Dataset
    from mlopskit.tracking.media import Media
    from mlopskit.tracking.watch import Watched

LATEST = "latest"


class Contents(ABC):
    """The ``log_*`` calls that end in files, data, or the use of either.

    What each of them was given is copied before it returns, and survives the process.
    """

    experiment: str
    _tracker: Tracker
    _redactor: Redactor
    _watches: dict[int, Watch]

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log what was measured at one step."""

    @abstractmethod
    def _keep(
        self,
        name: str,
        sources: Mapping[str, Path | bytes],
        *,
        type: str,
        metadata: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (),
    ) -> list[Artifact]:
        """Copy bytes to the journal, by their names below `name`, and log them as one."""

    @abstractmethod
    def _refer(self, artifact: Artifact) -> Artifact:
        """Log the address of remote data."""

    @abstractmethod
    def _used(self, use: ArtifactUse) -> None:
        """Log the use of an artifact."""

    @abstractmethod
    def _given(self, dataset: Dataset) -> None:
        """Log data."""

    # Files.

    def log_artifact(
        self,
        path: Path | str,
        name: str | None = None,
        *,
        type: str = "file",
        metadata: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (),
    ) -> list[Artifact]:
        """Keep a file with the run, or every file of a folder.

        Args:
            path: The file or folder.
            name: Its name in the run, a relative path; the file's own name if left out.
            type: What it is, in a word.
            metadata: More about it, as plain JSON.
            aliases: Names by which `use_artifact` finds it, such as ``"best"``; the newest artifact
                of a name in its experiment that has the alias is the one that is found.

        Raises:
            InvalidInput: If there is no such file, or JSON cannot hold the metadata.
            InvalidName: If a name could leave the run's folder.
            StorageError: If the bytes could not be read or stored.
        """
        path = _given(path)
        name = path.resolve().name if name is None else name
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            if not files:
                raise InvalidInput(f"The folder {str(path)!r} holds no file to keep.")
            sources = {file.relative_to(path).as_posix(): file for file in files}
        elif path.is_file():
            sources = {"": path}
        else:
            raise InvalidInput(f"There is no file {str(path)!r} to keep as an artifact.")
        return self._keep(name, sources, type=type, metadata=metadata, aliases=aliases)

    def log_reference(
        self,
        uri: str,
        name: str,
        *,
        type: str = "dataset",
        metadata: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (),
        digest: str = "",
        size: int = 0,
    ) -> Artifact:
        """Keep the address of data that stays where it is. It is neither read nor copied.

        Args:
            uri: An address that `fsspec` knows: ``s3://bucket/key``, ``https://...``, ``file:...``.
            name: Its name in the run.
            type: What it is, in a word.
            metadata: More about it, as plain JSON.
            aliases: As of `log_artifact`.
            digest: ``sha256:<64 hex digits>`` if known; what is downloaded must then have it.
            size: In bytes, if known.

        Raises:
            InvalidInput: If `uri` is no address.
            InvalidName: If a name cannot be kept.
            Unsupported: If a backend has no place for references.
        """
        if "://" not in uri and not uri.startswith("file:"):
            raise InvalidInput(f"{uri!r} is no address such as 's3://bucket/key'.")
        if digest:
            storage.check_digest(digest)
        return self._refer(
            Artifact(
                name=check_path("artifact", name),
                uri=self._redactor.text(uri),
                digest=digest,
                size=size,
                type=check_label("type", type),
                metadata=plain_metadata(metadata, self._redactor),
                aliases=check_aliases(aliases),
                logged_as=name,
            )
        )

    def use_artifact(self, ref: str | ArtifactUse, experiment: str | None = None) -> ArtifactUse:
        """Record that the run uses an artifact as its input, and return what it is.

        `Tracker.download_artifact` fetches it.

        Args:
            ref: ``"<name>:<alias>"`` or ``"<name>"`` for the newest of the experiment,
                ``"<run id>/<name>"``, or what `Tracker.get_artifact` returned.
            experiment: Where to look by name; the run's own if left out.

        Raises:
            NotFound: If there is no such artifact.
            Unsupported: If the backend cannot find artifacts.
        """
        if isinstance(ref, str):
            ref = self._tracker.get_artifact(ref, experiment or self.experiment)
        self._used(ref)
        return ref

    def log_text(self, text: str, name: str) -> Artifact:
        """Keep a text as a file, in UTF-8, without the secrets in it."""
        try:
            content = self._redactor.text(check_text("A text", text)).encode()
        except UnicodeEncodeError as exc:
            raise InvalidInput(f"The text for {name!r} cannot be written as UTF-8: {exc}.") from exc
        return self._one(name, content, "text")

    def log_dict(self, value: Any, name: str) -> Artifact:
        """Keep nested plain values as a JSON file, without the secrets in them.

        NaN and infinities are written as Python's json writes them; tuples become lists.

        Raises:
            InvalidInput: If JSON cannot hold it.
        """
        return self._one(name, media.json_of(self._redactor.value(value)), "json")

    # Media.

    def log_figure(self, fig: Any, name: str, *, step: int | None = None) -> Artifact:
        """Keep a figure of Matplotlib or Plotly in the format that the name's suffix says."""
        return self._media(name, media.figure(fig, name), step)[0]

    def log_image(
        self,
        img: Any,
        name: str,
        *,
        caption: str | Sequence[str] | None = None,
        step: int | None = None,
    ) -> Artifact:
        """Keep an image, or a list of images under one name.

        Args:
            img: An image of Pillow, or an array of (height, width[, 1, 3 or 4]) that holds uint8,
                bools, or floats from 0 to 1; or a list of these.
            name: Its name in the run; a list becomes a folder.
            caption: A text, for a list one for each image.
            step: The step that it belongs to.

        Returns:
            The artifact, of a list the first.
        """
        if isinstance(img, list | tuple):
            made = media.images(img, captions=caption)
        else:
            made = media.image(img, name, caption=caption)  # type: ignore[arg-type]  # checked there
        return self._media(name, made, step)[0]

    def log_audio(
        self,
        samples: Any,
        name: str,
        *,
        rate: int | None = None,
        caption: str | None = None,
        step: int | None = None,
    ) -> Artifact:
        """Keep sound: samples of (n,) or (n, channels) with their rate in Hz, or a file's path."""
        return self._media(name, media.audio(samples, rate, caption=caption), step)[0]

    def log_html(self, html: str | Path, name: str, *, step: int | None = None) -> Artifact:
        """Keep a page: its text, or the path of its file."""
        return self._media(name, media.html(html), step)[0]

    def log_table(self, rows: Any, name: str, *, step: int | None = None) -> Artifact:
        """Keep a table as JSON: ``{"columns": [...], "data": [[...], ...]}``.

        Args:
            rows: A list of mappings, a mapping of columns, or a frame of pandas, polars or pyarrow.
                Cells may be images and figures, which become files of the table; arrays of one
                dimension become lists.
            name: Its name in the run.
            step: The step that it belongs to.
        """
        return self._media(name, tables.table(rows, self._redactor), step)[0]

    def log_histogram(
        self, values: Any, name: str, *, bins: int = 64, step: int | None = None
    ) -> Artifact:
        """Keep how values are distributed: numbers of any shape, or a pair of counts and edges."""
        return self._media(name, charts.histogram(values, bins=bins), step)[0]

    def log_confusion_matrix(
        self,
        y_true: Any,
        y_pred: Any,
        name: str = "confusion_matrix",
        *,
        labels: Sequence[Any] | None = None,
        step: int | None = None,
    ) -> Artifact:
        """Keep how often each true label (n,) was predicted as each label (n,)."""
        return self._media(name, charts.confusion_matrix(y_true, y_pred, labels), step)[0]

    def log_roc_curve(
        self,
        y_true: Any,
        y_score: Any,
        name: str = "roc_curve",
        *,
        labels: Sequence[Any] | None = None,
        step: int | None = None,
    ) -> Artifact:
        """Keep the ROC curve of scores: (n,) of the second label, or (n, labels) one against rest.

        The metadata holds the area under each curve.
        """
        return self._media(name, charts.roc_curve(y_true, y_score, labels), step)[0]

    def log_pr_curve(
        self,
        y_true: Any,
        y_score: Any,
        name: str = "pr_curve",
        *,
        labels: Sequence[Any] | None = None,
        step: int | None = None,
    ) -> Artifact:
        """Keep the precision-recall curve of scores, shaped as for `log_roc_curve`.

        The metadata holds the average precision of each curve.
        """
        return self._media(name, charts.pr_curve(y_true, y_score, labels), step)[0]

    # Data and models.

    def log_dataset(
        self,
        data: Any,
        name: str,
        *,
        role: str = "training",
        uri: str | None = None,
        digest: str = "",
    ) -> Dataset:
        """Record what data the run was given: its fingerprint and columns, never the data itself.

        Args:
            data: A frame, arrays, rows, or the path of a file or folder; None where only its
                address is known.
            name: What the run calls it.
            role: What it is for: ``"training"``, ``"validation"``, ``"test"``.
            uri: Where it lies.
            digest: ``sha256:<64 hex digits>``, where `data` is None and its content is known.
        """
        dataset = datasets.describe(
            data, name, role=role, uri=uri, digest=digest, redactor=self._redactor
        )
        self._given(dataset)
        return dataset

    def log_model(
        self, model: Any, name: str, signature: Any = None, input_example: Any = None
    ) -> list[Artifact]:
        """Keep a model with the run. It is not registered yet.

        Args:
            model: A file or folder that holds it, or an object that a flavor of the registry saves.
            name: Its name in the run.
            signature: What it takes and answers, from `mlopskit.infer_signature`. Read off the
                example if left out.
            input_example: A few rows to ask it with, as `Registry.register` takes and keeps them:
                an array, a mapping from name to array, or a frame. Formats that trace a model, such
                as torch's, need it. What `log_table` takes beside, such as rows as mappings, times
                and pictures, is kept as a table, which no flavor reads.

        Raises:
            InvalidModel: If no flavor takes the object, or its flavor cannot save it.
            InvalidInput: If there is nothing at the path, or the example cannot be kept.
            MissingDependency: If its flavor needs a package that is not installed.
        """
        details: dict[str, Any] = {}
        if signature is not None:
            dump = getattr(signature, "model_dump", None)
            details["signature"] = signature if dump is None else dump(mode="json")
        with tempfile.TemporaryDirectory(prefix="mlopskit-") as folder:
            context = self._tracker.context
            sources, said = models.sources_of(model, input_example, Path(folder), context)
            return self._keep(name, sources, type="model", metadata={**said, **details})

    def watch(
        self,
        module: Any,
        *,
        log: Watched = "gradients",
        every: int = 100,
        bins: int = 64,
        name: str = "",
    ) -> None:
        """Log how the gradients and parameters of a torch module are distributed, as it trains.

        At the first backward pass, and at every so-many-th after it: the metric
        ``gradients/<parameter>/norm`` (the Euclidean one, likewise ``parameters/...``) and the
        histogram ``gradients/<parameter>/<pass>``, whose step is the number of the pass from 0.
        Where gradients are accumulated these are those of that pass alone. A gradient that is not
        finite has a norm, and no histogram. No gradient is changed, and an error in a hook is
        logged and ends the watch.

        Args:
            module: A `torch.nn.Module`; its parameters that require a gradient are watched.
            log: ``"gradients"``, ``"parameters"`` or ``"all"``.
            every: Backward passes from one look to the next.
            bins: Of a histogram; of more than a million elements some are counted.
            name: Stands before all names, for a second module.

        Raises:
            Conflict: If the module is watched already.
            InvalidInput: If it is no module that is trained, or an option is wrong.
            MissingDependency: If torch is not installed.
        """
        before = self._watches.get(id(module))
        if before is not None and before.is_of(module):
            raise Conflict("The module is watched already; unwatch it first.")
        found = Watch(self, module, log=log, every=every, bins=bins, prefix=name)
        self._watches[id(module)] = found

    def unwatch(self, module: Any = None) -> None:
        """Watch a module no more, or none of them. The end of the run does so too."""
        for key in list(self._watches) if module is None else [id(module)]:
            found = self._watches.pop(key, None)
            if found is not None:
                found.stop()

    def _one(self, name: str, content: bytes, type: str) -> Artifact:
        return self._keep(name, {"": content}, type=type)[0]

    def _media(self, name: str, made: Media, step: int | None) -> list[Artifact]:
        metadata = dict(made.metadata)
        if step is not None:
            metadata["step"] = check_step(step)
        return self._keep(name, made.files, type=made.type, metadata=metadata)


def plain_metadata(metadata: Mapping[str, Any] | None, redactor: Redactor) -> dict[str, Any]:
    """Return what is said about an artifact as plain JSON, without secrets.

    Raises:
        InvalidInput: If JSON cannot hold it.
    """
    return media.plain_json(redactor.value(dict(metadata or {})))


def check_aliases(aliases: Sequence[str]) -> tuple[str, ...]:
    """Return the aliases of an artifact.

    Raises:
        InvalidName: If one cannot be kept, or is one that every artifact has by itself.
    """
    if isinstance(aliases, str):
        aliases = [aliases]
    for alias in aliases:
        check_label("alias", alias, longest=128)
        if ":" in alias or "/" in alias:
            raise InvalidName("alias", alias, "it holds ':' or '/'")
        if alias == LATEST or (alias[:1] == "v" and alias[1:].isdigit()):
            raise InvalidName("alias", alias, "versions and 'latest' are given by the tool itself")
    return tuple(dict.fromkeys(aliases))


def _given(path: str | PathLike[str]) -> Path:
    """Return a path; no text at all would be the working folder, and is a slip."""
    if path == "":
        raise InvalidInput("There is nothing to keep: the path is empty.")
    return Path(path)
