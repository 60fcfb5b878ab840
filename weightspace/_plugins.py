"""Find what a name stands for: an entry of a table, an import path, or an entry point of an installed package."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any


def find(
    kind: str, name: str, table: Mapping[str, Any], check: Callable[[Any], str | None] = lambda found: None
) -> Any:
    """Return what a name stands for.

    A name of the table is looked up there. A name with a colon, ``package.module:Name``, is imported; the working
    directory is searched last. Any other name is looked for among the entry points of the group
    ``weightspace.<kind>``, which installed packages declare.

    Args:
        kind: what is looked for, in the plural: ``"models"``, ``"augmentations"``, ``"objectives"``, ``"suites"`` or
            ``"datasets"``.
        name: the name.
        table: what the library itself has.
        check: says in a few words what is wrong with an imported object, or returns ``None`` where nothing is.

    Raises:
        TypeError: for a name that is not text.
        ValueError: for an unknown name, an import path that leads nowhere, or an object that the check refuses.

    Example:
        >>> find("numbers", "one", {"one": 1})
        1
        >>> find("numbers", "math:pi", {})
        3.141592653589793
        >>> find("numbers", "math:tau_", {})
        Traceback (most recent call last):
        ValueError: numbers: expected an object named 'tau_' in the module math, got none
    """
    if not isinstance(name, str):
        raise TypeError(f"{kind}: expected a name, got {type(name).__name__}")
    if name in table:
        return table[name]
    if ":" in name:
        found = _imported(kind, name)
    else:
        declared = {point.name: point for point in entry_points(group=f"weightspace.{kind}")}
        if name not in declared:
            known = sorted({*table, *declared})
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"unknown {kind.removesuffix('s')}: expected one of {known} or an import path such as "
                f"my_package.module:Name, got {name!r}{hint}"
            )
        try:
            found = declared[name].load()
        except Exception as error:
            raise ValueError(f"{kind}: the entry point {name!r} cannot be loaded: {_line(error)}") from error
    if problem := check(found):
        raise ValueError(f"{kind}: {name}: {problem}")
    return found


def _imported(kind: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise ValueError(f"{kind}: expected an import path such as my_package.module:Name, got {path!r}")
    before = list(sys.path)
    try:
        sys.path.append("")  # last, so that a file beside the data never hides an installed package
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{kind}: expected a module that can be imported, got {module!r}: {_line(error)}") from error
    except Exception as error:
        raise ValueError(f"{kind}: the module {module!r} raised on import: {_line(error)}") from error
    finally:
        sys.path[:] = before
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{kind}: expected an object named {attribute!r} in the module {module}, got none")
        found = getattr(found, part)
    return found


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def subclass_of(parent: type) -> Callable[[Any], str | None]:
    """Make a check for :func:`find` that expects a class with this parent."""

    def check(found: Any) -> str | None:
        if not isinstance(found, type):
            return f"expected a class, got {type(found).__name__}"
        if not issubclass(found, parent):
            return f"expected a subclass of {parent.__module__}.{parent.__qualname__}, got {found.__name__}"
        return None

    return check
