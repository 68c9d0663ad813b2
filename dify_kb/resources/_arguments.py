"""Validate and convert arguments of resource methods: ids, texts, lists, files."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from dify_kb.arguments import check_type
from dify_kb.errors import ConfigError
from dify_kb.models import CreatedDocument, Dataset, Document, File

from ._pager import PAGE_SIZE

_INVALID_FILE_NAME = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]|%22|\s$')
"""Invalid parts of a file name: characters that the server rejects (recordings 210 to 226;
measured), and lone surrogates, which represent undecodable bytes."""


def get_dataset_id(dataset: Dataset | str) -> str:
    """Return the id of a dataset; an id is checked and returned."""
    return dataset.id if isinstance(dataset, Dataset) else check_id(dataset, "dataset_id")


def get_document_id(document: CreatedDocument | Document | str) -> str:
    match document:
        case CreatedDocument():
            return document.document.id
        case Document():
            return document.id
        case _:
            return check_id(document, "documents")


def check_id(value: str, label: str) -> str:
    """Return `value` if it is a UUID with dashes. The server treats other ids as unknown routes.

    Raises:
        ConfigError: `value` is not a UUID.
    """
    try:
        if _is_id(value):
            return value
    except (ValueError, AttributeError, TypeError):
        pass
    hint_suffix = "; datasets.find(name) returns a dataset" if label == "dataset_id" else ""
    raise ConfigError(f"Invalid {label}: {value!r}.", hint=f"Pass a UUID{hint_suffix}.")


@functools.lru_cache(maxsize=1024)
def _is_id(value: str) -> bool:
    return str(UUID(value)) == value.lower()


def build_path_params(dataset: Dataset | str, **ids: str) -> dict[str, str]:
    """Return the path parameters of a call, after checking the ids."""
    checked = {name: check_id(value, name) for name, value in ids.items()}
    return {"dataset_id": get_dataset_id(dataset), **checked}


def check_length(value: str, label: str, min_length: int, max_length: int) -> str:
    """Return `value` if it has `min_length` to `max_length` characters.

    Raises:
        ConfigError: `value` is shorter or longer.
    """
    if not min_length <= len(value) <= max_length:
        raise ConfigError(
            f"{label} has {len(value)} characters.",
            hint=f"Pass {min_length} to {max_length} characters.",
        )
    return value


def check_page(page: int, limit: int) -> int:
    """Return the rows of a page, at most `PAGE_SIZE`.

    Raises:
        ConfigError: a number is below 1.
    """
    for name, value in (("page", page), ("limit", limit)):
        if value < 1:
            raise ConfigError(f"Invalid {name}: {value}.", hint="Use 1 or more.")
    return min(limit, PAGE_SIZE)


def check_not_empty(values: object, label: str) -> None:
    """Check that `values` is a list, not a string, and not empty.

    Raises:
        ConfigError: `values` is empty, or a string.
    """
    if isinstance(values, str):
        raise ConfigError(
            f"{label} is a string, not a list: {values!r}.", hint=f"Pass [{values!r}]."
        )
    if not values:
        raise ConfigError(f"{label} is empty.", hint="Pass at least one item.")


def file_from_argument(file: Path | str | bytes | BinaryIO, name: str | None) -> File:
    """Convert a file argument and check its name. A path is opened only when it is sent.

    Raises:
        ConfigError: the name is missing, or the server would reject it.
        TypeError: `file` or `name` has another type.
    """
    if name is not None:
        check_type(name, str, "name", "a string")
    match file:
        case bytes():
            return _check_file_name(File(name=name or "", content=file, size=len(file)))
        case Path():
            return _check_file_name(File(name=name or file.name, content=file))
        case str():
            return file_from_argument(Path(file), name)
        case _ if hasattr(file, "read") and not isinstance(file, io.TextIOBase):
            # Measured when it is sent, as every access may block.
            stream_name = getattr(file, "name", None)
            own_name = Path(stream_name).name if isinstance(stream_name, str) else ""
            return _check_file_name(File(name=name or own_name, content=file))
        case _:
            raise TypeError(
                "file must be a path, bytes or a file open in binary mode, not"
                f" {type(file).__name__}"
            )


def _check_file_name(file: File) -> File:
    if not file.name:
        raise ConfigError(
            "The file has no name.", hint='Pass name="….txt", which becomes the document\'s name.'
        )
    if _INVALID_FILE_NAME.search(file.name):
        raise ConfigError(
            f"Invalid file name: {file.name!r}.",
            hint='Remove / \\ : * ? " < > |, %22, control characters and trailing spaces.',
        )
    return file
