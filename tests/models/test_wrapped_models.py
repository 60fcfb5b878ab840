"""Models made of a model: the autoencoder with its objective, and outputs averaged over moved copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace import testing
from weightspace.models import Autoencoder, Averaged, Ensemble
from weightspace.training import Reconstruction, seeded
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
    with torch.no_grad():
        model.values.weight.zero_()
        model.values.bias.zero_()
    assert torch.equal(model.decode(array, COORDS), torch.full((6, 64, 1), SPEC.output_shift))


def test_an_autoencoder_is_where_its_encoder_is() -> None:
    encoder = autoencoder().encoder.double()
    encoder.net.eval()
    modes = [part.training for part in encoder.modules()]
    model = Autoencoder(encoder, queries=4, hidden=16)
    assert [part.training for part in encoder.modules()] == modes
    assert model.decode(model(networks()), COORDS).dtype == torch.float64
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 2))
    with pytest.raises(ValueError, match="Autoencoder"):  # evaluates no convolutions
        Autoencoder(ws.models.DWSNet(ws.spec_of(net, torch.zeros(2, 1, 5, 5)), 8, hidden=4, layers=1))


def test_copies_and_half_precision() -> None:
    model, w = autoencoder().eval(), networks()
    array = model(w)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.decode(other(w), COORDS), model.decode(array, COORDS))
    half = copy.deepcopy(model).bfloat16()
    values = half.decode(array.bfloat16(), COORDS)
    assert values.dtype == torch.bfloat16
    torch.testing.assert_close(values.float(), model.decode(array, COORDS), atol=0.03, rtol=0.03)


def test_rows_of_the_array_are_not_interchangeable() -> None:
    model = autoencoder().eval()
    array = model(networks())
    turned = array.unflatten(1, (4, -1)).roll(1, 1).flatten(1)
    assert not torch.allclose(model.decode(turned, COORDS), model.decode(array, COORDS), atol=1e-3)


def test_reconstruction_learns_the_functions_without_labels(tmp_path: Any) -> None:
    images = ws.datasets.embedded()
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


class Noting(Reconstruction):
    """Keeps what it is given."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.losses: list[ws.Weights] = []
        self.scores: list[tuple[bool, ws.Weights]] = []

    def loss(self, output: torch.Tensor, targets: torch.Tensor, weights: ws.Weights) -> torch.Tensor:
        self.losses.append(weights)
        assert torch.equal(output, self.model(weights))
        return super().loss(output, targets, weights)

    def score(self, output: torch.Tensor, labels: torch.Tensor, weights: ws.Weights) -> torch.Tensor:
        self.scores.append((self.model.training, weights))
        return super().score(output, labels, weights)


def zoo_of(path: Any, w: ws.Weights) -> ws.Zoo:
    labels = torch.arange(len(w)) % 2
    return write_zoo(path, dict.fromkeys(("train", "val"), (w, labels, None, None, None)))


def test_losses_and_scores_see_the_networks_that_the_model_saw(tmp_path: Any) -> None:
    w, model = networks(8), autoencoder()
    objective = Noting(model, COORDS, points=10)
    ws.train(model, zoo_of(tmp_path, w), objective=objective, transform=Flip(1.0, axes=(1,)), epochs=1, batch_size=4)
    mirrored = Flip(1.0, axes=(1,))(w, generator=torch.Generator()).flat
    assert len(objective.losses) == 2
    for seen in (*objective.losses, *(w for training, w in objective.scores if training)):
        assert all((mirrored == row).all(1).any() for row in seen.flat)
    assert all(torch.equal(seen.flat, w.flat) for training, seen in objective.scores if not training)


def test_as_many_points_as_asked_for_are_looked_at() -> None:
    model, w = autoencoder(), networks()
    looked: list[torch.Tensor] = []
    decode = model.decode
    model.decode = lambda array, x: looked.append(x) or decode(array, x)  # pyright: ignore
    objective = Reconstruction(model, COORDS, points=10)
    array, none = model(w), torch.zeros(6)
    with seeded(0):
        objective.loss(array, none, w)
        objective.loss(array, none, w)
        objective.score(array, none, w)
    assert [len(x) for x in looked] == [10, 10, 10]
    assert not torch.equal(looked[0], looked[1])
    assert len({tuple(x) for x in looked[0].tolist()}) == 10
    looked.clear()
    model.eval()
    whole = Reconstruction(model, ws.signals.grid(20, 20), points=10)
    score = whole.score(model(w), none, w)
    assert sum(map(len, looked)) == 400
    assert torch.equal(torch.cat(looked), whole.coords)
    error = (decode(model(w), whole.coords) - ws.evaluate(w, whole.coords)).square().mean((1, 2))
    torch.testing.assert_close(score, -error)


