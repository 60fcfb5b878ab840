"""The published models against slow transcriptions of their equations: one neuron, one weight at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import weightspace as ws
from weightspace import testing
from weightspace.align._phases import fold_phases
from weightspace.models.layers._graph import GraphInput, neurons
from weightspace.models.layers._typed import TypedInvariant
from weightspace.models.published._nft import IncidentAttention
from weightspace.models.published._ng_gnn import MessageLayer
from weightspace.models.published._ng_t import RelationalLayer
from weightspace.models.published._scale_gmn import MessagePass, normalized
from weightspace.models.published._statistics import QUANTILES, statistics

WIDTHS = (2, 4, 3, 1)
CLOSE = {"atol": 1e-10, "rtol": 1e-10}
SIGN, POSITIVE, NONE = frozenset({"sign"}), frozenset({"positive"}), frozenset()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def graph(node: int, edge: int, batch: int = 2) -> tuple[Tensor, list[Tensor]]:
    nodes = torch.randn(batch, sum(WIDTHS), node, dtype=torch.float64)
    pairs = zip(WIDTHS[1:], WIDTHS[:-1], strict=True)
    return nodes, [torch.randn(batch, out, into, edge, dtype=torch.float64) for out, into in pairs]


def layer_of() -> list[tuple[int, int]]:
    """Axis and place in it of every neuron."""
    return [(axis, i) for axis, width in enumerate(WIDTHS) for i in range(width)]


def edge_between(edges: list[Tensor], i: int, j: int) -> Tensor | None:
    """Features of the weight from neuron ``j`` into neuron ``i``, if there is one: ``[batch, channel]``."""
    (axis, a), (below, b) = layer_of()[i], layer_of()[j]
    return edges[below][:, a, b] if axis == below + 1 else None


def dense_attention(layer: RelationalLayer, nodes: Tensor, edges: list[Tensor]) -> Tensor:
    """Neurons' features before the first norm, over all pairs, where a pair without a weight has zero features."""
    heads, count, wide = layer.heads, nodes.shape[1], layer.out.in_features
    q, k, v = layer.of_nodes(nodes).chunk(3, -1)
    out = []
    for i in range(count):
        logits, values = [], []
        for j in range(count):
            edge = edge_between(edges, i, j)
            query, key, value = q[:, i], k[:, j], v[:, j].unflatten(-1, (heads, -1))
            if edge is not None:
                query, key = query + layer.edge_query(edge), key + layer.edge_key(edge)
                factor = layer.factor(edge).unflatten(-1, (heads, -1))
                value = value + factor * value + torch.einsum("be,hec->bhc", edge, layer.shift)
            logits.append((query * key).unflatten(-1, (heads, -1)).sum(-1) / math.sqrt(wide / heads))
            values.append(value)
        shares = torch.stack(logits, -1).softmax(-1)
        out.append(torch.einsum("bhj,jbhc->bhc", shares, torch.stack(values)).flatten(1))
    return nodes + layer.out(torch.stack(out, 1))


def test_relational_attention_is_that_over_all_pairs() -> None:
    layer = RelationalLayer(WIDTHS, 6, 4, 3, edges=True, dropout=0.0).double()
    nodes, edges = graph(6, 4)
    expected = layer.norms[0](dense_attention(layer, nodes, edges))
    expected = layer.norms[1](expected + layer.feed(expected))
    found, updated = layer(nodes, edges)
    torch.testing.assert_close(found, expected, **CLOSE)
    update = layer.edge_update
    assert update is not None
    for i, (axis, a) in enumerate(layer_of()):
        for j, (_, b) in enumerate(layer_of()):
            if (edge := edge_between(edges, i, j)) is None:
                continue
            total = update.own(edge) + update.target(found[:, i]) + update.source(found[:, j])
            edge = update.norms[0](edge + update.out(torch.relu(total)))
            edge = update.norms[1](edge + update.feed(edge))
            torch.testing.assert_close(updated[axis - 1][:, a, b], edge, **CLOSE)


def test_relational_attention_reads_the_weights() -> None:
    """Negative control: the reference with other weights is another one."""
    layer = RelationalLayer(WIDTHS, 6, 4, 3, edges=True, dropout=0.0).double()
    nodes, edges = graph(6, 4)
    other = [edges[0], edges[1].flip(1), edges[2]]
    assert (dense_attention(layer, nodes, other) - dense_attention(layer, nodes, edges)).abs().max() > 1e-3


