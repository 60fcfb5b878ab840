"""The cost of a model in arithmetic."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from weightspace._weights import Weights
from weightspace.models._model import WeightModel


def flop(model: WeightModel, weights: Weights) -> int:
    """Count the FLOP of one network's forward pass: those of matrix products and convolutions alone.

    A multiplication with its addition counts as two. Work that the networks of a batch share, such as computing the
    inputs of their queries, is divided among them. The result depends on shapes alone, and the model stays as it was.

    Args:
        model: a model on networks of the spec of ``weights``, on the same device.
        weights: a batch; shared work is divided by its size.

    Returns:
        A whole number, rounded down.

    Raises:
        ValueError: as the model does, for weights that it cannot read.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 4, 1)  # 17 parameters
        >>> model = ws.models.MLP(spec, 10, hidden=8, layers=1)
        >>> flop(model, ws.Weights(torch.zeros(3, 17), spec)) == 2 * (17 * 8 + 8 * 10)
        True
    """
    modes = {part: part.training for part in model.modules()}
    weights = weights.replace(weights.flat.detach().requires_grad_())  # fused inference kernels hide their products
    model.eval()
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(weights)
    finally:
        for part, mode in modes.items():
            part.training = mode
    return counter.get_total_flops() // len(weights)
