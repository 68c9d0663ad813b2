"""Probe a failed server with exponential backoff until it answers or the load gives up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from dify_kb.ingest.error_classes import is_passing, stop_message, stop_reason
from dify_kb.transport.clock import loop_time

from .gave_up import GaveUp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dify_kb.config import Loading
    from dify_kb.errors import KnowledgeError

PROBES: Final = 2
"""Consecutive probes that must be answered."""


async def probe_until_answered(
    probe: Callable[[], Awaitable[KnowledgeError | None]], times: Loading
) -> GaveUp | None:
    """Repeat a probe until it is answered `PROBES` times in a row; return the reason to give up.

    Gives up after a refusal at once (a revoked key stays revoked), and after retryable failures
    once they have lasted `outage` seconds. None if the server answers.
    """
    wait, answered, since = times.probe, 0, loop_time()
    while answered < PROBES:
        await anyio.sleep(wait)
        error = await probe()
        if error is None:
            answered, wait = answered + 1, times.probe
            continue
        answered, wait = 0, min(2 * wait, times.probe_longest)
        late = loop_time() - since > times.outage
        if late or not is_passing(error):
            return GaveUp(stop_reason(error), stop_message(error))
    return None
