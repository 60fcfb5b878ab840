"""The contract of an aligner: every one of the library, and what a new one is tested with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

import weightspace as ws
from weightspace.align import Aligner, LearnedAligner, distance, match, match_activations, sinkhorn

SPEC = ws.siren(2, 8, 7, 1, omega=3.0)
POINTS = 2 * torch.rand(60, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 1


def networks(batch: int, seed: int) -> ws.Weights:
    generator = torch.Generator().manual_seed(seed)
    return ws.testing.random_weights(SPEC, batch, generator=generator, dtype=torch.float64)


def learned(group: str) -> Aligner:
    return LearnedAligner(SPEC, group=group, channels=4, trunk=0).double().match  # type: ignore[arg-type]


ALIGNERS: dict[str, Callable[[str], Aligner]] = {
    "match": lambda group: partial(match, group=group),
    "match, costs": lambda group: partial(match, group=group, costs="period"),
    "activations": lambda group: partial(match_activations, inputs=POINTS, group=group),
    "sinkhorn": lambda group: partial(sinkhorn, group=group, steps=20),
    "learned": learned,
}
NEVER_FARTHER = ("match", "sinkhorn")


def check(aligner: Aligner, group: str, *, never_farther: bool = False) -> None:
    """Raise ``AssertionError`` unless a callable holds the contract of :data:`weightspace.align.Aligner`."""
    a, b = networks(6, 1), networks(6, 2)
    copies = a.flat.clone(), b.flat.clone()
    for targets in (a, a[:1]):
        g = aligner(targets, b)
        assert isinstance(g, ws.Symmetry)
        assert (g.spec, len(g)) == (SPEC, 6)
        moved = g.act(b)
        ws.testing.assert_same_function(b, moved)
        assert moved.dtype == b.dtype
        if never_farther:
            assert bool((distance(targets, moved) <= distance(targets, b) + 1e-9).all())
        for row in (0, 5):  # a pair is aligned alike alone and in a batch
            alone = aligner(targets if len(targets) == 1 else targets[row], b[row])
            torch.testing.assert_close(alone.act(b[row]).flat[0], moved.flat[row])
    if group != "none":  # a planted element is found, the element of each network its own
        planted = ws.Symmetry.sample(
            SPEC, batch=6, generator=torch.Generator().manual_seed(3), group=group, dtype=torch.float64
        ).act(a)
        assert bool((distance(a, planted) > 1).all())
        left = distance(a, aligner(a, planted).act(planted)) / distance(a, planted)
        assert int((left < 1e-6).sum()) >= 3  # of some pairs weight matching finds a local optimum
    assert len(aligner(a[:0], b[:0])) == 0
    assert a.flat.equal(copies[0])
    assert b.flat.equal(copies[1])


@pytest.mark.parametrize("group", ws._symmetry.GROUPS)
@pytest.mark.parametrize("name", ALIGNERS)
def test_every_aligner_holds_the_contract(name: str, group: str) -> None:
    if (name, group) == ("learned", "none"):
        with pytest.raises(ValueError, match="group: expected one of"):
            ALIGNERS[name](group)
        return
    check(ALIGNERS[name](group), group, never_farther=name in NEVER_FARTHER)


def shuffled(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
    """An element, but not one that brings networks closer."""
    return ws.Symmetry.sample(
        SPEC, batch=len(b), generator=torch.Generator().manual_seed(len(b)), group="permutation", dtype=b.dtype
    )


def inverse(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
    """An aligner that moves the other way."""
    return match(a, b, group="permutation").inverse()


def first(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
    """An aligner that moves every network as it moves the first."""
    g = match(a, b, group="permutation")
    return ws.Symmetry(SPEC, len(b), {name: perm[:1].expand(len(b), -1) for name, perm in g.perm.items()})


@pytest.mark.parametrize("wrong", [shuffled, inverse, first, lambda a, b: b])
def test_what_is_no_aligner_fails(wrong: Aligner) -> None:
    """Negative controls: elements at random, the other way, of another network, and something else altogether."""
    with pytest.raises(AssertionError):
        check(wrong, "permutation")


def test_identities_are_close_only_where_promised() -> None:
    """The identity is a legal element that aligns nothing: the planted element is what tells it from an aligner."""

    def nothing(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
        return ws.Symmetry.identity(b.spec, batch=len(b))

    check(nothing, "none", never_farther=True)
    with pytest.raises(AssertionError):
        check(nothing, "permutation")
