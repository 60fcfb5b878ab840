"""FLOP of a forward pass: counted by hand, and the model left as it was."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import weightspace as ws
from weightspace.models import flop

SPEC = ws.siren(2, 4, 1)


def test_flop_of_attention_is_counted() -> None:
    """Against a count by hand; the counter alone does not see the fused kernels that inference takes."""
    spec, wide = ws.siren(2, 4, 3, 1), 8
    model = ws.models.WeightTokens(spec, 5, hidden=wide, layers=2, attention_heads=2).eval()
    weights = ws.Weights(torch.zeros(6, spec.num_params), spec)
    tokens = 1 + 4 + 3 + 1
    rows = 2 * wide * (4 * 3 + 3 * 5 + 1 * 4)
    feed = model.encoder.layers[0].linear1.out_features
    layer = 2 * tokens * (4 * wide * wide + 2 * tokens * wide + 2 * wide * feed)
    expected = rows + 2 * layer + 2 * wide * 5
    assert flop(model, weights) == expected
    with torch.no_grad(), FlopCounterMode(display=False) as blind:
        model(weights)
    assert blind.get_total_flops() // 6 < expected


@pytest.mark.parametrize("training", [True, False])
def test_flop_leaves_the_model_as_it_was(training: bool) -> None:
    model = ws.models.MLP(SPEC, 3, hidden=8, dropout=0.5).train(training)
    weights = ws.Weights(torch.ones(2, SPEC.num_params), SPEC)
    state, kept = torch.random.get_rng_state(), weights.flat.clone()
    flop(model, weights)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training is training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(weights.flat, kept)
    assert not weights.flat.requires_grad


def test_flop_of_a_frozen_model_without_gradients_is_the_same() -> None:
    model = ws.models.WeightTokens(SPEC, 5, hidden=8, layers=1, attention_heads=2)
    weights = ws.Weights(torch.zeros(2, SPEC.num_params), SPEC)
    before = flop(model, weights)
    with torch.no_grad():
        assert flop(model.requires_grad_(False), weights) == before
