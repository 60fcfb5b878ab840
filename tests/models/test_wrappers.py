"""Models made of models: autoencoder, embeddings, editors, averages over moved copies, ensembles."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace import testing
from weightspace.models import Autoencoder, Averaged, Ensemble, WeightModel, build
from weightspace.models._wrappers import Editor, Embedding
from weightspace.transforms import Flip, GaussianNoise, MixUp, Rotate

SPEC = ws.siren(2, 8, 8, 1)
COORDS = ws.signals.grid(8, 8)


def networks(batch: int = 6, seed: int = 0) -> ws.Weights:
    return testing.random_weights(SPEC, batch, generator=torch.Generator().manual_seed(seed))


def autoencoder(**options: Any) -> Autoencoder:
    encoder = build("forward-messages", SPEC, 32, seed=0, hidden=32, channels=16, functions=16, rbfs=0)
    return Autoencoder(encoder, **{"queries": 4, "hidden": 16, "attention_heads": 2, "seed": 1, **options})


def test_an_autoencoder_is_its_encoder_and_decodes_every_network_by_itself() -> None:
    model, w = autoencoder().eval(), networks()
    array = model(w)
    assert torch.equal(array, model.encoder(w))
    assert (model.equivariance, model.track, model.spec) == ("full", "weights-only", SPEC)
    assert (model.output, model.out_features) == ("tensor", 32)
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
    with pytest.raises(ValueError, match=r"array: expected \[batch, 32\], as the model returns it, got \[6, 31\]"):
        model.decode(torch.zeros(6, 31), COORDS)
    with pytest.raises(ValueError, match=r"x: expected \[point, 2\] or \[6, point, 2\], got \[5, 3\]"):
        model.decode(torch.zeros(6, 32), torch.zeros(5, 3))


def test_averaged_outputs_are_the_mean_over_the_copies() -> None:
    mirror, turn = Flip(1.0, axes=(1,)), Rotate(20.0)
    model = ws.models.ProbeNet(SPEC, 3, hidden=8, layers=1, points=6, seed=0).eval()
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
    assert (averaged.equivariance, averaged.track, averaged.num_parameters) == (
        "full",
        "probing",
        model.num_parameters,
    )
    assert torch.equal(averaged.train()(w), model.train()(w))
    testing.assert_invariant(Averaged(model.eval(), [mirror, turn]), SPEC, group="full", atol=1e-8)
    noisy = Averaged(model, [GaussianNoise(0.3)])
    assert noisy.equivariance == "none"
    assert repr(averaged) != repr(Averaged(model, [mirror, turn], seed=6))
    unit = ws.models.build("probe-net", SPEC, 3, hidden=8, layers=1, points=6, head="embedding").eval()
    torch.testing.assert_close(Averaged(unit, [mirror])(w).norm(dim=1), torch.ones(6))


def test_bad_averages_are_refused() -> None:
    model = ws.models.ProbeNet(SPEC, 3, hidden=8, layers=1, points=6)
    with pytest.raises(TypeError, match=r"model: expected a model of ws\.models, got str"):
        Averaged("probe-net", [Flip()])  # pyright: ignore
    with pytest.raises(TypeError, match="transforms: expected a list of transforms, got Flip"):
        Averaged(model, Flip())  # pyright: ignore
    for bad in ([], [MixUp("permutation")]):
        with pytest.raises(ValueError, match="transforms: expected one at least, and none that mixes networks"):
            Averaged(model, bad)
    with pytest.raises(ValueError, match=r"Rotate|rotation"):
        Averaged(ws.models.ProbeNet(ws.siren(1, 8, 1), 3, points=6), [Rotate(3.0)])
    equivariant = ws.models.build("ng-gnn", SPEC, 1, hidden=8, layers=1, head="equivariant").eval()
    with pytest.raises(TypeError, match=r"model: expected a model with an invariant head, .* which returns weights"):
        Averaged(equivariant, [GaussianNoise(0.1)])


def test_an_ensemble_is_the_mean_of_its_models() -> None:
    models = [ws.models.ProbeNet(SPEC, 3, hidden=8, layers=1, points=6, seed=i).eval() for i in range(3)]
    plain = ws.models.ProbeNet(SPEC, 3, hidden=8, layers=1, points=6, phase=False, seed=3).eval()
    w, ensemble = networks(), Ensemble(models)
    torch.testing.assert_close(ensemble(w), sum(m(w) for m in models) / 3)
    assert (ensemble.equivariance, ensemble.track, ensemble.spec, ensemble.training) == (
        "full",
        "probing",
        SPEC,
        False,
    )
    assert ensemble.num_parameters == 3 * models[0].num_parameters
    testing.assert_invariant(ensemble, SPEC, group="full", atol=1e-8)
    assert plain.equivariance != "full"
    less = Ensemble([models[0], plain])
    assert less.equivariance == plain.equivariance
    testing.assert_invariant(less, SPEC, group=plain.equivariance, atol=1e-8)
    with pytest.raises(AssertionError):
        testing.assert_invariant(less, SPEC, group="full", atol=1e-8)
    torch.testing.assert_close(Ensemble(models[:1])(w), models[0](w))
    again = pickle.loads(pickle.dumps(ensemble))
    assert torch.equal(again(w), ensemble(w))
    mirror = Flip(1.0, axes=(1,))
    both = Averaged(ensemble, [mirror])(w)
    torch.testing.assert_close(both, sum(Averaged(m, [mirror])(w) for m in models) / 3)
    unit = [build("probe-net", SPEC, 3, hidden=8, layers=1, points=6, head="embedding", seed=i) for i in range(2)]
    torch.testing.assert_close(Ensemble(unit)(w).norm(dim=1), torch.ones(6))


def test_bad_ensembles_are_refused() -> None:
    model = ws.models.ProbeNet(SPEC, 3, hidden=8, layers=1, points=6)
    with pytest.raises(ValueError, match="models: expected at least one, got none"):
        Ensemble([])
    for bad in (model, [model, "probe-net"]):
        with pytest.raises(TypeError, match=r"models: expected a list of models of ws\.models"):
            Ensemble(bad)  # pyright: ignore
    with pytest.raises(ValueError, match="models: expected models of one track"):
        Ensemble([model, ws.models.MLP(SPEC, 3)])
    with pytest.raises(ValueError, match="models: expected models of one number of outputs"):
        Ensemble([ws.models.MLP(SPEC, 3), ws.models.MLP(SPEC, 4)])
    unit = ws.models.build("mlp", SPEC, 3, head="embedding")
    with pytest.raises(ValueError, match="models: expected models of one kind of output"):
        Ensemble([Ensemble([ws.models.MLP(SPEC, 3)]), Ensemble([unit])])
    assert Ensemble([Averaged(Ensemble([unit, unit]), [GaussianNoise(0.1)])]).output == "embedding"
    with pytest.raises(ValueError, match="models: expected models of one spec"):
        Ensemble([ws.models.MLP(SPEC, 3), ws.models.MLP(ws.siren(2, 4, 1), 3)])
    editors = [ws.models.build("ng-gnn", SPEC, 1, hidden=8, layers=1, head="equivariant") for _ in range(2)]
    with pytest.raises(TypeError, match=r"models: expected a model with an invariant head, .* which returns weights"):
        Ensemble(editors)


def test_a_wrapper_starts_in_the_mode_of_its_model_and_leaves_the_models_parts_alone() -> None:
    model = ws.models.ForwardMessages(SPEC, 3, hidden=8, channels=4, functions=4, rbfs=0, seed=0)
    model.net[0].eval()
    modes = [part.training for part in model.modules()]
    for wrapped in (Embedding(model), Averaged(model, [Flip(1.0)]), Autoencoder(model, queries=3, hidden=8)):
        assert wrapped.training
        assert [part.training for part in model.modules()] == modes
    assert not Embedding(model.eval()).training
    assert not Editor(build("nfn-hnp", SPEC, 1, hidden=4, head="equivariant").eval()).training  # pyright: ignore


def test_a_protocol_is_all_that_wrappers_ask_for() -> None:
    """A model of models by a user, that derives from the protocol alone."""

    class Negative(WeightModel):
        def __init__(self, model: WeightModel) -> None:
            super().__init__(
                model.spec, model.out_features, output="tensor", equivariance=model.equivariance, track=model.track
            )
            self.model = model

        @property
        def config(self) -> dict[str, Any]:
            return {"model": self.model}

        def forward(self, weights: ws.Weights) -> torch.Tensor:
            out = self.model(weights)
            assert isinstance(out, torch.Tensor)
            return -out

    model, w = build("mlp", SPEC, 3, hidden=8, seed=0), networks()
    for wrapped in (Embedding(Negative(model)), Ensemble([Negative(model)]), Averaged(Negative(model), [Flip(0.0)])):
        sign = torch.nn.functional.cosine_similarity(wrapped.eval()(w), model(w))  # pyright: ignore
        torch.testing.assert_close(sign, -torch.ones(6))
    with pytest.raises(TypeError, match="abstract"):
        WeightModel(SPEC, 3, output="tensor", equivariance="none", track="function")  # pyright: ignore


def test_embeddings_have_length_one() -> None:
    plain, w = build("ng-gnn", SPEC, 6, hidden=8, layers=1, seed=0), networks(4)
    model = Embedding(plain)
    torch.testing.assert_close(model(w).norm(dim=1), torch.ones(4))
    assert (plain(w).norm(dim=1) - 1).abs().max() > 1e-3  # pyright: ignore
    torch.testing.assert_close(model(w), torch.nn.functional.normalize(plain(w), dim=1))  # pyright: ignore
    assert (model.output, model.equivariance, model.track) == ("embedding", plain.equivariance, plain.track)
    torch.testing.assert_close(Embedding(model)(w), model(w))
    for bad in ("ng-gnn", torch.nn.Linear(2, 2), build("ng-gnn", SPEC, 1, hidden=8, layers=1, head="editing")):
        with pytest.raises(TypeError, match="model: expected a model"):
            Embedding(bad)  # pyright: ignore


def test_editors_begin_at_the_networks_themselves() -> None:
    spec = ws.siren(2, 6, 5, 1)
    w = testing.random_weights(spec, 20, generator=torch.Generator().manual_seed(0))
    model = build("nfn-np", spec, 1, hidden=8, layers=1, head="editing", seed=0)
    step = ws.models.NFN(spec, 1, variant="np", hidden=8, layers=1, head="equivariant", seed=0)
    assert isinstance(model, Editor)
    model.model.normalize.fit(w)
    step.normalize.fit(w)
    torch.testing.assert_close(model(w).flat, w.flat + 0.01 * step.normalize.std * step(w).flat)
    assert (model.output, model.out_features, model.equivariance) == ("weights", 1, "permutation")
    with torch.no_grad():
        model.gain.copy_(torch.arange(6.0))  # one a parameter: the first stays
    edited = model(w)
    assert torch.equal(edited.view("0.weight"), w.view("0.weight"))
    bias = w.view("1.bias") + 3 * step.normalize.std[spec.slices["1.bias"]] * step(w).view("1.bias")
    torch.testing.assert_close(edited.view("1.bias"), bias)
    with pytest.raises(
        ValueError, match="one channel to edit networks with, got head='equivariant' and out_features=2"
    ):
        build("nfn-np", spec, 2, hidden=8, layers=1, head="editing")
    for made in (ws.models.NFN(spec, 1, variant="np", hidden=8), ws.models.MLP(spec, 1, hidden=8)):
        with pytest.raises(ValueError, match="expected a model with head='equivariant' and one channel to edit"):
            Editor(made)
    with pytest.raises(TypeError, match=r"model: expected a ws\.models\.Model, got Editor"):
        Editor(model)  # pyright: ignore
    half = Editor(ws.models.NFN(spec, 1, hidden=8, layers=1, variant="np", head="equivariant").bfloat16())
    assert half(w.to(torch.bfloat16)).flat.dtype == torch.bfloat16
