"""Prepare what a load or a sync uses: its access to the server, callbacks and counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import attrs
from attrs import define, field, frozen

from dify_kb.resources import Datasets, Documents
from dify_kb.transport import Sender

from .engine.ledger import AttemptCounter
from .load_options import LoadOptions, ServerAccess
from .metadata.collect_metadata import MetadataCollector
from .pacing.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from dify_kb.transport import AttemptEvent

    from .pacing.admission import Admission

E = TypeVar("E")


@define
class Callbacks:
    """The callbacks of the caller. The first error of one cancels the load, which then raises it.

    Raised inside of the load, it would be taken for an error of one file, or join those of others.
    """

    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    error: Exception | None = None

    def guard(self, callback: Callable[[E], object] | None) -> Callable[[E], None] | None:
        """Return a callback that does nothing once one has raised; None for None."""

        def call(event: E) -> None:
            if self.error is None and callback is not None:
                try:
                    callback(event)
                except Exception as error:  # noqa: BLE001 -- raised by the load
                    self.error = error
                    self.scope.cancel()

        return None if callback is None else call


@frozen(kw_only=True)
class LoadSetup:
    """The access of one load or sync to the server, its options and its counters."""

    server: ServerAccess
    sender: Sender
    options: LoadOptions
    requests: AttemptCounter
    callbacks: Callbacks
    metadata: MetadataCollector


async def prepare_load(
    sender: Sender,
    identity: str | None,
    dataset_id: str,
    options: LoadOptions,
    admission: Admission,
) -> LoadSetup:
    """Create what a load uses. Costs no request.

    Raises:
        ConfigError: the metadata is invalid.
    """
    requests, callbacks = AttemptCounter(), Callbacks()
    on_attempt = callbacks.guard(sender.on_attempt)
    options = attrs.evolve(options, on_event=callbacks.guard(options.on_event))
    # No call waits for what could only follow after the deadline.
    patient = attrs.evolve(sender.policy.retry, total=options.deadline)
    policy = attrs.evolve(sender.policy, retry=patient)
    metadata = await anyio.to_thread.run_sync(MetadataCollector.create, options.metadata_sources)
    # Without retries: the upload queue repeats failed uploads, after a pause for all of them.
    once = attrs.evolve(
        policy.retry, read_attempts=1, write_attempts=1, throttled_attempts=1, total=None
    )

    def observe(attempt: AttemptEvent) -> None:
        requests.count(attempt)
        admission.record(attempt)
        if on_attempt is not None:
            on_attempt(attempt)

    watched = attrs.evolve(sender, policy=policy, on_attempt=observe)
    single = attrs.evolve(watched, policy=attrs.evolve(policy, retry=once))
    breaker = CircuitBreaker(Datasets(single), dataset_id, policy.load_timing)
    admission.use_breaker(breaker)
    server = ServerAccess(
        identity=identity,
        datasets=Datasets(watched),
        documents=Documents(watched),
        uploads=Documents(single),
        admission=admission,
        breaker=breaker,
        policy=policy,
    )
    return LoadSetup(
        server=server,
        sender=watched,
        options=options,
        requests=requests,
        callbacks=callbacks,
        metadata=metadata,
    )
