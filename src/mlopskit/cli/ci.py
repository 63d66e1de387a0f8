"""``mlopskit ci``: the group of what is done for continuous integration."""

from __future__ import annotations

from mlopskit.cli.command import Group

command = Group(
    "ci",
    {"init": ("ci_init", "Write workflows that train, gate, promote and comment.")},
    help="Write the workflows of GitHub or GitLab that train, gate, promote and comment.",
)