def test_a_kept_run_is_known_by_what_it_reconstructs(tmp_path: Any) -> None:
    zoo, run = zoo_of(tmp_path / "zoo", networks(8)), tmp_path / "run"

    def trained(points: int = 10, coords: torch.Tensor = COORDS, **options: Any) -> ws.TrainResult:
        model = autoencoder(**options)
        objective = Reconstruction(model, coords, points=points)
        return ws.train(model, zoo, objective=objective, epochs=2, batch_size=4, run_dir=run)

    first = trained()
    assert trained().history == first.history
    for other in ({"points": 11}, {"coords": COORDS[:-1]}, {"reach": 3.0}):
        with pytest.raises(ValueError, match="expected"):
            trained(**other)
    model = autoencoder()
    with pytest.raises(ValueError, match="expected one about the model that is trained"):
        ws.train(model, zoo, objective=Reconstruction(autoencoder(), COORDS), epochs=1)


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
    averaged = Averaged(model, [mirror, turn], seed=5)
    assert not averaged.training
    gen.manual_seed(5)
    mirror.sample(w[:1], generator=gen)
    turned = turn.apply(w, turn.sample(w[:1], generator=gen)[torch.zeros(6, dtype=torch.int64)])
    copies = [model(w), model(mirror(w, generator=gen)), model(turned)]
    torch.testing.assert_close(averaged(w), sum(copies) / 3)
    assert torch.equal(averaged(w), averaged(w))
    torch.testing.assert_close(averaged(w[2:3]), averaged(w)[2:3])
    assert not torch.allclose(averaged(w), model(w), atol=1e-4)
    assert (averaged.respects, averaged.track, averaged.num_parameters) == ("full", "hybrid", model.num_parameters)
    assert torch.equal(averaged.train()(w), model.train()(w))
    testing.assert_invariant(Averaged(model.eval(), [mirror, turn]), SPEC, group="full", atol=1e-8)
    noisy = Averaged(model, [GaussianNoise(0.3)])
    assert noisy.respects == "nothing"
    assert repr(averaged) != repr(Averaged(model, [mirror, turn], seed=6))
    unit = ws.models.build("hybrid", SPEC, 3, hidden=8, layers=1, points=6, head="embedding").eval()
    torch.testing.assert_close(Averaged(unit, [mirror])(w).norm(dim=1), torch.ones(6))


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


def test_an_ensemble_is_the_mean_of_its_models() -> None:
    with seeded(0):
        models = [ws.models.Hybrid(SPEC, 3, hidden=8, layers=1, points=6).eval() for _ in range(3)]
        plain = ws.models.Hybrid(SPEC, 3, hidden=8, layers=1, points=6, phase=False).eval()
    w, ensemble = networks(), Ensemble(models)
    torch.testing.assert_close(ensemble(w), sum(m(w) for m in models) / 3)
    assert (ensemble.respects, ensemble.track, ensemble.spec, ensemble.training) == ("full", "hybrid", SPEC, False)
    assert ensemble.num_parameters == 3 * models[0].num_parameters
    testing.assert_invariant(ensemble, SPEC, group="full", atol=1e-8)
    assert plain.respects != "full"
    less = Ensemble([models[0], plain])
    assert less.respects == plain.respects
    testing.assert_invariant(less, SPEC, group=plain.respects, atol=1e-8)
    with pytest.raises(AssertionError):
        testing.assert_invariant(less, SPEC, group="full", atol=1e-8)
    torch.testing.assert_close(Ensemble(models[:1])(w), models[0](w))
    again = pickle.loads(pickle.dumps(ensemble))
    assert torch.equal(again(w), ensemble(w))
    mirror = Flip(1.0, axes=(1,))
    both = Averaged(ensemble, [mirror])(w)
    torch.testing.assert_close(both, sum(Averaged(m, [mirror])(w) for m in models) / 3)
    with seeded(0):
        unit = [ws.models.build("hybrid", SPEC, 3, hidden=8, layers=1, points=6, head="embedding") for _ in range(2)]
    torch.testing.assert_close(Ensemble(unit)(w).norm(dim=1), torch.ones(6))


def test_bad_ensembles_are_refused() -> None:
    model = ws.models.Hybrid(SPEC, 3, hidden=8, layers=1, points=6)
    with pytest.raises(ValueError, match="models: expected at least one, got none"):
        Ensemble([])
    for bad in (model, [model, "hybrid"]):
        with pytest.raises(TypeError, match=r"models: expected a list of models of ws\.models"):
            Ensemble(bad)  # pyright: ignore
    with pytest.raises(ValueError, match="models: expected models of one track"):
        Ensemble([model, ws.models.MLP(SPEC, 3)])
    with pytest.raises(ValueError, match="models: expected models of one number of outputs"):
        Ensemble([ws.models.MLP(SPEC, 3), ws.models.MLP(SPEC, 4)])
    unit = ws.models.build("mlp", SPEC, 3, head="embedding")
    with pytest.raises(ValueError, match="models: expected models of one kind of output"):
        Ensemble([Ensemble([ws.models.MLP(SPEC, 3)]), Ensemble([unit])])
    assert Ensemble([Averaged(Ensemble([unit, unit]), [GaussianNoise(0.1)])]).unit
    with pytest.raises(ValueError, match="models: expected models of one spec"):
        Ensemble([ws.models.MLP(SPEC, 3), ws.models.MLP(ws.siren(2, 4, 1), 3)])
    editors = [ws.models.build("ng-gnn", SPEC, 1, hidden=8, layers=1, head="equivariant") for _ in range(2)]
    with pytest.raises(TypeError, match="expected models with an invariant head"):
        Ensemble(editors)(networks())
