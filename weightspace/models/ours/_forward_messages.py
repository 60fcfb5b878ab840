"""Learned functions of the first neurons' weights, carried forward by the network's other weights; no inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from weightspace._activation import Activation, activation
from weightspace._checks import whole_number
from weightspace._spec import Axis, NetSpec
from weightspace._weights import Weights
from weightspace.models._base import BatchNorm, Model, Normalize, check_sizes, normed_mlp
from weightspace.models.layers._chain import affine, axes_of, chain
from weightspace.models.ours._probe_net import Mix

BUMPS = 6  # on either side of zero, one unit apart: learned activations change between -7 and 7
SHARP = 0.7  # of a bump, exp(-0.7 z^2): neighbours overlap
REACH = 1.5  # of a bump, in radians per unit of input: signals live on [-1, 1]
GAIN = 1.5  # of the first messages: more, and the activations after them wrap around before anything is learned


class ForwardMessages(Model):
    r"""Every first neuron sends learned functions of its own weights; the network's other layers carry them forward.

    .. math::
        H_1 = \phi(W_1, b_1) M, \qquad H_{l+1} = \psi_{l+1}(W_{l+1} H_l A_l, \, b_{l+1}), \qquad
        Y = W_L H_{L-1} A_{L-1} + b_L

    and an MLP reads ``Y``, with batch norms (in training an output depends on its batch). ``phi`` is applied to each
    neuron's row ``w`` and bias ``b``, ``psi`` to each number that arrives at a neuron and its bias. Both are learned
    and have the type of what leaves that neuron, whatever functions ``f`` they are made of. For periodic
    activations ``a``

    .. math:: \phi(w, b) = E(w)\, a(b) + O(w)\, a'(b) / \omega,
        \qquad E(w) = f(\omega w) + f(-\omega w), \quad O(w) = f(\omega w) - f(-\omega w)

    which flips with signs and with odd phases as the neuron does, with nothing folded; an odd or an even part of
    ``f(w, b)`` for other signed activations, ``|v| f(v / |v|)`` of ``v = (w, b)`` for positive scales. In ``phi`` the
    ``f`` are an MLP and, for periodic activations, Gaussian bumps (where a first layer holds high frequencies the MLP
    alone is too smooth); in ``psi`` a sum of bumps for each channel. ``M`` and ``A`` (from the second hidden layer on,
    near the identity) mix channels.

    **Tracks.** No input enters and no activation is computed of anything that arrives, so this is weights-only, as
    far as any model is whose functions of weights are rich: nothing keeps training from bringing a channel close to
    the network at some input, and the phase factors ``a(b)`` of a first layer are its values at zero. With
    ``learned=False``, ``psi`` is the network's own activation of what arrives: more accurate, and of the hybrid
    track, for then a linear ``M`` is enough to come very close to the network at an input. Cost: ``2 E d`` FLOP a
    network for ``E`` weights and ``d`` channels, ``4 n d rank`` for ``A``, ``8 n k^2 + 4 n (k + bumps) d`` for ``phi``
    with ``k`` functions on ``n`` neurons, which is most of it.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width, with any activation of the table.
        out_features: number of outputs.
        hidden: width of the MLP that reads what arrives, at least 2.
        layers: its hidden layers.
        channels: messages of every neuron.
        functions: width of the MLP of ``f``, and how many functions it gives; 0 leaves it out.
        bumps: Gaussian bumps in ``f``, on the plane of a first neuron's frequencies; 0 leaves them out. Only periodic
            activations have them.
        rank: of what mixes channels after the second hidden layer and later ones, beside the identity; 0 leaves them
            apart.
        learned: learn the functions of what arrives at a neuron, or take the network's own activation.
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
        :class:`TypedMessages`: functions of weights, nothing folded, no way back, which gained nothing here.
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
        learned: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, Normalize(spec, per="nothing"))
        self.chain = chain(spec, "ForwardMessages")
        check_sizes(out_features, hidden, layers, dropout)
        whole_number("channels", channels, 2)
        whole_number("rank", rank, 0)
        if not isinstance(learned, bool):
            raise TypeError(f"learned: expected True or False, got {learned!r}")
        if not learned:
            self.track = "hybrid"
        self.axes = [spec.axis(name) for name in axes_of(self.chain)]
        self.first = FirstMessages(self.axes[1], spec.in_features, channels, functions=functions, bumps=bumps)
        between = self.axes[2:-1]
        self.learned = nn.ModuleList(LearnedActivation(axis, channels) for axis in between) if learned else None
        self.mix = nn.ModuleList(Mix(channels, rank) for _ in (between if rank else ()))
        arrived = channels * spec.out_features
        self.net = nn.Sequential(
            BatchNorm(arrived, affine=False), normed_mlp(arrived, hidden, layers, out_features, dropout, BatchNorm)
        )

    def _forward(self, weights: Weights) -> Tensor:
        matrices, biases = affine(weights, self.chain)
        value = self.first(matrices[0], biases[0])
        for i, axis in enumerate(self.axes[2:], start=1):
            value = self.mix[i - 2](value) if i > 1 and len(self.mix) else value
            bias = biases[i].unsqueeze(-1)
            if axis.activation is None or self.learned is None:
                value = torch.baddbmm(bias, matrices[i], value)
                value = value if axis.activation is None else activation(axis.activation).forward(value, axis.omega)
            else:
                value = self.learned[i - 1](torch.bmm(matrices[i], value), bias)
        return self.net(value.flatten(1))


