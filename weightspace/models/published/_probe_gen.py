"""ProbeGen: learned function queries (Kahana et al. 2024)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._evaluate import evaluate
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._heads import normed_mlp


@final
class ProbeGen(Model):
    r"""Evaluate the network at learned inputs, which a deep linear generator makes, and read the outputs with an MLP.

    .. math:: x_p = G_k \cdots G_1 z_p, \qquad y = MLP\big( f_w(x_1), \ldots, f_w(x_P) \big)

    It reads the function alone, so it respects every symmetry and its track is ``"function"``. Cost: ``2 P num_params``
    FLOP per network for the queries, ``2 h (P out + (layers - 1) h + out_features)`` for an MLP of width ``h``, and the
    generator once per batch.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: number of outputs.
        hidden: width of the MLP and of the generator, at least 2.
        layers: hidden layers of the MLP.
        probes: number of learned inputs.
        latent: size of the generator's learned codes.
        depth: number of linear maps of the generator.
        dropout: probability, after each hidden layer of the MLP.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, and for a width, depth or number of probes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.ProbeGen(spec, out_features=10, hidden=64, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Kahana et al., *Deep Linear Probe Generators for Weight Space Learning*, 2024. Published: 87.7 % on
        Fashion-MNIST INRs (55,000 training images). Departures: layer norms in the MLP; codes and maps start so that
        the inputs have standard deviation 0.5.
    """

    name = "probe-gen"
    reads = "chain"
    equivariance = "full"
    mixes_linear = True
    track = "function"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        probes: int = 128,
        latent: int = 32,
        depth: int = 2,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed, probes=probes, latent=latent, depth=depth)
        super().__init__(spec, out_features, Normalize(spec, per="nothing"), config)
        whole_number("probes", probes)
        whole_number("latent", latent)
        sizes = [latent] + [hidden] * (whole_number("depth", depth) - 1) + [spec.in_features]
        with seeded_by(seed):
            self.codes = nn.Parameter(torch.randn(probes, latent))
            self.generator = nn.ParameterList([torch.randn(b, a) / math.sqrt(a) for a, b in pairwise(sizes)])
            self.net = normed_mlp(probes * spec.out_features, hidden, layers, out_features, dropout=dropout)

    @property
    def points(self) -> Tensor:
        """Compute the learned inputs, ``[probe, in]``."""
        points = 0.5 * self.codes
        for matrix in self.generator:
            points = points @ matrix.t()
        return points

    def compute(self, weights: Weights) -> Tensor:
        values = evaluate(weights, self.points) - self.spec.output_shift
        return self.net(values.flatten(1))
