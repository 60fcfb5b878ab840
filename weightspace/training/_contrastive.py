"""The contrastive objective, which reads no labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import number
from weightspace._networks import Networks
from weightspace.training._objective import Objective, check_output
from weightspace.transforms import Transform


class Contrastive(Objective):
    r"""Two views of a network should have similar outputs, and views of different networks should not.

    .. math:: -\frac{1}{2B} \sum_i \Big( \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \Big), \qquad s_{ij} = \langle z_i, z'_j \rangle / temperature

    No label is read. One view is the network as the training loop passes it, the other is that one moved by
    ``transform``. The score is 1 for a network whose second view is the most similar of all in its batch, else 0: it
    falls as batches grow, in evaluation to 1,024. Views in evaluation are the same every time.

    Args:
        transform: makes the second view.
        temperature: of the similarities.

    Raises:
        TypeError: for something other than a transform.
        ValueError: for models whose outputs are not of length one, transforms that mix networks or do not fit the
            spec, or a temperature that is not positive.

    Example:
        >>> from weightspace.transforms import Rotate
        >>> Contrastive(Rotate(10.0)).score_name
        'retrieval accuracy'

    Reference:
        Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, 2020, equation 1; on
        weights: Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023. Departures: a view
        is compared with the views of the other kind alone; where the training loop transforms networks, the second
        view is a moved copy of the first.
    """

    score_name = "retrieval accuracy"

    def __init__(self, transform: Transform, *, temperature: float = 0.1) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: expected a transform, got {transform!r}")
        if transform.mixes_networks:
            raise ValueError(
                f"transform: expected one that makes a view of a network, got one that mixes: {transform!r}"
            )
        self.transform = transform
        self.temperature = number("temperature", temperature, "a positive number", above=0)

    def __repr__(self) -> str:
        return f"Contrastive({self.transform!r}, temperature={self.temperature})"

    def check(self, model: Any) -> None:
        self.transform.check(model.spec)

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output = model(networks.weights)
        check_output(output, Tensor)
        if not bool(((output.detach().float().norm(dim=-1) - 1).abs() < 1e-2).all()):
            raise ValueError("expected outputs of length one, got others; build the model with head='embedding'")
        view = model(self.transform(networks.weights, generator=generator))
        s = output @ view.T / self.temperature
        own = torch.arange(len(s), device=s.device)
        loss = (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2
        return loss, (s.detach().argmax(1) == own).float()
