"""``mlopskit run``: one tracked run, shown or exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopskit.cli.command import Group

if TYPE_CHECKING:
    from mlopskit.tracking import RunRecord, Tracker

command = Group(
    "run",
    {
        "show": ("run_show", "Show a run: its metrics as lines, its params, data and files."),
        "compare": ("run_compare", "Show runs beside each other, of one tracker or several."),
        "export": ("run_export", "Write runs to folders that need no mlopskit to read."),
        "import": ("run_import", "Take runs that were exported into the configured tracker."),
        "project": ("run_project", "Run an MLproject, tracked by the configured tracker."),
    },
    help="Show, compare, export or import tracked runs, or run a project. "
    "An ID may be cut short where it is not ambiguous.",
)


def found(tracker: Tracker, id: str) -> RunRecord:
    """Return the run of an id, or of the beginning of one.

    Raises:
        NotFound: If there is none, or several begin like this.
    """
    from mlopskit.errors import NotFound

    try:
        return tracker.get_run(id)
    except NotFound as exc:
        absent = NotFound(f"run in {tracker.target!r}", id)
        if len(id) < 4 or not id.isalnum():
            raise absent from exc
        like = tracker.search_runs(f"id like '{id}%'", limit=20)
        if not like:
            raise absent from exc
        if len(like) > 1:
            raise NotFound("one run that begins with", id, (each.id for each in like)) from None
        return like[0]
