"""Find what there is to load: scan folders, take items, filter, name documents, read content."""
