"""Normalisation: what shares statistics, streams of batches, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from _helpers import networks as drawn

import weightspace as ws
from weightspace import testing
from weightspace.align._phases import fold_phases
from weightspace.models import Normalize

TIGHT: Any = {"atol": 1e-8, "rtol": 1e-8, "dtype": torch.float64}
SPEC = ws.siren(2, 5, 4, 1)


def networks(batch: int = 6, seed: int = 1) -> ws.Weights:
    return drawn(SPEC, batch, seed, torch.float32)


def random_spec(seed: int) -> ws.NetSpec:
    return testing.random_spec(generator=torch.Generator().manual_seed(seed))


def fitted(layer: Normalize, spec: ws.NetSpec) -> Normalize:
    """With statistics that are not those of a fresh layer."""
    return layer.fit(drawn(spec, 20, 9, torch.float32))


def shifted(spec: ws.NetSpec = SPEC, batch: int = 400) -> ws.Weights:
    """Every parameter of another mean and spread, every input column of the first layer too."""
    gen = torch.Generator().manual_seed(2)
    w = ws.Weights(torch.randn(batch, spec.num_params, generator=gen), spec)
    for i, (_, value) in enumerate(w.items()):
        value.mul_(0.01 + i).add_(3 * i)
    w.view("0.weight")[..., 1].mul_(5).sub_(7)
    return w


def test_statistics_are_shared_by_what_permutations_exchange() -> None:
    w = shifted()
    layer = Normalize(SPEC).fit(w)
    out = layer(w)
    for param in SPEC.params:
        fixed = [i for i, name in enumerate(param.axes, start=1) if not SPEC.axis(name).hidden]
        rest = [i for i in range(len(param.axes) + 1) if i not in fixed]
        assert out.view(param.name).mean(rest).abs().max() < 1e-4, param.name
        assert (out.view(param.name).std(rest) - 1).abs().max() < 1e-4, param.name
        own = ws.Weights(layer.mean[None], SPEC).view(param.name)
        for i in rest[1:]:
            assert torch.equal(own, own.narrow(i, 0, 1).expand_as(own)), param.name
    column = ws.Weights(layer.mean[None], SPEC).view("0.weight")[0, 0]
    assert (column[1] - column[0]).abs() > 5  # each input coordinate keeps statistics of its own


def test_every_entry_may_have_its_own_statistics() -> None:
    w = shifted()
    layer = Normalize(SPEC, per="entry").fit(w)
    torch.testing.assert_close(layer.mean, w.flat.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.std, w.flat.std(0), atol=1e-4, rtol=1e-4)
    assert layer(w).flat.mean(0).abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_shared_statistics_commute_with_permutations_and_own_ones_do_not(seed: int) -> None:
    spec = random_spec(40 + seed)
    testing.assert_equivariant(fitted(Normalize(spec), spec), spec, **TIGHT)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(fitted(Normalize(spec, per="entry"), spec), spec, **TIGHT)


@pytest.mark.parametrize("per", ["tensor", "entry"])
def test_constant_entries_stay_finite(per) -> None:
    w = networks()
    w.view("1.bias").fill_(2.0)
    out = Normalize(SPEC, per=per).fit(w)(w)
    assert torch.isfinite(out.flat).all()
    assert (out.view("1.bias") == 0).all()


def test_an_unfitted_normalisation_changes_nothing_and_fitting_is_recorded() -> None:
    w, layer = networks(), Normalize(SPEC)
    assert torch.equal(layer(w).flat, w.flat)
    assert not bool(layer.fitted)
    before = w.flat.clone()
    assert bool(layer.fit(w).fitted)
    assert torch.equal(w.flat, before)


def test_normalisation_refuses_what_has_no_statistics() -> None:
    w, layer = networks(), Normalize(SPEC)
    other = ws.Weights(w.flat, ws.siren(2, 5, 4, 1, omega=3.0))
    for door in (layer, layer.fit):
        with pytest.raises(ValueError, match="built for"):
            door(other)
    with pytest.raises(ValueError, match=r"at least 2 networks.*got \[1, 44\]"):
        layer.fit(w[0])
    with pytest.raises(ValueError, match=r"expected weights \[batch, param\]"):
        layer.fit(w.replace(w.flat[..., None]))
    bad = w.clone()
    bad.flat[2, 3] = math.nan
    with pytest.raises(ValueError, match=r"expected finite weights, got NaN or infinity in networks \[2\]"):
        layer.fit(bad)
    assert not bool(layer.fitted)
    with pytest.raises(ValueError, match="per: expected 'tensor', 'entry' or 'nothing', got 'axis'"):
        Normalize(SPEC, per="axis")  # pyright: ignore


def slow_statistics(w: ws.Weights, per: str, center: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and divisor of every entry, straight from the definition and all networks at once."""
    mean, std = torch.zeros(SPEC.num_params), torch.ones(SPEC.num_params)
    for param in SPEC.params:
        value, where = w.view(param.name).double(), SPEC.slices[param.name]
        hidden = [i for i, name in enumerate(param.axes, start=1) if SPEC.axis(name).hidden]
        axes = [0, *(hidden if per == "tensor" else [])]
        own, spread = value.mean(axes, keepdim=True), value.std(axes, keepdim=True)
        if not center:
            own, spread = torch.zeros_like(own), value.square().mean(axes, keepdim=True).sqrt()
        mean[where], std[where] = (part.expand_as(value[:1]).flatten().float() for part in (own, spread))
    return mean, std


