"""Compiled code that lets go of the interpreter lock, over slices of a batch in as many threads as PyTorch uses."""

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

    Slices, and not Numba's own threads: those may not be entered by two Python threads at once, as a data loader and
    a training loop would do. Four slices a thread even out pairs that take long. No result depends on the slices.
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
        except BaseException as error:  # nothing may leave through the team: it is raised behind it
            errors.append(error)

    _in_team(work, workers)
    if errors:
        raise errors[0]
    if len(done) < parts:
        raise KeyboardInterrupt  # it came between two statements of a thread, and was lost on the way out


_PROCESS = os.getpid()
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _openmp() -> Callable[..., None] | None:
    """OpenMP's parallel region as a function, where PyTorch has loaded one.

    Not in a forked process: the team's threads stayed behind, and GNU's OpenMP would wait for them for ever.
    """
    if os.getpid() != _PROCESS:
        return None
    try:
        return ctypes.CDLL(None).GOMP_parallel
    except (OSError, TypeError, AttributeError):  # another platform, or a PyTorch with threads of its own
        return None


def _in_team(work: Callable[[], None], size: int) -> None:
    """Call ``work`` in every thread of a team, this one among them.

    The team is that of PyTorch's own operators where they run on an OpenMP that can be called by name: its threads
    keep their cores busy for some milliseconds after each operator, waiting for the next, and would be in the way of
    any others.
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
