"""Fault injection: plans of failures, their words, and how a call meets them."""

from __future__ import annotations

from .plans import Faults

__all__ = ["Faults"]
