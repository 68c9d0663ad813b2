"""One class for each noun of the API, one method for each operation. They know `send` alone."""

from __future__ import annotations

from ._pager import Pager
from .datasets import Datasets
from .documents import Documents
from .workspace import Workspace

__all__ = ["Datasets", "Documents", "Pager", "Workspace"]
