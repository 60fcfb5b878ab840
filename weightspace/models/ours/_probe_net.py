"""The network's own forward pass, and its gradients back, widened to channels that mix between layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._activation import activation
from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes
from weightspace.models.layers._chain import affine, axes_of, chain

MIXING = 0.1  # how far from the identity a step of the optimiser takes the mixing
GRADIENT = 0.1  # of an image's values on [-1, 1]: gradients are about ten times as large


class Widened(Model):
    """The passes that hybrids share: learned inputs through the network and gradients back, with mixing channels.

    Args:
        spec: the networks to read.
        points: the inputs to start from, ``[in, point]``.
        rank: of what mixes channels, beside the identity; 0 leaves them apart.
        phase: hold the factors of biases at one.
        back: go back too. Without it, without mixing and with ``phase`` what remains are function queries, and the
            track says so.
    """

    respects = "full"
    track = "hybrid"

    def __init__(self, spec: NetSpec, points: Tensor, *, rank: int, phase: bool, back: bool) -> None:
        super().__init__(spec, Normalize(spec, per="nothing"))
        self.chain = chain(spec, type(self).__name__)
        self.respects = "full" if phase else "scaled"
        if phase and not rank and not back:
            self.track = "function"  # outputs at learned inputs, and nothing else
        self.axes = [spec.axis(name) for name in axes_of(self.chain)]
        above, depth, channels = self.axes[-1].size, len(self.chain) - 1, points.shape[1]
        self.points = nn.Parameter(points)
        self.factors = None if phase else nn.Parameter(1 + 0.01 * torch.randn(depth + 1, channels))
        self.mix = nn.ModuleList(Mix(channels, rank) for _ in range(depth if rank else 0))
        self.seeds = nn.Parameter(torch.ones(above, channels) / math.sqrt(above)) if back else None
        self.mix_back = nn.ModuleList(Mix(channels, rank) for _ in range(depth if rank and back else 0))

    def _forth(self, matrices: list[Tensor], biases: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Outputs ``[batch, out, point]``, and of every hidden axis what it sends on and the activation's slopes."""
        value = self.points.expand(len(matrices[0]), -1, -1)
        sent: list[Tensor] = []
        slopes: list[Tensor] = []
        for i, (axis, matrix, bias) in enumerate(zip(self.axes[1:], matrices, biases, strict=True)):
            bias = bias.unsqueeze(-1)
            value = torch.baddbmm(bias if self.factors is None else bias * self.factors[i], matrix, value)
            if axis.activation is not None:
                row = activation(axis.activation)
                if self.seeds is not None:
                    slopes.append(row.derivative(value, axis.omega))
                value = row.forward(value, axis.omega)
                sent.append(value)
                value = self.mix[i](value) if len(self.mix) else value
        return value, sent, slopes

    def _back(self, matrices: list[Tensor], slopes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Gradients ``[batch, in, point]`` at the inputs, and what arrives at every hidden axis."""
        assert self.seeds is not None
        value, received = self.seeds.expand(len(matrices[0]), -1, -1), []
        for i in reversed(range(len(slopes))):
            received.insert(0, torch.bmm(matrices[i + 1].mT, value))
            value = received[0] * slopes[i]
            value = self.mix_back[i](value) if len(self.mix_back) else value
        return torch.bmm(matrices[0].mT, value), received


class Hybrid(Widened):
    r"""The network evaluated at learned inputs, with channels (one an input) that mix between its layers, and back.

    .. math::
        H_1 = a(W_1 X + b_1 c_1), \quad H_{l+1} = a(W_{l+1} (H_l A_l) + b_{l+1} c_{l+1}), \quad
        Y = W_L (H_{L-1} A_{L-1}) + b_L c_L \\
        G_{L-1} = W_L^T V, \quad G_{l-1} = W_l^T \big((G_l \odot a'(Z_l)) B_l\big), \quad
        D = W_1^T \big((G_1 \odot a'(Z_1)) B_1\big)

    ``X`` (the learned inputs), ``A``, ``B``, ``V`` are the model's, ``a`` is the network's own activation at its own
    frequency and ``Z`` what enters it. The matrices start near the identity, ``I + 0.1 P Q`` of low rank, so that ``Y``
    starts as the network's outputs and ``D`` as their gradients at the learned inputs. An MLP reads ``Y``, ``D`` and,
    with ``neurons``, functions of every neuron's invariants ``H_l * G_l``, summed over the neurons.

    Who keeps what: permutations, signs and positive scales are respected by construction, for every activation of the
    table. Phases of periodic activations are respected where ``c`` is one (``phase=True``); learned factors ``c``
    (``phase=False``) break them. A learned frequency for each channel would be nothing new: ``X``, ``A`` and ``c``
    absorb it. Cost: ``2 P E`` FLOP a direction and network, with ``E`` weights and ``P`` learned inputs, and
    ``4 n P rank`` for the mixing of ``n`` hidden neurons.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width, with any activation of the table.
        out_features: number of outputs.
        hidden: width of the MLP, at least 2.
        layers: hidden layers of the MLP.
        points: learned inputs, which are the channels.
        rank: of what mixes channels, beside the identity; 0 leaves them apart.
        phase: hold ``c`` at one, to respect phases.
        back: go back too.
        neurons: functions of every neuron's invariants, summed over neurons; 0 leaves them out. Needs ``back``.
        dropout: after each hidden layer of the MLP.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, sizes out of range, or ``neurons`` without ``back``.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.Hybrid(spec, 10, points=64)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape, model.respects
        (torch.Size([4, 10]), 'full')
        >>> ws.models.Hybrid(spec, 10, phase=False).respects
        'scaled'

    Reference:
        A model of this library; without mixing and the way back it is the function query of Kahana et al., *Deep Linear
        Probe Generators for Weight Space Learning*, 2024 (Published: 87.7 % on Fashion-MNIST INRs, 55,000 training
        images). Departures: activations of all layers enter, since channels mix there; gradients; no generator of
        inputs. What helped and what did not: ``docs/howto/models.md``.
    """

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        points: int = 256,
        rank: int = 32,
        phase: bool = True,
        back: bool = True,
        neurons: int = 0,
        dropout: float = 0.0,
    ) -> None:
        depth = len(chain(spec, "Hybrid")) - 1
        check_sizes(out_features, hidden, layers, dropout)
        whole_number("points", points, 2)
        whole_number("rank", rank, 0)
        if whole_number("neurons", neurons, 0) and not back:
            raise ValueError(f"neurons: expected 0 where back=False (invariants need both directions), got {neurons}")
        below, above = spec.in_features, spec.out_features
        super().__init__(spec, 2 * torch.rand(below, points) - 1, rank=rank, phase=phase, back=back)
        self.each = nn.ModuleList(nn.Linear(points, neurons) for _ in range(depth if neurons else 0))
        self.read = nn.Linear(points * above, hidden)
        self.read_back = nn.Linear(points * below, hidden, bias=False) if back else None
        self.read_neurons = nn.Linear(neurons * depth, hidden, bias=False) if neurons else None
        blocks: list[nn.Module] = []
        for i in range(layers):
            blocks += [nn.Linear(hidden, hidden)] if i else []
            blocks += [nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*blocks, nn.Linear(hidden, out_features))

    def _forward(self, weights: Weights) -> Tensor:
        matrices, biases = affine(weights, self.chain)
        value, sent, slopes = self._forth(matrices, biases)
        total = self.read(value.flatten(1))
        if self.read_back is not None:
            back, received = self._back(matrices, slopes)
            total = total + self.read_back(GRADIENT * back.flatten(1))
            if self.read_neurons is not None:
                pairs = zip(self.each, sent, received, strict=True)
                found = [F.silu(f(h * g * math.sqrt(h.shape[1]))).sum(1) / math.sqrt(h.shape[1]) for f, h, g in pairs]
                total = total + self.read_neurons(torch.cat(found, 1))
        return self.net(total)


class Mix(nn.Module):
    """Channels mixed by ``I + 0.1 P Q``, near the identity at first."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(channels, rank) / math.sqrt(channels))
        self.up = nn.Parameter(0.01 * torch.randn(rank, channels))

    def forward(self, value: Tensor) -> Tensor:
        return value + torch.matmul(torch.matmul(value, self.down), MIXING * self.up)
