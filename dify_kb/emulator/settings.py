"""Settings of the emulator: durations, limits and the simulated capacity."""

from __future__ import annotations

from attrs import field, frozen

from dify_kb.external import RetryPolicy
from dify_kb.models import MAX_FILE_SIZE


@frozen(kw_only=True)
class Settings:
    """Durations, limits and capacity of an emulator. Times in seconds, sizes in bytes."""

    workers: int = 1
    """Documents indexed concurrently. Default installations have one worker up to 1.12, and four
    on 1.14.2 (measured), where two runs of one document can overlap."""

    parsing: float = 0.0
    """Minimum time in status `parsing`. 0: only the real work."""

    splitting: float = 0.0
    """Minimum time in status `splitting`."""

    indexing: float = 0.0
    """Minimum time in status `indexing`."""

    status_lock: float = 0.0
    """Time for which a document rejects another status change. It is 600 s on servers that lose a
    race with their own worker (measured)."""

    update_hangs: bool = True
    """Whether updates hang their worker on versions that do so (measured)."""

    pipelines: bool = False
    """Whether new datasets have a pipeline. On real servers only the console creates those."""

    models: bool | None = None
    """Whether the workspace has the stub models for embedding and reranking. None: depends on the
    version; 1.16 has them, most recorded servers had none."""

    max_file_size: int = MAX_FILE_SIZE
    """Maximum size of a file (UPLOAD_FILE_SIZE_LIMIT)."""

    max_body: int = 100 * 1024 * 1024
    """Maximum size of a body; the proxy sends 413 for larger ones (NGINX_CLIENT_MAX_BODY_SIZE,
    server source)."""

    history_size: int = 100_000
    """Maximum number of entries in `Emulator.history`, and in `Emulator.runs`."""

    quota: int | None = None
    """Maximum number of writes and searches per window; rejected requests count. None: unlimited,
    as on self-hosted servers; the cloud's default is 10 (measured)."""

    quota_window: float = 60.0
    """Length of the sliding window of the quota (measured)."""

    processes: int = 1
    """Simulated API processes (SERVER_WORKER_AMOUNT), to which the following limits apply."""

    connections: int = 0
    """Maximum number of connections per process (SERVER_WORKER_CONNECTIONS), each counted from its
    first request until it closes; excess connections wait. 0: unlimited."""

    keep_alive: float = 5.0
    """Time until an idle connection is closed, which frees its slot (measured). An hour if
    connections are unlimited."""

    create_cpu: float = 0.0
    """Mean processor time of a create, which occupies its process; gamma-distributed."""

    create_io: float = 0.0
    """Mean waiting time of a create, which does not occupy its process; gamma-distributed."""

    dataset_lock: float = 0.0
    """Time for which a create blocks other creates in its dataset."""

    seed: int = 0
    """Random seed for the durations of creates."""

    external_retry: RetryPolicy = field(factory=RetryPolicy)
    """Timeout and retries of requests to external knowledge APIs."""

    @staticmethod
    def default_pod() -> Settings:
        """Return the settings of a default API pod: one process with 10 connections.

        The durations are fitted to creates of small files on two cores: saturated at 2 or 3 in
        flight, with 24 to 28 per second (measured, 1.4.3 and 1.12.1). Change them by
        `attrs.evolve`.
        """
        return Settings.pods(1, 10)

    @staticmethod
    def pods(processes: int, connections: int) -> Settings:
        """Return the settings of an API with several processes, each as fast as a default pod."""
        return Settings(
            processes=processes,
            connections=connections,
            create_cpu=0.036,
            create_io=0.006,
        )
