"""A Dify knowledge server of one's own: for tests, demos and benchmarks.

It speaks the catalogue's paths and models, and otherwise only repeats what real servers were
measured to do; it knows nothing of this package's client.
"""

from __future__ import annotations

from .assertions import LoadCheck, check_load
from .clocks import Clock, ManualClock, SystemClock
from .embedded_server import Emulator, serve
from .faults import Faults
from .history import Exchange, RunEvent
from .server_versions import VERSIONS
from .settings import Settings
from .store import DocumentState

__all__ = [
    "VERSIONS",
    "Clock",
    "DocumentState",
    "Emulator",
    "Exchange",
    "Faults",
    "LoadCheck",
    "ManualClock",
    "RunEvent",
    "Settings",
    "SystemClock",
    "check_load",
    "serve",
]
