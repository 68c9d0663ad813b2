"""A Dify knowledge server of one's own: for tests, demos and benchmarks.

It speaks the catalogue's paths and models, and otherwise only repeats what real servers were
measured to do; it knows nothing of this package's client.
"""

from __future__ import annotations

from .clock import Clock, ManualClock, SystemClock
from .embedded import Emulator, serve
from .faults import Faults
from .history import Exchange, RunEvent
from .judge import Verdict, judge
from .profiles import VERSIONS
from .settings import Settings
from .store import DocumentState

__all__ = [
    "VERSIONS",
    "Clock",
    "DocumentState",
    "Emulator",
    "Exchange",
    "Faults",
    "ManualClock",
    "RunEvent",
    "Settings",
    "SystemClock",
    "Verdict",
    "judge",
    "serve",
]
