"""One contract for every model: a new model adds one row."""

from __future__ import annotations

import inspect
import math
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import networks as drawn
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace._symmetry import GROUPS
from weightspace.models import MODELS, DWSNet, Model, Normalize, WeightModel
from weightspace.models._wrappers import Editor, Embedding

TIGHT = {"atol": 1e-8, "rtol": 1e-8, "dtype": torch.float64}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Models draw their initial parameters from the global generator."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Row:
    """One model under test: its name in ``MODELS``, its outputs and small options."""

    name: str
    out_features: int
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, spec: ws.NetSpec, **more: Any) -> WeightModel:
        return ws.models.build(self.name, spec, self.out_features, **self.options, **more)


SMALL_SIZES = {"hidden": 8, "layers": 2}
FORWARD = {**SMALL_SIZES, "channels": 6, "functions": 5, "rbfs": 4, "rank": 2}
ROWS = {
    "dwsnet": Row("dwsnet", 3, {"hidden": 6, "layers": 2}),
    "dwsnet to weights": Row("dwsnet", 1, {"hidden": 5, "layers": 2, "head": "equivariant"}),
    "dwsnet to edits": Row("dwsnet", 1, {"hidden": 5, "layers": 1, "head": "editing"}),
    "dwsnet to features": Row("dwsnet", 2, {"hidden": 5, "layers": 1, "head": "equivariant"}),
    "dwsnet with attention": Row("dwsnet", 3, {**SMALL_SIZES, "attention": 2}),
    "dwsnet with attention to weights": Row("dwsnet", 1, {**SMALL_SIZES, "attention": 2, "head": "equivariant"}),
    "forward-messages": Row("forward-messages", 3, FORWARD),
    "forward-messages without rbfs": Row("forward-messages", 3, {**FORWARD, "rbfs": 0}),
    "forward-messages through activations": Row("forward-messages", 3, {**FORWARD, "learned": False}),
    "render-cnn": Row("render-cnn", 3, {"hidden": 4, "layers": 2, "size": 6}),
    "gmn": Row("gmn", 3, SMALL_SIZES),
    "gmn forward": Row("gmn", 3, {**SMALL_SIZES, "direction": "forward"}),
    "gmn to weights": Row("gmn", 1, {**SMALL_SIZES, "head": "equivariant"}),
    "probe-net": Row("probe-net", 3, {**SMALL_SIZES, "points": 6, "rank": 2}),
    "probe-net with learned biases": Row("probe-net", 3, {**SMALL_SIZES, "points": 6, "rank": 2, "phase": False}),
    "probe-net without mixing": Row("probe-net", 3, {**SMALL_SIZES, "points": 6, "rank": 0}),
    "probe-grid-net": Row("probe-grid-net", 3, {"hidden": 4, "layers": 2, "size": 5, "rank": 2}),
    "probe-grid-net without mixing": Row("probe-grid-net", 3, {"hidden": 4, "layers": 1, "size": 3, "rank": 0}),
    "inr2vec": Row("inr2vec", 3, SMALL_SIZES),
    "mlp": Row("mlp", 3, {"hidden": 16, "layers": 2}),
    "mlp to embeddings": Row("mlp", 3, {"hidden": 16, "layers": 2, "head": "embedding"}),
    "nfn-hnp": Row("nfn-hnp", 3, SMALL_SIZES),
    "nfn-hnp to weights": Row("nfn-hnp", 1, {**SMALL_SIZES, "head": "equivariant"}),
    "nfn-np": Row("nfn-np", 3, SMALL_SIZES),
    "nfn-np with frequencies": Row("nfn-np", 3, {**SMALL_SIZES, "fourier": 3}),
    "nfn-np to features": Row("nfn-np", 2, {**SMALL_SIZES, "head": "equivariant"}),
    "nft": Row("nft", 3, {**SMALL_SIZES, "queries": 2, "fourier": 5}),
    "nft to features": Row("nft", 2, {**SMALL_SIZES, "fourier": 5, "head": "equivariant"}),
    "ng-gnn": Row("ng-gnn", 3, {**SMALL_SIZES, "fourier": 5}),
    "ng-gnn with probes": Row("ng-gnn", 3, {**SMALL_SIZES, "fourier": 5, "probes": 3}),
    "ng-gnn to weights": Row("ng-gnn", 1, {**SMALL_SIZES, "fourier": 5, "head": "equivariant"}),
    "ng-t": Row("ng-t", 3, {**SMALL_SIZES, "fourier": 5, "attention_heads": 4}),
    "ng-t with probes": Row("ng-t", 3, {**SMALL_SIZES, "fourier": 5, "probes": 3}),
    "ng-t to features": Row("ng-t", 2, {**SMALL_SIZES, "fourier": 5, "head": "equivariant"}),
    "probe-gen": Row("probe-gen", 3, {**SMALL_SIZES, "probes": 7, "latent": 3}),
    "scale-gmn": Row("scale-gmn", 3, SMALL_SIZES),
    "scale-gmn forward": Row("scale-gmn", 3, {**SMALL_SIZES, "direction": "forward"}),
    "scale-gmn of one round": Row("scale-gmn", 3, {"hidden": 8, "layers": 1}),
    "scale-gmn to weights": Row("scale-gmn", 1, {**SMALL_SIZES, "head": "equivariant"}),
    "scale-gmn to edits": Row("scale-gmn", 1, {"hidden": 8, "layers": 1, "head": "editing"}),
    "scale-gmn to embeddings": Row("scale-gmn", 4, {**SMALL_SIZES, "head": "embedding"}),
    "statistics": Row("statistics", 3, SMALL_SIZES),
    "typed-messages": Row("typed-messages", 3, SMALL_SIZES),
    "typed-messages of one round": Row("typed-messages", 3, {"hidden": 8, "layers": 1}),
    "weight-tokens": Row("weight-tokens", 3, SMALL_SIZES),
}
SPEC = ws.siren(2, 5, 4, 1)
MIXED = ws.mlp(2, 5, 4, 1, activation=("gaussian", "relu"))
every_model = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def residual() -> ws.NetSpec:
    """Two blocks that write to one stream: the axis "h" is in four parameters."""
    axes = (ws.Axis("in", 2), ws.Axis("h", 3, "relu"), ws.Axis("m", 2, "relu"), ws.Axis("out", 1))
    names = {"up": ("h", "in"), "a": ("m", "h"), "b": ("h", "m"), "down": ("out", "h")}
    return ws.NetSpec(axes, (*(ws.Param(n, a) for n, a in names.items()), ws.Param("bias", ("h",), "bias")))


