"""NFN-NP and NFN-HNP: permutation-equivariant neural functionals (Zhou et al. 2023)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._equivariant import EquivariantLinear, InvariantPool
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_head, check_sizes

PLACES = 8  # channels beside the value in which learned encodings of inputs and outputs lie


class _NFN(Model):
    """What both share; ``ends`` says whether the layers treat inputs and outputs as permutable too."""

    respects = "permutation"
    heads = ("invariant", "equivariant")
    ends: bool

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        head: Literal["invariant", "equivariant"] = "invariant",
        fourier: int = 0,
        dropout: float = 0.0,
    ) -> None:
        check_spec(spec)
        super().__init__(spec, Normalize(spec))
        if not spec.hidden:
            raise ValueError("expected a spec with at least one hidden axis, got none; use ws.models.MLP")
        check_head(head, self.heads)
        check_sizes(out_features, hidden, layers, dropout)
        self.out_features = out_features
        self.encode = Encoding(spec, whole_number("fourier", fourier, 0), places=self.ends)
        widths = [self.encode.channels] + [hidden] * layers
        self.layers = nn.ModuleList(EquivariantLinear(spec, a, b, ends=self.ends) for a, b in pairwise(widths))
        if head == "equivariant":
            self.head: nn.Module = EquivariantLinear(spec, hidden, out_features, ends=self.ends)
        else:
            pool = InvariantPool(spec, ends=self.ends)
            self.head = nn.Sequential(
                pool,
                nn.Linear(pool.size * hidden, 4 * hidden),
                nn.LayerNorm(4 * hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4 * hidden, out_features),
            )

    def _forward(self, weights: Weights) -> Tensor | Weights:
        features = self.encode(weights)
        for layer in self.layers:
            features = layer(features)
            features = features.replace(torch.relu_(features.flat))  # a tensor of the layer's own: free to overwrite
        out = self.head(features)
        if isinstance(out, Weights) and self.out_features == 1:
            return out.replace(out.flat.squeeze(-1))
        return out


class NFNNP(_NFN):
    r"""NFN-NP: equivariant layers that share their parameters over inputs and outputs as over hidden neurons.

    The layers commute with permutations of every axis, inputs and outputs included; positional encodings of inputs and
    outputs, added to the features of the weights that touch them, then tell these apart, so that the model as a
    whole respects permutations of hidden axes alone. Cost of a step forward, with ``P`` weights and ``d`` channels:
    about ``2 P d^2`` FLOP a layer and network.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: number of equivariant layers.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``.
        fourier: random frequencies that encode every weight beside its value; 0 for the value alone.
        dropout: of the invariant head's hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.NFNNP(spec, out_features=10, hidden=8)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Zhou et al., *Permutation Equivariant Neural Functionals*, 2023, section 2.2 (NP) and appendix (encodings).
        Published with 512 channels and 3 layers: 75.6 % on the paper's Fashion-MNIST INRs; 68 to 69 % in later
        comparisons, on those of DWSNet's authors (55,000 training images, one view). Departures: averages instead of
        sums; learned positional encodings.
    """

    ends = True


class NFNHNP(_NFN):
    r"""NFN-HNP: equivariant layers with parameters of their own for every input and output.

    The layers are the whole space of maps that commute with permutations of hidden axes, as in :class:`DWSNet`; the
    encoding of weights, the depth and the widths are those of NFN. Cost: as :class:`NFNNP`.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: number of equivariant layers.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``.
        fourier: random frequencies that encode every weight beside its value; 0 for the value alone.
        dropout: of the invariant head's hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.NFNHNP(spec, out_features=10, hidden=8)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Zhou et al., *Permutation Equivariant Neural Functionals*, 2023, section 2.2 (HNP). Published:
        72.7 % on the paper's Fashion-MNIST INRs. Departure: averages instead of sums.
    """

    ends = False


class Encoding(nn.Module):
    """Every weight's value, its Fourier features, and a learned vector of the input and of the output it touches."""

    frequencies: Tensor

    def __init__(self, spec: NetSpec, fourier: int, *, places: bool) -> None:
        super().__init__()
        self.spec, self.channels = spec, 1 + 2 * fourier
        self.register_buffer("frequencies", math.pi * torch.randn(fourier))
        ends = [spec.input, spec.output] if places else []
        if places and not fourier:
            self.channels += PLACES
        self.places = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(spec.axis(name).size, self.channels)) for name in ends}
        )

    def forward(self, weights: Weights) -> Weights:
        value = weights.flat.unsqueeze(-1)
        angle = value * self.frequencies
        value = torch.cat([value, angle.cos(), angle.sin()], -1)
        value = torch.nn.functional.pad(value, (0, self.channels - value.shape[-1]))
        if not self.places:
            return weights.replace(value)
        return weights.replace(value + self._places().to(value.dtype))

    def _places(self) -> Tensor:
        """``[param, channel]``."""
        rows = []
        for param in self.spec.params:
            shape = self.spec.shape(param.name)
            total = self.places[self.spec.input].new_zeros(*shape, self.channels)
            for i, name in enumerate(param.axes):
                if name in self.places:
                    view = [1] * len(shape)
                    view[i] = shape[i]
                    total = total + self.places[name].reshape(*view, self.channels)
            rows.append(total.flatten(0, -2))
        return torch.cat(rows)
