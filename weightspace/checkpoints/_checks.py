"""Checks of modules and state dicts at the doors of this room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def check_module(module: Any) -> None:
    """Raise ``TypeError`` for anything but a module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")


def check_tensors(name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Raise ``TypeError`` for anything but a mapping of tensors."""
    if not isinstance(state_dict, Mapping) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise TypeError(
            f"{name}: expected a mapping of names to tensors, got {type(state_dict).__name__}; pass module.state_dict()"
        )


def check_state_dict(name: str, state_dict: Mapping[str, Tensor], *, finite: bool = True) -> None:
    """Raise unless this is a mapping of tensors that hold real and, if asked for, finite numbers.

    Raises:
        TypeError: for something other than a mapping of tensors, or for numbers of eight bits, whose meaning depends on
            factors that are stored elsewhere.
        ValueError: for tensors that are sparse or have no numbers, for complex numbers, whose imaginary part would be
            lost, or for NaN and infinity.
    """
    check_tensors(name, state_dict)
    if bare := [key for key, value in state_dict.items() if value.is_meta or value.layout != torch.strided]:
        raise ValueError(
            f"{name}: expected dense tensors with numbers, got sparse or meta ones in {bare[:5]}; "
            "load the numbers, and call to_dense() on what is sparse"
        )
    if small := [key for key, value in state_dict.items() if value.is_floating_point() and value.element_size() < 2]:
        raise TypeError(
            f"{name}: expected 16 bits or more a number, got {state_dict[small[0]].dtype} in {small[:5]}; "
            "cast it with .to(torch.float32)"
        )
    if unreal := [key for key, value in state_dict.items() if value.is_complex()]:
        raise ValueError(
            f"{name}: expected real numbers, got complex ones in {unreal[:5]}; store real and imaginary parts apart"
        )
    if finite and (bad := [key for key, value in state_dict.items() if not bool(value.isfinite().all())]):
        raise ValueError(f"{name}: expected finite weights, got NaN or infinity in {bad[:5]}; leave that network out")
