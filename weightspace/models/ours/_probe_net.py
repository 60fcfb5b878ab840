"""ProbeNet: outputs and gradients at learned inputs, read by an MLP."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._heads import normed_mlp
from weightspace.models.layers._probed import GRADIENT, ProbedPass


@final
class ProbeNet(Model):
    r"""Evaluate the network at learned inputs, go back for gradients, and read both with an MLP.

    .. math::
        H_1 = a(W_1 X + b_1 c_1), \quad H_{l+1} = a(W_{l+1} (H_l A_l) + b_{l+1} c_{l+1}), \quad
        Y = W_L (H_{L-1} A_{L-1}) + b_L c_L \\
        G_{L-1} = W_L^T V, \quad G_{l-1} = W_l^T \big((G_l \odot a'(Z_l)) B_l\big), \quad
        D = W_1^T \big((G_1 \odot a'(Z_1)) B_1\big)

    ``X`` (the inputs, one per channel), ``A``, ``B`` and ``V`` are learned, ``a`` is the network's own activation at
    its own frequency, and ``Z`` is its argument. The matrices ``A`` and ``B`` mix channels between the layers and start
    near the identity, ``I + 0.1 P Q`` of low rank, so that ``Y`` starts as the network's outputs and ``D`` as their
    gradients at ``X``. An MLP reads ``Y`` and ``D``.

    Equivariance: permutations, signs and positive scales are respected by construction, for every activation of the
    table. Phases of periodic activations are respected if ``c`` is one (``phase=True``); learned factors ``c``
    (``phase=False``) break them. Cost: ``2 P E`` FLOP per direction and network, with ``E`` weights and ``P`` inputs,
    and ``4 n P rank`` for the mixing of ``n`` hidden neurons.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width, with any activation of the table.
        out_features: number of outputs.
        hidden: width of the MLP, at least 2.
        layers: number of hidden layers of the MLP.
        points: number of learned inputs, which are the channels.
        rank: rank of the mixing matrices minus the identity; 0 for the identity alone.
        phase: whether ``c`` is fixed at one.
        dropout: probability, after each hidden layer of the MLP.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, fewer than two points, or another size out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.ProbeNet(spec, 10, points=64, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape, model.equivariance
        (torch.Size([4, 10]), 'full')
        >>> ws.models.ProbeNet(spec, 10, phase=False).equivariance
        'scaled'

    Reference:
        A model of this library. Without mixing and gradients it is the function query of Kahana et al., *Deep Linear
        Probe Generators for Weight Space Learning*, 2024 (Published: 87.7 % on Fashion-MNIST INRs, 55,000 training
        images). Departures: activations of all layers enter, since channels mix there; gradients; no generator of
        inputs.
    """

    name = "probe-net"
    reads = "chain"
    equivariance = "full"
    mixes_linear = True
    track = "probing"

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
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed, points=points, rank=rank, phase=phase)
        normalize, group = Normalize(spec, per="nothing"), "full" if phase else "scaled"
        super().__init__(spec, out_features, normalize, config, equivariance=group)
        whole_number("points", points, 2)
        whole_number("rank", rank, 0)
        with seeded_by(seed):
            start = 2 * torch.rand(spec.in_features, points) - 1
            self.passes = ProbedPass(spec, start, rank=rank, phase=phase)
            self.read = nn.Linear(points * spec.out_features, hidden)
            self.read_back = nn.Linear(points * spec.in_features, hidden, bias=False)
            rest = normed_mlp(hidden, hidden, layers - 1, out_features, dropout=dropout)
            self.net = nn.Sequential(nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout), *rest)

    def compute(self, weights: Weights) -> Tensor:
        outputs, gradients = self.passes(weights)
        return self.net(self.read(outputs.flatten(1)) + self.read_back(GRADIENT * gradients.flatten(1)))
