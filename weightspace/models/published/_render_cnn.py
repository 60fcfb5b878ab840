"""The baseline that renders: evaluate the network on a grid and classify the picture with a CNN."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from weightspace._evaluate import evaluate, grid
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._grid_cnn import VALUE, check_grid, convolutions


@final
class RenderCNN(Model):
    r"""Evaluate the network on a regular grid over ``[-1, 1]^d``, and read its values with a convolutional network.

    .. math:: \mathrm{CNN}\big(2 (f_w(x_1) - shift), \ldots, 2 (f_w(x_P) - shift)\big), \qquad P = size^d

    It reads the function alone, so it respects every symmetry and is not a model of weights: it measures how much can
    be known if the signal is all there is to know. With ``learned=True`` the points start as that grid and are learned:
    function queries, as in :class:`ProbeGen`, in an order that convolutions can read. The CNN is made of blocks of two
    convolutions with batch norms, each block but the last halving the grid, and a linear map of all that remains; in
    training the norms make an output depend on its batch. Cost: ``2 size^d num_params`` FLOP per network to render, and
    a CNN of about ``2 3^d hidden^2 size^d`` in the first block, in the plane half as much again in every further one,
    which is most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of one, two or three inputs.
        out_features: number of outputs.
        hidden: channels of the first block of convolutions, at least 2; every further block has twice as many.
        layers: number of blocks of two convolutions; each but the last halves the grid.
        size: points along each axis of the grid.
        learned: whether the points are learned.
        dropout: probability, before the last layer.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions in the spec, no hidden layer, more than three inputs, a grid too small to halve
            that often, or sizes out of range.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.RenderCNN(spec, out_features=10, hidden=8, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        The "functional" baselines of the field render the INR first; this CNN is a plain one of ours.
    """

    name = "render-cnn"
    reads = "chain"
    equivariance = "full"
    mixes_linear = True
    track = "function"
    grid: Tensor

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        size: int = 28,
        learned: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed, size=size, learned=learned)
        super().__init__(spec, out_features, Normalize(spec, per="nothing"), config)
        self.shape = check_grid(spec, size, layers)
        if not isinstance(learned, bool):
            raise TypeError(f"learned: expected True or False, got {learned!r}")
        points = grid(*self.shape)
        if learned:
            self.grid = nn.Parameter(points)
        else:
            self.register_buffer("grid", points, persistent=False)
        halved = 2 ** (layers - 1)
        remaining = hidden * halved * (-(-size // halved)) ** spec.in_features
        with seeded_by(seed):
            self.net = convolutions(spec.in_features, spec.out_features, hidden, layers)
            self.head = nn.Sequential(nn.Flatten(1), nn.Dropout(dropout), nn.Linear(remaining, out_features))

    def compute(self, weights: Weights) -> Tensor:
        values = VALUE * (evaluate(weights, self.grid) - self.spec.output_shift)
        return self.head(self.net(values.transpose(1, 2).unflatten(2, self.shape)))
