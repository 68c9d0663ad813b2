"""What is refused here, because the server would swallow it or answer with a riddle."""

from __future__ import annotations

from dify_kb.errors import ConfigError


def length(value: str, what: str, least: int, most: int) -> str:
    """Let a text of `least` to `most` characters through.

    Raises:
        ConfigError: it is shorter or longer.
    """
    if not least <= len(value) <= most:
        raise ConfigError(
            f"{what} has {len(value)} characters.", hint=f"The server takes {least} to {most}."
        )
    return value


def some(values: object, what: str) -> None:
    """Let a list through that is not empty, and is not a single text.

    Raises:
        ConfigError: it is.
    """
    if isinstance(values, str):
        raise ConfigError(f"{what} is the text {values!r}.", hint=f"Pass a list: [{values!r}].")
    if not values:
        raise ConfigError(f"{what} is empty.", hint="Name at least one.")
