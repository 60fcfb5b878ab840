"""``Normalize``: the first layer of every model, with statistics of the training split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from weightspace._spec import NetSpec, Param, check_spec
from weightspace._weights import Weights, check_built_for, check_finite
from weightspace.align._phases import fold_phases

BLOCK = 2**22
"""Scalars that are cast to float64 at a time while statistics are taken."""


class Normalize(nn.Module):
    r"""Shift and scale the weights by statistics of the training split, ``(w - mean) / std``.

    With ``per="tensor"`` all entries of a parameter that permutations of hidden axes can exchange share one mean and
    one standard deviation, so the layer commutes with permutations. With ``per="entry"`` every scalar has its own,
    which suits models without symmetry. With ``per="nothing"`` the weights stay as they are, which suits models that
    evaluate the networks.

    Without ``center`` the weights are only divided by the root of their mean square, which commutes with signs and
    scales too. With ``fold`` the phases of periodic neurons are folded first, by
    ``fold_phases``.

    Args:
        spec: the networks to normalise.
        per: the entries that share their statistics.
        center: whether to subtract the mean.
        fold: whether to fold phases first.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: for another ``per``.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> w = ws.Weights(3 + 2 * torch.randn(64, spec.num_params), spec)
        >>> layer = Normalize(spec).fit(w)
        >>> abs(layer(w).flat.mean().item()) < 1e-5
        True
        >>> batches = (w[start : start + 16] for start in range(0, 64, 16))
        >>> torch.allclose(Normalize(spec).fit(batches).std, layer.std)
        True
    """

    spec: NetSpec
    per: Literal["tensor", "entry", "nothing"]
    center: bool
    fold: bool
    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(
        self,
        spec: NetSpec,
        per: Literal["tensor", "entry", "nothing"] = "tensor",
        *,
        center: bool = True,
        fold: bool = False,
    ) -> None:
        super().__init__()
        check_spec(spec)
        if per not in ("tensor", "entry", "nothing"):
            raise ValueError(f"per: expected 'tensor', 'entry' or 'nothing', got {per!r}")
        self.spec, self.per, self.center, self.fold = spec, per, center, fold
        self.register_buffer("mean", torch.zeros(spec.num_params))
        self.register_buffer("std", torch.ones(spec.num_params))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, weights: Weights | Iterable[Weights]) -> Normalize:
        r"""Take the statistics of networks, which should be the training split's alone.

        Batches are read one after the other and their float64 statistics merged, so that a split may be larger than
        memory. For two parts with counts ``n``, means :math:`\mu` and sums of squared deviations ``S``

        .. math:: \mu = \mu_a + \tfrac{n_b}{n} (\mu_b - \mu_a), \qquad
            S = S_a + S_b + \tfrac{n_a n_b}{n} (\mu_b - \mu_a)^2

        The result depends on the batches, not on the container that holds them.

        Args:
            weights: the networks ``[batch, param]``, or an iterable of batches of them.

        Returns:
            The layer itself.

        Raises:
            TypeError: for something other than ``Weights``.
            ValueError: for networks of another spec, fewer than two of them, or numbers that are not finite.

        Reference:
            Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*, 1979.
        """
        moments = _Moments(self.spec.num_params)
        for batch in [weights] if isinstance(weights, Weights) else weights:
            check_built_for(self.spec, batch)
            if batch.flat.ndim != 2:
                raise _too_few(list(batch.flat.shape))
            check_finite("weights", batch)
            moments.add(fold_phases(batch).flat if self.fold else batch.flat)
        if moments.count < 2:
            raise _too_few([moments.count, self.spec.num_params])
        for param in self.spec.params if self.per != "nothing" else ():
            where = self.spec.slices[param.name]
            mean, std = self._statistics(param, moments)
            self.mean[where] = mean.flatten().to(self.mean)
            self.std[where] = std.flatten().to(self.std)
        self.fitted.fill_(True)
        return self

    def _statistics(self, param: Param, moments: _Moments) -> tuple[Tensor, Tensor]:
        """Pool the moments of the entries that share statistics: mean and divisor of every entry."""
        shape, where = self.spec.shape(param.name), self.spec.slices[param.name]
        means, squares = (value[where].reshape(shape) for value in (moments.mean, moments.squares))
        axes = [i for i, name in enumerate(param.axes) if self.per == "tensor" and self.spec.axis(name).hidden]
        mean, count = means, moments.count
        if axes:
            mean = means.mean(axes, keepdim=True)
            squares = (squares + moments.count * (means - mean).square()).sum(axes, keepdim=True)
            count *= means.numel() // mean.numel()
        if self.center:
            std = (squares / (count - 1)).sqrt()
        else:
            mean, std = torch.zeros_like(mean), (squares / count + mean.square()).sqrt()
        return mean.expand(shape), torch.where(std > 1e-8, std, 1.0).expand(shape)

    def forward(self, weights: Weights) -> Weights:
        check_built_for(self.spec, weights)
        if self.per == "nothing":
            return weights.replace(weights.flat.to(self.mean.dtype))
        weights = fold_phases(weights) if self.fold else weights
        return weights.replace((weights.flat - self.mean) / self.std)

    def undo(self, weights: Weights) -> Weights:
        """Return the weights as they were before :meth:`forward`, up to folded phases."""
        return weights.replace(weights.flat * self.std + self.mean)


class _Moments:
    """A count, mean and sum of squared deviations of every entry, in float64, that take one block after another."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(2, size, dtype=torch.float64)

    def add(self, flat: Tensor) -> None:
        """Merge the rows of ``[batch, param]``."""
        for rows in flat.split(max(1, BLOCK // flat.shape[1])) if len(flat) else ():
            block = rows.double()
            mean = block.mean(0)
            squares = (block - mean).square().sum(0)
            shift, total = mean - self.mean.to(mean), self.count + len(block)
            self.squares = self.squares.to(mean) + squares + shift.square() * (self.count * len(block) / total)
            self.mean = self.mean.to(mean) + shift * (len(block) / total)
            self.count = total


def _too_few(shape: list[int]) -> ValueError:
    return ValueError(f"expected weights [batch, param] of at least 2 networks to take statistics of, got {shape}")
