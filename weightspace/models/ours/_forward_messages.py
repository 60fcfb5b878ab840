"""ForwardMessages: learned features of the first layer's weights, sent through the remaining layers."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._random import seeded_by
from weightspace._spec import Axis, NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._chain import affine, axes_of
from weightspace.models.layers._heads import BatchNorm, normed_mlp
from weightspace.models.layers._probed import LowRankMix
from weightspace.models.layers._rbf import CENTERS, GaussianRBF, even_and_odd

GAIN = 1.5
"""Initial scale of the first messages; if it is larger, the next activations wrap around before anything is learned."""


@final
class ForwardMessages(Model):
    r"""Replace the network's input by learned features of its first layer's weights, then run its remaining layers.

    .. math::
        H_1 = \phi(W_1, b_1) M, \qquad H_{l+1} = \psi_{l+1}(W_{l+1} H_l A_l, \, b_{l+1}), \qquad
        Y = W_L H_{L-1} A_{L-1} + b_L

    An MLP with batch norms reads ``Y``; in training the norms make an output depend on its batch. ``phi`` is applied to
    the weights ``w`` and the bias ``b`` of each neuron, ``psi`` to each number that arrives at a neuron and its bias.
    Both are learned, and transform under signs, scales and phases exactly as the neuron's output does, for any choice
    of the functions ``f`` that they are made of. For periodic activations ``a``

    .. math:: \phi(w, b) = E(w)\, a(b) + O(w)\, a'(b) / \omega,
        \qquad E(w) = f(\omega w) + f(-\omega w), \quad O(w) = f(\omega w) - f(-\omega w)

    which flips with signs and with odd phases as the neuron does, without folding. For other activations that commute
    with signs it is the odd or the even part of ``f(w, b)``; for positive scales ``|v| f(v / |v|)`` of ``v = (w, b)``.
    In ``phi`` the ``f`` are an MLP and, for periodic activations, Gaussian radial basis functions: if a first layer
    has high frequencies, an MLP alone is too smooth. In ``psi`` they are a sum of Gaussians per channel. ``M`` and
    ``A`` (from the second hidden layer on, near the identity) mix channels.

    **Track.** The model is weights-only: the network is never evaluated. A caveat: a flexible enough function of
    the first layer can learn to imitate an input, and the phase factors ``a(b)`` of a first layer are its values at
    zero. With ``learned=False``, ``psi`` is the network's own activation. That is more accurate, but a linear ``M``
    then suffices to come close to the network at an input, so the track is ``"probing"``.

    Cost: ``2 E d`` FLOP per network for ``E`` weights and ``d`` channels, ``4 n d rank`` for ``A``, and
    ``8 n k^2 + 4 n (k + rbfs) d`` for ``phi`` with ``k`` functions on ``n`` neurons, which is most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width, with any activation of the table.
        out_features: number of outputs.
        hidden: width of the MLP that reads ``Y``, at least 2.
        layers: number of its hidden layers.
        channels: channels of the messages.
        functions: width and number of outputs of the MLP ``f``; 0 for none.
        rbfs: Gaussian radial basis functions in ``f``, on the space of a first neuron's frequencies; 0 for none. Only
            periodic activations have them.
        rank: rank of ``A`` minus the identity; 0 for the identity alone.
        learned: whether ``psi`` is learned or the network's own activation.
        dropout: probability, after each hidden layer of the MLP.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, sizes out of range, or no functions at all.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.ForwardMessages(spec, 10, channels=16, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape, model.track
        (torch.Size([4, 10]), 'weights-only')

    Reference:
        A model of this library. (Published: the best weights-only figure on Fashion-MNIST INRs with 55,000 training
        images is 80.8 %, Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024.) Departures from
        :class:`TypedMessages`: functions of weights, no folded phases, no messages back, which gained nothing here.
    """

    name = "forward-messages"
    reads = "chain"
    equivariance = "full"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        channels: int = 128,
        functions: int = 128,
        rbfs: int = 64,
        rank: int = 32,
        learned: bool = True,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(
            hidden, layers, dropout, seed, channels=channels, functions=functions, rbfs=rbfs, rank=rank, learned=learned
        )
        track = "weights-only" if learned else "probing"
        super().__init__(spec, out_features, Normalize(spec, per="nothing"), config, track=track)
        whole_number("channels", channels, 2)
        whole_number("rank", rank, 0)
        if not isinstance(learned, bool):
            raise TypeError(f"learned: expected True or False, got {learned!r}")
        self.chain = spec.layers
        self.axes = [spec.axis(name) for name in axes_of(self.chain)]
        between, arrived = self.axes[2:-1], channels * spec.out_features
        with seeded_by(seed):
            self.first = FirstMessages(self.axes[1], spec.in_features, channels, functions=functions, rbfs=rbfs)
            self.learned = nn.ModuleList(LearnedActivation(axis, channels) for axis in between) if learned else None
            self.mix = nn.ModuleList(LowRankMix(channels, rank) for _ in (between if rank else ()))
            self.net = nn.Sequential(
                BatchNorm(arrived, affine=False),
                normed_mlp(arrived, hidden, layers, out_features, dropout=dropout, norm=BatchNorm),
            )

    def compute(self, weights: Weights) -> Tensor:
        matrices, biases = affine(weights, self.chain)
        value = self.first(matrices[0], biases[0])
        for i, axis in enumerate(self.axes[2:], start=1):
            value = self.mix[i - 2](value) if i > 1 and len(self.mix) else value
            bias = biases[i].unsqueeze(-1)
            if not axis.hidden or self.learned is None:
                value = torch.baddbmm(bias, matrices[i], value)
                value = axis.symmetry.forward(value, axis.omega) if axis.hidden else value
            else:
                value = self.learned[i - 1](torch.bmm(matrices[i], value), bias)
        return self.net(value.flatten(1))


class FirstMessages(nn.Module):
    """Apply learned functions to a first neuron's weights and bias, which transform as the neuron's output does.

    Args:
        axis: the first hidden axis.
        inputs: the network's inputs.
        channels: messages of every neuron.
        functions: width of the MLP; 0 for none.
        rbfs: number of Gaussian radial basis functions; left out if the activation is not periodic.

    Raises:
        ValueError: for neither an MLP nor Gaussians.
    """

    def __init__(self, axis: Axis, inputs: int, channels: int, *, functions: int, rbfs: int) -> None:
        super().__init__()
        self.axis, periodic = axis, axis.symmetry.periodic
        whole_number("functions", functions, 0)
        whole_number("rbfs", rbfs, 0)
        rbfs = rbfs if periodic else 0
        if not functions + rbfs:
            raise ValueError(
                f"functions: expected at least 1 without radial basis functions, got {functions}; "
                f"rbfs are for periodic activations, and {axis.name!r} is {axis.activation}"
            )
        self.net = _three_layers(inputs + (not periodic), functions) if functions else None
        self.rbfs = GaussianRBF(inputs, rbfs, axis.omega / inputs) if rbfs else None
        self.mix = nn.Linear((functions + rbfs) * (2 if periodic else 1), channels, bias=False)
        nn.init.normal_(self.mix.weight, std=GAIN / math.sqrt(functions + rbfs))

    def functions(self, value: Tensor) -> Tensor:
        """Evaluate ``f``, which has no symmetry by itself."""
        parts = [f(value) for f in (self.net, self.rbfs) if f is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def forward(self, matrix: Tensor, bias: Tensor) -> Tensor:
        """Map rows ``[batch, neuron, in]`` and biases ``[batch, neuron]`` to ``[batch, neuron, channel]``."""
        bias, row, omega = bias.unsqueeze(-1), self.axis.symmetry, self.axis.omega
        if row.periodic:
            value = omega * matrix
            one, other = self.functions(value), self.functions(-value)
            even = (one + other) * row.forward(bias, omega)
            odd = (one - other) * (row.derivative(bias, omega) / omega)
            return self.mix(torch.cat([even, odd], -1)) / 2
        value = torch.cat([matrix, bias], -1)
        if row.scale == "sign":
            other = self.functions(-value)
            return self.mix(self.functions(value) + (other if row.parity == "even" else -other)) / 2
        if row.scale == "positive":
            largest = value.detach().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(value.dtype).tiny)
            value = value / largest  # squares of the quotients neither overflow nor vanish
            norm = value.square().sum(-1, keepdim=True).clamp_min(torch.finfo(value.dtype).tiny).sqrt()
            return self.mix(largest * norm * self.functions(value / norm))
        return self.mix(self.functions(value))


def _three_layers(inputs: int, width: int) -> nn.Sequential:
    """Make the MLP of ``f``."""
    widths, blocks = (inputs, width, width), []
    for below in widths:
        blocks += [nn.Linear(below, width), nn.SiLU()]
    return nn.Sequential(*blocks[:-1])


class LearnedActivation(nn.Module):
    """Apply a learned function per channel to the number that arrives at a neuron and to the neuron's bias.

    It transforms as the neuron's output does: a sum of Gaussians, or two slopes for positive scales.

    Args:
        axis: the hidden axis.
        channels: number of channels.
    """

    def __init__(self, axis: Axis, channels: int) -> None:
        super().__init__()
        self.axis, row = axis, axis.symmetry
        self.factor = None if row.periodic else nn.Parameter(torch.ones(channels))  # of the bias
        self.slopes = self.even = self.odd = None
        if row.scale == "positive":
            self.slopes = nn.Parameter(0.5 + 0.05 * torch.randn(2, channels))
            return
        if row.periodic or row.parity != "odd":
            self.even = nn.Parameter(0.05 * torch.randn(CENTERS + 1, channels))
            self.even.data[0] += 1.0
        if row.periodic or row.parity != "even":
            self.odd = nn.Parameter(1 + 0.05 * torch.randn(CENTERS, channels))

    def forward(self, value: Tensor, bias: Tensor) -> Tensor:
        """Map ``[batch, neuron, channel]`` and biases ``[batch, neuron, 1]`` to ``[batch, neuron, channel]``."""
        row, omega = self.axis.symmetry, self.axis.omega
        if row.periodic:
            even, odd = even_and_odd(omega * value, self.even, self.odd)
            assert even is not None
            assert odd is not None
            return even * row.forward(bias, omega) + odd * (row.derivative(bias, omega) / omega)
        assert self.factor is not None
        value = value + self.factor * bias
        if self.slopes is not None:
            return self.slopes[0] * value + self.slopes[1] * value.abs()
        parts = [part for part in even_and_odd(value, self.even, self.odd) if part is not None]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]
