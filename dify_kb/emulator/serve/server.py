from __future__ import annotations

from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.models import ServerInfo
from dify_kb.wire import catalog


@serves(catalog.GET_SERVER_INFO, nothing)
def info(context: Context, _: None) -> ServerInfo:
    """Say who is there; asks for no key."""
    return ServerInfo(
        welcome="Dify OpenAPI", api_version="v1", server_version=context.profile.version
    )


HANDLERS = (info,)
