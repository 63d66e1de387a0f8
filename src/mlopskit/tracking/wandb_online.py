"""Runs that lie on a W&B server."""

from __future__ import annotations

from typing import Any


class OnlineStore:
    """The runs of one project on a server."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)
