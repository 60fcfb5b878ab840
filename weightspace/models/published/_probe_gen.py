"""ProbeGen: learned function queries (Kahana et al. 2024)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._evaluate import evaluate
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes, normed_mlp
from weightspace.models.layers._chain import chain


class ProbeGen(Model):
    r"""The network's outputs at learned inputs, then an MLP. The inputs come from a deep linear generator.

    .. math:: x_p = G_k \cdots G_1 z_p, \qquad y = MLP\big( f_w(x_1), \ldots, f_w(x_P) \big)

    It sees the function alone, so that it respects every symmetry, and belongs to the track of function queries. Cost:
    ``2 P num_params`` FLOP a network for the queries, ``2 h (P out + (layers - 1) h + out_features)`` for an MLP of
    width ``h``, and the generator once a batch.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: number of outputs.
        hidden: width of the MLP and of the generator, at least 2.
        layers: hidden layers of the MLP.
        probes: number of learned inputs.
        latent: size of the generator's learned codes.
        depth: linear maps of the generator.
        dropout: after each hidden layer of the MLP.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.ProbeGen(spec, 10, hidden=64)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Kahana et al., *Deep Linear Probe Generators for Weight Space Learning*, 2024. Published: 87.7 % on
        Fashion-MNIST INRs (55,000 training images). Departures: layer norms in the MLP; codes and maps start so that
        the inputs have standard deviation 0.5.
    """

    respects = "full"
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
    ) -> None:
        chain(spec, "ProbeGen")
        super().__init__(spec, Normalize(spec, per="nothing"))
        check_sizes(out_features, hidden, layers, dropout)
        whole_number("probes", probes)
        whole_number("latent", latent)
        sizes = [latent] + [hidden] * (whole_number("depth", depth) - 1) + [spec.in_features]
        self.codes = nn.Parameter(torch.randn(probes, latent))
        self.generator = nn.ParameterList([torch.randn(b, a) / math.sqrt(a) for a, b in pairwise(sizes)])
        self.net = normed_mlp(probes * spec.out_features, hidden, layers, out_features, dropout, nn.LayerNorm)

    @property
    def points(self) -> Tensor:
        """The learned inputs ``[probe, in]``."""
        points = 0.5 * self.codes
        for matrix in self.generator:
            points = points @ matrix.t()
        return points

    def _forward(self, weights: Weights) -> Tensor:
        values = evaluate(weights, self.points) - self.spec.output_shift
        return self.net(values.flatten(1))
