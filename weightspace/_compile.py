"""Compile functions with numba, and cache the machine code on disk wherever that is possible."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba.core.caching import FunctionCache


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function by ``numba.njit(cache=True, nogil=True)``, and without the cache where it cannot be written.

    The cache lies in ``$NUMBA_CACHE_DIR``, in ``__pycache__`` beside the source or in the user's cache folder: the
    first that numba can write. Where it can write none of them (a read-only container, a full quota), every process
    compiles the function anew, after one warning.

    Args:
        options: further options of ``numba.njit``, such as ``error_model``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(nogil=True, **options)(function)
        try:
            dispatcher._cache = _OptionalCache(function)  # as Dispatcher.enable_caching does with its own class
        except RuntimeError:  # numba found no folder that it can write
            _warn()
        return dispatcher

    return decorate


class _OptionalCache(FunctionCache):
    """A cache of compiled functions whose disk may be full: the function runs all the same."""

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            _warn()


@cache  # one warning a process, not one for each function
def _warn() -> None:
    warnings.warn(
        "numba cannot write its cache of compiled functions, so that every process compiles them anew; set the "
        "environment variable NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
    )


def source_stamp(*modules: ModuleType) -> str:
    """Return a hash of the text of some modules.

    numba compiles a cached function anew when the text of its own file changes, or the variables of its closure, but
    not when the functions and constants change that it takes from other modules. A function whose closure holds the
    stamp of those modules is compiled anew then, too.
    """
    return hashlib.sha256(b"\0".join(Path(str(module.__file__)).read_bytes() for module in modules)).hexdigest()
