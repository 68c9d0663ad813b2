"""Validate and convert arguments of resource methods: ids, texts, lists, files."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import anyio.to_thread

from dify_kb.errors import ConfigError
from dify_kb.models import CreatedDocument, Dataset, Document, File

_INVALID_FILE_NAME = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]|%22|\s$')
"""What the server does not take in a file name (recordings 210 to 226; measured), and what UTF-8
does not (the lone surrogates that stand for the bytes of a name that is not UTF-8)."""


def get_dataset_id(dataset: Dataset | str) -> str:
    """Tell the id of a dataset, given itself or its id."""
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
    """Let a UUID through, dashes and all: with anything else the server answers as for an unknown
    route.

    Raises:
        ConfigError: `value` is no UUID.
    """
    try:
        if _is_id(value):
            return value
    except (ValueError, AttributeError, TypeError):
        pass
    hint_suffix = "; datasets.find(name) tells that of a dataset" if label == "dataset_id" else ""
    raise ConfigError(f"{label} is {value!r}, which is no id.", hint=f"Ids are UUIDs{hint_suffix}.")


@functools.lru_cache(maxsize=1024)
def _is_id(value: str) -> bool:
    return str(UUID(value)) == value.lower()


def build_path_params(dataset: Dataset | str, **ids: str) -> dict[str, str]:
    """Fill the slots of a path: the dataset's, and UUIDs by their names."""
    checked = {name: check_id(value, name) for name, value in ids.items()}
    return {"dataset_id": get_dataset_id(dataset), **checked}


def check_length(value: str, label: str, min_length: int, max_length: int) -> str:
    """Let a text of `min_length` to `max_length` characters through.

    Raises:
        ConfigError: it is shorter or longer.
    """
    if not min_length <= len(value) <= max_length:
        raise ConfigError(
            f"{label} has {len(value)} characters.",
            hint=f"The server takes {min_length} to {max_length}.",
        )
    return value


def check_not_empty(values: object, label: str) -> None:
    """Let a list through that is not empty, and is not a single text.

    Raises:
        ConfigError: it is.
    """
    if isinstance(values, str):
        raise ConfigError(f"{label} is the text {values!r}.", hint=f"Pass a list: [{values!r}].")
    if not values:
        raise ConfigError(f"{label} is empty.", hint="Name at least one.")


async def file_from_argument(file: Path | str | bytes | BinaryIO, name: str | None) -> File:
    """Take a file and check its name. A path is not looked at yet: that is left to its attempt.

    Raises:
        ConfigError: a name that the server would refuse, or none.
    """
    match file:
        case bytes():
            return _check_file_name(File(name=name or "", content=file, size=len(file)))
        case Path():
            return _check_file_name(File(name=name or file.name, content=file))
        case str():
            return await file_from_argument(Path(file), name)
        case _:
            return _check_file_name(await anyio.to_thread.run_sync(_file_from_stream, file, name))


def _file_from_stream(file: BinaryIO, name: str | None) -> File:
    stream_name = getattr(file, "name", None)
    name = name or (Path(stream_name).name if isinstance(stream_name, str) else "")
    if not file.seekable():
        content = file.read()
        return File(name=name, content=content, size=len(content))
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    return File(name=name, content=file, size=size, start=start)


def _check_file_name(file: File) -> File:
    if not file.name:
        raise ConfigError("The file has no name.", hint='Pass name="….txt": it names the document.')
    if _INVALID_FILE_NAME.search(file.name):
        raise ConfigError(
            f"name is {file.name!r}, which the server does not take.",
            hint='Leave out / \\ : * ? " < > |, %22, control characters and spaces at the end.',
        )
    return file
