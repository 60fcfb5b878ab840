"""The hybrid with its learned inputs on a grid, and a convolutional network that reads them there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import check_sizes
from weightspace.models.layers._chain import affine, chain
from weightspace.models.ours._probe_net import GRADIENT, Widened
from weightspace.models.published._render_cnn import CONVOLUTIONS, NORMS, VALUE, convolutions


class HybridGrid(Widened):
    r"""The passes of :class:`Hybrid` from inputs that start as a regular grid, read by convolutions over that grid.

    .. math:: \mathrm{CNN}\big([\,2 Y \,|\, 0.1\, D\,]\big), \qquad
        Y \in \mathbb{R}^{out \times size^d}, \; D \in \mathbb{R}^{in \times size^d}

    ``Y`` and ``D`` are the outputs and the gradients of :class:`Hybrid`, whose channels mix between the network's
    layers; the grid's points are learned like all others. Blocks of two convolutions with batch norms, each but the
    last halving the grid, then a mean over positions. In training the norms make an output depend on its batch. Who
    keeps what is as for :class:`Hybrid`. Cost: ``2 P E`` FLOP a direction and network, with ``E`` weights and
    ``P = size^d`` inputs, ``4 n P rank`` for the mixing of ``n`` hidden neurons, and the CNN, as in
    :class:`Functional`: most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width with one, two or three inputs, and any
            activation of the table.
        out_features: number of outputs.
        hidden: channels of the first block of convolutions, at least 2; every further block has twice as many.
        layers: number of blocks.
        size: points along each axis of the grid.
        rank: of what mixes channels, beside the identity; 0 leaves them apart.
        phase: hold the factors of biases at one, to respect phases.
        back: go back too.
        dropout: before the last layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions in the spec, no hidden layer, more than three inputs, a grid too small to halve
            that often, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.HybridGrid(spec, 10, hidden=8)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape, model.track
        (torch.Size([4, 10]), 'hybrid')

    Reference:
        A model of this library, after :class:`Hybrid` and :class:`Functional`. (Published: nothing alike; function
        queries read by an MLP reach 87.7 % on Fashion-MNIST INRs with 55,000 training images, Kahana et al. 2024.)
        Departures from a CNN on the picture: few, learned points, their gradients, and channels that mix.
    """

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
        back: bool = True,
        dropout: float = 0.0,
    ) -> None:
        chain(spec, "HybridGrid")
        check_sizes(out_features, hidden, layers, dropout)
        whole_number("rank", rank, 0)
        inputs = spec.in_features
        if inputs not in CONVOLUTIONS:
            raise ValueError(f"HybridGrid: expected networks of 1, 2 or 3 inputs, got {inputs}")
        if whole_number("size", size) <= 2 ** (layers - 1):
            raise ValueError(
                f"size: expected more than {2 ** (layers - 1)} points to halve {layers - 1} times, got {size}"
            )
        line = torch.linspace(-1, 1, size)
        grid = torch.cartesian_prod(*[line] * inputs).reshape(-1, inputs).T.contiguous()
        super().__init__(spec, grid, rank=rank, phase=phase, back=back)
        self.shape = [size] * inputs
        channels = spec.out_features + (inputs if back else 0)
        self.net = convolutions(inputs, channels, hidden, layers, NORMS[inputs])
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden * 2 ** (layers - 1), out_features))

    def _forward(self, weights: Weights) -> Tensor:
        matrices, biases = affine(weights, self.chain)
        value, _, slopes = self._forth(matrices, biases)
        parts = [VALUE * value]
        if self.seeds is not None:
            parts.append(GRADIENT * self._back(matrices, slopes)[0])
        return self.head(self.net(torch.cat(parts, 1).unflatten(2, self.shape)).flatten(2).mean(2))
