"""Random numbers from an explicit generator, and one stream per network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightspace._checks import check_generator


def rand(
    shape: Sequence[int], *, generator: torch.Generator, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Uniform numbers in [0, 1), drawn on the generator's device and moved to ``device``.

    Raises:
        TypeError: without a generator: nothing here touches the global one.
    """
    check_generator(generator)
    out = torch.rand(tuple(shape), generator=generator, dtype=dtype, device=generator.device)
    return out if device is None else out.to(device)


def randn(
    shape: Sequence[int], *, generator: torch.Generator, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Standard normal numbers, drawn on the generator's device and moved to ``device``."""
    check_generator(generator)
    out = torch.randn(tuple(shape), generator=generator, dtype=dtype, device=generator.device)
    return out if device is None else out.to(device)


def new_generator(device: torch.device) -> torch.Generator:
    """Return a generator on a device, seeded by the next number of torch's global generator."""
    seed = torch.empty((), dtype=torch.int64).random_().item()
    return torch.Generator(device).manual_seed(int(seed))


def network_uniform(seed: int, source: int, view: int, count: int) -> np.ndarray:
    """``count`` float32 numbers in [0, 1) that belong to one network alone.

    They derive from (seed, source, view) by NumPy's ``SeedSequence``, so that a network starts from the same
    point whatever the batch, the shard or the machine.
    """
    return np.random.default_rng([seed, source, view]).random(count, dtype=np.float32)


_GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply one step of SplitMix64, a bijection of 64-bit words that spreads every input bit over all output bits.

    Reference:
        Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*, 2014, figure 17.
    """
    words = words + np.uint64(_GOLDEN)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed torch's global generators for a while, and put them back.

    Modules of torch take their initial weights and dropout masks from the global generators, and nowhere else.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(2)
        >>> with seeded(0):
        ...     torch.equal(first, torch.rand(2))
        True
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def seeded_by(seed: int | None) -> AbstractContextManager[None]:
    """Seed torch's global generators by :func:`seeded`, or leave them alone where the seed is ``None``."""
    return nullcontext() if seed is None else seeded(seed)