def networks(spec: ws.NetSpec = SPEC, batch: int = 6, seed: int = 1, dtype: torch.dtype = torch.float32) -> ws.Weights:
    return drawn(spec, batch, seed, dtype)


def numbers(out: Tensor | ws.Weights) -> Tensor:
    return out.flat if isinstance(out, ws.Weights) else out


def random_spec(seed: int) -> ws.NetSpec:
    return testing.random_spec(generator=torch.Generator().manual_seed(seed))


def fitted(model: Any, spec: ws.NetSpec) -> Any:
    """With statistics that are not those of a fresh layer."""
    for part in model.modules():
        if isinstance(part, Normalize):
            part.fit(networks(spec, 20, seed=9))
    return model


def arguments(name: str) -> tuple[type[Model], dict[str, Any]]:
    """The class of a name, and the arguments that the name stands for."""
    return MODELS[name], dict(MODELS[name].presets.get(name, {}))


def test_every_model_has_a_row() -> None:
    assert {row.name for row in ROWS.values()} == set(MODELS)
    heads = {(row.name, row.options.get("head", "invariant")) for row in ROWS.values()}
    assert {(name, head) for name, model in MODELS.items() for head in model.heads} <= heads


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_says_what_it_is(name: str) -> None:
    model = MODELS[name]
    assert issubclass(model, Model)
    assert name in (model.presets or {model.name: {}})
    assert model.equivariance in GROUPS
    assert model.track in ("weights-only", "probing", "function")
    assert model.reads in ("any", "hidden", "chain")
    text = " ".join((model.__doc__ or "").split())
    assert all(part in text for part in ("Args:", "Raises:", "Example:", "Reference:"))
    if name not in ("render-cnn", "mlp", "dwsnet"):
        assert "Departure" in text
    if name != "render-cnn":
        assert "Published" in text
    assert "Cost" in text