@pytest.mark.parametrize("per", ["tensor", "entry"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("sizes", [[400], [1, 399], [200, 0, 150, 50], [1] * 400])
def test_statistics_of_a_stream_are_those_of_all_networks(per: Any, center: bool, sizes: list[int]) -> None:
    w = shifted()
    layer = Normalize(SPEC, per=per, center=center).fit(w.replace(part) for part in w.flat.split(sizes))
    mean, std = slow_statistics(w, per, center)
    torch.testing.assert_close(layer.mean, mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.std, std, atol=1e-6, rtol=1e-6)
    assert bool(layer.fitted)


def test_the_same_batches_have_the_same_statistics_whatever_holds_them() -> None:
    w = shifted()
    parts = [w[:100], w[100:130], w[130:]]
    listed, drawn_once = Normalize(SPEC).fit(parts), Normalize(SPEC).fit(part for part in parts)
    for name in ("mean", "std"):
        assert torch.equal(getattr(listed, name), getattr(drawn_once, name))
    assert torch.equal(Normalize(SPEC).fit([w]).std, Normalize(SPEC).fit(w).std)


def test_statistics_keep_their_digits_far_from_zero() -> None:
    """The difference of two large sums would lose them: spread 1 around 1e6, in batches."""
    gen = torch.Generator().manual_seed(0)
    w = ws.Weights(1e6 + torch.randn(3000, SPEC.num_params, generator=gen).double(), SPEC)
    layer = Normalize(SPEC, per="entry").double().fit(w.replace(part) for part in w.flat.split(7))
    torch.testing.assert_close(layer.std, w.flat.std(0), atol=1e-8, rtol=1e-8)


def test_blocks_of_a_large_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    w, whole = shifted(), Normalize(SPEC).fit(shifted())
    monkeypatch.setattr("weightspace.models._normalize.BLOCK", 5 * SPEC.num_params)
    blocks = Normalize(SPEC).fit(w)
    torch.testing.assert_close(blocks.mean, whole.mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(blocks.std, whole.std, atol=1e-6, rtol=1e-6)


def test_folded_statistics_are_of_folded_networks() -> None:
    gen = torch.Generator().manual_seed(0)
    w = ws.Symmetry.sample(SPEC, batch=50, generator=gen, max_shift=3).act(networks(50))
    layer = Normalize(SPEC, fold=True).fit([w[:20], w[20:]])
    mean, std = slow_statistics(fold_phases(w), "tensor", True)
    torch.testing.assert_close(layer.mean, mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.std, std, atol=1e-6, rtol=1e-6)
    assert (Normalize(SPEC).fit(w).std - layer.std).abs().max() > 0.05


def test_bad_streams_are_refused_and_leave_the_layer_as_it_was() -> None:
    w, layer = networks(), Normalize(SPEC)
    bad = w.clone()
    bad.flat[2, 3] = math.inf
    with pytest.raises(ValueError, match=r"expected finite weights, got NaN or infinity in networks \[2\]"):
        layer.fit([w, bad])
    with pytest.raises(ValueError, match=r"at least 2 networks.*got \[0, 44\]"):
        layer.fit([])
    with pytest.raises(ValueError, match=r"at least 2 networks.*got \[1, 44\]"):
        layer.fit([w[:1], w[:0]])
    with pytest.raises(TypeError, match="expected Weights, got Tensor"):
        layer.fit(w.flat)  # pyright: ignore
    with pytest.raises(ValueError, match="built for"):
        layer.fit([w, drawn(ws.siren(2, 5, 4, 1, omega=3.0))])
    assert not bool(layer.fitted)
    assert torch.equal(layer.std, torch.ones(44))
