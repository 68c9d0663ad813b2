"""What the server says of itself."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class ServerInfo:
    """Answer of `GET /v1/`; without a key.

    1.12.1 has no such route (recording 009): there `server_version` comes from the `X-Version`
    header and the other fields are None.
    """

    server_version: str | None = None
    api_version: str | None = None
    welcome: str | None = None
