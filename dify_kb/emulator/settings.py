"""Settings of the emulator: durations, limits and the simulated capacity."""

from __future__ import annotations

from attrs import field, frozen

from dify_kb.external import RetryPolicy
from dify_kb.models import MAX_FILE_SIZE


@frozen(kw_only=True)
class Settings:
    """Durations, limits and capacity of an emulator. Times in seconds, sizes in bytes.

    Args:
        workers: documents indexed concurrently. None: as in a default installation of the version,
            which has one worker up to 1.12 and four since 1.14.2 (measured), where two runs of one
            document can overlap.
        parsing: minimum time in status `parsing`. 0: only the real work.
        splitting: minimum time in status `splitting`.
        indexing: minimum time in status `indexing`.
        status_lock: time for which a document rejects another status change. It is 600 s on servers
            that lose a race with their own worker (measured).
        segment_lock: time for which a chunk refuses changes after it was disabled, until the task
            of that has run: 0.4 to 0.5 s on idle servers (measured).
        race_window: time in real seconds for which creates of a dataset or a metadata field, and
            assignments of metadata, overlap with others of the same name or document.
        update_hangs: whether updates hang their worker on versions that do so (measured).
        pipelines: whether new datasets have a pipeline. On real servers only the console creates
            those.
        models: whether the workspace has the stub models for embedding and reranking. None: depends
            on the version; 1.14.2 and 1.16 have them, servers before 1.13 were mostly recorded
            without.
        max_file_size: maximum size of a file (UPLOAD_FILE_SIZE_LIMIT).
        max_body: maximum size of a body; the proxy sends 413 for larger ones
            (NGINX_CLIENT_MAX_BODY_SIZE, server source).
        history_size: maximum number of entries in `Emulator.history`, and in `Emulator.runs`.
        quota: maximum number of writes and searches per window; rejected requests count. None:
            unlimited, as on self-hosted servers; the cloud's default is 10 (measured).
        quota_window: length of the sliding window of the quota (measured).
        processes: simulated API processes (SERVER_WORKER_AMOUNT), to which the following limits
            apply.
        connections: maximum number of connections per process (SERVER_WORKER_CONNECTIONS), each
            counted from its first request until it closes; excess connections wait. 0: unlimited.
        keep_alive: time until an idle connection is closed, which frees its slot (measured). An
            hour if connections are unlimited.
        create_cpu: mean processor time of a create, which occupies its process; gamma-distributed.
        create_io: mean waiting time of a create, which does not occupy its process;
            gamma-distributed.
        dataset_lock: time for which a create blocks other creates in its dataset.
        seed: random seed for the durations of creates.
        external_retry: timeout and retries of requests to external knowledge APIs.
    """

    workers: int | None = None
    parsing: float = 0.0
    splitting: float = 0.0
    indexing: float = 0.0
    status_lock: float = 0.0
    segment_lock: float = 0.0
    race_window: float = 0.005
    update_hangs: bool = True
    pipelines: bool = False
    models: bool | None = None
    max_file_size: int = MAX_FILE_SIZE
    max_body: int = 100 * 1024 * 1024
    history_size: int = 100_000
    quota: int | None = None
    quota_window: float = 60.0
    processes: int = 1
    connections: int = 0
    keep_alive: float = 5.0
    create_cpu: float = 0.0
    create_io: float = 0.0
    dataset_lock: float = 0.0
    seed: int = 0
    external_retry: RetryPolicy = field(factory=RetryPolicy)

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
