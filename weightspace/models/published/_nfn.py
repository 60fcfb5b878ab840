"""NFN: permutation-equivariant neural functionals, NP and HNP (Zhou et al. 2023)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Head, Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._stack import EquivariantStack

PLACES = 8
"""Channels that hold the positional encodings of inputs and outputs, after the channel of the value."""


@final
class NFN(Model):
    r"""Apply equivariant linear layers to encoded weights, with parameters that inputs and outputs share or not.

    With ``variant="np"`` the layers commute with permutations of every axis, inputs and outputs included. Positional
    encodings of inputs and outputs, added to the features of the weights that touch them, then tell these apart, so
    that the whole model is invariant to permutations of hidden axes only. With ``variant="hnp"`` the layers
    have separate parameters for every input and output: all maps that commute with permutations of hidden axes, as in
    :class:`DWSNet`, without encodings. Cost of a forward pass, with ``P`` weights and ``d`` channels: about
    ``2 P d^2`` FLOP per layer and network.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        variant: ``"np"`` or ``"hnp"``.
        hidden: channels, at least 2.
        layers: number of equivariant layers.
        head: ``"invariant"`` returns ``[batch, out_features]``; ``"equivariant"`` returns ``Weights``.
        fourier: number of random frequencies that encode every weight in addition to its value; 0 for the value alone.
        dropout: probability, in the hidden layer of the invariant head.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown variant or head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.NFN(spec, out_features=10, variant="np", hidden=8, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Zhou et al., *Permutation Equivariant Neural Functionals*, 2023, section 2.2 and appendix (encodings).
        Published on the paper's Fashion-MNIST INRs, with 512 channels and 3 layers: NP 75.6 %, HNP 72.7 %; in later
        comparisons, on those of DWSNet's authors (55,000 training images, one view), 68 to 69 %. Departures: averages
        instead of sums; learned positional encodings.
    """

    reads = "hidden"
    equivariance = "permutation"
    heads = ("invariant", "equivariant")
    presets: ClassVar = {"nfn-hnp": {"variant": "hnp"}, "nfn-np": {"variant": "np"}}

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        variant: Literal["np", "hnp"],
        hidden: int = 32,
        layers: int = 3,
        head: Head = "invariant",
        fourier: int = 0,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        sizes = checked_config(hidden, layers, dropout, seed, head=head)
        super().__init__(spec, out_features, Normalize(spec), {"variant": variant, **sizes, "fourier": fourier})
        if variant not in ("np", "hnp"):
            raise ValueError(f"variant: expected 'np' or 'hnp', got {variant!r}")
        ends = variant == "np"
        with seeded_by(seed):
            self.encode = NFNEncoding(spec, whole_number("fourier", fourier, 0), places=ends)
            self.stack = EquivariantStack(spec, self.encode.channels, out_features=out_features, ends=ends, **sizes)

    def compute(self, weights: Weights) -> Tensor | Weights:
        return self.stack(self.encode(weights))


class NFNEncoding(nn.Module):
    """Encode every weight by its value, its Fourier features, and learned vectors of the input and output it touches.

    Args:
        spec: the networks.
        fourier: number of random frequencies.
        places: whether to add the learned vectors.
    """

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
        """Map ``[batch, param]`` to ``[batch, param, channel]``."""
        value = weights.flat.unsqueeze(-1)
        angle = value * self.frequencies
        value = torch.cat([value, angle.cos(), angle.sin()], -1)
        value = torch.nn.functional.pad(value, (0, self.channels - value.shape[-1]))
        if not self.places:
            return weights.replace(value)
        return weights.replace(value + self._places().to(value.dtype))

    def _places(self) -> Tensor:
        """Return the sum of the vectors of the ends that each parameter touches, ``[param, channel]``."""
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
