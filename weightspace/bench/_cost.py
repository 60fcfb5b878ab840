"""What a model costs in arithmetic."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from weightspace._weights import Weights
from weightspace.models import Model


def flop(model: Model, weights: Weights) -> int:
    """FLOP of one network's forward pass: matrix products and convolutions alone, two for each multiplication.

    Work that networks of a batch share, such as making the inputs of their queries, is shared out among them. The
    answer depends on shapes alone; the model is left as it was.

    Args:
        model: on networks of the spec of ``weights``, and on their device.
        weights: a batch; its size is what shared work is divided by.

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
    training = model.training
    weights = weights.replace(weights.flat.detach().requires_grad_())  # fused inference kernels hide their products
    model.eval()
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(weights)
    finally:
        model.train(training)
    return counter.get_total_flops() // len(weights)
