"""Decide what to do with each file: compare it with the journal and the knowledge base."""
