"""The files of runs, read back: listed, found by name, and written to a folder, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlopskit.addresses import fetch
from mlopskit.errors import IntegrityError, NotFound
from mlopskit.names import check_path
from mlopskit.storage import digest_of, make_private_folder
from mlopskit.tracking.backend import TrackerBackend
from mlopskit.tracking.entities import ArtifactUse

if TYPE_CHECKING:
    from pathlib import Path

    from mlopskit.tracking.entities import Artifact

RUN_ID_LENGTH: Final = 32


class Artifacts(TrackerBackend):
    """The part of a tracker that reads the files of runs."""

    def list_artifacts(self, id: str) -> list[Artifact]:
        """List the files of a run, by name.

        Raises:
            NotFound: If there is no such run.
        """
        self._catch_up(id)
        return self.read_artifacts(id)

    def get_artifact(self, ref: str, experiment: str = "default") -> ArtifactUse:
        """Find an artifact: a file, or all files of a folder that was logged as one.

        Args:
            ref: ``"<name>"``, ``"<name>:<alias>"`` for the newest of an experiment, or
                ``"<run id>/<name>"`` for the one of a run.
            experiment: Where to look by name.

        Raises:
            NotFound: If there is none.
            Unsupported: If the backend cannot find artifacts by name.
        """
        head, _, rest = ref.partition("/")
        if len(head) == RUN_ID_LENGTH and rest and head.isalnum():
            files = [each for each in self.list_artifacts(head) if rest in (each.name, _root(each))]
            if not files:
                raise NotFound("artifact", ref, {_root(a) for a in self.list_artifacts(head)})
            return ArtifactUse(run_id=head, name=rest, files=tuple(files))
        self.capabilities.require(["artifact_inputs"])
        name, _, alias = ref.partition(":")
        self._catch_up(None)
        found = self.find_artifact(name, alias or "latest", experiment)
        if found is None:
            raise NotFound(f"artifact of experiment {experiment!r}", ref)
        return found

    def download_artifact(
        self, id: str, name: str, dst: Path | str, *, progress: bool = False
    ) -> Path:
        """Write a file of a run, or all files of a folder, into `dst` under its name.

        Remote data is fetched from where it lies.

        Args:
            id: The run.
            name: The file or the folder.
            dst: A folder, which is made.
            progress: Show a bar of the bytes, file by file, on a terminal or in a notebook.

        Returns:
            The path of the file or the folder.

        Raises:
            NotFound: If there is no such run or artifact.
            IntegrityError: If the bytes are no longer those that were logged.
        """
        from pathlib import Path  # noqa: PLC0415 - annotations aside, only this method needs it

        from mlopskit.tracking.progress import bar  # noqa: PLC0415 - as does only this one

        artifacts = self.list_artifacts(id)
        files = [each for each in artifacts if name in (each.name, _root(each))]
        if not files:
            raise NotFound("artifact", name, (each.name for each in artifacts))
        total = sum(each.size for each in files)
        with bar("bytes", asked=progress, sizes=True) as shown:
            done = 0
            for each in files:
                shown.at(done, total, each.name)
                self.fetch_artifact(id, each, Path(dst, check_path("artifact", each.name)))
                done += each.size
            shown.at(done, total)
        return Path(dst, name)

    def fetch_artifact(self, id: str, artifact: Artifact, path: Path) -> None:
        """Write one file that `list_artifacts` told to a path, whose folder is made.

        Raises:
            NotFound: If it is no longer there.
            IntegrityError: If the bytes are no longer those that were logged.
        """
        make_private_folder(path.parent)
        if artifact.uri is not None:
            fetch(artifact.uri, path, digest=artifact.digest)
            return
        self.copy_artifact(id, artifact, path)
        if artifact.digest and (digest := digest_of(path)) != artifact.digest:
            path.unlink()
            raise IntegrityError(
                f"The artifact {artifact.name!r} of run {id}", artifact.digest, digest
            )


def _root(artifact: Artifact) -> str:
    return artifact.logged_as or artifact.name
