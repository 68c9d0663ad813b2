"""Resolve paths to the roots of a scan and the prefixes of their keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import ConfigError

from .document_names import PathNormalizer
from .file_source import FileSource
from .items import Element, Item, require_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@frozen
class ScanRoot:
    """A folder to scan, or a file that was named explicitly.

    `label` is the prefix of the keys of a folder's files: "" or a path that ends with `/`. `key` is
    the key of a file; None for a folder.
    """

    path: Path
    label: str = ""
    key: str | None = None


def resolve_roots(source: str | os.PathLike[str] | Iterable[Element]) -> list[ScanRoot]:
    """Return the folders and files to scan, with the prefixes of their keys. Blocking.

    With one folder, keys are relative to it. With several, keys begin with the folder's name or, if
    two names are equal, with its path relative to their common parent. The keys of files are their
    paths relative to their common parent. Paths inside another root are omitted. Keys are
    normalized to NFC, except for names that differ only in their Unicode form.

    Raises:
        ConfigError: a path is empty, does not exist, or is mixed with items.
    """
    elements = [source] if isinstance(source, str | os.PathLike) else list(source)
    is_folder = dict(_inspect(_path(path)) for path in elements)
    folders = [path for path in is_folder if is_folder[path]]
    folders = [path for path in folders if not any(other in path.parents for other in folders)]
    inside = set(folders)
    files = [
        path
        for path, folder in is_folder.items()
        if not folder and not inside.intersection(path.parents)
    ]
    normalizer = PathNormalizer()
    return [*_folders(folders, normalizer, alone=not files), *_files(files, normalizer)]


def identify_roots(roots: Sequence[ScanRoot]) -> str | None:
    """Return an identifier of the roots, in any order: their normalized paths. Blocking."""
    normalizer = PathNormalizer()
    return "\n".join(sorted(normalizer.normalize(str(root.path)) for root in roots)) or None


def _path(element: Element) -> Path:
    if isinstance(element, Item):
        raise ConfigError(
            "The source mixes paths and items.", hint="Pass paths as Item(key, path=…), too."
        )
    if isinstance(element, FileSource):
        raise ConfigError(
            f"Cannot load {element.identity!r} together with folders or files.",
            hint="Load it in a call of its own.",
        )
    require_path(element)
    return Path(element)


def _inspect(path: Path) -> tuple[Path, bool]:
    """Return the absolute path, and whether it is a folder."""
    try:
        mode = path.stat().st_mode
        return Path(os.path.abspath(path)), stat.S_ISDIR(mode)  # noqa: PTH100 -- resolve() would follow links
    except OSError as error:
        raise ConfigError(
            f"Cannot load {path}: {(error.strerror or str(error)).lower()}.",
            hint="Check the path. Folders are loaded with their subfolders.",
        ) from error


def _folders(
    folders: Sequence[Path], normalizer: PathNormalizer, *, alone: bool
) -> Iterable[ScanRoot]:
    if len(folders) == 1 and alone:
        return [ScanRoot(folders[0])]
    names = [normalizer.normalize(folder.name, str(folder.parent)) for folder in folders]
    if len(set(names)) < len(names):
        common = Path(os.path.commonpath(folders))
        names = [_below(common, folder, normalizer) for folder in folders]
    return [ScanRoot(folder, f"{name}/") for folder, name in zip(folders, names, strict=True)]


def _files(files: Sequence[Path], normalizer: PathNormalizer) -> Iterable[ScanRoot]:
    if not files:
        return []
    common = Path(os.path.commonpath([file.parent for file in files]))
    return [ScanRoot(file, key=_below(common, file, normalizer)) for file in files]


def _below(common: Path, path: Path, normalizer: PathNormalizer) -> str:
    return normalizer.normalize(path.relative_to(common).as_posix(), str(common))
