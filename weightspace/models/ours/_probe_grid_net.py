"""ProbeGridNet: outputs and gradients at learned inputs that start on a grid, read by convolutions."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._evaluate import grid
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._grid_cnn import VALUE, check_grid, convolutions
from weightspace.models.layers._probed import GRADIENT, ProbedPass


@final
class ProbeGridNet(Model):
    r"""Evaluate the network at learned inputs that start as a regular grid, and read outputs and gradients with a CNN.

    .. math:: \mathrm{CNN}\big([\,2 Y \,|\, 0.1\, D\,]\big), \qquad
        Y \in \mathbb{R}^{out \times size^d}, \; D \in \mathbb{R}^{in \times size^d}

    ``Y`` and ``D`` are the outputs and the gradients of :class:`ProbeNet`, whose channels mix between the network's
    layers; the points of the grid are learned like all others. The CNN is made of blocks of two convolutions with batch
    norms, each block but the last halving the grid, and a mean over positions. In training the norms make an output
    depend on its batch. Its equivariance is that of :class:`ProbeNet`. Cost: ``2 P E`` FLOP per direction and network,
    with ``E`` weights and ``P = size^d`` inputs, ``4 n P rank`` for the mixing of ``n`` hidden neurons, and the CNN, as
    in :class:`RenderCNN`, which is most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width with one, two or three inputs, and any
            activation of the table.
        out_features: number of outputs.
        hidden: channels of the first block of convolutions, at least 2; every further block has twice as many.
        layers: number of blocks.
        size: points along each axis of the grid.
        rank: rank of the mixing matrices minus the identity; 0 for the identity alone.
        phase: whether the factors of biases are fixed at one, which respects phases.
        dropout: probability, before the last layer.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions in the spec, no hidden layer, more than three inputs, a grid too small to halve
            that often, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.ProbeGridNet(spec, 10, hidden=8, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape, model.track
        (torch.Size([4, 10]), 'probing')

    Reference:
        A model of this library, after :class:`ProbeNet` and :class:`RenderCNN`. (Published: nothing alike; function
        queries read by an MLP reach 87.7 % on Fashion-MNIST INRs with 55,000 training images, Kahana et al. 2024.)
        Departures from a CNN on the picture: few, learned points, their gradients, and channels that mix.
    """

    name = "probe-grid-net"
    reads = "chain"
    equivariance = "full"
    mixes_linear = True
    track = "probing"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        size: int = 14,
        rank: int = 32,
        phase: bool = True,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed, size=size, rank=rank, phase=phase)
        normalize, group = Normalize(spec, per="nothing"), "full" if phase else "scaled"
        super().__init__(spec, out_features, normalize, config, equivariance=group)
        whole_number("rank", rank, 0)
        self.shape = check_grid(spec, size, layers)
        inputs = spec.in_features
        with seeded_by(seed):
            self.passes = ProbedPass(spec, grid(*self.shape).T.contiguous(), rank=rank, phase=phase)
            self.net = convolutions(inputs, spec.out_features + inputs, hidden, layers)
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden * 2 ** (layers - 1), out_features))

    def compute(self, weights: Weights) -> Tensor:
        outputs, gradients = self.passes(weights)
        picture = torch.cat([VALUE * outputs, GRADIENT * gradients], 1).unflatten(2, self.shape)
        return self.head(self.net(picture).flatten(2).mean(2))
