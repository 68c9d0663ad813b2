"""Execute a load: upload planned files, follow their documents, record the outcomes."""
