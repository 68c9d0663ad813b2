"""Write `_surface.py`: a line for each method that the async client has.

`python -m dify_kb.blocking._write` writes it, and with `--check` fails when it is out of date.
When a method went away, delete its line first: the package cannot be imported with it.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dify_kb import client, ingest, resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SURFACE: Final = Path(__file__).with_name("_surface.py")

_HEAD: Final = '''\
"""Written by `python -m dify_kb.blocking._write`; do not edit."""

from __future__ import annotations

from attrs import frozen

from dify_kb import resources
from dify_kb.client import AsyncClient

from ._lift import {lifts}
from ._loop import Loop
'''

_RESOURCE: Final = '''

@frozen
class {name}:
    """{doc}

    _loop: Loop
    _target: resources.{name}

'''

_CLIENT: Final = '''

class Lifted:
    """What a blocking client has of the async one."""

    _loop: Loop
    _target: AsyncClient

'''

_PROPERTY: Final = '''
    @property
    def {name}(self) -> {kind}:
        """{doc}
        return {kind}(self._loop, self._opened.{name})
'''

_OPENED: Final = """
    @property
    def _opened(self) -> AsyncClient:
        self._loop.start()
        return self._target
"""


def render() -> str:
    """Give the text of `_surface.py` as the async classes now ask for it."""
    kinds = [getattr(resources, name) for name in sorted(resources.__all__)]
    body = "".join(_resource(kind) for kind in kinds if _is_resource(kind)) + _client()
    lifts = [name for name in ("lift", "lift_pager") if f" {name}(" in body]
    return _HEAD.format(lifts=", ".join(lifts)) + body


def main() -> None:
    """Write the file, or with `--check` compare it."""
    text = render()
    if "--check" not in sys.argv[1:]:
        SURFACE.write_text(text, encoding="utf-8")
    elif SURFACE.read_text(encoding="utf-8") != text:
        sys.exit(f"{SURFACE} is out of date. Run python -m dify_kb.blocking._write.")


def _is_resource(kind: type) -> bool:
    return any(inspect.iscoroutinefunction(method) for _, method in _public(kind))


def _resource(kind: type) -> str:
    head = _RESOURCE.format(name=kind.__name__, doc=_rest_of_doc(kind, 4))
    return head + "".join(
        _line(f"resources.{kind.__name__}", name, method)
        for name, method in _public(kind)
        if inspect.isfunction(method)
    )


def _client() -> str:
    lines, properties = "", ""
    for name, member in _public(client.AsyncClient):
        if inspect.isfunction(member) and (
            inspect.iscoroutinefunction(member) or _has_pages(member)
        ):
            lines += _line("AsyncClient", name, member)
        elif isinstance(member, property) and member.fget is not None:
            kind = _returned(member.fget)
            if kind in resources.__all__:
                doc = _rest_of_doc(member, 8)
                properties += _PROPERTY.format(name=name, kind=kind, doc=doc)
    return _CLIENT + lines + properties + _OPENED


def _line(owner: str, name: str, method: Callable[..., object]) -> str:
    if inspect.iscoroutinefunction(method):
        return f"    {name} = lift({owner}.{name})\n"
    if _has_pages(method):
        return f"    {name} = lift_pager({owner}.{name})\n"
    raise TypeError(f"{owner}.{name} gives neither a result nor pages; nothing lifts that.")


def _has_pages(method: Callable[..., object]) -> bool:
    name = _returned(method)
    # The client imports what a load gives for the type checker alone.
    kind = vars(sys.modules[method.__module__]).get(name) or vars(ingest).get(name)
    return hasattr(kind, "pages")


def _rest_of_doc(member: object, indent: int) -> str:
    doc, space = inspect.getdoc(member) or "", " " * indent
    end = f"\n{space}" if "\n" in doc else ""
    return f'{textwrap.indent(doc, space).lstrip()}{end}"""'


def _returned(method: Callable[..., object]) -> str:
    # As text: what is imported for the type checker alone cannot be resolved.
    return str(method.__annotations__.get("return")).partition("[")[0]


def _public(kind: type) -> Iterator[tuple[str, object]]:
    return ((name, member) for name, member in vars(kind).items() if not name.startswith("_"))


if __name__ == "__main__":
    main()
