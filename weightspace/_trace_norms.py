"""The norms that ``spec_of`` knows: which of them treat channels alike, so that permutations commute with them."""

from __future__ import annotations

from typing import Any

from torch import nn

from weightspace._trace_lanes import Ledger, Signal, signal_of
from weightspace._trace_rules import refuse

_BATCH_NORMS: dict[Any, tuple[int, ...]] = {
    nn.BatchNorm1d: (0, 1),
    nn.BatchNorm2d: (2,),
    nn.BatchNorm3d: (3,),
    nn.SyncBatchNorm: (0, 1, 2, 3),
}
_INSTANCE_NORMS: dict[Any, tuple[int, ...]] = {
    nn.InstanceNorm1d: (1,),
    nn.InstanceNorm2d: (2,),
    nn.InstanceNorm3d: (3,),
}
_LAYER_NORMS: tuple[Any, ...] = tuple(getattr(nn, name) for name in ("LayerNorm", "RMSNorm") if hasattr(nn, name))
NORMS: tuple[Any, ...] = (*_BATCH_NORMS, *_INSTANCE_NORMS, *_LAYER_NORMS, nn.GroupNorm)


def norm(ledger: Ledger, label: str, module: nn.Module, name: str, input: Any) -> Signal:
    """Scales, shifts and running statistics move with their channels; what mixes groups of channels is refused."""
    value, key = signal_of(input, label), type(module)
    given: Any = module
    ledger.beyond_chain = True
    keys = ("weight", "bias", "running_mean", "running_var")
    names = [f"{name}.{k}" for k in keys if getattr(module, k, None) is not None]
    ndim = len(value.shape) - 2
    if key in _LAYER_NORMS:
        normalized = tuple(given.normalized_shape)
        if value.last and len(normalized) == 1:
            return ledger.norm(value, names)
        if value.dim == 1 and normalized == value.shape[1:] and all(segment.pos == 1 for segment in value.segments):
            return ledger.norm(value, names, value.shape[2:])
        refuse(f"{label} over the last {len(normalized)} axes of {list(value.shape)}, channels on axis {value.dim}")
    if value.dim != 1:
        refuse(f"{label}: expected channels on axis 1, got {list(value.shape)} with channels on axis {value.dim}")
    fitting: dict[Any, tuple[int, ...]] = {**_BATCH_NORMS, **_INSTANCE_NORMS}
    if ndim not in fitting.get(key, (ndim,)):
        refuse(f"{label} of {list(value.shape)}: expected a batch of what it is for")
    if key is nn.GroupNorm and given.num_groups not in (1, given.num_channels):
        refuse(
            f"{label} with {given.num_groups} groups of {given.num_channels} channels: a permutation must keep the "
            "groups, and specs cannot say so; one group, or one for each channel, is provable"
        )
    return ledger.norm(value, names)
