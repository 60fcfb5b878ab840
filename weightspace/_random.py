"""Random numbers from an explicit generator, and one stream per network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
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


def network_uniform(seed: int, source: int, view: int, count: int) -> np.ndarray:
    """``count`` float32 numbers in [0, 1) that belong to one network alone.

    They derive from (seed, source, view) by NumPy's ``SeedSequence``, so that a network starts from the same
    point whatever the batch, the shard or the machine.
    """
    return np.random.default_rng([seed, source, view]).random(count, dtype=np.float32)