def test_messages_are_those_of_the_equations() -> None:
    layer = MessageLayer(WIDTHS, 5, edges=True, dropout=0.0).double()
    nodes, edges = graph(5, 5)
    found, updated = layer(nodes, edges)
    silu = torch.nn.functional.silu
    for i, (axis, a) in enumerate(layer_of()):
        messages = []
        for j, (_, b) in enumerate(layer_of()):
            if (edge := edge_between(edges, i, j)) is None:
                continue
            message = layer.message(silu(layer.target(nodes[:, i]) + layer.source(nodes[:, j])))
            messages.append((1 + layer.scale(edge)) * message + layer.shift(edge))
            update = layer.edge_update
            assert update is not None
            total = update.own(edge) + update.target(nodes[:, i]) + update.source(nodes[:, j])
            expected = update.norm(edge + update.out(silu(total)))
            torch.testing.assert_close(updated[axis - 1][:, a, b], expected, **CLOSE)
        gathered = torch.zeros(2, 40, dtype=torch.float64)
        if messages:
            all_ = torch.stack(messages)
            spread = (all_.var(0, correction=0) + 1e-5).sqrt()
            parts = torch.cat([all_.mean(0), all_.min(0).values, all_.max(0).values, spread], -1)
            gathered = torch.cat([parts, math.log(1 + len(messages)) * parts], -1)
        expected = layer.norm(nodes[:, i] + layer.update(torch.cat([nodes[:, i], gathered], -1)))
        torch.testing.assert_close(found[:, i], expected, **CLOSE)


@pytest.mark.parametrize("types", [SIGN, POSITIVE, NONE], ids=["sign", "positive", "none"])
def test_scale_messages_are_those_of_the_equations(types: frozenset[str]) -> None:
    layer = MessagePass(types, types, 4, dual=True, dropout=0.0).double()
    sent, edge = torch.randn(2, 3, 4).double(), torch.randn(2, 5, 3, 4).double()
    own, dual = torch.randn(2, 5, 4).double(), torch.randn(2, 5, 4).double()
    found = layer(sent[:, None], edge, own, dual, 2)
    for i in range(5):
        message = torch.zeros(2, 4, dtype=torch.float64)
        for j in range(3):
            pair = edge[:, i, j] * sent[:, j]
            gate = layer.gate.out(layer.gate.bias + layer.of_pair(pair) + layer.of_own(own[:, i]))
            message = message + pair * (1 + gate) / math.sqrt(3)
        same = [own[:, i], message]
        invariants = layer.inputs(same, dual[:, i])
        value = layer.mix(torch.cat([*same, dual[:, i]] if types != POSITIVE else same, -1))
        expected = normalized(own[:, i] + value * (1 + layer.update.out(layer.update.bias + invariants)), types)
        torch.testing.assert_close(found[:, i], expected, **CLOSE)


