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


class _OptionalCache(FunctionCache):
    """A cache of numba's that a full disk leaves empty: the compiled function itself is there all the same."""

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn(str(error))


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function by ``numba.njit(cache=True, nogil=True)``, and without the cache where it cannot be written.

    The cache lies in ``$NUMBA_CACHE_DIR``, in ``__pycache__`` beside the source or in the user's cache folder, whichever
    numba can write first. Where it can write none (a read-only container, a full quota) the function is compiled anew in
    every process, after one warning.

    Args:
        options: further options of ``numba.njit``, such as ``error_model``.

    Example:
        >>> @cached_njit(error_model="numpy")
        ... def ratio(a, b):
        ...     return a / b
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        try:
            dispatcher._cache = _OptionalCache(function)  # as Dispatcher.enable_caching does
        except RuntimeError as error:  # numba found no folder that it can write
            _warn(str(error))
        return dispatcher

    return decorate


def source_stamp(*modules: ModuleType) -> str:
    """Return a hash of the text of some modules.

    numba compiles a cached function anew when the text of its own file changes, or what its closure holds, but not when
    a function or constant of another module changes. A function whose closure holds this stamp follows those too.
    """
    texts = [Path(module.__file__ or "").read_bytes() for module in modules]
    return hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest()


@cache
def _warn_once() -> None:
    """Mark that the warning was shown."""


def _warn(reason: str) -> None:
    if _warn_once.cache_info().currsize:
        return
    _warn_once()
    warnings.warn(
        f"numba cannot cache compiled functions on disk, and compiles them anew in every process: {reason}; "
        "set NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=4,
    )
