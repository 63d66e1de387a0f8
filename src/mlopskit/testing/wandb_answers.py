"""What a stand-in for a W&B server keeps, and how it answers a question of its SDK.

Every operation of GraphQL that the SDK sends has a method ``on_<operation>``, which takes the
variables and returns the data. An answer may hold more than was asked for, which the SDK ignores;
its pydantic models refuse one that holds less. The other modules ``wandb_*_answers`` hold them by
what they are about.
"""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]

ENTITY: Final = "team"
PROJECT_ID: Final = "p"
VIEWER: Final[Json] = {
    "id": "u",
    "entity": ENTITY,
    "name": "u",
    "username": "u",
    "email": "u@example.org",
    "flags": "{}",
    "admin": False,
    "deletedAt": None,
    "teams": {"edges": []},
    "apiKeys": {"edges": []},
}


class Conflicting(Exception):
    """What is asked for is another's by now; the server answers 409."""


class Answers:
    """The state of a server, and its answers.

    Attributes:
        runs: By id; ``config``, ``summary``, ``history`` (lines of JSON), ``tags`` and so on.
        artifacts: By id.
        collections: What artifacts were linked into; see `wandb_registry_answers`.
        sweeps: By name.
        files: Bytes by path.
        asked: How often each operation was asked.
        unknown: Operations that there is no answer to.
        last_filters: What the last question for runs asked of them.
        births: For each MD5 in hex, the artifact that its bytes came with first.
        gone: The names of runs that were deleted: W&B does not give them again.
    """

    url: str

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}
        self.artifacts: dict[str, Json] = {}
        self.collections: dict[str, Json] = {}
        self.sweeps: dict[str, Json] = {}
        self.files: dict[str, bytes] = {}
        self.asked: dict[str, int] = {}
        self.unknown: list[str] = []
        self.last_filters: Json = {}
        self.births: dict[str, str] = {}
        self.gone: set[str] = set()
        self._born: dict[tuple[str, str], str] = {}
        self._chance = random.Random(0)  # noqa: S311 - for sweeps

    def answer(self, name: str, given: Json) -> Any:
        """Answer one operation.

        Raises:
            LookupError: If it is none that the SDK of this server sends.
            Conflicting: If it asks for what is another's.
        """
        self.asked[name] = self.asked.get(name, 0) + 1
        found = getattr(self, f"on_{name}", None)
        if found is None:
            self.unknown.append(name)
            raise LookupError(f"unknown operation {name}")
        return found(given)

    # Who is there.

    def on_Viewer(self, given: Json) -> Any:
        return {"viewer": VIEWER}

    on_GetDefaultEntity = on_GetViewer = on_Viewer

    def on_ServerFeaturesQuery(self, given: Json) -> Any:
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, given: Json) -> Any:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_OrgFeatureFlags(self, given: Json) -> Any:
        return {"organization": {"featureFlags": []}}

    def on_GetProjects(self, given: Json) -> Any:
        names = sorted({run["project"] for run in self.runs.values()})
        return {"models": paged([self._project(name) for name in names], given)}

    def on_GetProject(self, given: Json) -> Any:
        return {"project": self._project(given.get("name") or given["project"])}

    # What an answer shows.

    def _project(self, name: str, owner: str = ENTITY) -> Json:
        entity = {"id": "e", "name": owner, "organization": None}
        about: Json = {"id": PROJECT_ID, "internalId": "1", "name": name, "entityName": owner}
        about |= {"createdAt": now(), "isBenchmark": False, "user": VIEWER, "entity": entity}
        return {"__typename": "Project", **about}


def paged(nodes: Sequence[Json], given: Json) -> Json:
    """Return the page of a list that variables ask for."""
    at = int(given.get("cursor") or 0)
    page = nodes[at : at + (given.get("perPage") or 50)]
    end = at + len(page)
    info = {"__typename": "PageInfo", "endCursor": str(end), "hasNextPage": end < len(nodes)}
    edges: list[Json] = [{"node": each, "cursor": str(at + n + 1)} for n, each in enumerate(page)]
    return {"totalCount": len(nodes), "pageInfo": info, "edges": edges}


def typed(kind: str, name: str) -> Json:
    """Return what every named object begins with."""
    own = base64.b64encode(f"{kind}:{name}".encode()).decode()
    return {"__typename": kind, "id": own, "name": name}


def now() -> str:
    """Return the time, as the server writes it."""
    return datetime.now(UTC).isoformat()
