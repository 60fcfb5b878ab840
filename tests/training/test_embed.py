"""Embeddings, neighbours and probes, and distances of all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import labelled, networks

import weightspace as ws
from weightspace.models import build
from weightspace.training import embed, neighbours, predict, probe

SPEC = ws.siren(2, 5, 4, 1)


def test_embeddings_are_what_the_last_layer_reads() -> None:
    model = ws.models.MLP(SPEC, out_features=3, hidden=8, layers=2, seed=0)
    w = networks(SPEC, 7, dtype=torch.float32)
    features = embed(model, w, batch_size=3)
    assert features.shape == (7, 8)
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    assert torch.allclose(last(features), predict(model, w), atol=1e-5)
    assert not features.requires_grad
    assert not last._forward_pre_hooks
    wrapped = build("mlp", SPEC, 4, head="embedding")
    assert torch.equal(embed(wrapped, w), predict(wrapped, w))
    with pytest.raises(TypeError, match="expected a model with an invariant head"):
        embed(ws.models.DWSNet(SPEC, 1, hidden=4, layers=1, head="equivariant", seed=0), w)


@pytest.mark.parametrize(
    "name", ["dwsnet", "nfn-np", "ng-gnn", "probe-net", "statistics", "forward-messages", "render-cnn"]
)
def test_every_kind_of_model_embeds(name: str) -> None:
    model = build(name, SPEC, 3, seed=0)
    features = embed(model, networks(SPEC, 4, dtype=torch.float32))
    assert features.ndim == 2
    assert len(features) == 4
    assert features.shape[1] > 3


def test_neighbours_are_those_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(9, 5, generator=generator), torch.randn(30, 5, generator=generator)
    index, similarity = neighbours(a, b, k=4)
    table = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    assert torch.equal(index, table.argsort(1, descending=True)[:, :4])
    assert torch.allclose(similarity, table.sort(1, descending=True).values[:, :4], atol=1e-5)
    own, _ = neighbours(b, k=29)
    assert all(row not in found for row, found in enumerate(own.tolist()))
    assert neighbours(a[:0], b, k=2)[0].shape == (0, 2)
    with pytest.raises(ValueError, match="k: expected at most 29, as there are rows, got 30"):
        neighbours(b, k=30)
    with pytest.raises(ValueError, match=r"among: expected \[row, 5\], got \[9, 4\]"):
        neighbours(b, a[:, :4])
    with pytest.raises(TypeError, match="queries: expected a tensor, got list"):
        neighbours([[1.0]])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_probes_read_classes_and_numbers(kind: str) -> None:
    data, other = labelled(SPEC, 120).weights.flat, labelled(SPEC, 60, seed=1).weights.flat
    labels, wanted = torch.arange(120) % 3, torch.arange(60) % 3
    assert probe(data, labels, other, wanted, kind=kind) > 0.9  # pyright: ignore[reportArgumentType]
    assert probe(data, labels[torch.randperm(120)], other, wanted, kind=kind) < 0.7  # pyright: ignore
    assert probe(data, data.mean(1), other, other.mean(1), kind=kind) > 0.6  # pyright: ignore
    with pytest.raises(ValueError, match="kind: expected 'linear' or 'knn', got 'mlp'"):
        probe(data, labels, other, wanted, kind="mlp")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="k: expected at most the 120 rows, got 121"):
        probe(data, labels, other, wanted, kind="knn", k=121)


@pytest.mark.parametrize("block", [3, 4096])
def test_distances_are_those_of_each_pair(block: int) -> None:
    a, b = networks(SPEC, 4, seed=1), networks(SPEC, 3, seed=2)
    table = ws.align.distances(a, b, group="signed", block=block)
    assert table.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            moved = ws.align.match(a[i], b[j], group="signed").act(b[j])
            assert table[i, j].item() == pytest.approx(ws.align.distance(a[i], moved).sqrt().item(), rel=1e-4)
    own = ws.align.distances(a, a, group="signed", block=block)
    assert torch.equal(own, own.T)
    assert torch.equal(own.diagonal(), torch.zeros(4))
    plain = ws.align.distances(a, b, group="none")
    assert torch.allclose(plain, torch.cdist(a.flat, b.flat))
    assert bool((table <= plain + 1e-4).all())
    g = ws.Symmetry.sample(SPEC, batch=4, group="permutation", generator=torch.Generator().manual_seed(0))
    assert float(ws.align.distances(a, g.act(a)).diagonal().max()) < 1e-3
    with pytest.raises(ValueError, match="expected"):
        ws.align.distances(a, networks(ws.siren(2, 3, 1), 2))
    with pytest.raises(TypeError, match="a: expected Weights"):
        ws.align.distances(a.flat, b)  # pyright: ignore[reportArgumentType]


def test_every_kind_of_network_is_drawn(tmp_path: Path, conv_spec: ws.NetSpec) -> None:
    from PIL import Image

    specs = {
        "grey": ws.siren(2, 4, 1),
        "colour": ws.siren(2, 4, 3),
        "curve": ws.siren(1, 4, 1),
        "shape": ws.siren(3, 4, 1),
        "wide": ws.mlp(5, 4, 2),
        "kernels": conv_spec,
    }
    for name, spec in specs.items():
        file = ws.report.picture(networks(spec, 3, dtype=torch.float32), tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(file))
        assert pixels.ndim == (3 if name == "colour" else 2)
        assert pixels.std() > 1, name
    curve = ws.Weights(torch.zeros(1, specs["curve"].num_params), specs["curve"])
    file = ws.report.picture(curve, tmp_path / "flat.png", size=(10, 10))
    assert np.asarray(Image.open(file)).min() == 0, "a line is drawn for a constant too"
    with pytest.raises(ValueError, match="expected at least one network"):
        ws.report.picture(curve[:0], tmp_path / "none.png")
    with pytest.raises(TypeError, match="weights: expected Weights"):
        ws.report.picture(curve.flat, tmp_path / "none.png")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "none.png").exists()
