"""Source text of a scheme, over which its hash is taken."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import CodeType, FunctionType
from typing import Any


def sources(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    """List the texts that define a value: sources of callables, `repr` of anything else.

    Args:
        value: a value, a container of values, or a callable.
        seen: values that were listed before, by id; gets the new ones.
    """
    if not callable(value) and not isinstance(value, (tuple, list, dict)):
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(value))
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its id
    if isinstance(value, dict):
        yield from sources(sorted(value.items(), key=repr), seen)
    elif isinstance(value, (tuple, list)):
        yield f"{len(value)}:"
        for part in value:
            yield from sources(part, dict(seen))  # a copy: the same part may occur twice
    elif isinstance(value, partial):
        yield "partial"
        yield from sources((value.args, value.keywords), seen)
        yield from sources(value.func, seen)
    elif not hasattr(value, "__qualname__"):
        yield from sources(type(value), seen)
        yield from sources(vars(value), seen)
    else:
        yield from _callable_sources(value, seen)


def _callable_sources(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    module = value.__module__ or ""
    root = module.partition(".")[0]
    if root == "torch" or root in sys.stdlib_module_names - {"__main__"}:
        yield f"{module}.{value.__qualname__}"
        return
    functions = [f for f in (value, *getattr(value, "__dict__", {}).values()) if inspect.isfunction(f)]
    try:
        source = _source_of(value)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        source = "\n".join(text for f in functions for text in _code(f.__code__))
        yield f"{module}.{value.__qualname__} {source}"
    else:
        yield source
    for base in getattr(value, "__bases__", ()):
        yield from sources(base, seen)
    for function in functions:
        for defaults in filter(None, (function.__defaults__, function.__kwdefaults__)):
            yield from sources(defaults, seen)
        for cell in function.__closure__ or ():
            yield from sources(cell.cell_contents, seen)
    namespace = next((f.__globals__ for f in functions), vars(sys.modules.get(module, object)))
    yield from _referred_sources(_names_in(source, functions), namespace, module, seen)


def _referred_sources(
    names: Sequence[str], namespace: Mapping[str, Any], module: str, seen: dict[int, Any]
) -> Iterator[str]:
    """Sources of constants, and of what belongs to the same module, among the names that a source uses."""
    for name in names:
        value = namespace.get(name)
        if isinstance(value, (int, float, str, tuple, list, dict)):
            yield f"{name} ="
            yield from sources(value, dict(seen))
        elif getattr(value, "__module__", None) == module:
            yield from sources(value, seen)


def _source_of(value: Any) -> str:
    """Source of a class or function; for a lambda its own expression, not the statement around it."""
    if getattr(value, "__name__", "") != "<lambda>":
        return textwrap.dedent(inspect.getsource(value))
    *_, (line, _, column, _) = value.__code__.co_positions()  # position of what the lambda returns
    tree = ast.parse("".join(inspect.findsource(value)[0]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) == (line, column):
            return ast.unparse(node)
    raise OSError("the file is not the one that was compiled")


def _code(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else [repr(constant)]


def _names_in(source: str, functions: Sequence[FunctionType]) -> list[str]:
    try:
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    except SyntaxError:  # there is no source
        names = {name for function in functions for name in function.__code__.co_names}
    return sorted(names)
