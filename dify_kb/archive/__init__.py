"""Export, import, copy, compare and verify knowledge bases.

An archive is a folder, or that folder in a zip: a manifest with checksums, shards with the
documents, and the original files by their hash.
"""

from __future__ import annotations
