"""The contrastive objective, which reads no labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from weightspace._checks import number
from weightspace._networks import Networks
from weightspace._random import rand
from weightspace._weights import Weights
from weightspace.training._objective import Objective, check_output
from weightspace.transforms import Transform


class Contrastive(Objective):
    r"""Two views of a network should have similar outputs, and views of different networks should not.

    .. math:: -\frac{1}{2B} \sum_i \Big( \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \Big), \qquad s_{ij} = \langle z_i, z'_j \rangle / temperature

    No label is read. One view is the network as the training loop passes it, the other is that one, or another fit of
    its signal, moved by ``transform``. The score is 1 for a network whose second view is the most similar of all in its
    batch, else 0: it falls as batches grow, in evaluation to 1,024. Views in evaluation are the same every time.

    Args:
        transform: makes the second view.
        temperature: of the similarities.
        fits: networks among which another fit of the same signal (the same source) is drawn for the second view; a
            network that has none there stays. Every network itself where None.

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
        is compared with the views of the other kind alone; fits of one signal are no pair of different ones; where the
        training loop transforms networks, the second view is a moved copy of the first.
    """

    score_name = "retrieval accuracy"

    def __init__(self, transform: Transform, *, temperature: float = 0.1, fits: Networks | None = None) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform: expected a transform, got {transform!r}")
        if transform.mixes_networks:
            raise ValueError(
                f"transform: expected one that makes a view of a network, got one that mixes: {transform!r}"
            )
        self.transform = transform
        self.temperature = number("temperature", temperature, "a positive number", above=0)
        self.fits = None if fits is None else _Fits(fits)

    def __repr__(self) -> str:
        fits = "" if self.fits is None else f", fits={len(self.fits.weights)} networks"
        return f"Contrastive({self.transform!r}, temperature={self.temperature}{fits})"

    def check(self, model: Any) -> None:
        self.transform.check(model.spec)

    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        output = model(networks.weights)
        check_output(output, Tensor)
        if not bool(((output.detach().float().norm(dim=-1) - 1).abs() < 1e-2).all()):
            raise ValueError("expected outputs of length one, got others; build the model with head='embedding'")
        other = networks.weights if self.fits is None else self.fits.another(networks, generator)
        view = model(self.transform(other, generator=generator))
        s = output @ view.T / self.temperature
        own = torch.arange(len(s), device=s.device)
        if self.fits is not None and networks.source is not None:  # fits of one signal are not told apart
            source = networks.source.to(s.device)
            same = (source[:, None] == source) & (own[:, None] != own)
            s = s.masked_fill(same, -torch.inf)
        loss = (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2
        return loss, (s.detach().argmax(1) == own).float()


class _Fits:
    """Networks by their source, of which another fit of a signal is drawn."""

    def __init__(self, networks: Networks) -> None:
        if networks.source is None or networks.view is None or int(networks.source.min()) < 0:
            raise ValueError("fits: expected networks whose sources and views are known, got some without")
        self.views = int(networks.view.max()) + 1
        self.key, order = torch.sort(networks.source.long() * self.views + networks.view.long())
        self.weights = networks.weights[order]

    def another(self, networks: Networks, generator: torch.Generator) -> Weights:
        """Return another fit of every network's signal, or the network itself where there is none."""
        assert networks.source is not None
        assert networks.view is not None
        source, view = networks.source.long().cpu(), networks.view.long().cpu()
        ends = torch.stack([source, source + 1]) * self.views
        first, last = torch.searchsorted(self.key, ends)
        own = torch.searchsorted(self.key, ends[0] + view)  # where the network itself lies, if it does
        known = (view < self.views) & (self.key[own.clamp_max(len(self.key) - 1)] == ends[0] + view) & (own < last)
        choices = last - first - known.long()
        drawn = rand((len(source),), generator=generator, dtype=torch.float64).cpu()
        rows = first + (drawn * choices).long()
        rows = rows + (known & (rows >= own)).long()
        flat = networks.weights.flat.clone()
        found = (choices > 0).nonzero()[:, 0]
        flat[found.to(flat.device)] = self.weights.flat[rows[found]].to(flat)
        return networks.weights.replace(flat)