def test_tracks_follow_what_a_model_reads() -> None:
    def track(name: str, **options: Any) -> str:
        return ws.models.build(name, SPEC, 2, hidden=8, layers=1, **options).track

    probing = {"probe-net", "probe-grid-net"}
    assert {name for name in MODELS if track(name) == "function"} == {"render-cnn", "probe-gen"}
    assert {name for name in MODELS if track(name) == "probing"} == probing
    assert [track(name, probes=2) for name in ("ng-gnn", "ng-t")] == ["probing"] * 2
    assert [track(name, rank=0) for name in sorted(probing)] == ["probing"] * 2
    assert track("forward-messages", learned=False) == "probing"
    assert {track(name) for name in set(MODELS) - probing - {"render-cnn", "probe-gen"}} == {"weights-only"}


@every_model
def test_every_model_keeps_the_public_contract(row: Row) -> None:
    """The suite that users run on their models: symmetries and no larger ones, gradients, refusals, files."""
    first = next(other for other in ROWS.values() if other.name == row.name)
    for spec in (None,) if row is first else (SPEC, MIXED):  # by default on six kinds of networks
        testing.check_model(row.build, spec)


@every_model
def test_the_config_holds_every_argument(row: Row) -> None:
    """The config spells out the arguments of a model: no argument is missing, and it makes the same model again."""
    model = row.build(SPEC)
    inner: Any = model.model if isinstance(model, Embedding | Editor) else model
    names = set(inspect.signature(type(inner).__init__).parameters) - {"self", "spec", "seed"}
    assert set(inner.config) == names
    assert {name: inner.config[name] for name in row.options if name != "head"} == {
        name: value for name, value in row.options.items() if name != "head"
    }
    again = type(inner)(SPEC, **inner.config)
    assert again.config == inner.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in inner.state_dict().items()}


