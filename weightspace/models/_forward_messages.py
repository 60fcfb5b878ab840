"""The network's own layers on learned functions of its first neurons' weights: no neuron's value at any input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from weightspace._activation import activation
from weightspace._checks import whole_number
from weightspace._spec import Axis, NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes
from weightspace.models._chain import affine, axes_of, chain
from weightspace.models._hybrid import Mix

REACH = 1.5  # of a bump, in radians per unit of input: signals live on [-1, 1]
GAIN = 1.5  # of the first messages: more, and the activations after them wrap around before anything is learned


class ForwardMessages(Model):
    r"""Every first neuron sends learned functions of its own weights; the network's other layers carry them forward.

    .. math::
        H_1 = \phi(W_1, b_1) M, \qquad H_{l+1} = a(W_{l+1} H_l A_l + b_{l+1}), \qquad Y = W_L H_{L-1} A_{L-1} + b_L

    and an MLP reads ``Y``. ``phi`` is applied to each neuron's row ``w`` and bias ``b`` by itself and has the type of
    what leaves that neuron, whatever functions ``f`` it is made of: for periodic activations

    .. math:: \phi(w, b) = E(w)\, a(b) + O(w)\, a'(b) / \omega,
        \qquad E(w) = f(\omega w) + f(-\omega w), \quad O(w) = f(\omega w) - f(-\omega w)

    which flips with signs and with odd phases as the neuron does, with nothing folded; an odd or an even part of
    ``f(w, b)`` for other signed activations, ``|v| f(v / |v|)`` of ``v = (w, b)`` for positive scales. ``f`` is an MLP
    and, for periodic activations, Gaussian bumps: where a first layer holds high frequencies the MLP alone is too
    smooth. ``M`` and ``A`` mix channels, ``A`` near the identity.

    **What it is not:** no input enters, so no number in it is a neuron's value at any input. But it has the shape of a
    forward pass, and were ``E(w) = cos(w x)`` and ``O(w) = sin(w x)``, a channel would be the network at ``x``: nothing
    keeps training from coming close to that. Where this shape counts as evaluating the network,
    :class:`TypedMessages` is the member without it. Cost: ``2 E d`` FLOP a network for ``E`` weights and ``d``
    channels, and the functions ``f``, which are most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width, with any activation of the table.
        out_features: number of outputs.
        hidden: width of the MLP that reads what arrives, at least 2.
        layers: its hidden layers.
        channels: messages of every neuron.
        functions: width of the MLP of ``f``, and how many functions it gives; 0 leaves it out.
        bumps: Gaussian bumps in ``f``, on the plane of a first neuron's frequencies; 0 leaves them out. Only periodic
            activations have them.
        rank: of what mixes channels between further layers, beside the identity; 0 leaves them apart.
        dropout: after each hidden layer of the MLP.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, sizes out of range, or no functions at all.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.ForwardMessages(spec, 10, channels=16)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape, model.track
        (torch.Size([4, 10]), 'weights-only')

    Reference:
        A model of this library. (Published: the best weights-only figure on Fashion-MNIST INRs with 55,000 training
        images is 80.8 %, Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024.) Departures from
        :class:`Hybrid`: no inputs; no way back, which gained nothing here.
    """

    respects = "full"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        channels: int = 128,
        functions: int = 128,
        bumps: int = 64,
        rank: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, Normalize(spec, per="nothing"))
        self.chain = chain(spec, "ForwardMessages")
        check_sizes(out_features, hidden, layers, dropout)
        whole_number("channels", channels, 2)
        whole_number("rank", rank, 0)
        self.axes = [spec.axis(name) for name in axes_of(self.chain)]
        self.first = FirstMessages(self.axes[1], spec.in_features, channels, functions=functions, bumps=bumps)
        deeper = len(self.chain) - 2
        self.mix = nn.ModuleList(Mix(channels, rank) for _ in range(deeper if rank else 0))
        blocks: list[nn.Module] = []
        for i in range(layers):
            blocks += [nn.Linear(hidden if i else channels * spec.out_features, hidden)]
            blocks += [nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*blocks, nn.Linear(hidden, out_features))

    def _forward(self, weights: Weights) -> Tensor:
        matrices, biases = affine(weights, self.chain)
        value = self.first(matrices[0], biases[0])
        for i, axis in enumerate(self.axes[2:], start=1):
            value = self.mix[i - 2](value) if i > 1 and len(self.mix) else value
            value = torch.baddbmm(biases[i].unsqueeze(-1), matrices[i], value)
            if axis.activation is not None:
                value = activation(axis.activation).forward(value, axis.omega)
        return self.net(value.flatten(1))


class FirstMessages(nn.Module):
    """Learned functions of a neuron's own weights, of the type of what leaves it: rows ``[batch, neuron, in]`` and
    biases ``[batch, neuron]`` to ``[batch, neuron, channel]``.
    """

    def __init__(self, axis: Axis, inputs: int, channels: int, *, functions: int, bumps: int) -> None:
        super().__init__()
        assert axis.activation is not None
        self.row, self.omega = activation(axis.activation), axis.omega
        whole_number("functions", functions, 0)
        bumps = whole_number("bumps", bumps, 0) if self.row.periodic else 0
        if not functions + bumps:
            raise ValueError(
                f"functions: expected at least 1 where there are no bumps, got {functions}; "
                f"bumps are for periodic activations, and {axis.name!r} is of {axis.activation}"
            )
        reads = inputs + (not self.row.periodic)
        self.net = (
            nn.Sequential(
                nn.Linear(reads, functions),
                nn.SiLU(),
                nn.Linear(functions, functions),
                nn.SiLU(),
                nn.Linear(functions, functions),
            )
            if functions
            else None
        )
        self.bumps = Bumps(inputs, bumps, axis.omega / inputs) if bumps else None
        self.mix = nn.Linear((functions + bumps) * (2 if self.row.periodic else 1), channels, bias=False)
        nn.init.normal_(self.mix.weight, std=GAIN / math.sqrt(functions + bumps))

    def functions(self, value: Tensor) -> Tensor:
        """``f``, of no symmetry by itself."""
        parts = [f(value) for f in (self.net, self.bumps) if f is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def forward(self, matrix: Tensor, bias: Tensor) -> Tensor:
        bias = bias.unsqueeze(-1)
        if self.row.periodic:
            value = self.omega * matrix
            one, other = self.functions(value), self.functions(-value)
            even = (one + other) * self.row.forward(bias, self.omega)
            odd = (one - other) * (self.row.derivative(bias, self.omega) / self.omega)
            return self.mix(torch.cat([even, odd], -1)) / 2
        value = torch.cat([matrix, bias], -1)
        if self.row.scale == "sign":
            other = self.functions(-value)
            return self.mix(self.functions(value) + (other if self.row.parity == "even" else -other)) / 2
        if self.row.scale == "positive":
            norm = value.square().sum(-1, keepdim=True).clamp_min(torch.finfo(value.dtype).tiny).sqrt()
            return self.mix(norm * self.functions(value / norm))
        return self.mix(self.functions(value))


class Bumps(nn.Module):
    """Gaussians with learned centres and widths: as dense near zero frequency as far from it, along every direction."""

    def __init__(self, inputs: int, count: int, reach: float) -> None:
        super().__init__()
        direction = nn.functional.normalize(torch.randn(count, inputs), dim=-1)
        self.centres = nn.Parameter(direction * (reach * torch.rand(count, 1)))
        self.widths = nn.Parameter(torch.full((count,), math.log(REACH)))

    def forward(self, value: Tensor) -> Tensor:
        far = value.square().sum(-1, keepdim=True) - 2 * value @ self.centres.mT + self.centres.square().sum(-1)
        # Far tails stop at 1e-13: smaller numbers would become subnormal, which processors are slow at.
        return torch.exp((-0.5 * torch.exp(-2 * self.widths) * far).clamp_min(-30.0))
