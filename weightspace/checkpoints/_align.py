"""Two checkpoints of one architecture: move one of them close to the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights
from weightspace.align import distance
from weightspace.align._matching import move_onto
from weightspace.checkpoints._checks import check_module, check_state_dict
from weightspace.checkpoints._keys import check_alike, find_keys
from weightspace.checkpoints._responses import match_responses
from weightspace.tracing import spec_of


@dataclass(frozen=True, eq=False)
class Aligned:
    """A checkpoint moved close to another, as :func:`align_state_dicts` returns it.

    Args:
        symmetry: the element that was applied, a batch of one.
        state_dict: the second network moved; entries that are not parameters are copied.
        before: squared distance of the two networks' learned parameters, running statistics left out.
        after: the same with the second network moved.
        extra: keys of the second state dict that are none of the module's; their entries are copied.
    """

    symmetry: Symmetry
    state_dict: dict[str, Tensor]
    before: float
    after: float
    extra: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Summarise: the distances, and how much was moved."""
        axes, entries = len(self.symmetry.perm), len(self.state_dict)
        return f"Aligned(before={self.before:.6g}, after={self.after:.6g}, {entries} tensors, {axes} axes permuted)"


def clear_statistics(weights: Weights) -> Weights:
    """Set running means and variances of norms to zero, in place, so that no distance counts them.

    Statistics follow from the other parameters and the data, and a variance of a hundred would outweigh every weight.

    Args:
        weights: ``[batch, param]``.

    Example:
        >>> import weightspace as ws
        >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
        >>> w = ws.Weights.from_state_dicts([module.state_dict()], ws.spec_of(module))
        >>> clear_statistics(w).view("1.running_var").tolist()
        [[0.0, 0.0, 0.0]]
    """
    for param in weights.spec.params:
        if param.statistic:
            weights.view(param.name).zero_()
    return weights


def move_state_dict(state_dict: Mapping[str, Tensor], g: Symmetry) -> dict[str, Tensor]:
    """Move a state dict by one group element: the same function, other weights.

    Args:
        state_dict: the state dict of a module whose spec is ``g.spec``, its keys as they are or behind the prefixes
            ``module.``, ``_orig_mod.`` and ``model.``; counters and other entries are copied.
        g: one element.

    Returns:
        The same keys in the same order, each tensor in its dtype.

    Raises:
        TypeError: for something other than a mapping of tensors and a ``Symmetry``.
        ValueError: for more than one element, complex numbers, or a state dict that does not fit ``g.spec``.

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
    check_state_dict("state_dict", state_dict, finite=False)
    keys = find_keys("state_dict", state_dict, list(g.spec.by_state_key))
    weights = Weights.from_state_dicts([keys.named(state_dict)], g.spec)
    half = weights.dtype in (torch.float16, torch.bfloat16)  # one rounding, at the end
    moved = g.act(weights.to(torch.float32) if half else weights).state_dict(0)
    moved = {keys.own[key]: value for key, value in moved.items()}
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

    over learned parameters: running statistics of norms move along, and do not count. Given inputs, neurons are paired
    by their responses to them instead, so that the correlations of the paired responses, over inputs and positions, sum
    to the most.

    Args:
        module: the architecture, whose axes :func:`weightspace.spec_of` reads; its own weights do not matter.
        a: the state dict to move to. Prefixes that wrappers put before keys (``module.``, ``_orig_mod.``, ``model.``)
            are passed over, in ``b`` too.
        b: the state dict to move; entries that are none of the module's are copied, and named in ``extra``.
        group: see :func:`weightspace.align.match`; with ``batches`` permutations alone.
        example_input: see :func:`weightspace.spec_of`.
        batches: inputs of the module, in batches; a few thousand inputs suffice.
        options: further arguments of :func:`weightspace.align.match`; none with ``batches``.

    Raises:
        TypeError: for something other than a module and mappings of tensors.
        ValueError: for a module that cannot be read, state dicts that lack keys or differ in shape, with all
            differences, or weights that are complex or not finite; for no batch at all, batches with another group or
            with options, or an axis that no linear or convolution module reads.

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
    check_state_dict("a", a)
    check_state_dict("b", b)
    check_module(module)
    given, own = {"a": a, "b": b}, module.state_dict()
    whole = {name: find_keys(name, state, list(own)) for name, state in given.items()}
    check_alike({name: whole[name].named(state) for name, state in given.items()})
    spec = spec_of(module, example_input)
    states = [{key: state[whole[name].own[key]] for key in spec.by_state_key} for name, state in given.items()]
    learned = [clear_statistics(Weights.from_state_dicts([state], spec).to("cpu", torch.float32)) for state in states]
    before = float(distance(*learned))
    if batches is None:
        g, moved = move_onto(*learned, group=group, **options)
    else:
        g = match_responses(module, spec, whole["a"].named(a), whole["b"].named(b), batches)
        moved = g.act(learned[1])
    after = float(distance(learned[0], moved))
    del learned, moved  # of a large network few copies fit into memory
    return Aligned(g, move_state_dict(b, g), before, after, whole["b"].extra)
