"""All linear maps on weight-space features that commute with the permutations of a spec's hidden axes."""

from __future__ import annotations

import math

from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._features import Axes, Features, layouts, subsets
from weightspace._matrix_layer import Reduction, check_reduction
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_features


class EquivariantLinear(nn.Module):
    r"""The whole space of permutation-equivariant affine maps from features to features.

    For a source parameter ``q``, a target ``p`` and a set ``S`` of hidden axes that both carry, the map averages ``q``
    over its other hidden axes, multiplies by a free matrix between the fixed axes and channels of both, and
    repeats the result over the other hidden axes of ``p``:

    .. math:: y_p = \sum_{S \subseteq H_p} \; broadcast_{H_p \setminus S}
        \Big( \sum_{q: S \subseteq H_q} A^S_{pq} \; mean_{H_q \setminus S} \, x_q \Big) + b_p

    These maps are a basis of all linear equivariant maps as long as every hidden axis has at least two neurons. Nothing
    is spelled out by position: the sums come from the axis names. Averages are computed once and shared by all targets,
    and each ``S`` is one matrix product.

    Args:
        spec: the networks.
        in_channels: channels of ``x``.
        out_channels: channels of ``y``.
        bias: whether to add ``b``.
        ends: whether inputs and outputs count as hidden axes, whose permutations the layer then commutes with too.
        reduction: ``"mean"``, or ``"max"`` to take maxima over the axes instead of averages: the layer still commutes
            with permutations, and is no longer linear.

    Raises:
        ValueError: for another reduction, or fewer than one channel; on call, for networks of another spec or features
            of other channels.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> layer = EquivariantLinear(spec, 1, 4)
        >>> layer(ws.Weights(torch.randn(3, spec.num_params, 1), spec)).flat.shape
        torch.Size([3, 105, 4])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, Theorem 5.1 and appendix B.
    """

    def __init__(
        self,
        spec: NetSpec,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        ends: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_spec(spec)
        self.reduction: Reduction = check_reduction(reduction)
        if min(whole_number("in_channels", in_channels, None), whole_number("out_channels", out_channels, None)) < 1:
            raise ValueError(f"expected at least one channel, got {in_channels=}, {out_channels=}")
        self.spec, self.in_channels, self.out_channels = spec, in_channels, out_channels
        self.layouts = layouts(spec, ends)
        found = dict.fromkeys(s for lay in self.layouts for s in subsets(lay.hidden))  # a set has no order to rely on
        self.sets: list[Axes] = sorted(found, key=len)
        self.carriers = [[i for i, lay in enumerate(self.layouts) if set(s) <= set(lay.hidden)] for s in self.sets]
        self.maps = nn.ModuleList()
        for kept, carriers in zip(self.sets, self.carriers, strict=True):
            wide = sum(self.layouts[i].fixed for i in carriers)
            self.maps.append(nn.Linear(wide * in_channels, wide * out_channels, bias=bias and not kept))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, each target's variance shared equally among the sets that reach it."""
        for carriers, linear in zip(self.carriers, self.maps, strict=True):
            assert isinstance(linear, nn.Linear)
            start = 0
            for lay in (self.layouts[i] for i in carriers):
                stop = start + lay.fixed * self.out_channels
                std = math.sqrt(2 / (linear.in_features * 2 ** len(lay.hidden)))
                nn.init.normal_(linear.weight[start:stop], std=std)
                start = stop
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, features: Weights) -> Weights:
        check_features(self.spec, features, self.in_channels)
        return self.compute(Features.read(self.layouts, features, self.reduction)).weights(self.out_channels)

    def compute(self, features: Features, *, relu: bool = False) -> Features:
        """Map features that lie as the layers compute, which saves a stack of layers the way there and back."""
        added: list[dict[Axes, Tensor]] = [{} for _ in self.layouts]
        bases: list[Tensor | None] = [None] * len(self.layouts)
        maps: list[Tensor | None] = [None] * len(self.layouts)
        for kept, carriers, linear in zip(self.sets, self.carriers, self.maps, strict=True):
            assert isinstance(linear, nn.Linear)
            if len(kept) == 2 and len(carriers) == 1:  # a matrix alone: its map is left to the pass that also adds
                bases[carriers[0]], maps[carriers[0]] = features.values[carriers[0]], linear.weight
                continue
            widths = [self.layouts[i].fixed * self.out_channels for i in carriers]
            for i, part in zip(carriers, linear(features.joined(kept)).split(widths, -1), strict=True):
                if self.layouts[i].hidden == kept:
                    bases[i] = part
                else:
                    added[i][kept] = part
        return features.updated(bases, maps, added, relu=relu, reduction=self.reduction)


class NeuronAttention(nn.Module):
    r"""Attention among the neurons of each hidden axis, added to every parameter that carries the axis.

    A neuron's token is what the parameters that carry it hold on average over their other hidden axes; what comes back
    is broadcast over those. It commutes with permutations, and is not linear.

    Args:
        spec: the networks.
        channels: of the features, kept.
        heads: of attention; divides ``channels``.
        reduction: whether a token holds averages or maxima over the other axes.

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, appendix (set layers).
        Departure: beside the linear layer, not in place of one of its blocks.
    """

    def __init__(self, spec: NetSpec, channels: int, heads: int, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_spec(spec)
        self.reduction: Reduction = check_reduction(reduction)
        if channels % whole_number("attention", heads):
            raise ValueError(f"attention: expected a divisor of {channels}, got {heads}")
        self.spec, self.in_channels, self.heads, self.layouts = spec, channels, heads, layouts(spec)
        self.read, self.write = nn.ModuleList(), nn.ModuleList()
        for axis in spec.hidden:
            wide = channels * sum(lay.fixed for lay in self.layouts if axis.name in lay.hidden)
            self.read.append(nn.Linear(wide, 3 * channels))
            self.write.append(nn.Linear(channels, wide))

    def forward(self, features: Weights) -> Weights:
        check_features(self.spec, features, self.in_channels)
        return self.compute(Features.read(self.layouts, features, self.reduction)).weights(self.in_channels)

    def compute(self, features: Features, *, relu: bool = False) -> Features:
        """Map features that lie as the layers compute."""
        added: list[dict[Axes, Tensor]] = [{} for _ in self.layouts]
        for axis, read, write in zip(self.spec.hidden, self.read, self.write, strict=True):
            kept = (axis.name,)
            tokens = read(features.joined(kept)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*tokens).transpose(1, 2).flatten(2)
            members = [i for i, lay in enumerate(self.layouts) if axis.name in lay.hidden]
            widths = [self.layouts[i].fixed * self.in_channels for i in members]
            for i, part in zip(members, write(mixed).split(widths, -1), strict=True):
                added[i][kept] = part
        nothing = [None] * len(self.layouts)
        return features.updated(features.values, nothing, added, relu=relu, reduction=self.reduction)
