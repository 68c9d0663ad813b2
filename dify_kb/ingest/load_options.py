"""The validated options of a load, and the parts of a client that it uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
from attrs import Attribute, field, frozen
from attrs.converters import optional

from dify_kb.arguments import Duration, parse_duration, parse_size
from dify_kb.config import Policy
from dify_kb.errors import ConfigError
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.models import MAX_FILE_SIZE, UNSET, DocForm, ProcessRule, Unset
from dify_kb.resources import Datasets, Documents
from dify_kb.wire import codec

from .metadata.collect_metadata import LoadMetadata, MetadataSource, list_sources
from .metadata.metadata_files import Sidecar
from .planning.file_plan import DATASET_RULE, OnExisting, PlanOptions
from .progress import OnLoadEvent
from .sources.items import require_path
from .sources.scan import ScanRules

if TYPE_CHECKING:
    import os

Wait = Literal["accepted", "indexed", "verified"]
OnError = Literal["collect", "stop"]
Replace = Literal["in_place", "swap"]


def _validate_minimum(number: float) -> Callable[[object, Attribute[Any], float | None], None]:
    def check(_: object, attribute: Attribute[Any], value: float | None) -> None:
        if value is not None and not value >= number:
            raise ConfigError(f"Invalid {attribute.name} {value!r}.", hint=f"Use {number} or more.")

    return check


def _validate_metadata(_: object, __: object, value: LoadMetadata) -> None:
    list_sources(value)


def _patterns(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else tuple(value)


def _stall_after(value: Duration) -> float:
    return parse_duration(value, "stall_after")


def _deadline(value: Duration) -> float:
    return parse_duration(value, "deadline")


def _max_file_size(value: int | str) -> int:
    return parse_size(value, "max_file_size")


def _doc_form(value: DocForm | str | None) -> DocForm | Unset:
    return DocForm(value) if value else UNSET


def _path(value: str | os.PathLike[str]) -> Path:
    require_path(value)
    return Path(value)


@frozen(kw_only=True)
class LoadOptions:
    """The options of a load; methods of the client have checked their types and words.

    `AsyncClient.load` documents them. Its signature repeats the names, types and defaults for
    editors and `help()`, as does that of `load_iter`; a test compares them.
    """

    include: Sequence[str] = field(default=("*",), converter=_patterns)
    exclude: Sequence[str] = field(default=(), converter=_patterns)
    as_text: Sequence[str] = field(default=(), converter=_patterns)
    gitignore: bool = False
    process_rule: ProcessRule | None = None
    doc_form: DocForm | Unset = field(default=None, converter=_doc_form)
    metadata: LoadMetadata = field(default=None, validator=_validate_metadata)
    on_existing: OnExisting = "overwrite"
    wait: Wait = "indexed"
    checksum: bool = False
    overwrite_archived: bool = False
    replace: Replace = "in_place"
    concurrency: int | tuple[int, int] | None = None
    rate: str | float | None = None
    max_unindexed: int = field(default=5000, validator=_validate_minimum(1))
    stall_after: float = field(default=900.0, converter=_stall_after)
    deadline: float | None = field(default=None, converter=optional(_deadline))
    max_failures: int | None = field(default=None, validator=_validate_minimum(0))
    per_dataset: int | None = field(default=None, validator=_validate_minimum(1))
    max_file_size: int = field(default=MAX_FILE_SIZE, converter=_max_file_size)
    journal: Path | None = field(default=None, converter=optional(_path))
    retry_failed: bool = False
    errors: OnError = "collect"
    dry_run: bool = False
    progress: bool = False
    on_event: OnLoadEvent | None = None
    pause: Callable[[], Awaitable[None]] | None = None
    """Waits while the buffer of results is full."""

    def __attrs_post_init__(self) -> None:
        if self.replace == "swap" and self.wait == "accepted":
            raise ConfigError(
                "replace='swap' requires wait='indexed' or wait='verified'.",
                hint="The old version can be deleted only once the new one is indexed.",
            )

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Create the options from the arguments of a method, ignoring other names.

        Raises:
            ConfigError: an option is invalid.
        """
        names = [attribute.name for attribute in attrs.fields(cls)]
        return cls(**{name: arguments[name] for name in names if name in arguments})

    @property
    def rules(self) -> ScanRules:
        """The rules for the files to load."""
        return ScanRules(
            include=self.include,
            exclude=self.exclude,
            as_text=self.as_text,
            max_file_size=self.max_file_size,
            gitignore=self.gitignore,
            sidecars=any(isinstance(source, Sidecar) for source in self.metadata_sources),
        )

    @property
    def metadata_sources(self) -> Sequence[MetadataSource]:
        """The sources of metadata; later ones win."""
        return list_sources(self.metadata)

    @property
    def follows(self) -> bool:
        """Whether documents are followed until their indexing ends."""
        return self.wait != "accepted"

    @property
    def verifies(self) -> bool:
        """Whether successful results are held until they are verified."""
        return self.wait == "verified" and not self.dry_run

    @property
    def failure_limit(self) -> int | None:
        """The number of failed files above which the run stops; None means no limit."""
        return 0 if self.errors == "stop" else self.max_failures

    @property
    def chunking_fingerprint(self) -> str:
        """A fingerprint of the chunking settings."""
        if self.process_rule is None and not self.doc_form:
            return DATASET_RULE
        settings = json.dumps([codec.encode(self.process_rule), self.doc_form or None])
        return hashlib.sha256(settings.encode()).hexdigest()[:16]

    @property
    def plan_options(self) -> PlanOptions:
        """The options that affect the plan of a file."""
        return PlanOptions(
            on_existing=self.on_existing,
            retry_failed=self.retry_failed,
            overwrite_archived=self.overwrite_archived,
            follow=self.follows,
            rule=self.chunking_fingerprint,
        )


@frozen(kw_only=True)
class ServerAccess:
    """The parts of a client that a load uses.

    `identity` identifies the server in the journal; None for an embedded server in memory.
    """

    identity: str | None
    datasets: Datasets
    documents: Documents
    uploads: Documents
    """`documents` without retries, for creates: failed uploads are queued again by the load."""

    admission: Admission
    breaker: CircuitBreaker
    policy: Policy
