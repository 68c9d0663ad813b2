"""Fault injection: parse fault plans and apply them to requests, indexing runs and models."""

from __future__ import annotations

from .plans import Faults

__all__ = ["Faults"]
