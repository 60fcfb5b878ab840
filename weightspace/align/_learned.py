"""The learned aligner: an equivariant siamese network whose features pair the neurons of two networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from weightspace._checks import check_generator, number, whole_number
from weightspace._random import rand, randn
from weightspace._spec import NetSpec, check_spec
from weightspace._symmetry import GROUPS, Group, Symmetry
from weightspace._weights import Weights, check_finite, check_weights
from weightspace.align._elements import neuron_elements, project
from weightspace.align._encoder import Encoder
from weightspace.align._matching import match
from weightspace.align._pairs import prepared
from weightspace.align._relaxation import Relaxation, doubly_stochastic
from weightspace.align.solver._problem import check_group_of

_ROWS = 256  # pairs are read at once
_LEARNED = GROUPS[1:]  # "none" leaves nothing to learn


class LearnedAligner(nn.Module):
    r"""An aligner that reads both networks once, by an equivariant siamese network.

    One encoder ``F`` computes a vector for each neuron and each element ``h`` that it may carry (signs and parities of
    the phase that the group allows; the identity alone for ``"permutation"``). Inner products are the logits of the
    assignment, for each relative element ``g``:

    .. math:: X_{ijg}(a, b) = \tau \sum_h \langle F_i(a)_h, F_j(b)_{hg} \rangle

    ``F`` commutes with the group, so ``X`` follows any symmetry of either side, and the projected element obeys
    ``A(g a, h b) = g A(a, b) h^{-1}`` exactly, trained or not. Training needs no labels, see :meth:`fit`. The method
    :meth:`match` is an :data:`weightspace.align.Aligner`.

    Args:
        spec: the networks to align; at least one hidden axis.
        group: see :func:`match`, other than ``"none"``; positive scales are not learned.
        channels: size of the neurons' features.
        rounds: number of rounds of messages between the neurons.
        trunk: channels of the equivariant linear layers on single weights, 0 to leave them out.
        generator: draws the initial parameters; by default the same ones every time.

    Raises:
        TypeError: for something other than a ``NetSpec`` and whole numbers.
        ValueError: for a spec without hidden axes, sizes out of range, or a group that is unknown or not allowed.

    Example:
        >>> import weightspace as ws
        >>> spec, gen = ws.siren(2, 8, 8, 1), torch.Generator().manual_seed(0)
        >>> zoo = ws.testing.random_weights(spec, 64, generator=gen)
        >>> aligner = ws.align.LearnedAligner(spec, group="full", channels=8, trunk=0)
        >>> losses = aligner.fit(zoo, steps=20, generator=gen)
        >>> b = ws.Symmetry.sample(spec, batch=4, generator=gen).act(zoo[:4])
        >>> torch.allclose(aligner.match(zoo[:4], b).act(b).flat, zoo[:4].flat, atol=1e-5)
        True

    Reference:
        Navon et al., *Equivariant Deep Weight Space Alignment*, 2024, sections 4 and 5. Departures: messages along the
        weights beside the DWS layers, which carry signs and phases; the expected distance as the loss on real pairs.
    """

    scale: Tensor

    def __init__(
        self,
        spec: NetSpec,
        *,
        group: Group = "permutation",
        channels: int = 32,
        rounds: int = 3,
        trunk: int = 8,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_spec(spec)
        if not spec.hidden:
            raise ValueError("expected a spec with at least one hidden axis, got none; there is nothing to align")
        check_group_of(spec, group, _LEARNED)
        for name, value, least in (("channels", channels, 2), ("rounds", rounds, 0), ("trunk", trunk, 0)):
            whole_number(name, value, least)
        if positive := [axis.name for axis in spec.hidden if neuron_elements(spec, axis, group).positive]:
            raise ValueError(
                f"group={group!r}: positive scales (axes {positive}) are not learned; use group='permutation', "
                "then match(..., group='full') on the result"
            )
        self.spec = spec
        self.group: Group = group
        self.elements = {axis.name: neuron_elements(spec, axis, group) for axis in spec.hidden}
        with torch.random.fork_rng(devices=[]):  # the global stream stays; _reset draws the values that count
            self.encoder = Encoder(spec, self.elements, channels=channels, rounds=rounds, trunk=trunk)
        self.temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.register_buffer("scale", torch.ones(spec.num_params))
        self._reset(torch.Generator().manual_seed(0) if generator is None else generator)

    @torch.no_grad()
    def _reset(self, generator: torch.Generator) -> None:
        for name, value in self.encoder.named_parameters():
            if value.ndim == 2:
                value.copy_(randn(value.shape, generator=generator, dtype=torch.float32) * value.shape[1] ** -0.5)
            elif name.endswith("bias"):
                value.zero_()

    def forward(self, a: Weights, b: Weights) -> dict[str, Tensor]:
        """Compute the logits of every pair, ``{axis: [pair, size, size, element]}``; element 0 is the identity."""
        whole = self.encoder(a.replace(torch.cat([a.flat, b.flat])), self.scale)
        return self._logits({name: features.split([len(a), len(b)]) for name, features in whole.items()})

    def _logits(self, features: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        out = {}
        for name, (left, right) in features.items():
            order = torch.arange(left.shape[2], device=left.device)
            turned = right[:, :, order[:, None] ^ order[None, :]]  # [pair, size, g, h, channel]: element h after g
            inner = left.flatten(2) @ turned.flatten(3).flatten(1, 2).mT
            out[name] = self.temperature.exp() * inner.unflatten(2, (right.shape[1], -1))
        return out

    @torch.no_grad()
    def match(self, a: Weights, b: Weights, *, refine: bool = False) -> Symmetry:
        """Find the symmetry that moves each network of ``b`` close to its partner in ``a``.

        Args:
            a: the targets, ``[batch, param]``, or one network for all of ``b``.
            b: the networks to move, ``[batch, param]``.
            refine: whether to continue by weight matching from there, which can only lower the distance.

        Returns:
            A ``Symmetry`` with ``g.act(b)`` close to ``a``, on the device of ``b``.

        Raises:
            TypeError: for something other than ``Weights``.
            ValueError: for networks of another spec, number, dtype or device, or weights that are not finite.
        """
        target, moved = self._pairs(a, b)
        if not len(b):
            return Symmetry.identity(self.spec, batch=0)
        found = []
        for at in range(0, len(b), _ROWS):
            part = slice(at, at + _ROWS)
            to, of = target[part], moved[part]
            found.append(project(to, of, self.group, self(*(w.to(self.scale) for w in (to, of))), {}))
        g = Symmetry.cat(found).to(b.device, b.dtype)
        return match(a, g.act(b), group=self.group) @ g if refine else g

    def fit(
        self,
        weights: Weights,
        *,
        steps: int = 500,
        batch: int = 32,
        lr: float = 3e-3,
        noise: float = 0.5,
        planted: float = 0.1,
        real: float = 1.0,
        generator: torch.Generator,
    ) -> list[float]:
        r"""Train on networks without labels.

        Each step draws ``batch`` networks ``w`` and as many partners ``v``. The *planted* loss is the cross-entropy,
        over rows and over columns, of the known answer for ``(w, g (w + noise))`` with random ``g``; the *real* loss is
        the expected squared distance that Sinkhorn's plans of the logits leave for ``(w, g v)``, relative to the norms.

        Args:
            weights: the networks of the training split.
            steps: number of steps of Adam, with a cosine schedule.
            batch: number of pairs in each step.
            lr: peak learning rate.
            noise: largest standard deviation of the noise, relative to each tensor's; each network draws its own level.
            planted: weight of the planted loss.
            real: weight of the real loss.
            generator: source of randomness.

        Returns:
            The loss of every step.

        Raises:
            TypeError: for something other than ``Weights``, plain numbers and a generator.
            ValueError: for networks of another spec, fewer than two of them, numbers that are not finite or out
                of range.
        """
        self._check_training(weights, steps, batch, lr, noise, planted, real)
        check_generator(generator)
        weights = weights.replace(weights.flat.detach()).to(self.scale)
        self._take_scale(weights)
        optimizer = torch.optim.Adam(self.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        losses = []
        for _ in range(steps):
            draw = rand((2, batch), generator=generator, dtype=torch.float64, device=weights.device)
            one, two = (weights[rows] for rows in (draw * len(weights)).long())
            g = self._element(batch, generator).to(weights.device)
            loss = self._loss(one, self._noisy(one, noise, generator), two, g, planted, real)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        return losses

    def _loss(self, one: Weights, noisy: Weights, two: Weights, g: Symmetry, planted: float, real: float) -> Tensor:
        """Add up both losses; the three sides are read together."""
        near, far = g.act(noisy), g.act(two)
        features = self.encoder(one.replace(torch.cat([one.flat, near.flat, far.flat])), self.scale)
        sides = {name: value.chunk(3) for name, value in features.items()}
        loss = self.scale.new_zeros(())
        if planted:
            loss = loss + planted * self._planted(self._logits({n: v[:2] for n, v in sides.items()}), g.inverse())
        if real:
            logits = self._logits({n: v[::2] for n, v in sides.items()})
            plans = {name: doubly_stochastic(value, 1.0, 10) for name, value in logits.items()}
            relaxed = Relaxation(one, far, self.group)
            loss = loss + real * (relaxed.distance(plans) / relaxed.size.clamp_min(1e-12)).mean()
        return loss

    def _planted(self, found: Mapping[str, Tensor], back: Symmetry) -> Tensor:
        """Compute the cross-entropy of the element that moves ``b`` back, over the neurons of either side."""
        parts = []
        for name, logits in found.items():
            size, elements = logits.shape[1], logits.shape[3]
            perm = back.perm.get(name)
            perm = torch.arange(size, device=logits.device).expand(len(logits), -1) if perm is None else perm
            element = _element_number(back, name, perm, signs=-1.0 in self.elements[name].sign)
            there = perm.argsort(1)
            for view, place, kind in (
                (logits, perm, element),
                (logits.transpose(1, 2), there, element.gather(1, there)),
            ):
                parts.append(nn.functional.cross_entropy(view.flatten(2).mT, place * elements + kind))
        return torch.stack(parts).mean()

    def _element(self, batch: int, generator: torch.Generator) -> Symmetry:
        return Symmetry.sample(self.spec, batch=batch, generator=generator, group=self.group)

    def _noisy(self, weights: Weights, noise: float, generator: torch.Generator) -> Weights:
        draws = {"generator": generator, "dtype": weights.dtype, "device": weights.device}
        level = noise * rand((len(weights), 1), **draws)
        return weights.replace(weights.flat + level * self.scale * randn(weights.flat.shape, **draws))

    @torch.no_grad()
    def _take_scale(self, weights: Weights) -> None:
        """Take the root mean square of every parameter over the training split, by which the encoder divides."""
        for param in self.spec.params:
            size = weights.view(param.name).double().square().mean().sqrt()
            self.scale[self.spec.slices[param.name]] = torch.where(size > 1e-8, size, 1.0).to(self.scale)

    def _pairs(self, a: Weights, b: Weights) -> tuple[Weights, Weights]:
        target, moved = prepared(a, b, self.group, _LEARNED)
        self._check_spec(b)
        return target, moved

    def _check_spec(self, weights: Weights) -> None:
        if weights.spec != self.spec:
            raise ValueError(f"the aligner is built for {self.spec}, got networks of {weights.spec}")

    def _check_training(self, weights: Weights, steps: int, batch: int, lr: float, *shares: float) -> None:
        check_weights("weights", weights)
        self._check_spec(weights)
        whole_number("steps", steps)
        whole_number("batch", batch)
        number("lr", lr, "a positive learning rate", above=0)
        for name, value in zip(("noise", "planted", "real"), shares, strict=True):
            number(name, value, "a number >= 0", low=0)
        if not any(shares[1:]):
            raise ValueError("expected a weight above 0 for the planted or the real loss, got 0 for both")
        if weights.flat.ndim != 2 or len(weights) < 2:
            raise ValueError(f"expected weights [batch, param] of at least 2 networks, got {list(weights.flat.shape)}")
        check_finite("weights", weights)


def _element_number(g: Symmetry, name: str, perm: Tensor, *, signs: bool) -> Tensor:
    """Return the number of the element that ``g`` has on each neuron of an axis."""
    parts: Mapping[str, Tensor] = g.scale
    flipped = (parts[name] < 0).long() if name in parts else torch.zeros_like(perm)
    odd = g.shift[name].remainder(2).long() if name in g.shift else torch.zeros_like(perm)
    return odd * (2 if signs else 1) + flipped
