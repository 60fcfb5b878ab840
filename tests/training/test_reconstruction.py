"""The objective of the autoencoder: functions are learned without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import networks as drawn
from torch import Tensor

import weightspace as ws
from weightspace.models import Autoencoder, build
from weightspace.training import Reconstruction
from weightspace.transforms import Flip
from weightspace.zoo import write_zoo

SPEC = ws.siren(2, 8, 8, 1)
COORDS = ws.signals.grid(8, 8)


def networks(batch: int = 6, seed: int = 0) -> ws.Weights:
    return drawn(SPEC, batch, seed, torch.float32)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def autoencoder(**options: Any) -> Autoencoder:
    encoder = build("forward-messages", SPEC, 32, seed=0, hidden=32, channels=16, functions=16, rbfs=0)
    return Autoencoder(encoder, queries=4, hidden=16, attention_heads=2, seed=1, **options)


def zoo_of(path: Path, w: ws.Weights) -> ws.Zoo:
    return write_zoo(path, train=ws.Networks(w), val=ws.Networks(w))


def test_reconstruction_learns_the_functions_without_labels(tmp_path: Path) -> None:
    images = ws.datasets.embedded()
    coords, targets = ws.signals.images(images.images[:96])
    w = ws.fit(coords, targets, SPEC, steps=100, lr=2e-3).weights
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(w[:64]), val=ws.Networks(w[64:]))
    model = autoencoder()
    values = ws.evaluate(w, coords)
    plain = (values[64:] - values[:64].mean(0)).square().mean().item()  # the error of the mean picture
    objective = Reconstruction(coords, points=200)
    result = ws.train(model, zoo, objective=objective, epochs=60, batch_size=16, lr=5e-3)
    assert result.test is None
    assert -result.val < 0.8 * plain
    error = (model.decode(model(w[64:]), coords) - values[64:]).square().mean().item()
    assert error == pytest.approx(-result.val, rel=1e-4)


def test_a_reconstruction_compares_with_the_networks_that_the_model_saw() -> None:
    model, w = autoencoder().eval(), networks()
    expected = (model.decode(model(w), COORDS) - ws.evaluate(w, COORDS)).square()
    objective, none = Reconstruction(COORDS), torch.zeros(6)
    loss, score = objective(model, ws.Networks(w), none, generator=generator())
    torch.testing.assert_close(loss, expected.mean())
    torch.testing.assert_close(score, -expected.mean((1, 2)))
    other, _ = objective(model, ws.Networks(networks(seed=1)), none, generator=generator())
    assert not torch.allclose(other, expected.mean(), rtol=1e-3)


class Noting(Reconstruction):
    """Remembers the networks that it was asked about, and whether the model was in training."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[tuple[bool, ws.Weights]] = []

    def __call__(
        self, model: Any, networks: ws.Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        self.seen.append((model.training, networks.weights))
        return super().__call__(model, networks, targets, generator=generator)


def test_transforms_move_what_is_reconstructed_in_training_alone(tmp_path: Path) -> None:
    w, objective = networks(8), Noting(COORDS, points=10)
    zoo, mirror = zoo_of(tmp_path / "zoo", w), Flip(1.0, axes=(1,))
    ws.train(autoencoder(), zoo, objective=objective, transform=mirror, epochs=1, batch_size=4)
    mirrored = mirror(w, generator=generator()).flat
    trained = [seen for training, seen in objective.seen if training]
    assert len(trained) == 2
    assert all((mirrored == row).all(1).any() for seen in trained for row in seen.flat)
    evaluated = [seen for training, seen in objective.seen if not training]
    assert evaluated
    assert all(torch.equal(seen.flat, w.flat) for seen in evaluated)


def test_as_many_points_as_asked_for_are_looked_at() -> None:
    model, w, gen = autoencoder(), networks(), generator()
    looked: list[Tensor] = []
    decode = model.decode
    model.decode = lambda array, x: looked.append(x) or decode(array, x)  # pyright: ignore
    objective, none = Reconstruction(COORDS, points=10), torch.zeros(6)
    for _ in range(2):
        objective(model, ws.Networks(w), none, generator=gen)
    assert [len(x) for x in looked] == [10, 10]
    assert not torch.equal(looked[0], looked[1])
    assert len({tuple(x) for x in looked[0].tolist()}) == 10
    looked.clear()
    model.eval()
    whole = Reconstruction(ws.signals.grid(20, 20), points=10)
    _, score = whole(model, ws.Networks(w), none, generator=gen)
    assert torch.equal(torch.cat(looked), whole.coords)
    error = (decode(model(w), whole.coords) - ws.evaluate(w, whole.coords)).square().mean((1, 2))
    torch.testing.assert_close(score, -error)


def test_a_kept_run_is_known_by_what_it_reconstructs(tmp_path: Path) -> None:
    zoo, run = zoo_of(tmp_path / "zoo", networks(8)), tmp_path / "run"

    def trained(points: int = 10, coords: Tensor = COORDS, **options: Any) -> Any:
        objective = Reconstruction(coords, points=points)
        return ws.train(autoencoder(**options), zoo, objective=objective, epochs=2, batch_size=4, run_dir=run)

    first = trained()
    assert trained().history == first.history
    for other in ({"points": 11}, {"coords": COORDS[:-1]}, {"reach": 3.0}):
        with pytest.raises(ValueError, match="expected"):
            trained(**other)


def test_what_cannot_be_reconstructed_is_refused() -> None:
    model = autoencoder()
    with pytest.raises(TypeError, match=r"model: expected a ws\.models\.Autoencoder, got ForwardMessages"):
        Reconstruction(COORDS).check(model.encoder)
    with pytest.raises(ValueError, match=r"coords: expected \[point, 2\], got \[4, 3\]"):
        Reconstruction(torch.zeros(4, 3)).check(model)
    with pytest.raises(ValueError, match="points: expected at most the 64 that there are, got 65"):
        Reconstruction(COORDS, points=65)
