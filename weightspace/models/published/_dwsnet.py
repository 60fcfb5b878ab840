"""DWSNet: deep weight-space networks of equivariant linear layers (Navon et al. 2023)."""

from __future__ import annotations

from typing import final

from torch import Tensor

from weightspace._matrix_layer import Reduction
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Head, Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._stack import EquivariantStack


@final
class DWSNet(Model):
    r"""Apply equivariant linear layers with pointwise non-linearities between them.

    ``x_0 = normalize(w)``, ``x_l = relu(EquivariantLinear_l(x_{l-1}))``. The invariant head averages every parameter
    over its hidden axes and applies an MLP; the equivariant head is one more linear layer. Cost of a forward pass, with
    ``P`` weights and ``d`` channels: about ``2 P d^2`` FLOP per layer and network.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels of the features, at least 2.
        layers: number of equivariant layers.
        head: ``"invariant"`` returns ``[batch, out_features]``; ``"equivariant"`` returns ``Weights``, without channel
            axis if ``out_features`` is 1.
        attention: heads of the attention among neurons that follows every layer (the set layer); 0 for none.
        dropout: probability, in the hidden layer of the invariant head.
        reduction: ``"mean"``, or ``"max"`` to take maxima over axes instead of averages, in layers and head, as the
            release does.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown head, or sizes out of range.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.DWSNet(spec, out_features=10, hidden=8, layers=2, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, section 5.
        Published: 67.1 % on Fashion-MNIST INRs (55,000 training images, one view). Departures: averages by
        default, in the linear layers (so that they are the maps of the theorem) and in the head, and no batch norm.
    """

    name = "dwsnet"
    reads = "hidden"
    equivariance = "permutation"
    heads = ("invariant", "equivariant")

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 4,
        head: Head = "invariant",
        attention: int = 0,
        dropout: float = 0.0,
        reduction: Reduction = "mean",
        seed: int | None = None,
    ) -> None:
        sizes = checked_config(hidden, layers, dropout, seed, head=head, attention=attention, reduction=reduction)
        super().__init__(spec, out_features, Normalize(spec), sizes)
        with seeded_by(seed):
            self.stack = EquivariantStack(spec, 1, out_features=out_features, **sizes)

    def compute(self, weights: Weights) -> Tensor | Weights:
        return self.stack(weights.replace(weights.flat.unsqueeze(-1)))
