"""Generate `_resources.py`, the blocking twins of the resources, from the async classes.

`python -m dify_kb.blocking._generate_resources` writes the file; with `--check` it fails if the
file is out of date. After removing an async method, first delete its line from the file, as the
package cannot be imported otherwise.
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

OUTPUT_PATH: Final = Path(__file__).with_name("_resources.py")

_WRITTEN_BY_HAND: Final = {"aclose", "copy", "compare"}
"""Methods of `Client` in `__init__.py`: `close`, and those that use two clients."""

_HEAD_TEMPLATE: Final = '''\
"""Written by `python -m dify_kb.blocking._generate_resources`; do not edit."""

from __future__ import annotations

from attrs import frozen

from dify_kb import resources
from dify_kb.client import AsyncClient

from ._loop_thread import LoopThread
from ._make_blocking import {wrappers}
'''

_RESOURCE_TEMPLATE: Final = '''

@frozen
class {name}:
    """{doc}

    _loop: LoopThread
    _target: resources.{name}

'''

_CLIENT_TEMPLATE: Final = '''

class BlockingClientBase:
    """The methods and resources of a blocking client."""

    _loop: LoopThread
    _target: AsyncClient

'''

_PROPERTY_TEMPLATE: Final = '''
    @property
    def {name}(self) -> {kind}:
        """{doc}
        return {kind}(self._loop, self._open_target.{name})
'''

_OPEN_TARGET: Final = """
    @property
    def _open_target(self) -> AsyncClient:
        self._loop.start()
        return self._target
"""


_WRAPPERS = ("make_blocking", "make_blocking_iterator", "make_blocking_results")


def render() -> str:
    """Return the text of `_resources.py` for the current async classes."""
    kinds = [getattr(resources, name) for name in sorted(resources.__all__)]
    body = "".join(_render_resource(kind) for kind in kinds if _is_resource(kind))
    body += _render_client()
    wrappers = [name for name in _WRAPPERS if f" {name}(" in body]
    return _HEAD_TEMPLATE.format(wrappers=", ".join(wrappers)) + body


def main() -> None:
    """Write the file, or compare it with `--check`."""
    text = render()
    if "--check" not in sys.argv[1:]:
        OUTPUT_PATH.write_text(text, encoding="utf-8")
    elif OUTPUT_PATH.read_text(encoding="utf-8") != text:
        sys.exit(
            f"{OUTPUT_PATH} is out of date. Run python -m dify_kb.blocking._generate_resources."
        )


def _is_resource(kind: type) -> bool:
    return any(inspect.iscoroutinefunction(method) for _, method in _iter_public_members(kind))


def _render_resource(kind: type) -> str:
    head = _RESOURCE_TEMPLATE.format(name=kind.__name__, doc=_render_docstring(kind, 4))
    return head + "".join(
        _render_method(f"resources.{kind.__name__}", name, method)
        for name, method in _iter_public_members(kind)
        if inspect.isfunction(method)
    )


def _render_client() -> str:
    lines, properties = "", ""
    for name, member in _iter_public_members(client.AsyncClient):
        if name in _WRITTEN_BY_HAND:
            continue
        if inspect.isfunction(member) and (
            inspect.iscoroutinefunction(member) or _has_pages(member)
        ):
            lines += _render_method("AsyncClient", name, member)
        elif isinstance(member, property) and member.fget is not None:
            kind = _return_type_name(member.fget)
            if kind in resources.__all__:
                doc = _render_docstring(member, 8)
                properties += _PROPERTY_TEMPLATE.format(name=name, kind=kind, doc=doc)
    return _CLIENT_TEMPLATE + lines + properties + _OPEN_TARGET


def _render_method(owner: str, name: str, method: Callable[..., object]) -> str:
    if inspect.iscoroutinefunction(method):
        return f"    {name} = make_blocking({owner}.{name})\n"
    if _return_type_name(method) == "Results":
        return f"    {name} = make_blocking_results({owner}.{name})\n"
    if _has_pages(method):
        return f"    {name} = make_blocking_iterator({owner}.{name})\n"
    raise TypeError(
        f"{owner}.{name} returns neither a coroutine nor pages and cannot be made blocking."
    )


def _has_pages(method: Callable[..., object]) -> bool:
    name = _return_type_name(method)
    # The client imports the results of a load only for type checkers.
    kind = vars(sys.modules[method.__module__]).get(name) or vars(ingest).get(name)
    return hasattr(kind, "pages")


def _render_docstring(member: object, indent: int) -> str:
    doc, space = inspect.getdoc(member) or "", " " * indent
    end = f"\n{space}" if "\n" in doc else ""
    return f'{textwrap.indent(doc, space).lstrip()}{end}"""'


def _return_type_name(method: Callable[..., object]) -> str:
    # As text, as names imported only for type checkers cannot be resolved.
    return str(method.__annotations__.get("return")).partition("[")[0]


def _iter_public_members(kind: type) -> Iterator[tuple[str, object]]:
    return (
        (name, member)
        for owner in kind.__mro__[:-1]
        for name, member in vars(owner).items()
        if not name.startswith("_")
    )


if __name__ == "__main__":
    main()
