"""Many checkpoints of one network made into one: shares, the line or the sphere, and an anchor to align them to."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightspace._checks import number, whole_number
from weightspace._symmetry import Group
from weightspace._text import few
from weightspace._weights import Weights
from weightspace.align import match
from weightspace.checkpoints._align import clear_statistics, move_state_dict
from weightspace.checkpoints._checks import check_module, check_state_dict
from weightspace.checkpoints._keys import check_alike, find_keys
from weightspace.tracing import spec_of

Method = Literal["linear", "spherical"]
Shares = Sequence[float] | Mapping[str, Sequence[float]]
_STEPS, _CLOSE = 100, 1e-12


def merge(
    module: nn.Module,
    *state_dicts: Mapping[str, Tensor],
    shares: Shares | None = None,
    method: Method = "linear",
    group: Group = "none",
    rounds: int = 1,
    example_input: Any = None,
) -> nn.Module:
    r"""Copy the module, with the weighted mean of two or more checkpoints as its weights.

    With shares :math:`s_i`, every tensor of real numbers is

    .. math:: \textstyle \sum_i s_i w_i \Big/ \sum_i s_i

    for ``"linear"``. For ``"spherical"`` its norm is the weighted mean of the norms, and its direction the weighted
    mean of the directions on the sphere, which is the point ``q`` with :math:`\sum_i s_i \log_q (w_i / \|w_i\|) = 0`;
    of two networks, a point of the arc between them. Where there is none (a tensor of zeros, two that point apart) it
    is linear. Half precision is averaged in float32. Other tensors (counters) are those of the first network. All
    names, shapes and dtypes are compared before any work.

    Checkpoints of different trainings need a ``group``: all are moved onto the first one, and in every further round
    onto the mean of the moved ones, an anchor.

    Networks with batch norms (or instance norms that keep statistics) need :func:`repair_batch_norm` after it: the
    statistics of an average are not the average of the statistics.

    Args:
        module: the architecture, which is not modified.
        state_dicts: two or more; prefixes of wrappers before their keys are passed over, entries that are none of the
            module's are left out, with a warning that names them.
        shares: a number for each state dict, by default the same for all; or a mapping from patterns of keys
            (``"layer1.*"``) to such numbers, of which the first that fits counts, equal ones where none does.
        method: ``"linear"`` or ``"spherical"``.
        group: the group that moves them onto one another first, see :func:`weightspace.align.match`; none by default,
            for checkpoints of one training or ones that :func:`align_state_dicts` has moved.
        rounds: how often all are moved; from the second time on to their mean.
        example_input: see :func:`weightspace.spec_of`.

    Raises:
        TypeError: for something other than a module and mappings of tensors.
        ValueError: for fewer than two state dicts, ones that lack keys or do not fit one another, with all
            differences; for numbers that are complex or not finite; and for shares that are negative, all zero or too
            few.
        RuntimeError: for state dicts that do not fit the module.

    Example:
        >>> from weightspace.checkpoints import merge
        >>> module = torch.nn.Linear(2, 1)
        >>> zeros, ones = ({k: v * 0 + i for k, v in module.state_dict().items()} for i in (0, 1))
        >>> merge(module, zeros, ones, shares=(1, 3)).bias.item()
        0.75

    Reference:
        Ainsworth et al., *Git Re-Basin*, 2023, section 5.2 (many networks, to their mean); Buss and Fillmore,
        *Spherical Averages and Applications to Spherical Splines and Interpolation*, 2001, algorithm A1.
    """
    check_module(module)
    whole_number("rounds", rounds)
    names = [f"state dict {i}" for i in range(len(state_dicts))]
    for name, state in zip(names, state_dicts, strict=True):
        check_state_dict(name, state)
    expected = list(module.state_dict())
    keys = [find_keys(name, state, expected) for name, state in zip(names, state_dicts, strict=True)]
    states = [own.named(state) for own, state in zip(keys, state_dicts, strict=True)]
    if extra := list(dict.fromkeys(key for own in keys for key in own.extra)):
        warnings.warn(f"merge leaves out {few(extra)}, which are none of the module's", stacklevel=2)
    check_mergeable(states, shares, method)
    if group != "none":
        states = _aligned(module, states, group, rounds, example_input)
    merged = copy.deepcopy(module)
    merged.load_state_dict(merge_state_dicts(states, shares=shares, method=method))
    return merged


def check_mergeable(states: Sequence[Mapping[str, Tensor]], shares: Shares | None, method: Method) -> None:
    """Raise ``ValueError`` unless there are two state dicts or more that fit one another, and their shares."""
    if len(states) < 2:
        raise ValueError(f"expected at least two state dicts to merge, got {len(states)}")
    if method not in ("linear", "spherical"):
        raise ValueError(f"method: expected 'linear' or 'spherical', got {method!r}")
    check_alike({f"state dict {i}": state for i, state in enumerate(states)}, dtypes=True)
    for own in shares.values() if isinstance(shares, Mapping) else [shares]:
        _normalized(own, len(states))


def merge_state_dicts(
    states: Sequence[Mapping[str, Tensor]], *, shares: Shares | None = None, method: Method = "linear"
) -> dict[str, Tensor]:
    """Return the weighted mean of state dicts that fit one another; see :func:`merge`.

    Example:
        >>> merge_state_dicts([{"w": torch.zeros(2)}, {"w": torch.ones(2)}], shares=(3, 1))
        {'w': tensor([0.2500, 0.2500])}
    """
    out = {}
    for key, first in states[0].items():
        if not first.is_floating_point():
            out[key] = first.clone()
            continue
        own = _normalized(_shares_of(key, shares), len(states))
        dtype = first.dtype if first.dtype == torch.float64 else torch.float32
        values = [state[key].to(first.device, dtype) for state in states]
        out[key] = (_arc if method == "spherical" else _line)(values, own).to(first.dtype)
    return out


def _shares_of(key: str, shares: Shares | None) -> Sequence[float] | None:
    if not isinstance(shares, Mapping):
        return shares
    return next((own for pattern, own in shares.items() if fnmatchcase(key, pattern)), None)


def _normalized(shares: Sequence[float] | None, count: int) -> list[float]:
    """Return shares that sum to one."""
    if shares is None:
        return [1 / count] * count
    if isinstance(shares, str) or not isinstance(shares, Sequence) or len(shares) != count:
        raise ValueError(f"shares: expected {count} numbers, one for each state dict, got {shares!r}")
    own = [number("shares", share, "shares of at least zero", low=0) for share in shares]
    if not sum(own):
        raise ValueError(f"shares: expected at least one above zero, got {list(shares)}")
    return [share / sum(own) for share in own]


def _line(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if len(values) == 2:
        return torch.lerp(values[0], values[1], shares[1])  # exact at both ends
    return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0)


def _arc(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the weighted mean of norms times the weighted mean of directions on the sphere."""
    flat = torch.stack([value.flatten() for value in values]).double()
    norms = torch.linalg.vector_norm(flat, dim=1)
    weights = torch.tensor(shares, dtype=torch.float64, device=flat.device)
    mean = (weights / norms.clamp_min(1e-300)) @ flat
    if not bool((norms[weights > 0] > 0).all()) or float(torch.linalg.vector_norm(mean)) < _CLOSE:
        return _line(values, shares)
    unit = flat / norms.clamp_min(1e-300)[:, None]
    q = mean / torch.linalg.vector_norm(mean)
    for _ in range(_STEPS):
        along = (unit @ q).clamp(-1, 1)
        across = unit - along[:, None] * q
        sine = torch.linalg.vector_norm(across, dim=1)
        angle = torch.atan2(sine, along)
        step = (weights * angle / sine.clamp_min(1e-300)) @ across
        size = float(torch.linalg.vector_norm(step))
        if size < _CLOSE:
            break
        q = math.cos(size) * q + math.sin(size) / size * step
        q = q / torch.linalg.vector_norm(q)
    return ((weights @ norms) * q).view_as(values[0]).to(values[0].dtype)


def _aligned(
    module: nn.Module, states: list[dict[str, Tensor]], group: Group, rounds: int, example_input: Any
) -> list[dict[str, Tensor]]:
    """Move state dicts onto the first one, and then onto their mean."""
    spec = spec_of(module, example_input)
    learned = clear_statistics(Weights.from_state_dicts(states, spec).to("cpu", torch.float32))
    g = match(learned[0], learned, group=group)
    for _ in range(rounds - 1):
        moved = g.act(learned)
        g = match(moved.replace(moved.flat.mean(0, keepdim=True)), moved, group=group) @ g
    return [move_state_dict(state, g[i : i + 1]) for i, state in enumerate(states)]
