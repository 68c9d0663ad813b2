"""The HTTP side: routes from the catalogue and the profile."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from .control import Control
from .door import TEXT_SLOTS, Door
from .outward import Outward
from .quota import Quota
from .serve import HANDLERS

if TYPE_CHECKING:
    from .capacity import Capacity
    from .context import Context
    from .faults import Faults
    from .history import History

_UUID: Final = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"

_ALIASES: Final = {
    "/document/create-by-text": "/document/create_by_text",
    "/document/create-by-file": "/document/create_by_file",
    "/update-by-text": "/update_by_text",
    "/update-by-file": "/update_by_file",
    "/retrieve": "/hit-testing",
}
"""Second spellings of paths (measured)."""


def application(
    context: Context,
    api_key: str,
    faults: Faults,
    history: History,
    capacity: Capacity | None = None,
) -> web.Application:
    """Put the routes together."""
    quota = Quota(context.settings, context.clock.now)
    door = Door(context, api_key, faults, history, capacity, quota)
    app = web.Application(middlewares=[door.pages], client_max_size=context.settings.max_body)
    for served in HANDLERS:
        handler = functools.partial(door.answer, served)
        for method, path in context.profile.routes(served.endpoint):
            for spelling in _spellings(path):
                app.router.add_route(method, f"/v1{spelling}", handler)
                if method == "GET":
                    app.router.add_route("HEAD", f"/v1{spelling}", handler)
    app.router.add_get("/files/{file_id}/file-preview", door.file)
    app.router.add_routes(Control(faults, history, Outward(context)).routes())
    return app


def _spellings(path: str) -> list[str]:
    spellings = [path] + [
        path.removesuffix(end) + alias for end, alias in _ALIASES.items() if path.endswith(end)
    ]
    return [re.sub(r"{(\w+)}", _slot, spelling) for spelling in spellings]


def _slot(match: re.Match[str]) -> str:
    name = match[1]
    return match[0] if name in TEXT_SLOTS else f"{{{name}:{_UUID}}}"
