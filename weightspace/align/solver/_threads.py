"""Run compiled code over slices of a batch, in as many threads as PyTorch uses. The code must release the GIL."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import Empty, SimpleQueue

import torch


def in_slices(run: Callable[[int, int], object], count: int, least: int = 8) -> None:
    """Call ``run(start, stop)`` for slices of ``range(count)``, at least ``least`` items each.

    Numba has threads of its own, but two Python threads, such as a data loader and a training loop, may not enter them
    at once. There are four slices a thread, which balances pairs that take long. No result depends on the slices.
    """
    workers = max(1, min(torch.get_num_threads(), count // least))
    if workers == 1:
        run(0, count)
        return
    parts = min(4 * workers, count // least)
    ends = [count * k // parts for k in range(parts + 1)]
    slices: SimpleQueue[tuple[int, int]] = SimpleQueue()
    for part in pairwise(ends):
        slices.put(part)
    done: list[tuple[int, int]] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                try:
                    part = slices.get_nowait()
                except Empty:
                    return
                run(*part)
                done.append(part)
        except BaseException as error:  # an exception may not pass through OpenMP, so it is raised after it
            errors.append(error)

    _in_team(work, workers)
    if errors:
        raise errors[0]
    if len(done) < parts:
        raise KeyboardInterrupt  # a thread was interrupted between two statements, where no handler sees it


_PROCESS = os.getpid()
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _openmp() -> Callable[..., None] | None:
    """Return OpenMP's parallel region as a function, or ``None`` where PyTorch has not loaded GNU's OpenMP.

    In a forked process it is ``None`` too: the threads stayed with the parent, and OpenMP would wait for them for ever.
    """
    if os.getpid() != _PROCESS:
        return None
    try:
        return ctypes.CDLL(None).GOMP_parallel
    except (OSError, TypeError, AttributeError):  # another platform, or a PyTorch with threads of its own
        return None


def _in_team(work: Callable[[], None], size: int) -> None:
    """Call ``work`` in every one of ``size`` threads, the present one included.

    The threads are those of PyTorch's own operators wherever OpenMP can be called by name: after each operator they
    spin on their cores for some milliseconds, waiting for the next, and would slow other threads down. Elsewhere they
    are a pool.
    """
    parallel = _openmp()
    if parallel is not None:
        parallel(_Body(lambda _: work()), None, ctypes.c_uint(size), ctypes.c_uint(0))
        return
    with ThreadPoolExecutor(size - 1) as pool:
        others = [pool.submit(work) for _ in range(size - 1)]
        work()
        for other in others:
            other.result()