@every_model
def test_a_seed_decides_the_initial_weights_and_leaves_the_global_stream_alone(row: Row) -> None:
    state = torch.get_rng_state()
    first, second, other = (row.build(SPEC, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(3)
    plain = row.build(SPEC).state_dict()
    assert all(torch.equal(first[name], plain[name]) for name in first)
    assert not torch.equal(torch.get_rng_state(), state)


@every_model
def test_every_model_can_be_pickled(row: Row) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    torch.testing.assert_close(numbers(pickle.loads(pickle.dumps(model))(w)), numbers(model(w)))


@every_model
def test_output_shapes(row: Row, device: torch.device) -> None:
    for spec in (SPEC, ws.mlp(3, 4, 2, bias=False), random_spec(3)):
        out = row.build(spec).to(device)(networks(spec).to(device))
        model = row.build(spec)
        shape = [6, *([spec.num_params] if model.output == "weights" else [])]
        shape += [row.out_features] if model.output != "weights" or row.out_features > 1 else []
        assert list(numbers(out).shape) == shape
        assert isinstance(out, ws.Weights if model.output == "weights" else Tensor)
        assert model.output == {"embedding": "embedding", "equivariant": "weights", "editing": "weights"}.get(
            row.options.get("head"), "tensor"
        )
        assert model.out_features == row.out_features
        assert numbers(out).device.type == device.type
        assert torch.isfinite(numbers(out)).all()


@every_model
@pytest.mark.parametrize("seed", range(5))
def test_a_model_respects_what_it_declares(row: Row, seed: int) -> None:
    spec = random_spec(seed)
    model = fitted(row.build(spec), spec)
    check = testing.assert_equivariant if model.output == "weights" else testing.assert_invariant
    if model.equivariance != "none":
        check(model, spec, group=model.equivariance, **TIGHT)
        return
    with pytest.raises(AssertionError, match="largest difference"):
        check(model, spec, **TIGHT)


def test_random_specs_have_one_to_four_hidden_layers() -> None:
    assert {len(random_spec(seed).hidden) for seed in range(8)} == {1, 2, 3, 4}


@every_model
@pytest.mark.parametrize("broken", ["half a permutation", "a sign on one side", "inputs", "layers"])
def test_what_changes_the_function_changes_the_output(row: Row, broken: str) -> None:
    """Negative control outside every group: neurons moved in one of the two parameters that hold them, and such."""
    model, w = fitted(row.build(SPEC), SPEC).double().eval(), networks(dtype=torch.float64)
    other = w.clone()
    if broken == "half a permutation":
        for name in ("0.weight", "0.bias"):
            other.view(name).copy_(w.view(name).roll(1, 1))
    elif broken == "a sign on one side":
        other.view("2.weight")[:, :, 0] *= -1
    elif broken == "inputs":
        other.view("0.weight").copy_(w.view("0.weight").flip(2))
    else:
        other.view("1.weight").copy_(w.view("1.weight") + 0.05)
    with torch.no_grad():
        before, after = numbers(model(w)), numbers(model(other))
    moved = (after - before).flatten(1).abs().amax(1)
    assert (moved > 1e-6).any() == (MODELS[row.name].reads_arrangement or broken != "half a permutation")


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_one_is_that_row(row: Row, training: bool) -> None:
    model, w = row.build(SPEC).train(training), networks()
    whole = numbers(model(w))
    shared = training and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    for i in (0, 5):
        alone = numbers(model(w[i]))
        if shared:  # in training a batch norm mixes the batch
            assert alone.shape == whole[i : i + 1].shape
            assert bool(alone.isfinite().all())
        else:
            torch.testing.assert_close(alone, whole[i : i + 1], atol=1e-5, rtol=1e-5)


@every_model
def test_state_dicts_carry_everything(row: Row) -> None:
    model, other, w = fitted(row.build(SPEC), SPEC), row.build(SPEC), networks()
    assert not torch.equal(numbers(model(w)), numbers(other(w)))
    other.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
    assert torch.equal(numbers(model(w)), numbers(other(w)))
    assert all(part.fitted for part in other.modules() if isinstance(part, Normalize))


@every_model
def test_bad_networks_are_refused(row: Row) -> None:
    model, w = row.build(SPEC), networks()
    other = ws.siren(2, 5, 4, 1, omega=10.0)  # as many parameters
    with pytest.raises(ValueError, match=r"built for siren\(2-5.*omega=30.*got networks of siren\(2-5.*omega=10"):
        model(ws.Weights(w.flat, other))
    with pytest.raises(ValueError, match=r"at least one network, got \[0, 44\]"):
        model(w[:0])
    with pytest.raises(ValueError, match=r"expected weights \[batch, param\].*got \[6, 44, 1\]"):
        model(w.replace(w.flat[..., None]))
    with pytest.raises(TypeError, match="expected Weights, got Tensor; wrap the tensor"):
        model(w.flat)
    with pytest.raises(TypeError, match=r"expected weights of the model's torch.float32, got torch.float64; cast"):
        model(w.to(torch.float64))
    assert numbers(row.build(SPEC).double()(w)).dtype == torch.float64
    for bad in (math.nan, math.inf):
        spoilt = w.clone()
        spoilt.flat[2, 3] = bad
        with pytest.raises(
            ValueError, match=r"expected finite weights, got NaN or infinity in networks \[2\] \(1 of 6\)"
        ):
            model(spoilt)
    huge = w.replace(torch.full_like(w.flat, 1e37))  # finite, though their sum is not
    assert numbers(model(huge)).shape == numbers(model(w)).shape


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_works(row: Row, dtype: torch.dtype) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    exact = numbers(model(w))
    out = numbers(model.to(dtype)(w.to(dtype)))
    assert out.dtype == dtype
    limit = 0.3 if dtype == torch.bfloat16 else 0.05
    assert (out.float() - exact).abs().max() < limit * (1 + exact.abs().max())


@pytest.mark.parametrize("name", ["scale-gmn", "typed-messages"])
def test_features_of_positive_scales_do_not_overflow(name: str) -> None:
    spec = ws.mlp(2, 8, 8, 1)
    model, w = fitted(ws.models.build(name, spec, 3, hidden=32, layers=2), spec), networks(spec)
    out = numbers(model(w.replace(30 * w.flat)))
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@every_model
def test_autocast_works(row: Row) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(numbers(model(w))).all()


@every_model
def test_a_saved_model_comes_back(row: Row, tmp_path: Path) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    again = ws.models.load_model(ws.models.save_model(model, tmp_path / "model")).eval()
    assert type(again) is type(model)
    assert torch.equal(numbers(again(w)), numbers(model(w)))


@every_model
@pytest.mark.skipif("WEIGHTSPACE_SLOW" not in os.environ, reason="slow: set WEIGHTSPACE_SLOW=1")
def test_a_model_compiles(row: Row) -> None:
    torch._dynamo.reset()
    model, w = row.build(SPEC), networks()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(numbers(compiled(w)), numbers(model(w)), atol=1e-5, rtol=1e-5)


@every_model
def test_unsupported_specs_are_refused(row: Row, conv_spec: ws.NetSpec) -> None:
    reads = MODELS[row.name].reads
    if reads != "any":
        with pytest.raises(ValueError, match=r"expected at least one hidden axis, got none in .*; use ws.models.MLP"):
            row.build(ws.mlp(2, 3))
    if reads != "chain":
        assert numbers(row.build(conv_spec)(networks(conv_spec))).shape[0] == 6
        return
    for spec in (conv_spec, residual()):
        with pytest.raises(ValueError, match=r"reads sequential networks of linear layers alone: expected a chain"):
            row.build(spec)


@every_model
@pytest.mark.parametrize("size", [{"hidden": 1}, {"hidden": 0}, {"layers": 0}, {"dropout": 1.5}])
def test_bad_sizes_are_refused(row: Row, size: dict[str, int]) -> None:
    make, preset = arguments(row.name)
    with pytest.raises(ValueError, match=rf"{next(iter(size))}: expected .*, got"):
        make(SPEC, row.out_features, **preset, **size)  # pyright: ignore
    with pytest.raises(ValueError, match="out_features: expected at least 1, got 0"):
        make(SPEC, 0, **preset)  # pyright: ignore
    for bad in (10.0, "10", None, True):
        with pytest.raises(TypeError, match="out_features: expected a whole number, got"):
            make(SPEC, bad, **preset)  # pyright: ignore
    for name in ("hidden", "layers", "dropout", "seed"):
        with pytest.raises(TypeError, match=f"{name}: expected .*, got 'a'"):
            make(SPEC, 3, **preset, **{name: "a"})  # pyright: ignore
    with pytest.raises(ValueError, match="seed: expected at least 0, got -1"):
        make(SPEC, 3, **preset, seed=-1)  # pyright: ignore
    with pytest.raises(TypeError, match="spec: expected a NetSpec, got str"):
        ws.models.build(row.name, "siren", 3)  # pyright: ignore


@pytest.mark.parametrize("name", sorted(MODELS))
def test_dropout_acts_in_training_alone(name: str) -> None:
    model, w = ws.models.build(name, SPEC, 3, hidden=8, layers=1, dropout=0.5), networks()
    assert not torch.equal(model(w), model(w))
    model.eval()
    assert torch.equal(model(w), model(w))


def test_dwsnet_refuses_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"at least one hidden axis, got none in .*; use ws.models.MLP"):
        DWSNet(ws.mlp(2, 3), 4)
    with pytest.raises(ValueError, match="head: expected 'invariant' or 'equivariant', got 'mean'"):
        DWSNet(SPEC, 4, head="mean")  # pyright: ignore
    plain = ws.mlp(2, 3)
    assert ws.models.MLP(plain, 4, hidden=8)(networks(plain)).shape == (6, 4)


def test_dwsnet_reads_convolutions(conv_spec: ws.NetSpec) -> None:
    testing.assert_invariant(DWSNet(conv_spec, 3, hidden=4, layers=2), conv_spec, **TIGHT)
    testing.assert_equivariant(DWSNet(conv_spec, 1, hidden=4, layers=1, head="equivariant"), conv_spec, **TIGHT)
    testing.assert_equivariant(ws.models.layers.EquivariantLinear(conv_spec, 2, 3), conv_spec, **TIGHT)
