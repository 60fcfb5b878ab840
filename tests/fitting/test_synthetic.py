"""New networks of a signal without a fit: they are far from the first, and nearly the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace.fitting import synthetic_views

SPEC = ws.siren(2, 16, 16, 1)
COORDS = ws.signals.grid(12, 12)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def fitted() -> ws.Networks:
    x = COORDS[:, :1]
    targets = torch.stack([0.5 + 0.3 * torch.sin(3 * x + phase) for phase in torch.arange(6)])
    return ws.fit(COORDS, targets, SPEC, steps=300, lr=1e-3)


def apart(a: ws.Weights, b: ws.Weights) -> float:
    return (ws.evaluate(a, COORDS) - ws.evaluate(b, COORDS)).square().mean().item()


def moved(a: ws.Weights, b: ws.Weights) -> float:
    return ((a.flat - b.flat).norm(dim=1) / a.flat.norm(dim=1)).mean().item()


@pytest.mark.parametrize("directions", ["any", "flat"])
def test_far_from_the_first_and_nearly_the_same_function(fitted: ws.Networks, directions: Any) -> None:
    w = fitted.weights
    options = {"strength": 0.5, "directions": directions}
    left = synthetic_views(w, COORDS, steps=0, generator=gen(), **options)
    back = synthetic_views(w, COORDS, generator=gen(), **options)
    assert moved(w, left) == pytest.approx(0.5, abs=0.1)
    assert moved(w, back) > 0.4
    assert apart(w, back) < apart(w, left) / 20
    aligned = ws.align.match(w, back, group="full").act(back)
    assert moved(w, aligned) > 0.2  # no symmetry undoes it
    assert len({*back.flat.sum(1).tolist()}) == 6
    assert synthetic_views(w, COORDS, generator=gen(), **options).flat.equal(back.flat)
    assert not synthetic_views(w, COORDS, generator=gen(1), **options).flat.equal(back.flat)


def test_flat_directions_change_the_function_less(fitted: ws.Networks) -> None:
    """The Jacobian of small moves says so: most of what changes the outputs is gone."""
    small = {"strength": 1e-3, "steps": 0}
    away = synthetic_views(fitted.weights, COORDS, generator=gen(), **small)
    flat = synthetic_views(fitted.weights, COORDS, directions="flat", iterations=60, generator=gen(), **small)
    assert moved(fitted.weights, flat) == pytest.approx(moved(fitted.weights, away), rel=1e-3)
    assert apart(fitted.weights, flat) < apart(fitted.weights, away) / 30


def test_it_is_the_damped_projection(fitted: ws.Networks) -> None:
    """Conjugate gradients, run to the end, against a solution by factorisation."""
    w = ws.fit(COORDS, torch.rand(1, 144, 1, generator=gen()), ws.siren(2, 4, 1), steps=50, lr=1e-3).weights
    noise = synthetic_views(w, COORDS, strength=1.0, steps=0, generator=gen()).flat - w.flat
    flat = synthetic_views(
        w, COORDS, strength=1.0, directions="flat", iterations=200, damping=0.1, steps=0, generator=gen()
    )
    jacobian = torch.func.jacrev(lambda own: ws.evaluate(w.replace(own[None]), COORDS).flatten())(w.flat[0])
    curvature = jacobian.T @ jacobian / len(jacobian)
    v = noise[0]
    shift = 0.1 * (v @ curvature @ v) / (v @ v)
    u = torch.linalg.solve(curvature + shift * torch.eye(len(v)), shift * v)
    torch.testing.assert_close(flat.flat[0] - w.flat[0], u * v.norm() / u.norm(), atol=2e-3, rtol=2e-3)


def test_no_move_and_targets_of_ones_own(fitted: ws.Networks) -> None:
    w = fitted.weights
    assert synthetic_views(w, COORDS, strength=0, steps=0, generator=gen()).flat.equal(w.flat)
    targets = torch.full((6, 144, 1), 0.25)
    found = synthetic_views(w, COORDS, targets=targets, steps=200, generator=gen())
    assert (ws.evaluate(found, COORDS) - 0.25).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"strength": -1}, ValueError, "strength >= 0"),
        ({"damping": 0}, ValueError, "damping > 0"),
        ({"iterations": 0}, ValueError, "iterations: expected at least 1, got 0"),
        ({"steps": -1}, ValueError, "steps: expected at least 0"),
        ({"directions": "low"}, ValueError, r"directions: expected one of \['flat', 'any'\], got 'low'"),
        ({"generator": None}, TypeError, "generator"),
        ({"targets": torch.zeros(2, 144, 1)}, ValueError, "start: expected one network or 2 networks"),
    ],
)
def test_bad_input_is_refused(fitted: ws.Networks, options: dict, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        synthetic_views(fitted.weights, COORDS, **{"generator": gen(), **options})


def test_other_precisions_are_refused(fitted: ws.Networks) -> None:
    with pytest.raises(ValueError, match="weights: expected float32"):
        synthetic_views(fitted.weights.to(torch.float64), COORDS, generator=gen())


def test_a_fit_starts_from_one_network_for_each_signal(fitted: ws.Networks) -> None:
    w, x = fitted.weights, COORDS
    targets = ws.evaluate(w, x)
    order = torch.tensor([5, 0, 3, 1, 2, 4])
    again = ws.fit(x, targets[order], SPEC, start=w[order], steps=1, lr=1e-9, views=2).weights
    torch.testing.assert_close(again.flat[::2], w.flat[order], atol=1e-7, rtol=0)
    torch.testing.assert_close(again.flat[1::2], w.flat[order], atol=1e-7, rtol=0)
    with pytest.raises(ValueError, match="start: expected one network or 6 networks of siren"):
        ws.fit(x, targets, SPEC, start=w[:3], steps=1)
