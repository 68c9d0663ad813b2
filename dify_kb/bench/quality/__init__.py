"""Evaluation of retrieval quality, by queries with known answers."""
