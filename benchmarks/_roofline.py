"""The rates that the machine allows, of the fitting kernel's own register tile and sincos, on all cores at once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from weightspace._activation import activation
from weightspace.fitting.kernels._cpu_llvm import SIMD_WIDTH, Matrix
from weightspace.fitting.kernels._cpu_vectors import activate, product_plus_bias

TILE = 64  # points of a block of 32 neurons, which fits the first cache


SINE = activation("sine").kernel


@njit(nogil=True)
def _products(work, count):  # pragma: no cover - compiled
    for _ in range(count):
        product_plus_bias(
            work,
            left=Matrix(0, 32),
            right=Matrix(2048, 32),
            bias=3072,
            out=Matrix(4096, 32),
            rows=TILE,
            vectors=32 // SIMD_WIDTH,
            depth=32,
        )


@njit(nogil=True)
def _sines(work, count):  # pragma: no cover - compiled
    for _ in range(count):
        activate(
            work,
            SINE,
            z=0,
            values=2048,
            slopes=4096,
            vectors=TILE * 32 // SIMD_WIDTH,
            omega=30.0,
            turns=30.0 / np.pi,
        )


def _rate(work, amount: float, repeats: int = 7) -> float:
    """Return ``amount`` for each call and second over all cores; the best of the repeats, because it is a bound."""
    workers = os.cpu_count() or 1
    buffers = [np.zeros(8192, dtype=np.float32) for _ in range(workers)]
    for buffer in buffers:
        work(buffer, 1)
    count, best = 20000, 0.0
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            list(pool.map(lambda buffer: work(buffer, count), buffers))
            best = max(best, workers * count * amount / (time.perf_counter() - start))
    return best


def rates() -> dict[str, float]:
    """Measure floating-point operations of products, and sines with their cosines, in a second."""
    return {
        "product_flop_per_second": _rate(_products, 2.0 * TILE * 32 * 32),
        "sincos_per_second": _rate(_sines, float(TILE * 32)),
    }


def networks_per_second(found: dict[str, float], points: int, width: int, steps: int, *, grid: int) -> float:
    """Return the bound for SIREN 2-width-width-1: three products and two layers of sines each step, and nothing else.

    Args:
        found: from :func:`rates`.
        points: points of a signal.
        width: neurons of both hidden layers.
        steps: Adam steps.
        grid: rows whose sines the first layer takes; ``points`` unless the coordinates are a grid.
    """
    flop, sincos = 3 * 2.0 * points * width * width, float(width * (points + grid))
    return 1 / (steps * (flop / found["product_flop_per_second"] + sincos / found["sincos_per_second"]))
