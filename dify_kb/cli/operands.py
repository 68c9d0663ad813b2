"""Operands of copies and comparisons: a dataset, `profile:Dataset`, or an archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from attrs import frozen

from dify_kb import profiles
from dify_kb.errors import ConfigError

from . import name_lookup

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset

    from .run_command import CommandContext

ARCHIVE_SUFFIXES = (".difykb", ".zip")


@frozen(kw_only=True)
class Operand:
    """An operand of the command line. Exactly one of `dataset` and `path` is set."""

    text: str
    profile: str | None = None
    dataset: str | None = None
    path: Path | None = None

    def create_client(self, command: CommandContext) -> AsyncClient:
        """Create the client of the server of a dataset; not open yet.

        Raises:
            ConfigError: the profile, the address or the key is missing or invalid.
        """
        if self.profile is None:
            return command.create_client()
        if command.url:
            raise ConfigError(
                f"Profile {self.profile!r} and --url cannot be combined.",
                hint="Remove --url, or pass the dataset without the profile.",
            )
        invocation = attrs.evolve(command.invocation, profile=self.profile)
        return attrs.evolve(command, invocation=invocation).create_client()

    async def find_dataset(self, client: AsyncClient) -> Dataset:
        """Return the dataset of the operand.

        Raises:
            KnowledgeError: it does not exist.
        """
        return await name_lookup.find_dataset(client, self.dataset or "")


def parse_operand(text: str, *, archives: bool = False) -> Operand:
    """Parse a dataset, `profile:Dataset`, or with `archives` the path of an archive.

    A text is a path if it exists as an archive, ends with .difykb or .zip, or contains a slash.

    Raises:
        ConfigError: it is empty.
    """
    if not text:
        raise ConfigError("An operand is empty.", hint="Check the shell variable in it.")
    looks_like_path = text.endswith(ARCHIVE_SUFFIXES) or os.sep in text
    if archives and (looks_like_path or (Path(text) / "manifest.json").is_file()):
        return Operand(text=text, path=Path(text))
    name, colon, dataset = text.partition(":")
    known = profiles.read_profiles().profiles if colon else {}
    if name not in known:
        return Operand(text=text, dataset=text)
    dataset = dataset or known[name].dataset or ""
    if not dataset:
        raise ConfigError(
            f"{text!r} names no dataset.", hint=f"Pass {name}:NAME, or set its dataset."
        )
    return Operand(text=text, profile=name, dataset=dataset)
