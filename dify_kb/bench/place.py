"""What is measured, from where, and when."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from .report import Where

if TYPE_CHECKING:
    from dify_kb.client import AsyncClient

    from .numbers import Latency


def place(client: AsyncClient, ping: Latency | None = None) -> Where:
    """Tell the server of an open client that has answered before, and this machine."""
    return Where(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        server=client.base_url,
        server_version=client.server_version,
        client=version("dify-kb"),
        python=platform.python_version(),
        machine=platform.platform(),
        processors=os.cpu_count() or 1,
        ping=ping,
    )
