"""Imports at first use: optional packages, and the names of a package's own modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def optional(module: str, package: str, extra: str, purpose: str) -> Any:
    """Import the module of an optional package.

    Args:
        module: the module's import name.
        package: the distribution that contains it.
        extra: the extra of weightspace that installs the distribution.
        purpose: the sentence's subject in the error message: "reading .obj files".

    Raises:
        ImportError: if the package is not installed, with the command that installs it.

    Example:
        >>> optional("json", "json", "none", "reading JSON").loads("1")
        1
        >>> optional("no_such_module", "nothing", "all", "doing nothing")
        Traceback (most recent call last):
        ImportError: doing nothing needs nothing, which is not installed; pip install weightspace[all]
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {package}, which is not installed; pip install weightspace[{extra}]"
        ) from error


def lazy(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package (PEP 562) that imports each name when it is first used.

    Args:
        package: the package's ``__name__``.
        modules: the names that each of its modules defines. A module without a leading underscore is itself a name.

    Returns:
        The function to assign to ``__getattr__`` in the package's ``__init__.py``.

    Example:
        >>> get = lazy("importlib", {"metadata": ["version"], "resources": []})
        >>> get("version").__name__, get("resources").__name__
        ('version', 'importlib.resources')
        >>> get("nothing")
        Traceback (most recent call last):
        AttributeError: module 'importlib' has no attribute 'nothing'
    """
    homes = {name: module for module, names in modules.items() for name in names}
    public = {module for module in modules if not module.startswith("_")}

    def get(name: str) -> Any:
        if name not in homes and name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{homes.get(name, name)}")
        value = getattr(module, name) if name in homes else module
        setattr(sys.modules[package], name, value)  # so that the next use does not come here
        return value

    return get
