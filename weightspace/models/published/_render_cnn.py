"""The functional reference: render the network on a grid and classify the picture with a CNN."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._evaluate import evaluate
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes
from weightspace.models.layers._chain import chain

CONVOLUTIONS = {
    1: (nn.Conv1d, nn.AvgPool1d),
    2: (nn.Conv2d, nn.AvgPool2d),
    3: (nn.Conv3d, nn.AvgPool3d),
}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
VALUE = 2.0  # of values on [-1/2, 1/2]


def convolutions(inputs: int, channels: int, hidden: int, layers: int, norm: Callable[[int], nn.Module]) -> nn.Module:
    """Blocks of two convolutions on a grid of ``inputs`` axes, each but the last halving it, each wider by two.

    In the plane with channels last, which processors are faster at.
    """
    convolution, pool = CONVOLUTIONS[inputs]
    blocks: list[nn.Module] = []
    for i in range(layers):
        wide = hidden * 2**i
        for _ in range(2):
            blocks += [convolution(channels, wide, 3, padding=1), norm(wide), nn.ReLU()]
            channels = wide
        if i + 1 < layers:
            blocks.append(pool(2, ceil_mode=True))
    net = nn.Sequential(*blocks)
    return net.to(memory_format=torch.channels_last) if inputs == 2 else net  # pyright: ignore


class Functional(Model):
    r"""The network's values on a regular grid over ``[-1, 1]^d``, then a convolutional network.

    .. math:: \mathrm{CNN}\big(2 (f_w(x_1) - shift), \ldots, 2 (f_w(x_P) - shift)\big), \qquad P = size^d

    What a model of weights could at best know, if the signal is all there is to know: a ceiling, and no model of
    weights. It respects every symmetry. With ``learned=True`` the points start as that grid and are learned: function
    queries, as :class:`ProbeGen` makes them, in an order that convolutions can read. Blocks of two convolutions with
    batch norms, each but the last halving the grid, and a linear map of all that remains; in training the norms make an
    output depend on its batch. Cost: ``2 size^d num_params`` FLOP a network to render, and a CNN of about
    ``2 3^d hidden^2 size^d`` in the first block, in the plane half as much again in every further one: most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of one, two or three inputs.
        out_features: number of outputs.
        hidden: channels of the first block of convolutions, at least 2; every further block has twice as many.
        layers: number of blocks of two convolutions; each but the last halves the grid.
        size: points along each axis of the grid.
        learned: learn the points.
        dropout: before the last layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions in the spec, no hidden layer, more than three inputs, a grid too small to halve
            that often, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.Functional(spec, 10, hidden=8)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        The "functional" baselines of the field render the INR first; the architecture here is a plain one of ours.
    """

    respects = "full"
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
    ) -> None:
        chain(spec, "Functional")
        super().__init__(spec, Normalize(spec, per="nothing"))
        check_sizes(out_features, hidden, layers, dropout)
        inputs = spec.in_features
        if inputs not in CONVOLUTIONS:
            raise ValueError(f"Functional: expected networks of 1, 2 or 3 inputs, got {inputs}")
        if whole_number("size", size) <= 2 ** (layers - 1):
            raise ValueError(
                f"size: expected more than {2 ** (layers - 1)} points to halve {layers - 1} times, got {size}"
            )
        if not isinstance(learned, bool):
            raise TypeError(f"learned: expected True or False, got {learned!r}")
        line = torch.linspace(-1, 1, size)
        grid = torch.cartesian_prod(*[line] * inputs).reshape(-1, inputs)
        if learned:
            self.grid = nn.Parameter(grid)
        else:
            self.register_buffer("grid", grid, persistent=False)
        self.shape = [size] * inputs
        self.net = convolutions(inputs, spec.out_features, hidden, layers, NORMS[inputs])
        halved = 2 ** (layers - 1)
        self.head = nn.Sequential(
            nn.Flatten(1),
            nn.Dropout(dropout),
            nn.Linear(hidden * halved * (-(-size // halved)) ** inputs, out_features),
        )

    def _forward(self, weights: Weights) -> Tensor:
        values = VALUE * (evaluate(weights, self.grid) - self.spec.output_shift)
        return self.head(self.net(values.transpose(1, 2).unflatten(2, self.shape)))
