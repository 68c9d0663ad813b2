from __future__ import annotations

from attrs import frozen

from dify_kb.models import MAX_FILE_SIZE


@frozen(kw_only=True)
class Settings:
    """How large and how slow the server is. Times are seconds, sizes bytes."""

    workers: int = 1
    """Documents indexed at once; a default installation has one worker (server source)."""

    parsing: float = 0.0
    """Least time in `parsing`. Zero leaves only the real work."""

    splitting: float = 0.0
    """Least time in `splitting`."""

    indexing: float = 0.0
    """Least time in `indexing`."""

    status_lock: float = 0.0
    """How long a document refuses another change of its status. Servers that lose a race with
    their own worker set 600 (measured)."""

    update_hangs: bool = True
    """Whether an update hangs its worker where the version's does (measured)."""

    pipelines: bool = False
    """Whether new bases get a pipeline. On a server only the console makes such bases."""

    max_file_size: int = MAX_FILE_SIZE
    """UPLOAD_FILE_SIZE_LIMIT."""

    max_body: int = 100 * 1024 * 1024
    """NGINX_CLIENT_MAX_BODY_SIZE; above it the proxy answers 413 (server source)."""

    history: int = 100_000
    """Exchanges remembered in `Emulator.history`."""
