"""Decide when the next upload may start: concurrency, rate, backlog, server health."""
