"""The sandbox of chat templates: jinja2's, as in transformers, with limits of steps and output.

A template that comes with a model or a package is a program. jinja2's sandbox keeps it away from files and processes, but not
from loops without end. Filters can still make much of little: `colbuild.confined` bounds memory and time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sized
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from colbuild.bounds import TEMPLATE_BYTES, TEMPLATE_STEPS
from colbuild.units import format_bytes


class _Generation(Extension):
    """The tag that marks what the model has written, for trainings: here its content is text like any other."""

    tags = {"generation"}  # noqa: RUF012  (declared so by the base class)

    def parse(self, parser: Parser) -> nodes.Node:
        """Parses the content between the tag and its end; its variables are local."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """A namespace that keeps no name with an underscore in front: such lead out of the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # A template may write namespace(self=…).
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        """Sets a value."""
        _check_name(name)
        super().__setitem__(name, value)


class _Dictionaries:
    """`dict` for templates, without the rest of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """A dictionary."""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """A dictionary with the same value for some keys."""
        return dict.fromkeys(*args)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of jinja2, which keeps code out, and bounds besides: steps, and lengths of texts, lists and numbers."""

    # Of jinja2: these operators go through `call_binop`, also where both sides are constants.
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        self._steps = 0
        self.filters |= {"tojson": _to_json, _TURNS: self._turns, _SHORT: _short}
        self.globals |= {
            "raise_exception": _refuse,
            "strftime_now": _now,
            "dict": _Dictionaries(),
            "namespace": _Namespace,
        }

    def step(self, count: int = 1) -> None:
        """Counts steps. Raises SecurityError beyond the most that a template may take."""
        self._steps += count
        if self._steps > TEMPLATE_STEPS:
            raise SecurityError(f"it takes more than {TEMPLATE_STEPS:,} steps, the limit")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as jinja2 names them
        """Calls a function, macro or method of a template."""
        __self.step()
        return _short(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Computes with two values."""
        self.step()
        if _length_of(operator, left, right) > TEMPLATE_BYTES:
            raise _too_long()
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, _TURNS, [], [], None, None, lineno=loop.lineno)
        for joined in list(tree.find_all(nodes.Concat)):
            whole = nodes.Concat(joined.nodes, lineno=joined.lineno)
            joined.nodes = [nodes.Filter(whole, _SHORT, [], [], None, None, lineno=joined.lineno)]
        return tree

    def _turns(self, values: Any) -> Any:
        """What a loop goes over, each turn counted; a list stays one, whose length loops may ask for."""
        if isinstance(values, Collection):
            self.step(len(values))
        return self._counted(values) if isinstance(values, Iterator) else values

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.step()
            yield value


_TURNS: Final = "colbuild turns"
_SHORT: Final = "colbuild short"
"""No names that a template can write."""


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Returns the output of a template.

    Raises:
        jinja2.TemplateError: It is broken, or refuses its variables, or takes too many steps, or writes too much.
        Exception: A template is a program, and may raise anything.
    """
    pieces, length = [], 0
    for piece in _Environment().from_string(source).generate(**variables):
        pieces.append(piece)
        length += len(piece)
        if length > TEMPLATE_BYTES:
            raise _too_long()
    return "".join(pieces)


def _short(value: Any) -> Any:
    if isinstance(value, str | list | tuple | dict) and len(value) > TEMPLATE_BYTES:
        raise _too_long()
    return value


def _too_long() -> SecurityError:
    return SecurityError(f"it makes more than {format_bytes(TEMPLATE_BYTES)}, the limit")


def _length_of(operator: str, left: Any, right: Any) -> float:
    """How long the result of an operator is, in characters, entries or bits, as far as that can be said before."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        return bits * max(right, 0) if operator == "**" else bits + right.bit_length()
    if operator == "*":
        pairs = ((left, right), (right, left))
        return max((len(one) * by for one, by in pairs if isinstance(one, Sized) and isinstance(by, int)), default=0)
    if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
        return len(left) + len(right)
    if operator == "%" and isinstance(left, str):
        return max((float(digits) for digits in _WIDTHS.findall(left)), default=0.0)
    return 0


_WIDTHS: Final = re.compile(r"\d{4,}")


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold the name {name!r}, which begins with '_'")


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
