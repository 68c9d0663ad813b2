"""The ways to cut documents that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.models import DocForm, ProcessRule

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (200, 500, 1500)
"""Characters of a chunk, when nothing else is asked for."""


@frozen(kw_only=True)
class Cut:
    """A name, and what a load is told."""

    name: str
    rule: ProcessRule
    form: DocForm | None = None


def cuts(sizes: Sequence[int], *, parents: bool) -> Sequence[Cut]:
    """Name a way to cut for each size, a tenth of it overlapping, as far as 50 characters.

    Args:
        parents: whether paragraphs that are found by their parts are compared as well, which
            needs a high-quality base.

    Raises:
        ConfigError: a size that servers take and then fail to index.
    """
    found = [
        Cut(
            name=f"{size} characters",
            rule=ProcessRule.custom(max_tokens=size, chunk_overlap=min(50, size // 10)),
        )
        for size in sizes
    ]
    if parents:
        rule = ProcessRule.parent_child()
        found.append(Cut(name="parent-child", rule=rule, form=DocForm.HIERARCHICAL))
    return found
