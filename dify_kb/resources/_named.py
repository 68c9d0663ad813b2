"""Taking a dataset or its id."""

from __future__ import annotations

import functools
from uuid import UUID

from dify_kb.errors import ConfigError
from dify_kb.models import Dataset


def dataset_id_of(dataset: Dataset | str) -> str:
    """Tell the id of a dataset, given itself or its id."""
    return dataset.id if isinstance(dataset, Dataset) else checked_id(dataset, "dataset_id")


def checked_id(value: str, what: str) -> str:
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
    finds = "; datasets.find(name) tells that of a dataset" if what == "dataset_id" else ""
    raise ConfigError(f"{what} is {value!r}, which is no id.", hint=f"Ids are UUIDs{finds}.")


@functools.lru_cache(maxsize=1024)
def _is_id(value: str) -> bool:
    return str(UUID(value)) == value.lower()


def slots(dataset: Dataset | str, **ids: str) -> dict[str, str]:
    """Fill the slots of a path: the dataset's, and UUIDs by their names."""
    checked = {name: checked_id(value, name) for name, value in ids.items()}
    return {"dataset_id": dataset_id_of(dataset), **checked}
