"""Limit uploads by concurrency, rate, indexing backlog and server health."""
