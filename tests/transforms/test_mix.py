"""MixUp: the share of the labels is the share of the weights, and partners come from where they may."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from _helpers import generator, normal_networks, points
from scipy import stats

import weightspace as ws
from weightspace.align import distance
from weightspace.transforms import Compose, GaussianNoise, MixUp, Permute, RandomApply, Rotate, SelfMixUp, SignFlip

SPEC = ws.siren(2, 7, 5, 1, omega=2.0)


def networks(batch: int = 12, seed: int = 1, dtype: torch.dtype = torch.float64) -> ws.Weights:
    return normal_networks(SPEC, batch, seed, dtype)


def recovered_share(mixed: torch.Tensor, own: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """Least squares: the lambda with ``mixed = lambda * own + (1 - lambda) * partner``, from the weights alone."""
    line = own - partner
    return ((mixed - partner) * line).sum(1) / line.square().sum(1)


@pytest.mark.parametrize("align", [None, "random", "permutation", "signed", "scaled", "full"])
def test_labels_mix_with_the_very_share_of_the_weights(align: str | None) -> None:
    w, soft = networks(), torch.eye(12, dtype=torch.float64)
    mix = MixUp(align)
    draw = mix.sample(w, generator=generator())
    mixed, labels = mix(w, soft, generator=generator())
    share = recovered_share(mixed.flat, w.flat, draw.partner)
    torch.testing.assert_close(labels.diagonal(), share)
    torch.testing.assert_close(labels.gather(1, draw.index[:, None])[:, 0], 1 - share)
    torch.testing.assert_close(mixed.flat, share[:, None] * w.flat + (1 - share[:, None]) * draw.partner)


def test_direct_partner_is_the_network_that_the_label_names() -> None:
    w, soft = networks(), torch.eye(12, dtype=torch.float64)
    mixed, labels = MixUp()(w, soft, generator=generator())
    expected = labels @ w.flat
    torch.testing.assert_close(mixed.flat, expected)


def test_every_layer_has_its_own_share_and_labels_their_weighted_mean() -> None:
    w, soft = networks(), torch.eye(12, dtype=torch.float64)
    mix = MixUp(per_layer=True)
    draw = mix.sample(w, generator=generator())
    mixed, labels = mix(w, soft, generator=generator())
    total = torch.zeros(12, dtype=torch.float64)
    shares = []
    for layer in range(3):
        parts = [SPEC.slices[f"{layer}.{kind}"] for kind in ("weight", "bias")]
        rows = [torch.cat([flat[:, part] for part in parts], 1) for flat in (mixed.flat, w.flat, draw.partner)]
        shares.append(recovered_share(*rows))
        torch.testing.assert_close(rows[0], shares[-1][:, None] * rows[1] + (1 - shares[-1][:, None]) * rows[2])
        total += shares[-1] * rows[0].shape[1]
    assert not torch.allclose(shares[0], shares[1])
    torch.testing.assert_close(labels.diagonal(), total / SPEC.num_params)


def test_weights_only_keeps_the_label_of_the_larger_share() -> None:
    w, labels = networks(40), torch.arange(40)
    draw = MixUp(labels="hard").sample(w, generator=generator())
    _, soft = MixUp(labels="hard")(w, labels, num_classes=40, generator=generator())
    assert set(soft.unique().tolist()) == {0.0, 1.0}
    assert soft.argmax(1).equal(torch.where(draw.lam >= 0.5, labels, draw.index))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    spec = ws.mlp(1, 1)
    w = ws.Weights(torch.zeros(4000, spec.num_params, dtype=torch.float64), spec)
    lam = MixUp(alpha=alpha).sample(w, generator=generator()).lam
    assert stats.kstest(lam.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert stats.kstest(lam.numpy(), stats.beta(alpha * 2, alpha).cdf).pvalue < 1e-6


def test_partners_are_other_networks_of_the_batch() -> None:
    w = networks(9)
    seen = torch.zeros(9, 9, dtype=torch.int64)
    for seed in range(200):
        index = MixUp().sample(w, generator=generator(seed)).index
        assert index.sort().values.equal(torch.arange(9))
        seen[torch.arange(9), index] += 1
    assert int(seen.diagonal().sum()) == 0
    off = seen[~torch.eye(9, dtype=torch.bool)]
    assert 8 <= int(off.min()) <= int(off.max()) <= 50  # 25 expected for each


def test_one_network_alone_mixes_with_itself() -> None:
    w = networks(1)
    torch.testing.assert_close(MixUp()(w, generator=generator()).flat, w.flat)


@pytest.mark.parametrize("align", [None, "random", "permutation"])
def test_known_bug_partners_come_only_from_the_batch_or_the_pool(align: str | None) -> None:
    batch, pool = networks(20, seed=1), networks(5, seed=2)
    mix = MixUp(align)
    x = points(2, 6)
    for given, source in ((None, batch), (pool, pool)):
        draw = mix.sample(batch, generator=generator(), pool=given)
        alone = replace(draw, lam=torch.zeros_like(draw.lam))  # mixtures of nothing but the partner
        values = ws.evaluate(mix.apply(batch, alone), x).flatten(1)
        allowed = ws.evaluate(source, x).flatten(1)
        nearest = (values[:, None] - allowed[None]).abs().amax(2).amin(1)
        assert float(nearest.max()) < 1e-9


def test_pool_labels_belong_to_pool_partners() -> None:
    batch, pool = networks(30, seed=1), networks(4, seed=2)
    labels, pool_labels = torch.zeros(30, dtype=torch.int64), torch.tensor([1, 2, 3, 4])
    mix = MixUp()
    draw = mix.sample(batch, generator=generator(), pool=pool)
    _, soft = mix(batch, labels, num_classes=5, generator=generator(), pool=(pool, pool_labels))
    torch.testing.assert_close(soft[:, 0], draw.share)
    assert soft[:, 1:].argmax(1).equal(draw.index)
    assert draw.index.unique().tolist() == [0, 1, 2, 3]
    chain = Compose([GaussianNoise(0.1), RandomApply(mix, 1.0)])
    (part,) = chain.sample(batch, generator=generator(), pool=pool).parts[1].parts
    _, soft = chain(batch, labels, num_classes=5, generator=generator(), pool=(pool, pool_labels))
    torch.testing.assert_close(soft[:, 0], part.share)


def test_known_bug_self_mixup_keeps_its_own_label() -> None:
    w, labels = networks(30), torch.arange(30) % 7
    for inner in (Permute(), GaussianNoise(), Compose([Rotate(), Permute()])):
        mixed, soft = SelfMixUp(inner)(w, labels, num_classes=7, generator=generator())
        assert soft.argmax(1).equal(labels)
        assert float(soft.amax(1).min()) == 1.0
        assert not mixed.flat.equal(w.flat)


def test_self_mixup_mixes_with_its_own_copy() -> None:
    w = networks()
    mix = SelfMixUp(GaussianNoise(0.3))
    draw = mix.sample(w, generator=generator())
    copy = GaussianNoise(0.3).apply(w, draw.inner)
    torch.testing.assert_close(recovered_share(mix.apply(w, draw).flat, w.flat, copy.flat), draw.lam)


def test_aligned_partners_are_closer_and_stay_the_same_functions() -> None:
    w = networks(16)
    x = points(2, 6)
    apart = {}
    for align in (None, "random", "permutation", "signed", "full"):
        draw = MixUp(align).sample(w, generator=generator())
        partner = w.replace(draw.partner)
        apart[align] = float(distance(w, partner).mean())
        torch.testing.assert_close(ws.evaluate(partner, x), ws.evaluate(w[draw.index], x))
    assert apart["full"] < apart["signed"] < apart["permutation"] < 0.9 * min(apart[None], apart["random"])


def test_networks_are_paired_two_by_two() -> None:
    even, odd = (MixUp().sample(networks(n), generator=generator()).index for n in (20, 21))
    assert even[even].equal(torch.arange(20))
    assert int((odd[odd] != torch.arange(21)).sum()) == 3


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17])
@pytest.mark.parametrize(("spec", "align"), [(SPEC, "permutation"), (SPEC, "full"), (ws.mlp(2, 8, 8, 1), "full")])
def test_partners_of_a_pair_lie_where_matching_each_would_put_them(spec: ws.NetSpec, align: str, size: int) -> None:
    w = ws.testing.random_weights(spec, size, generator=generator(3), dtype=torch.float64)
    draw = MixUp(align).sample(w, generator=generator())
    each = ws.align.match(w, w[draw.index], group=align).act(w[draw.index])
    here, there = distance(w, w.replace(draw.partner)), distance(w, each)
    assert here.mean() <= 1.02 * there.mean()  # another local optimum, neither better on average
    if spec is not SPEC:
        assert here.equal(there)
    elif size % 2 == 0:
        torch.testing.assert_close(here, here[draw.index])  # the way back is as long


def test_mixtures_at_an_anchor_may_be_scattered_over_their_function_s_weights() -> None:
    w = networks(16)
    aligned, _ = ws.align.align_to(w, ws.align.anchor(w, rounds=2))
    x = points(2, 6)
    mixed = MixUp()(aligned, generator=generator(4))
    scattered = Compose([MixUp(), Permute(), SignFlip()])(aligned, generator=generator(4))
    torch.testing.assert_close(ws.evaluate(scattered, x), ws.evaluate(mixed, x))
    assert float(distance(mixed, scattered).min()) > 0.1


@pytest.mark.parametrize("align", ["permutation", "signed", "full"])
def test_over_an_anchor_partners_lie_as_they_do_at_the_anchor(align: str) -> None:
    w = networks(16)
    anchor = ws.align.anchor(w, group=align, rounds=2)
    g = ws.align.match(anchor, w, group=align)
    for pool in (None, networks(5, seed=2)):
        draw = MixUp(align, anchor=anchor).sample(w, generator=generator(), pool=pool)
        partners = w if pool is None else pool
        h = ws.align.match(anchor, partners, group=align)
        there = h.act(partners)[draw.index]  # the same pair, both at the anchor
        torch.testing.assert_close(g.act(w.replace(draw.partner)).flat, there.flat)
        x = points(2, 6)
        values = ws.evaluate(w.replace(draw.partner), x)
        torch.testing.assert_close(values, ws.evaluate(partners[draw.index], x))


def test_the_text_tells_one_anchor_from_another() -> None:
    w = networks(2)
    assert repr(MixUp("full", anchor=w[0])) == repr(MixUp("full", anchor=w[0].clone()))
    assert repr(MixUp("full", anchor=w[0])) != repr(MixUp("full", anchor=w[1]))
    text = "MixUp(align='full', alpha=1.0, labels='mixed', per_layer=False)"
    assert repr(MixUp("full")) == text


def test_anchors_that_do_not_fit_are_refused() -> None:
    w = networks(4)
    for align in (None, "random"):
        with pytest.raises(
            ValueError,
            match="expected align 'permutation', 'signed', 'scaled' or 'full', or an aligner, with an anchor",
        ):
            MixUp(align, anchor=w[0])
    with pytest.raises(ValueError, match=r"anchor: expected one network \[1, param\], got \[4, 67\]"):
        MixUp("full", anchor=w)
    with pytest.raises(TypeError, match="anchor: expected Weights, got Tensor"):
        MixUp("full", anchor=w.flat)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="networks of one spec"):
        MixUp("full", anchor=ws.Weights(torch.zeros(1, 13), ws.mlp(2, 3, 1)))(w, generator=generator())


def test_pools_that_do_not_fit_are_refused() -> None:
    batch = networks(4)
    other = ws.Weights(torch.zeros(3, 13), ws.mlp(2, 3, 1))
    labels = torch.zeros(4, dtype=torch.int64)
    for pool, text in (
        (other, "networks of one spec"),
        (batch[:0], "at least one network"),
        (networks(4, dtype=torch.float32), r"expected torch.float64 .* got torch.float32"),
    ):
        with pytest.raises(ValueError, match=text):
            MixUp()(batch, generator=generator(), pool=pool)
    with pytest.raises(ValueError, match=r"expected \(weights, labels\)"):
        MixUp()(batch, labels, num_classes=2, generator=generator(), pool=batch)
    with pytest.raises(ValueError, match=r"pool labels: expected int64 \[4\]"):
        MixUp()(batch, labels, num_classes=2, generator=generator(), pool=(batch, labels[:2]))
    draw = MixUp().sample(batch, generator=generator(), pool=networks(9))
    with pytest.raises(ValueError, match="labels of the pool"):
        MixUp().apply_labels(torch.eye(4), draw)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_known_bug_mixing_runs_where_the_tensors_are() -> None:
    w = networks(dtype=torch.float32).to("cuda")
    labels = torch.arange(12, device="cuda") % 3
    for seeds in (generator(), torch.Generator("cuda").manual_seed(0)):
        mixed, soft = MixUp("permutation", alpha=0.5)(w, labels, num_classes=3, generator=seeds)
        assert mixed.device == soft.device == w.device


# ------------------------------------------------------------------------------------------------- aligners


def match_signed(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
    """An aligner as a user would write it."""
    return ws.align.match(a, b, group="signed")


class Holder:
    """An object with an aligner among its methods."""

    def align(self, a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
        return match_signed(a, b)


class Recording:
    """An aligner that is an object, and remembers how many pairs it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
        assert len(a) == len(b)
        self.asked.append(len(b))
        return ws.align.match(a, b, group="full")


