"""What a load may be told, and what it needs of a client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from attrs import Attribute, field, frozen

from dify_kb.config import Policy
from dify_kb.errors import ConfigError
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.models import UNSET, DocForm, ProcessRule, Unset
from dify_kb.resources import Datasets, Documents
from dify_kb.resources import Metadata as MetadataResource
from dify_kb.wire import codec

from .events import OnLoadEvent
from .planning.plan import RULE_OF_THE_BASE, OnExisting, Wishes
from .planning.planner import Metadata
from .sources.scan import Rules

Wait = Literal["accepted", "indexed", "verified"]
OnError = Literal["collect", "stop"]


def _word(*known: str) -> Callable[[object, Attribute[Any], Any], None]:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if value not in known:
            raise ConfigError(
                f"{attribute.name} is {value!r}.", hint=f"It can be {', '.join(known)}."
            )

    return check


def _least(number: float) -> Callable[[object, Attribute[Any], float | None], None]:
    def check(_: object, attribute: Attribute[Any], value: float | None) -> None:
        if value is not None and not value >= number:
            raise ConfigError(
                f"{attribute.name} is {value!r}.", hint=f"It must be at least {number}."
            )

    return check


@frozen(kw_only=True)
class Options:
    """What a load may be told, checked."""

    rules: Rules = field(factory=Rules)
    process_rule: ProcessRule | None = None
    doc_form: DocForm | Unset = UNSET
    metadata: Metadata = None
    on_existing: OnExisting = field(
        default="overwrite", validator=_word("overwrite", "skip", "fail")
    )
    wait: Wait = field(default="indexed", validator=_word("accepted", "indexed", "verified"))
    max_unindexed: int = field(default=5000, validator=_least(1))
    stall_after: float = field(default=900.0, validator=_least(0))
    deadline: float | None = field(default=None, validator=_least(0))
    max_failures: int | None = field(default=None, validator=_least(0))
    journal: Path | None = None
    retry_failed: bool = False
    errors: OnError = field(default="collect", validator=_word("collect", "stop"))
    dry_run: bool = False
    on_event: OnLoadEvent | None = None
    pause: Callable[[], Awaitable[None]] | None = None
    """Waits while results are taken more slowly than they come."""

    @property
    def follows(self) -> bool:
        """Whether documents are followed to their end."""
        return self.wait != "accepted"

    @property
    def verifies(self) -> bool:
        """Whether good results are held until they are verified."""
        return self.wait == "verified" and not self.dry_run

    @property
    def most_failures(self) -> int | None:
        """Failures that do not stop the run."""
        return 0 if self.errors == "stop" else self.max_failures

    @property
    def cut(self) -> str:
        """A fingerprint of how documents are cut."""
        if self.process_rule is None and not self.doc_form:
            return RULE_OF_THE_BASE
        told = json.dumps([codec.encode(self.process_rule), self.doc_form or None])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def wishes(self) -> Wishes:
        """What a plan needs of this."""
        return Wishes(
            on_existing=self.on_existing,
            retry_failed=self.retry_failed,
            follow=self.follows,
            rule=self.cut,
        )


@frozen(kw_only=True)
class Server:
    """What a load needs of a client. `identity` tells the server from others in the
    journal; None is one that ends with its client.
    """

    identity: str | None
    datasets: Datasets
    probe: Datasets
    """The same, without another attempt."""

    documents: Documents
    uploads: Documents
    """Likewise for creates: what fails comes back by the line."""

    metadata: MetadataResource
    admission: Admission
    policy: Policy
