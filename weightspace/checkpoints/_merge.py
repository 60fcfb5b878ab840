"""Two checkpoints of one architecture: aligned and averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weightspace._checks import number
from weightspace._symmetry import Group, Symmetry
from weightspace._trace import spec_of
from weightspace._weights import Weights, check_weights
from weightspace.align._matching import distance, match
from weightspace.checkpoints._responses import match_responses


@dataclass(frozen=True, eq=False)
class Aligned:
    """What :func:`align_state_dicts` found.

    Args:
        symmetry: the element that was applied, a batch of one.
        state_dict: the second network moved, with everything that is no parameter as it was.
        before: squared distance of the two networks' learned parameters, running statistics left out.
        after: the same with the second network moved.
    """

    symmetry: Symmetry
    state_dict: dict[str, Tensor]
    before: float
    after: float


def without_statistics(weights: Weights) -> Weights:
    """The same networks with running means and variances of norms set to zero, so that no distance counts them.

    Statistics follow from the other parameters and the data, and a variance of a hundred would outweigh every weight.

    Args:
        weights: ``[batch, param]``.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.checkpoints import without_statistics
        >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
        >>> w = ws.Weights.from_state_dicts([module.state_dict()], ws.spec_of(module))
        >>> w.view("1.running_var").tolist(), without_statistics(w).view("1.running_var").tolist()
        ([[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]])
    """
    check_weights("weights", weights)
    flat = weights.flat.clone()
    for param in weights.spec.params:
        if param.statistic:
            flat[:, weights.spec.slices[param.name]] = 0
    return weights.replace(flat)


def move_state_dict(state_dict: Mapping[str, Tensor], g: Symmetry) -> dict[str, Tensor]:
    """A state dict moved by one group element: the same function, other weights.

    Args:
        state_dict: of a module that ``g.spec`` was read off; counters and the like are carried along.
        g: one element.

    Returns:
        The same keys in the same order, each tensor in its dtype.

    Raises:
        ValueError: for more than one element, or a state dict that is not of ``g.spec``.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.checkpoints import move_state_dict
        >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> g = ws.Symmetry(ws.spec_of(module), 1, {"h1": torch.tensor([[2, 0, 1]])})
        >>> moved = move_state_dict(module.state_dict(), g)
        >>> moved["0.bias"].equal(module[0].bias[[2, 0, 1]])
        True
    """
    if not isinstance(g, Symmetry):
        raise TypeError(f"g: expected a Symmetry, got {type(g).__name__}; make one with ws.align.match")
    if len(g) != 1:
        raise ValueError(f"expected one group element for one state dict, got {len(g)}; pass g[i : i + 1]")
    moved = g.act(Weights.from_state_dicts([state_dict], g.spec)).state_dict(0)
    return {key: moved[key].to(value.dtype) if key in moved else value.clone() for key, value in state_dict.items()}


def align_state_dicts(
    module: nn.Module,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    group: Group = "permutation",
    example_input: Tensor | None = None,
    batches: Iterable[Tensor] | None = None,
    **options: Any,
) -> Aligned:
    r"""Move one checkpoint close to another of the same architecture; its function stays.

    .. math:: \min_g \sum_p \| a_p - (g\,b)_p \|^2

    over learned parameters: running statistics of norms move along, and do not count. Given inputs, by what neurons
    answer to them: each is paired with one of ``a`` so that the correlations of their responses, over inputs and
    positions, sum to the most.

    Args:
        module: the architecture, whose axes :func:`weightspace.spec_of` reads; its own weights do not matter.
        a: state dict to move to.
        b: state dict to move.
        group: as for :func:`match`; with ``batches`` permutations alone.
        example_input: as for :func:`weightspace.spec_of`.
        batches: what the module takes, in batches, where they are; a few thousand inputs do.
        options: for :func:`match`; none with ``batches``.

    Raises:
        ValueError: for a module that cannot be read, state dicts that are not its own, or weights that are not finite;
            for no batch at all, batches with another group or with options, or an axis that no linear or convolution
            module reads.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.checkpoints import align_state_dicts, move_state_dict
        >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> a = module.state_dict()
        >>> b = move_state_dict(a, ws.Symmetry(ws.spec_of(module), 1, {"h1": torch.tensor([[2, 0, 1]])}))
        >>> found = align_state_dicts(module, a, b)
        >>> found.before > 0, found.after
        (True, 0.0)

    Reference:
        Ainsworth et al., *Git Re-Basin: Merging Models modulo Permutation Symmetries*, 2023, sections 3.1 and 3.2;
        Li et al., *Convergent Learning: Do different neural networks learn the same representations?*, 2015, section 3
        (correlations).
    """
    if batches is not None and (group != "permutation" or options):
        raise ValueError(
            f"batches: expected group 'permutation' and no options of match, got {group!r} and {sorted(options)}; "
            "leave batches out to match by weights"
        )
    spec = spec_of(module, example_input)
    pair = [Weights.from_state_dicts([state], spec).to("cpu", torch.float32) for state in (a, b)]
    learned = [without_statistics(weights) for weights in pair]
    g = match(*learned, group=group, **options) if batches is None else match_responses(module, spec, a, b, batches)
    before, after = (float(distance(learned[0], other)) for other in (learned[1], g.act(learned[1])))
    return Aligned(g, move_state_dict(b, g), before, after)


def interpolate_state_dicts(a: Mapping[str, Tensor], b: Mapping[str, Tensor], *, t: float = 0.5) -> dict[str, Tensor]:
    r"""State dicts on the straight line from ``a`` to ``b``, ``(1 - t) a + t b``; what is no real number is ``a``'s.

    Args:
        a: where the line starts.
        b: where it ends, with the same keys and shapes.
        t: place on the line, usually in [0, 1].

    Raises:
        TypeError: for something other than mappings of tensors.
        ValueError: for other keys or shapes, or numbers that are not finite.

    Example:
        >>> from weightspace.checkpoints import interpolate_state_dicts
        >>> interpolate_state_dicts({"w": torch.zeros(2)}, {"w": torch.ones(2)}, t=0.25)
        {'w': tensor([0.2500, 0.2500])}
    """
    t = number("t", t)
    check_finite("a", a)
    check_finite("b", b)
    if differ := sorted(set(a) ^ set(b)):
        raise ValueError(f"expected state dicts with the same keys, got {differ} in one alone")
    if differ := [key for key in a if a[key].shape != b[key].shape]:
        raise ValueError(f"expected tensors of the same shapes, got others for {differ}")
    return {
        key: torch.lerp(value, b[key].to(value), t) if value.is_floating_point() else value.clone()
        for key, value in a.items()
    }


def check_finite(name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse what is no mapping of tensors, NaN and infinity."""
    if not isinstance(state_dict, Mapping) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise TypeError(
            f"{name}: expected a mapping of names to tensors, got {type(state_dict).__name__}; pass module.state_dict()"
        )
    if bad := [key for key, value in state_dict.items() if not bool(value.isfinite().all())]:
        raise ValueError(f"{name}: expected finite weights, got NaN or infinity in {bad[:5]}; leave that network out")


