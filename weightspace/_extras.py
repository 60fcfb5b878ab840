"""Optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, package: str, extra: str, what: str) -> Any:
    """The module ``module``.

    Args:
        module: its import name.
        package: the distribution it comes with.
        extra: the extra of this package that installs it.
        what: what it is needed for.

    Raises:
        ImportError: with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {package}, which is not installed; pip install weightspace[{extra}]"
        ) from error