def test_an_aligner_mixes_as_the_group_that_it_matches_in() -> None:
    w, pool, labels = networks(), networks(5, seed=2), torch.arange(12) % 3
    anchor = ws.align.anchor(w, group="signed", rounds=2)
    for aligner in (match_signed, partial(ws.align.match, group="signed"), Holder().align):
        for options in ({}, {"per_layer": True}, {"anchor": anchor}):
            named, own = MixUp("signed", **options), MixUp(aligner, **options)
            for given in (None, (pool, torch.arange(5) % 3)):
                settings = {"num_classes": 3, "pool": given}
                mixed, soft = own(w, labels, generator=generator(), **settings)
                expected, expected_soft = named(w, labels, generator=generator(), **settings)
                assert mixed.flat.equal(expected.flat)
                assert soft.equal(expected_soft)


def test_an_aligner_is_asked_once_for_a_pair_unless_scales_are_positive() -> None:
    for spec, asked in ((SPEC, 4), (ws.mlp(2, 6, 5, 1), 8)):
        aligner = Recording()
        MixUp(aligner)(ws.testing.random_weights(spec, 8, generator=generator()), generator=generator())
        assert aligner.asked == [asked]
    aligner = Recording()
    assert len(MixUp(aligner)(networks(0), generator=generator())) == 0
    assert aligner.asked == []


