"""Why a run stops early. Written once, by `FileLifecycle.stop`."""

from __future__ import annotations

from attrs import define

from dify_kb.ingest.report import StopReason


@define
class RunStop:
    """The reason of a run that stops early; nothing more is sent from then on.

    `abandoned`: documents that the server has are not followed any longer either.
    """

    reason: StopReason | None = None
    message: str | None = None
    abandoned: bool = False

    @property
    def requested(self) -> bool:
        """Whether nothing more is to be sent."""
        return self.reason is not None
