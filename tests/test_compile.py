"""Compiling: a cache on disk where it can be written, one warning and no cache elsewhere."""

from __future__ import annotations

import errno
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest
from numba.core import caching

from weightspace import _compile
from weightspace._compile import cached_njit, source_stamp
from weightspace.fitting.kernels._cpu_kernel import fit_networks

SOURCE = """
from weightspace._compile import cached_njit

@cached_njit()
def double(x):
    return 2 * x

@cached_njit(error_model="numpy")
def ratio(a, b):
    return a / b
"""


@pytest.fixture(autouse=True)
def warn_again() -> Iterator[None]:
    """Forget that this process was warned."""
    _compile._warn.cache_clear()
    yield
    _compile._warn.cache_clear()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ModuleType]:
    """Return a function that imports a file with two compiled functions, as a new process would."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    path = tmp_path / "compiled_functions.py"
    path.write_text(SOURCE)

    def load() -> ModuleType:
        spec = importlib.util.spec_from_file_location("compiled_functions", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def refuse(*_: Any) -> None:
    raise PermissionError(errno.EACCES, "Read-only file system")


def test_a_second_process_reads_the_cache(load: Callable[[], ModuleType], tmp_path: Path) -> None:
    assert load().double(3) == 6
    assert list((tmp_path / "__pycache__").glob("compiled_functions.double-*.nbi"))
    second = load().double
    assert second(4) == 8
    assert sum(second.stats.cache_hits.values()) == 1
    assert not second.stats.cache_misses


def test_options_reach_numba(load: Callable[[], ModuleType]) -> None:
    assert load().ratio(1.0, 0.0) == float("inf")  # Python's own error model raises


def test_where_no_folder_can_be_written_it_compiles_after_one_warning(
    load: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.warns(RuntimeWarning, match="numba cannot write its cache .* NUMBA_CACHE_DIR") as caught:
        module = load()  # warns once for two functions
    assert (module.double(3), module.ratio(1.0, 2.0)) == (6, 0.5)
    assert len(caught) == 1


def test_plain_numba_refuses_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(lambda x: x)


def test_a_full_disk_leaves_the_function_uncached(
    load: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    module = load()
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR") as caught:
        assert (module.double(3), module.ratio(1.0, 2.0)) == (6, 0.5)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module.double(4) == 8


def test_a_stamp_follows_the_text_of_every_module(tmp_path: Path) -> None:
    modules = [ModuleType(name) for name in "ab"]
    for module in modules:
        module.__file__ = str(tmp_path / f"{module.__name__}.py")
        Path(module.__file__).write_text("x = 1\n")
    before = source_stamp(*modules)
    assert source_stamp(*modules) == before
    (tmp_path / "b.py").write_text("x = 2\n")
    assert source_stamp(*modules) != before


def test_the_cpu_kernel_is_cached_so() -> None:
    assert isinstance(fit_networks._cache, _compile._OptionalCache)
    assert fit_networks.py_func.__closure__ is not None  # the stamp is a part of the key
    assert cached_njit()(refuse).targetoptions["nogil"]
