"""``mlopskit ci``: the group of what is done for continuous integration."""

from __future__ import annotations

from mlopskit.cli.command import Group

command = Group(
    "ci",
    {
        "init": ("ci_init", "Write workflows that train, gate, promote and comment."),
        "mark": ("ci_candidate:mark", "Print the highest version number, before training."),
        "candidate": ("ci_candidate", "Print the number of the version that was trained since."),
    },
    help="Write the workflows of GitHub or GitLab that train, gate, promote and comment.",
)
