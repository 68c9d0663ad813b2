"""Sources of the metadata of files, and how they are combined."""
