"""Compiled code that lets go of the interpreter lock, over slices of a batch in as many threads as PyTorch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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
    ends = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, ends[:-1], ends[1:]))
