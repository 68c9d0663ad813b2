"""Sources of a load: scan folders, read items, filter files, name documents, read content."""
