"""Checks of what is to be fitted, before anything is computed or written."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_weights

POOR = 5.0
"""Mean PSNR in dB below which networks say next to nothing of their signals."""


def real_tensor(name: str, values: Any, *, scaled: bool) -> Tensor:
    """Return values as a float32 tensor on the CPU.

    Args:
        name: what they are, for the message.
        values: a tensor, an array or nested lists.
        scaled: whether they must be of range one, so that whole numbers are a mistake.

    Raises:
        TypeError: for values that are no numbers.
        ValueError: for complex numbers, of which a part would be lost, and whole numbers where the range matters.
    """
    try:
        found = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a tensor of numbers, got {type(values).__name__} ({error})") from error
    if found.is_complex():
        raise ValueError(
            f"{name}: expected real numbers, got {found.dtype}; fit real and imaginary parts as two outputs, with "
            "torch.view_as_real"
        )
    if scaled and not found.is_floating_point():
        remedy = "divide them by 255" if found.dtype == torch.uint8 else "scale them to a range of one"
        raise ValueError(f"{name}: expected real numbers of range one, got {found.dtype}; {remedy}")
    return found.to(torch.float32)


def check_signals(coords: Tensor, targets: Tensor, spec: NetSpec) -> None:
    """Raise ``ValueError`` unless networks of this spec can be fitted to these signals."""
    check_spec(spec)
    _ = spec.layers  # refuses networks that are not a chain
    if coords.ndim not in (2, 3) or coords.shape[-1] != spec.in_features:
        raise ValueError(
            f"coords: expected [point, {spec.in_features}] for this spec (or [signal, point, {spec.in_features}]), "
            f"got {list(coords.shape)}"
        )
    points = coords.shape[-2]
    if targets.ndim != 3 or targets.shape[1:] != (points, spec.out_features):
        raise ValueError(
            f"targets: expected [signal, {points}, {spec.out_features}] for these points and this spec, "
            f"got {list(targets.shape)}"
        )
    if coords.ndim == 3 and len(coords) != len(targets):
        raise ValueError(f"coords: expected points of each of the {len(targets)} signals, got those of {len(coords)}")
    if not len(targets) or not points:
        raise ValueError(f"expected at least one signal and one point, got {len(targets)} and {points}")
    for name, value in (("coords", coords), ("targets", targets)):
        if not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name}: expected finite numbers, got {bad} that are NaN or infinite; remove them")


def check_start(start: Weights, spec: NetSpec, signals: int = 1) -> None:
    """Raise ``ValueError`` unless networks of the spec can start from this one, or from these, one for each signal."""
    check_weights("start", start)
    shapes = [(count, spec.num_params) for count in (1, signals)]
    if replace(start.spec, init=spec.init) != spec or start.flat.shape not in shapes:
        many = f" or {signals} networks" if signals > 1 else ""
        raise ValueError(f"start: expected one network{many} of {spec}, got {list(start.flat.shape)} of {start.spec}")
    if start.dtype != torch.float32 or not bool(start.flat.isfinite().all()):
        raise ValueError("start: expected finite float32 weights; networks are fitted in float32")


def check_sources(sources: Tensor, count: int) -> None:
    """Raise ``ValueError`` unless every signal has a number of its own."""
    if sources.shape != (count,):
        raise ValueError(f"sources: expected one number for each of {count} signals, got {list(sources.shape)}")
    if int(sources.min()) < 0 or len(sources.unique()) != len(sources):
        raise ValueError("sources: expected distinct numbers of at least 0; use views= to fit a signal more than once")


def warn_of_poor_fits(psnr: Tensor) -> None:
    """Warn of networks whose mean PSNR is so low that they say next to nothing of their signals."""
    if len(psnr) and (mean := float(psnr.mean())) < POOR:
        warnings.warn(
            f"expected networks that fit their signals, got a PSNR of {mean:.0f} dB on average, which says next to "
            "nothing of them; take more steps, a larger lr, or more neurons",
            UserWarning,
            stacklevel=3,
        )