def merge(
    module: nn.Module,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    g: Symmetry | None = None,
    *,
    t: float = 0.5,
) -> nn.Module:
    r"""A copy of the module with the weights ``(1 - t) a + t (g b)``.

    Networks with batch norms (or instance norms that keep statistics) need :func:`repair_batch_norm` after it: the
    statistics of an average are not the average of the statistics.

    Args:
        module: the architecture; it is not written.
        a: state dict of one network.
        b: state dict of the other.
        g: what moves ``b`` onto ``a``, see :func:`align_state_dicts`; nothing by default.
        t: place on the line.

    Raises:
        TypeError: for something other than a module, mappings of tensors and a ``Symmetry``.
        ValueError: for state dicts that do not fit one another or ``g``, or that are not finite.
        RuntimeError: for state dicts that do not fit the module.

    Example:
        >>> from weightspace.checkpoints import merge
        >>> module = torch.nn.Linear(2, 1)
        >>> zeros, ones = ({k: v * 0 + i for k, v in module.state_dict().items()} for i in (0, 1))
        >>> merge(module, zeros, ones).bias.item()
        0.5
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    check_finite("b", b)
    merged = copy.deepcopy(module)
    merged.load_state_dict(interpolate_state_dicts(a, b if g is None else move_state_dict(b, g), t=t))
    return merged