class FirstMessages(nn.Module):
    """Learned functions of a neuron's own weights, of the type of what leaves it: rows ``[batch, neuron, in]`` and
    biases ``[batch, neuron]`` to ``[batch, neuron, channel]``.
    """

    def __init__(self, axis: Axis, inputs: int, channels: int, *, functions: int, bumps: int) -> None:
        super().__init__()
        self.axis = axis
        whole_number("functions", functions, 0)
        whole_number("bumps", bumps, 0)
        periodic = _row(axis).periodic
        bumps = bumps if periodic else 0
        if not functions + bumps:
            raise ValueError(
                f"functions: expected at least 1 where there are no bumps, got {functions}; "
                f"bumps are for periodic activations, and {axis.name!r} is of {axis.activation}"
            )
        reads = inputs + (not periodic)
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
        self.mix = nn.Linear((functions + bumps) * (2 if periodic else 1), channels, bias=False)
        nn.init.normal_(self.mix.weight, std=GAIN / math.sqrt(functions + bumps))

    def functions(self, value: Tensor) -> Tensor:
        """``f``, of no symmetry by itself."""
        parts = [f(value) for f in (self.net, self.bumps) if f is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def forward(self, matrix: Tensor, bias: Tensor) -> Tensor:
        bias, row, omega = bias.unsqueeze(-1), _row(self.axis), self.axis.omega
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
            value = value / largest  # squares of what remains neither overflow nor vanish
            norm = value.square().sum(-1, keepdim=True).clamp_min(torch.finfo(value.dtype).tiny).sqrt()
            return self.mix(largest * norm * self.functions(value / norm))
        return self.mix(self.functions(value))


def _row(axis: Axis) -> Activation:
    assert axis.activation is not None
    return activation(axis.activation)


class LearnedActivation(nn.Module):
    """A learned function for each channel, of what arrives at a neuron ``[batch, neuron, channel]`` and of its bias
    ``[batch, neuron, 1]``, of the type of what leaves it: sums of bumps, or two slopes for positive scales.
    """

    def __init__(self, axis: Axis, channels: int) -> None:
        super().__init__()
        self.axis, row = axis, _row(axis)
        self.factor = None if row.periodic else nn.Parameter(torch.ones(channels))  # of the bias
        self.slopes = self.even = self.odd = None
        if row.scale == "positive":
            self.slopes = nn.Parameter(0.5 + 0.05 * torch.randn(2, channels))
            return
        if row.periodic or row.parity != "odd":
            self.even = nn.Parameter(0.05 * torch.randn(BUMPS + 1, channels))
            self.even.data[0] += 1.0
        if row.periodic or row.parity != "even":
            self.odd = nn.Parameter(1 + 0.05 * torch.randn(BUMPS, channels))

    def forward(self, value: Tensor, bias: Tensor) -> Tensor:
        row, omega = _row(self.axis), self.axis.omega
        if row.periodic:
            even, odd = self._parts(omega * value)
            assert even is not None
            assert odd is not None
            return even * row.forward(bias, omega) + odd * (row.derivative(bias, omega) / omega)
        assert self.factor is not None
        value = value + self.factor * bias
        if self.slopes is not None:
            return self.slopes[0] * value + self.slopes[1] * value.abs()
        even, odd = self._parts(value)
        parts = [part for part in (even, odd) if part is not None]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _parts(self, value: Tensor) -> tuple[Tensor | None, Tensor | None]:
        r"""``sum_m c_m (B(z - m) + B(z + m))`` and ``sum_m c_m (B(z - m) - B(z + m))``, ``B(z) = exp(-0.7 z^2)``.

        ``B(z - m)`` is ``B(z) B(m) exp(1.4 z)^m``: three exponentials and Horner's rule. In float32 at least: the
        powers leave half precision's range.
        """
        small = value.dtype in (torch.float16, torch.bfloat16)
        z = (value.float() if small else value).clamp(-BUMPS - 1, BUMPS + 1)
        middle, up, down = torch.exp(-SHARP * z.square()), torch.exp(2 * SHARP * z), torch.exp(-2 * SHARP * z)
        even = odd = None
        if self.even is not None:
            factors = self.even.to(z.dtype)
            even = middle * (factors[0] + _powers(factors[1:], up) + _powers(factors[1:], down))
        if self.odd is not None:
            factors = self.odd.to(z.dtype)
            odd = middle * (_powers(factors, up) - _powers(factors, down))
        if small:
            even = None if even is None else even.to(value.dtype)
            odd = None if odd is None else odd.to(value.dtype)
        return even, odd


def _powers(factors: Tensor, base: Tensor) -> Tensor:
    """``sum_m factors[m - 1] B(m) base^m``."""
    total = factors[-1] * math.exp(-SHARP * len(factors) ** 2) * base
    for m in range(len(factors) - 1, 0, -1):
        total = (total + factors[m - 1] * math.exp(-SHARP * m**2)) * base
    return total


class Bumps(nn.Module):
    """Gaussians with learned centres and widths: as dense near zero frequency as far from it, along every direction."""

    def __init__(self, inputs: int, count: int, reach: float) -> None:
        super().__init__()
        direction = nn.functional.normalize(torch.randn(count, inputs), dim=-1)
        self.centres = nn.Parameter(direction * (reach * torch.rand(count, 1)))
        self.widths = nn.Parameter(torch.full((count,), math.log(REACH)))

    def forward(self, value: Tensor) -> Tensor:
        far = torch.zeros_like(value[..., :1])
        for i in range(value.shape[-1]):  # differences first: squares of frequencies would swallow them
            far = far + (value[..., i : i + 1] - self.centres[:, i]).square()
        # Far tails stop at 1e-13: smaller numbers would become subnormal, which processors are slow at.
        return torch.exp((-0.5 * torch.exp(-2 * self.widths) * far).clamp_min(-30.0))
