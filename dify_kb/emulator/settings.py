from __future__ import annotations

from attrs import field, frozen

from dify_kb.external import RetryPolicy
from dify_kb.models import MAX_FILE_SIZE


@frozen(kw_only=True)
class Settings:
    """How large and how slow the server is. Times are seconds, sizes bytes."""

    workers: int = 1
    """Documents indexed at once. Default installations have one worker up to 1.12, and four on
    1.14.2 (measured), where two runs of one document can overlap."""

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

    models: bool | None = None
    """Whether the workspace has the stand-in models, an embedding one and a reranking one. None
    for what the version has: 1.16 has them, the recorded ones mostly had none."""

    max_file_size: int = MAX_FILE_SIZE
    """UPLOAD_FILE_SIZE_LIMIT."""

    max_body: int = 100 * 1024 * 1024
    """NGINX_CLIENT_MAX_BODY_SIZE; above it the proxy answers 413 (server source)."""

    history_size: int = 100_000
    """Exchanges remembered in `Emulator.history`, and events in `Emulator.runs`."""

    quota: int | None = None
    """Writes and searches that a window takes before calls are refused; refused ones count too.
    None as on a server of one's own; the cloud's default is 10 (measured)."""

    quota_window: float = 60.0
    """The sliding window of the quota (measured)."""

    processes: int = 1
    """SERVER_WORKER_AMOUNT: processes that answer calls; only seen with what follows."""

    connections: int = 0
    """SERVER_WORKER_CONNECTIONS: what each process takes, from a connection's first request until
    it closes; others wait. 0 for any number."""

    keep_alive: float = 5.0
    """How long an idle connection stays open where connections are limited, so that one more gets
    its place after this time (measured); else an hour."""

    create_cpu: float = 0.0
    """Mean time of a create for which its process does nothing else; of a gamma distribution."""

    create_io: float = 0.0
    """Mean time of a create that goes on beside others; of a gamma distribution."""

    dataset_lock: float = 0.0
    """How long a create keeps other creates of its dataset waiting."""

    seed: int = 0
    """Of the times of creates."""

    external_retry: RetryPolicy = field(factory=RetryPolicy)
    """How long external knowledge APIs are waited for, and how often they are asked."""

    @staticmethod
    def default_pod() -> Settings:
        """Make the API of a default installation: one process that takes 10 connections.

        Its times are fitted to creates of small files on two cores: full at 2 or 3 in flight with
        24 to 28 a second (measured, 1.4.3 and 1.12.1). Take others by `attrs.evolve`.
        """
        return Settings.pods(1, 10)

    @staticmethod
    def pods(processes: int, connections: int) -> Settings:
        """Make the API of an installation with so many such processes."""
        return Settings(
            processes=processes,
            connections=connections,
            create_cpu=0.036,
            create_io=0.006,
        )
