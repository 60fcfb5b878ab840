"""Convolutional networks that read numbers on a regular grid over the networks' inputs."""

from __future__ import annotations

import torch
from torch import nn

from weightspace._checks import whole_number
from weightspace._spec import NetSpec

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
VALUE = 2.0
"""Factor of the networks' outputs, without their shift on [-1/2, 1/2], where they enter a CNN."""


def check_grid(spec: NetSpec, size: int, layers: int) -> list[int]:
    """Return the sides of a grid over the networks' inputs that a CNN can read.

    Args:
        spec: the networks.
        size: points along each axis.
        layers: blocks of the CNN, each but the last halving the grid.

    Raises:
        ValueError: for networks of more than three inputs, or a grid that is too small to be halved that often.
    """
    inputs, halvings = spec.in_features, layers - 1
    if inputs not in CONVOLUTIONS:
        raise ValueError(f"spec: expected networks of 1, 2 or 3 inputs, got {inputs}")
    if whole_number("size", size) <= 2**halvings:
        raise ValueError(f"size: expected more than {2**halvings} points to halve {halvings} times, got {size}")
    return [size] * inputs


def convolutions(inputs: int, channels: int, hidden: int, layers: int) -> nn.Module:
    """Make blocks of two convolutions with batch norms, each but the last halving the grid, each twice as wide.

    In the plane the weights are stored with channels last, which processors are faster at.

    Args:
        inputs: axes of the grid.
        channels: channels that enter.
        hidden: channels of the first block.
        layers: number of blocks.
    """
    blocks: list[nn.Module] = []
    for i in range(layers):
        wide = hidden * 2**i
        for _ in range(2):
            blocks += [CONVOLUTIONS[inputs](channels, wide, 3, padding=1), NORMS[inputs](wide), nn.ReLU()]
            channels = wide
        if i + 1 < layers:
            blocks.append(POOLS[inputs](2, ceil_mode=True))
    net = nn.Sequential(*blocks)
    return net.to(memory_format=torch.channels_last) if inputs == 2 else net  # pyright: ignore
