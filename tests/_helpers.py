"""Helpers that tests share, one definition each: ``from _helpers import generator, networks, points``.

- ``generator(seed)``: a seeded ``torch.Generator``;
- ``networks(spec, batch, seed, dtype)``: random ``Weights`` that compute something, whatever the activations;
- ``normal_networks(spec, batch, seed, dtype)``: ``Weights`` whose entries are standard normal;
- ``labelled(spec, count, ...)``: ``Networks`` with labels that can be learned from the weights;
- ``write_small_zoo(path, ...)``: a zoo of such networks on disk, with train and test splits;
- ``points(dims, count, ...)``: points of the input, uniform in [-1, 1].

Fixtures (``device``, ``dtype``, ``conv_spec``) are in ``conftest.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightspace as ws


def generator(seed: int = 0) -> torch.Generator:
    """Make a seeded generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def networks(
    spec: ws.NetSpec,
    batch: int = 6,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ws.Weights:
    """Draw networks with pre-activations of order one."""
    return ws.testing.random_weights(spec, batch, generator=generator(seed), dtype=dtype, device=device)


def normal_networks(spec: ws.NetSpec, batch: int = 6, seed: int = 1, dtype: torch.dtype = torch.float64) -> ws.Weights:
    """Draw networks whose weights and biases are all standard normal."""
    return ws.Weights(torch.randn(batch, spec.num_params, generator=generator(seed), dtype=dtype), spec)


def labelled(spec: ws.NetSpec, count: int, *, seed: int = 0, classes: int = 3, known: bool = True) -> ws.Networks:
    """Draw networks whose weights lie around their label; without labels where they are not ``known``."""
    labels = torch.arange(count) % classes
    flat = (labels[:, None] - 1.0) + torch.randn(count, spec.num_params, generator=generator(seed))
    return ws.Networks(ws.Weights(flat, spec), label=labels if known else None)


def write_small_zoo(
    path: Path,
    spec: ws.NetSpec,
    *,
    train: int = 60,
    test: int = 30,
    seed: int = 0,
    known: bool = True,
    **settings: Any,
) -> ws.Zoo:
    """Write a zoo of :func:`labelled` networks; without a test split where ``test`` is 0."""
    splits = {"train": labelled(spec, train, seed=seed, known=known)}
    if test:
        splits["test"] = labelled(spec, test, seed=seed + 1, known=known)
    return ws.zoo.write_zoo(path, splits, **settings)


def points(
    dims: int, count: int = 11, seed: int = 3, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw points of the input, ``[count, dims]``, uniform in [-1, 1]."""
    return (2 * torch.rand(count, dims, generator=generator(seed), dtype=dtype) - 1).to(device)
