"""Models made of a model: the autoencoder with its objective, and outputs averaged over moved copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace import testing
from weightspace.models import Autoencoder, Averaged
from weightspace.train import Reconstruction, seeded
from weightspace.transforms import Flip, GaussianNoise, MixUp, Rotate
from weightspace.zoo import write_zoo

SPEC = ws.siren(2, 8, 8, 1)
COORDS = ws.signals.grid(8, 8)


def networks(batch: int = 6, seed: int = 0) -> ws.Weights:
    return testing.random_weights(SPEC, batch, generator=torch.Generator().manual_seed(seed))


def autoencoder(**options: Any) -> Autoencoder:
    with seeded(0):
        encoder = ws.models.build("forward-messages", SPEC, 32, hidden=32, channels=16, functions=16, bumps=0)
        return Autoencoder(encoder, queries=4, hidden=16, attention_heads=2, **options)


def test_an_autoencoder_is_its_encoder_and_decodes_every_network_by_itself() -> None:
    model, w = autoencoder().eval(), networks()
    array = model(w)
    assert torch.equal(array, model.encoder(w))
    assert (model.respects, model.track, model.spec) == ("full", "weights-only", SPEC)
    values = model.decode(array, COORDS)
    assert values.shape == (6, 64, 1)
    torch.testing.assert_close(model.decode(array[2:3], COORDS), values[2:3])
    torch.testing.assert_close(model.decode(array, COORDS.expand(6, -1, -1)), values)
    torch.testing.assert_close(model.decode(array, COORDS[10:20]), values[:, 10:20])
    assert not torch.allclose(values[0], values[1], atol=1e-3)
    testing.assert_invariant(model, SPEC, group="full", atol=1e-8)


def test_rows_of_the_array_are_not_interchangeable() -> None:
    model = autoencoder().eval()
    array = model(networks())
    turned = array.unflatten(1, (4, -1)).roll(1, 1).flatten(1)
    assert not torch.allclose(model.decode(turned, COORDS), model.decode(array, COORDS), atol=1e-3)


def test_reconstruction_learns_the_functions_without_labels(tmp_path: Any) -> None:
    images = ws.signals.embedded()
    coords, targets = ws.signals.images(images.images[:96])
    w = ws.fit(coords, targets, SPEC, steps=100, lr=2e-3).weights
    none = torch.full((len(w),), -1)
    zoo = write_zoo(
        tmp_path / "zoo", {"train": (w[:64], none[:64], None, None, None), "val": (w[64:], none[64:], None, None, None)}
    )
    model = autoencoder()
    objective = Reconstruction(model, coords, points=200)
    values = ws.evaluate(w, coords)
    plain = (values[64:] - values[:64].mean(0)).square().mean().item()  # what the mean picture leaves
    result = ws.train(model, zoo, objective=objective, epochs=60, batch_size=16, lr=5e-3)
    assert result.test is None
    assert -result.val < 0.8 * plain
    error = (model.decode(model(w[64:]), coords) - values[64:]).square().mean().item()
    assert error == pytest.approx(-result.val, rel=1e-4)


def test_a_reconstruction_compares_with_the_networks_as_the_model_saw_them() -> None:
    model, w = autoencoder().eval(), networks()
    objective = Reconstruction(model, COORDS)
    expected = (model.decode(model(w), COORDS) - ws.evaluate(w, COORDS)).square()
    targets = objective.targets(torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(objective.loss(model(w), targets, w), expected.mean())
    torch.testing.assert_close(objective.score(model(w), targets, w), -expected.mean((1, 2)))
    other = networks(seed=1)
    assert not torch.allclose(objective.loss(model(w), targets, other), expected.mean(), rtol=1e-3)


def test_bad_autoencoders_are_refused() -> None:
    model = autoencoder()
    with pytest.raises(TypeError, match=r"encoder: expected a model of ws\.models, got Linear"):
        Autoencoder(torch.nn.Linear(3, 3))  # pyright: ignore
    with pytest.raises(TypeError, match="encoder: expected an invariant head"):
        Autoencoder(ws.models.build("ng-gnn", SPEC, 1, hidden=8, layers=1, head="equivariant"))
    with pytest.raises(ValueError, match="queries: expected a divisor of the encoder's 32 outputs, got 5"):
        Autoencoder(model.encoder, queries=5)
    with pytest.raises(ValueError, match="attention_heads: expected a divisor of 64, got 3"):
        Autoencoder(model.encoder, attention_heads=3)
    with pytest.raises(ValueError, match=r"array: expected \[batch, 32\], as the model gives it, got \[6, 31\]"):
        model.decode(torch.zeros(6, 31), COORDS)
    with pytest.raises(ValueError, match=r"x: expected \[point, 2\] or \[6, point, 2\], got \[5, 3\]"):
        model.decode(torch.zeros(6, 32), torch.zeros(5, 3))
    with pytest.raises(TypeError, match=r"model: expected a ws\.models\.Autoencoder, got ForwardMessages"):
        Reconstruction(model.encoder, COORDS)  # pyright: ignore
    with pytest.raises(ValueError, match=r"coords: expected \[point, 2\], got \[4, 3\]"):
        Reconstruction(model, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="points: expected at most the 64 that there are, got 65"):
        Reconstruction(model, COORDS, points=65)


def test_averaged_outputs_are_the_mean_over_the_copies() -> None:
    mirror, turn = Flip(1.0, axes=(1,)), Rotate(20.0)
    with seeded(0):
        model = ws.models.Hybrid(SPEC, 3, hidden=8, layers=1, points=6).eval()
    w, gen = networks(), torch.Generator()
    averaged = Averaged(model, [mirror, turn], seed=5).eval()
    gen.manual_seed(5)
    copies = [model(w), model(mirror(w, generator=gen)), model(turn(w, generator=gen))]
    torch.testing.assert_close(averaged(w), sum(copies) / 3)
    assert torch.equal(averaged(w), averaged(w))
    assert (averaged.respects, averaged.track, averaged.num_parameters) == ("full", "hybrid", model.num_parameters)
    assert torch.equal(averaged.train()(w), model.train()(w))
    testing.assert_invariant(Averaged(model, [mirror]).eval(), SPEC, group="full", atol=1e-8)


def test_bad_averages_are_refused() -> None:
    model = ws.models.Hybrid(SPEC, 3, hidden=8, layers=1, points=6)
    with pytest.raises(TypeError, match=r"model: expected a model of ws\.models, got str"):
        Averaged("hybrid", [Flip()])  # pyright: ignore
    with pytest.raises(TypeError, match="transforms: expected a list of transforms, got Flip"):
        Averaged(model, Flip())  # pyright: ignore
    for bad in ([], [MixUp("permutation")]):
        with pytest.raises(ValueError, match="transforms: expected one at least, and none that mixes networks"):
            Averaged(model, bad)
    with pytest.raises(ValueError, match=r"Rotate|rotation"):
        Averaged(ws.models.Hybrid(ws.siren(1, 8, 1), 3, points=6), [Rotate(3.0)])
    equivariant = ws.models.build("ng-gnn", SPEC, 1, hidden=8, layers=1, head="equivariant").eval()
    with pytest.raises(TypeError, match="expected a model with an invariant head"):
        Averaged(equivariant, [GaussianNoise(0.1)]).eval()(networks())
