"""Measuring an instance, and how well it finds what is known to be there."""

from __future__ import annotations