def test_a_learned_aligner_mixes() -> None:
    w = ws.testing.random_weights(SPEC, 6, generator=generator(), dtype=torch.float32)
    learned = ws.align.LearnedAligner(SPEC, group="full", channels=4, trunk=0, generator=generator())
    draw = MixUp(learned.match).sample(w, generator=generator())
    x = points(2, 6, dtype=torch.float32)
    torch.testing.assert_close(
        ws.evaluate(w.replace(draw.partner), x), ws.evaluate(w[draw.index], x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("returned", "error", "text"),
    [
        (lambda a, b: b, TypeError, "expected a Symmetry from the aligner"),
        (lambda a, b: None, TypeError, "got NoneType; return g such that g.act"),
        (lambda a, b: ws.Symmetry.identity(ws.mlp(2, 3, 1), batch=len(b)), ValueError, r"got 2 for mlp\(2-3-1"),
        (lambda a, b: ws.Symmetry.identity(b.spec, batch=1), ValueError, "expected 2 elements for siren"),
    ],
)
def test_an_aligner_that_returns_something_else_is_refused(returned, error: type[Exception], text: str) -> None:
    for anchor in (None, networks(1)):
        with pytest.raises(error, match=text.replace("2 ", r"\d ") if anchor is not None else text) as caught:
            MixUp(returned, anchor=anchor)(networks(4), generator=generator())
        assert "\n" not in str(caught.value)
        assert "lambda" in str(caught.value)


def test_the_text_names_the_aligner() -> None:
    assert repr(MixUp(match_signed)).startswith(f"MixUp(align={__name__}.match_signed, alpha=1.0")
    assert f"align={__name__}.Recording," in repr(MixUp(Recording()))
    assert "align=partial(weightspace.align._matching.match, group='full')," in repr(
        MixUp(partial(ws.align.match, group="full"))
    )
    assert MixUp(match_signed) == MixUp(match_signed) != MixUp(ws.align.match)
    assert hash(MixUp(match_signed)) == hash(MixUp(match_signed))
    assert MixUp(partial(ws.align.match, group="full")) == MixUp(partial(ws.align.match, group="full"))
    assert MixUp(partial(ws.align.match, group="full")) != MixUp(partial(ws.align.match, group="signed"))
    first = MixUp(lambda a, b: ws.align.match(a, b))
    second = MixUp(lambda a, b: ws.align.match(b, a))
    assert first != second
    one, other = (ws.align.LearnedAligner(SPEC, channels=4, trunk=0, generator=generator(seed)) for seed in (0, 1))
    assert repr(MixUp(one.match)) == repr(MixUp(one.match))
    assert repr(MixUp(one.match)) != repr(MixUp(other.match))
    assert "0x" not in repr(MixUp(one.match)) + repr(MixUp(Recording())) + repr(first)