@pytest.mark.parametrize(
    ("types", "factor"), [(SIGN, -1.0), (POSITIVE, 3.0), (SIGN | POSITIVE, -3.0)], ids=["sign", "positive", "both"]
)
def test_factors_are_invariant_under_their_type_alone(types: frozenset[str], factor: float) -> None:
    layer, value = TypedInvariant(types, 4, 5).double(), torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(factor * value), layer(value), **CLOSE)
    flipped = value * torch.tensor([-1.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    assert (layer(flipped) - layer(value)).abs().max() > 1e-3
    assert (TypedInvariant(NONE, 4, 5).double()(factor * value) - layer(value)).abs().max() > 1e-3


def test_folding_phases_keeps_the_function_and_makes_biases_small() -> None:
    spec = ws.siren(2, 6, 5, 1, omega=(30.0, 7.0))
    gen = torch.Generator().manual_seed(0)
    w = testing.random_weights(spec, 4, generator=gen, dtype=torch.float64)
    w = ws.Symmetry.sample(spec, batch=4, generator=gen, max_shift=3, dtype=torch.float64).act(w)
    folded = fold_phases(w)
    testing.assert_same_function(w, folded, atol=1e-9, rtol=1e-9)
    for name, omega in (("0.bias", 30.0), ("1.bias", 7.0)):
        assert folded.view(name).abs().max() <= 0.5 * math.pi / omega
        assert w.view(name).abs().max() > 0.5 * math.pi / omega
    relu = testing.random_weights(ws.mlp(2, 6, 1), 4, generator=gen)
    assert torch.equal(fold_phases(relu).flat, relu.flat)


def test_probes_are_the_activations_of_the_network() -> None:
    spec = ws.siren(2, 6, 5, 3)
    model = ws.models.NeuralGraphTransformer(spec, 4, hidden=8, layers=1, probes=9).double()
    w = testing.random_weights(spec, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = model.start
    assert isinstance(start, GraphInput)
    assert start.probes is not None
    values = neurons(start.probed(w), (2, 6, 5, 3))
    torch.testing.assert_close(values[-1].mT + spec.output_shift, ws.evaluate(w, start.probes), **CLOSE)
    first = torch.sin(30 * (w.view("0.weight") @ start.probes.t() + w.view("0.bias")[..., None]))
    torch.testing.assert_close(values[1], first, **CLOSE)


def test_statistics_are_those_of_torch() -> None:
    value = torch.randn(3, 11, dtype=torch.float64)
    expected = [value.mean(1), value.var(1, correction=0)]
    expected += list(value.quantile(torch.tensor(QUANTILES, dtype=torch.float64), 1))
    torch.testing.assert_close(statistics(value), torch.stack(expected, 1), **CLOSE)


@pytest.mark.parametrize("spec", [ws.mlp(2, 3, 4, 1), ws.mlp(1, 3, 2)], ids=["two layers", "one layer"])
def test_attention_among_the_weights_of_a_neuron_is_that_of_the_equation(spec: ws.NetSpec) -> None:
    layer = IncidentAttention(spec, 6, 2, 0.0).double()
    value = torch.randn(2, spec.num_params, 6, dtype=torch.float64)
    q, k, v = layer.read(layer.norms[0](value)).unflatten(-1, (3, 2, 3)).unbind(2)
    places = ws.Weights(torch.arange(spec.num_params, dtype=torch.float64)[None], spec)
    mixed = torch.zeros(2, spec.num_params, 2, 3, dtype=torch.float64)
    for axis in spec.hidden:
        for neuron in range(axis.size):
            touching = [
                places.view(p.name)[0].select(p.axes.index(axis.name), neuron).flatten()
                for p in spec.params
                if axis.name in p.axes
            ]
            members = torch.cat(touching).long().tolist()
            for one in members:
                logits = torch.stack([(q[:, one] * k[:, other]).sum(-1) for other in members], -1) / math.sqrt(3)
                for share, other in zip(logits.softmax(-1).unbind(-1), members, strict=True):
                    mixed[:, one] += share.unsqueeze(-1) * v[:, other]
    expected = value + layer.write(mixed.flatten(2))
    torch.testing.assert_close(layer(value), expected + layer.feed(layer.norms[1](expected)), **CLOSE)


def test_np_layers_commute_with_permutations_of_inputs_and_outputs_too() -> None:
    spec = ws.mlp(3, 4, 5, 2)
    w = torch.randn(4, spec.num_params, 2, dtype=torch.float64)

    def moved(flat: Tensor) -> Tensor:
        out = ws.Weights(flat.clone(), spec)
        out.view("0.weight").copy_(ws.Weights(flat, spec).view("0.weight").roll(1, 2))
        for name in ("2.weight", "2.bias"):
            out.view(name).copy_(ws.Weights(flat, spec).view(name).roll(1, 1))
        return out.flat

    for ends in (True, False):
        layer = ws.models.layers.EquivariantLinear(spec, 2, 3, ends=ends).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_()
        testing.assert_equivariant(layer, spec, atol=1e-8, rtol=1e-8)
        difference = layer(ws.Weights(moved(w), spec)).flat - moved(layer(ws.Weights(w, spec)).flat)
        assert (difference.abs().max() < 1e-9) == ends


def test_learned_encodings_tell_inputs_and_outputs_apart() -> None:
    spec = ws.siren(2, 4, 4, 2)
    w = testing.random_weights(spec, 3, generator=torch.Generator().manual_seed(0))
    flipped = w.clone()
    flipped.view("0.weight").copy_(w.view("0.weight").flip(2))
    model = ws.models.NFN(spec, 3, variant="np", hidden=8, layers=1)
    assert (model(w) - model(flipped)).abs().min() > 0
    with torch.no_grad():
        for place in model.encode.places.values():
            place.zero_()
    torch.testing.assert_close(model(w), model(flipped))


def test_what_the_generator_makes_is_what_is_queried() -> None:
    spec = ws.siren(2, 6, 5, 1)
    model = ws.models.ProbeGen(spec, 3, hidden=16, probes=200)
    assert model.points.shape == (200, 2)
    assert 0.2 < model.points.std() < 1.0
    w = testing.random_weights(spec, 4, generator=torch.Generator().manual_seed(0))
    values = ws.evaluate(w, model.points)[..., 0] - spec.output_shift
    torch.testing.assert_close(model(w), model.net(values))


def test_the_grid_is_read_as_a_picture() -> None:
    spec = ws.siren(2, 6, 5, 1)
    model = ws.models.RenderCNN(spec, 3, hidden=4, layers=1, size=5)
    assert model.grid.shape == (25, 2)
    assert model.grid[0].tolist() == [-1, -1]
    assert model.grid[1].tolist() == [-1, -0.5]
    w = testing.random_weights(spec, 4, generator=torch.Generator().manual_seed(0))
    values = 2 * (ws.evaluate(w, model.grid) - spec.output_shift)
    torch.testing.assert_close(model.eval()(w), model.head(model.net(values.view(4, 1, 5, 5))))
    with pytest.raises(ValueError, match="expected networks of 1, 2 or 3 inputs, got 4"):
        ws.models.RenderCNN(ws.siren(4, 6, 1), 3)
    with pytest.raises(ValueError, match="size: expected more than 4 points to halve 2 times, got 4"):
        ws.models.RenderCNN(spec, 3, size=4)
    least = ws.models.RenderCNN(spec, 3, hidden=4, size=5).train()
    assert bool(least(w[:1]).isfinite().all())


def test_channels_of_any_scale_are_read_alike() -> None:
    """Batch norms: a group norm would tell channels of other scales apart."""
    spec = ws.siren(2, 6, 5, 1)
    model, w = (
        ws.models.RenderCNN(spec, 3, hidden=4, layers=2, size=6),
        testing.random_weights(spec, 8, generator=torch.Generator().manual_seed(0)),
    )
    before, scale = model(w), torch.tensor([1.0, 3.0, 0.5, 7.0])
    with torch.no_grad():
        model.net[0].weight.mul_(scale.view(4, 1, 1, 1))
        model.net[0].bias.mul_(scale)
    torch.testing.assert_close(model(w), before, atol=1e-3, rtol=1e-3)


def test_a_learned_grid_starts_as_the_fixed_one_and_is_trained() -> None:
    spec = ws.siren(2, 6, 5, 1)
    fixed, model = (ws.models.RenderCNN(spec, 3, hidden=4, size=6, learned=learned) for learned in (False, True))
    torch.testing.assert_close(model.grid, fixed.grid)
    assert fixed.num_parameters + model.grid.numel() == model.num_parameters
    assert "grid" in model.state_dict()
    assert "grid" not in fixed.state_dict()
    model(testing.random_weights(spec, 4, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert model.grid.grad is not None
    assert model.grid.grad.abs().sum() > 0
    with pytest.raises(TypeError, match="learned: expected True or False, got 1"):
        ws.models.RenderCNN(spec, 3, learned=1)  # pyright: ignore


def test_options_out_of_range_are_refused() -> None:
    spec = ws.siren(2, 6, 5, 1)
    with pytest.raises(ValueError, match="attention_heads: expected a divisor of 20, got 3"):
        ws.models.NeuralGraphTransformer(spec, 3, hidden=10, attention_heads=3)
    with pytest.raises(ValueError, match="attention_heads: expected a divisor of 10, got 3"):
        ws.models.WeightTokens(spec, 3, hidden=10, attention_heads=3)
    with pytest.raises(ValueError, match="attention: expected a divisor of 10, got 3"):
        ws.models.DWSNet(spec, 3, hidden=10, attention=3)
    with pytest.raises(ValueError, match="direction: expected 'forward' or 'bidirectional', got 'back'"):
        ws.models.ScaleGMN(spec, 3, direction="back")  # pyright: ignore
    with pytest.raises(ValueError, match="probes: expected at least 0, got -1"):
        ws.models.NeuralGraphGNN(spec, 3, probes=-1)
