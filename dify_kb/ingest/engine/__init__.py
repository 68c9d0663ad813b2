"""Carry out a load: send planned files, follow their documents, record the outcomes."""
