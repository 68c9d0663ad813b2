"""Benchmarks of a Dify server and of its retrieval quality."""

from __future__ import annotations
