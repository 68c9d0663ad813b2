"""The sources of a load: scan folders, filter files, name documents, read content."""
