"""The public checks themselves: what is right passes, what is wrong fails, what checks nothing is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from _helpers import networks
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace.models import Model, Normalize, WeightModel
from weightspace.models._wrappers import Embedding
from weightspace.testing import _model, _model_checks, check_model
from weightspace.testing._assert import equivariance_error

SPEC = ws.mlp(2, 6, 4, 1, activation=["relu", "tanh"])
RELU = ws.mlp(2, 6, 1, activation="relu")


class Pool(nn.Module):
    """Mean over every parameter, one linear map: invariant, and equivariant when broadcast back."""

    def __init__(self, channels: int, broadcast: bool = False) -> None:
        super().__init__()
        self.in_channels = channels
        self.linear = nn.Linear(channels, 3)
        self.broadcast = broadcast

    def forward(self, weights: ws.Weights) -> ws.Weights | Tensor:
        pooled = torch.stack([v.flatten(1, -2).mean(1) for _, v in weights.items()]).sum(0)
        if not self.broadcast:
            return self.linear(pooled)
        return weights.replace(self.linear(weights.flat) + self.linear(pooled)[:, None])


class PerNeuronBias(nn.Module):
    """Not equivariant, but only once its zero-initialised parameter moves."""

    def __init__(self, spec: ws.NetSpec) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(spec.num_params))

    def forward(self, weights: ws.Weights) -> ws.Weights:
        return weights.replace(weights.flat.sin() + self.bias)


@pytest.mark.parametrize("seed", range(6))
def test_equivariant_and_invariant_layers_pass(seed: int, dtype: torch.dtype, device: torch.device) -> None:
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen)
    options: dict[str, Any] = {"dtype": dtype, "device": device, "generator": gen}
    testing.assert_equivariant(Pool(5, broadcast=True), spec, **options)
    testing.assert_equivariant(Pool(5), spec, **options)
    testing.assert_invariant(Pool(5), spec, **options)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (lambda w: w.replace(w.flat.roll(1, 1)), None),
        (lambda w: w.replace(w.flat.cumsum(1)), 3),
        (lambda w: w.replace(w.flat * torch.linspace(1, 1.1, w.flat.shape[1]).double()), None),
        (lambda w: w.flat[:, 0], None),
        (lambda w: w.flat[:, 3:5], 2),
        (PerNeuronBias(SPEC), None),
    ],
)
def test_layers_that_break_the_symmetry_fail(layer: Any, channels: int | None) -> None:
    with pytest.raises(AssertionError, match=r"\(permutation\): largest difference"):
        testing.assert_equivariant(layer, SPEC, channels=channels)


def test_noise_finds_what_a_zero_start_hides() -> None:
    testing.assert_equivariant(PerNeuronBias(SPEC), SPEC, noise=0.0)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(PerNeuronBias(SPEC), SPEC)


def test_groups_are_nested_and_each_adds_something() -> None:
    spec = ws.mlp(2, 6, 5, 4, 1, activation=["relu", "tanh", "sine"])

    def norms(w: ws.Weights) -> Tensor:
        return torch.stack([w.view(n).square().flatten(1).sum(1) for n in ("0.bias", "1.bias", "2.bias")], 1)

    def signs(w: ws.Weights) -> Tensor:
        return w.view("1.bias").sum(1)

    testing.assert_invariant(norms, spec, group="signed")
    testing.assert_invariant(signs, spec, group="permutation")
    for model, group in ((signs, "signed"), (norms, "scaled")):
        with pytest.raises(AssertionError, match=rf"invariance \({group}\)"):
            testing.assert_invariant(model, spec, group=group)
    sine = ws.siren(2, 6, 1)
    first = lambda w: w.view("0.bias").square().sum(1)  # noqa: E731
    testing.assert_invariant(first, sine, group="scaled")
    with pytest.raises(AssertionError, match=r"invariance \(full\)"):
        testing.assert_invariant(first, sine, group="full")


def test_the_error_is_a_number_and_the_assert_is_its_bound() -> None:
    right, wrong = Pool(3, broadcast=True), PerNeuronBias(SPEC)
    assert equivariance_error(right, SPEC) < 1e-14
    error = equivariance_error(wrong, SPEC)
    assert error > 0.01
    testing.assert_equivariant(wrong, SPEC, atol=1.01 * error, rtol=1.01 * error)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(wrong, SPEC, atol=0.99 * error, rtol=0.99 * error)
    scaled = lambda w: w.view("0.bias")[:, 0] * 100  # noqa: E731
    assert equivariance_error(scaled, SPEC) < 2.5  # relative to the output
    double, single = (equivariance_error(right, SPEC, dtype=t) for t in (torch.float64, torch.float32))
    assert double < single < 1e-4
    with pytest.raises(AssertionError, match="same for every network"):
        equivariance_error(lambda w: torch.ones(len(w), 2), SPEC)


def test_functions_are_invariant_under_the_full_group() -> None:
    points = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None].expand(-1, 2)
    for seed in range(5):
        spec = ws.mlp(2, 6, 5, 4, 1, activation=["relu", "tanh", "sine"])
        gen = torch.Generator().manual_seed(seed)
        testing.assert_invariant(lambda w: ws.evaluate(w, points), spec, group="full", generator=gen)


def test_the_module_is_left_as_it_is() -> None:
    layer = nn.Sequential(Pool(3, broadcast=True), nn.Identity())
    before = [p.clone() for p in layer.parameters()]
    testing.assert_equivariant(layer, SPEC, channels=3)
    assert layer.training
    assert all(torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(before, layer.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())


def test_the_global_random_state_is_left_alone(generator: torch.Generator) -> None:
    layer = Pool(3)
    state = torch.get_rng_state()
    w = testing.random_weights(SPEC, 2, generator=generator)
    testing.assert_same_function(w, ws.Symmetry.sample(SPEC, batch=2, generator=generator).act(w))
    testing.assert_equivariant(layer, SPEC)
    testing.random_spec(generator=generator)
    assert torch.equal(torch.get_rng_state(), state)


def test_checks_that_would_check_nothing_are_refused() -> None:
    with pytest.raises(AssertionError, match="same for every network"):
        testing.assert_invariant(lambda w: torch.ones(len(w), 2), SPEC)
    with pytest.raises(AssertionError, match="same for every network"):
        testing.assert_equivariant(lambda w: w.replace(0 * w.flat), SPEC)
    with pytest.raises(ValueError, match="nothing would be checked"):
        testing.assert_equivariant(Pool(3), ws.mlp(2, 1))
    with pytest.raises(ValueError, match="at least 2 networks"):
        testing.assert_equivariant(Pool(3), SPEC, batch=1)


def test_wrong_outputs_are_refused() -> None:
    with pytest.raises(TypeError, match=r"return Weights or a Tensor, got list"):
        testing.assert_equivariant(lambda w: w.flat.tolist(), SPEC)
    with pytest.raises(TypeError, match=r"return a tensor, got Weights; use assert_equivariant"):
        testing.assert_invariant(lambda w: w, SPEC)  # type: ignore[arg-type,return-value]
    with pytest.raises(AssertionError, match="nan or inf"):
        testing.assert_invariant(lambda w: w.flat.sum(1).log(), SPEC)
    with pytest.raises(ValueError, match="group: expected one of"):
        testing.assert_equivariant(Pool(3), SPEC, group="everything")  # type: ignore[arg-type]


def test_same_function_measures_what_it_says(generator: torch.Generator, dtype: torch.dtype) -> None:
    w = testing.random_weights(RELU, 3, generator=generator, dtype=dtype)
    moved = w.clone()
    moved.view("1.bias")[1] += 0.25
    with pytest.raises(AssertionError, match=r"largest difference 2\.500e-01; network 1 differs by 2\.500e-01"):
        testing.assert_same_function(w, moved)
    testing.assert_same_function(w, moved, atol=0.26)
    testing.assert_same_function(w, moved, x=torch.rand(7, 2, generator=generator), atol=0.26, rtol=0.0)
    with pytest.raises(AssertionError):
        testing.assert_same_function(w, moved, atol=0.24, rtol=0.0, generator=generator)
    with pytest.raises(AssertionError, match="nan or inf"):
        testing.assert_same_function(w, w.replace(w.flat * float("nan")))
    with pytest.raises(ValueError, match="as many networks, inputs and outputs"):
        testing.assert_same_function(w, w[:2])
    with pytest.raises(ValueError, match="as many networks, inputs and outputs"):
        testing.assert_same_function(w[:0], w[:0])


def test_a_small_error_in_a_small_function_is_found(generator: torch.Generator) -> None:
    """Phase errors of a tenth of a degree in one bias, in float64."""
    spec = ws.siren(2, 16, 16, 1, output_shift=0.0)
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    moved = w.clone()
    moved.view("0.bias")[0, 3] += 1e-3 / 30
    with pytest.raises(AssertionError, match="network 0"):
        testing.assert_same_function(w, moved)


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_are_not_degenerate(seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen)
    w = testing.random_weights(spec, 8, generator=gen)
    y = ws.evaluate(w, 2 * torch.rand(100, spec.in_features, generator=gen) - 1)
    assert y.std(1).mean() > 5e-3
    assert y.abs().max() < 100
    assert not torch.allclose(w.flat[0], w.flat[1])


def test_random_weights_agree_between_dtypes() -> None:
    a, b = (
        testing.random_weights(SPEC, 2, generator=torch.Generator().manual_seed(1), dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(a.flat, b.flat.float(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda w: testing.assert_same_function(w.flat, w), "a: expected Weights, got Tensor; wrap"),
        (lambda w: testing.assert_same_function(w, None), "b: expected Weights, got NoneType"),
        (lambda w: testing.assert_same_function(w, w, x=[[0.0, 0.0]]), "x: expected a tensor, got list"),
        (lambda w: testing.assert_same_function(w, w, generator=3), "expected a torch.Generator, got int"),
        (lambda w: testing.assert_equivariant(lambda v: v, None), "spec: expected a NetSpec, got NoneType"),
        (lambda w: testing.assert_equivariant(None, w.spec), "layer: expected a module or function, got NoneType"),
        (lambda w: testing.assert_equivariant(lambda v: v, w.spec, batch="4"), "batch: expected a whole number"),
        (lambda w: testing.assert_invariant(lambda v: v.flat, None), "spec: expected a NetSpec, got NoneType"),
        (lambda w: testing.random_spec(generator=torch.Generator(), max_hidden_layers=2.5), "expected a whole number"),
    ],
)
def test_other_types_are_refused(check, text: str) -> None:
    spec = ws.mlp(2, 5, 1)
    with pytest.raises(TypeError, match=text):
        check(testing.random_weights(spec, 2, generator=torch.Generator().manual_seed(0)))


# ------------------------------------------------------------------------------------------ models on weights


def build(name: str, out_features: int = 3, **options: Any) -> Callable[[ws.NetSpec], WeightModel]:
    return lambda spec: ws.models.build(name, spec, out_features, hidden=8, layers=1, **options)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(build("mlp"), id="mlp"),
        pytest.param(build("dwsnet", 1, head="equivariant"), id="dwsnet to weights"),
        pytest.param(build("dwsnet", 2, head="equivariant"), id="dwsnet to features"),
        pytest.param(build("dwsnet", 1, head="editing"), id="editor"),
        pytest.param(build("mlp", 4, head="embedding"), id="embedding"),
        pytest.param(build("probe-net"), id="probe-net"),
        pytest.param(build("forward-messages"), id="forward-messages"),
        pytest.param(lambda s: ws.models.Ensemble([build("statistics")(s), build("statistics")(s)]), id="ensemble"),
    ],
)
def test_models_and_wrappers_keep_the_contract(make: Callable[[ws.NetSpec], WeightModel], device: torch.device) -> None:
    check_model(make, device=device)


SIREN = ws.siren(2, 5, 4, 1)


class Toy(Model):
    """Sums over neurons of functions of their weights and biases: permutations alone leave it as it is."""

    name, reads, equivariance, track = "", "chain", "permutation", "weights-only"

    def __init__(self, spec: ws.NetSpec, out_features: int = 3, *, seed: int | None = None) -> None:
        super().__init__(spec, out_features, Normalize(spec), {})
        self.linear = nn.Linear(3 * len(spec.params), out_features)

    def compute(self, weights: ws.Weights) -> Tensor:
        return self.linear(self.read(weights))

    def read(self, weights: ws.Weights) -> Tensor:
        values = [value.flatten(1) for _, value in weights.items()]
        return torch.cat([torch.stack([v.mean(1), v.square().mean(1), v.sin().mean(1)], 1) for v in values], 1)


def test_a_new_model_is_checked_by_one_call() -> None:
    check_model(Toy)
    check_model(Toy, SIREN)


class Raw(WeightModel):
    """The same model without a look at its input; a table of errors says what it refuses."""

    equivariance, track, refuses = "permutation", "weights-only", {}

    def __init__(self, spec: ws.NetSpec) -> None:
        super().__init__(spec, 3, output="tensor", equivariance="permutation", track="weights-only")
        self.toy = Toy(spec)

    @property
    def config(self) -> dict[str, Any]:
        return {}

    def forward(self, weights: ws.Weights) -> Tensor:
        try:
            return self.toy(weights)
        except (TypeError, ValueError) as error:
            return self.answer(error)

    def answer(self, error: Exception) -> Tensor:
        return torch.zeros(1, 3)


class Wrong(Raw):
    def answer(self, error: Exception) -> Tensor:
        raise KeyError("weights")


class Silent(Raw):
    def answer(self, error: Exception) -> Tensor:
        raise type(error)("no")


class Everything(Toy):
    equivariance = "everything"  # type: ignore[assignment]


class Wide(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        return torch.cat([super().compute(weights)] * 2, 1)


class Infinite(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        return super().compute(weights) / 0


class Writing(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        self.written.flat.mul_(2.0)
        return super().compute(weights)

    def __call__(self, weights: ws.Weights) -> Tensor:
        self.written = weights
        return super().__call__(weights)


class Pretender(Toy):
    equivariance = "signed"


class Modest(Toy):
    equivariance = "none"


class Single(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        return super().compute(weights).float()


class Rough(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        out = super().compute(weights)
        return 2 * out if out.dtype == torch.float32 else out


class Batched(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        out = super().compute(weights)
        return out - out.mean(0)


class Noisy(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        return super().compute(weights) + 1e-9 * torch.rand(())


class Blind(Toy):
    def read(self, weights: ws.Weights) -> Tensor:
        values = super().read(weights)
        return torch.cat([values[:, :-3], torch.zeros_like(values[:, -3:])], 1)


class Idle(Toy):
    def __init__(self, spec: ws.NetSpec, out_features: int = 3, *, seed: int | None = None) -> None:
        super().__init__(spec)
        self.spare = nn.Parameter(torch.zeros(2))


class Detached(Toy):
    def compute(self, weights: ws.Weights) -> Tensor:
        return self.linear(self.read(weights).detach())


class Unmade(Toy):
    """Its constructor does not take what its ``config`` holds."""

    def __init__(self, spec: ws.NetSpec) -> None:
        super().__init__(spec)


class Hidden(Toy):
    """Its output depends on a number that is in no ``state_dict``."""

    def __init__(self, spec: ws.NetSpec) -> None:
        super().__init__(spec)
        self.factor = float(torch.rand(()))

    def compute(self, weights: ws.Weights) -> Tensor:
        return self.factor * super().compute(weights)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (Everything, "expected equivariance to be one of .*, got 'everything'"),
        (Wide, r"expected outputs of shape \[6, 3\], got \[6, 6\]"),
        (Infinite, "expected finite outputs, got nan or inf"),
        (Writing, "expected the input to stay as it is, got it written"),
        (Pretender, r"invariance \(signed\): largest difference"),
        (Modest, "expected equivariance='none' to be the largest group, got one that commutes with 'permutation' too"),
        (Raw, "expected ValueError for networks of another spec, got an output"),
        (Wrong, "expected ValueError for networks of another spec, got KeyError"),
        (Silent, "expected ValueError for networks of another spec that says what it got, got 'no'"),
        (Single, "cast to float64: expected float64, got torch.float32"),
        (Rough, "float32 and float64: largest difference"),
        (Batched, "network 0 alone and in a batch: largest difference"),
        (Noisy, "expected evaluation without random numbers, got some from the global stream"),
        (Blind, "expected '2.bias' of the networks to be read, got no gradient"),
        (Detached, "expected outputs that can be differentiated by the weights, got none"),
        (Idle, "expected all parameters to learn, got none for {'spare'}"),
        (Unmade, r"expected the saved model to come back, got .*expected some of \['spec'\], got 'out_features'"),
        (Hidden, "expected a copy that loads the state_dict to give the same outputs, got others"),
        (lambda spec: nn.Linear(2, 3), r"expected make\(spec\) to return a ws.models.WeightModel, got Linear"),
    ],
)
def test_a_broken_model_fails_the_contract(broken: Callable[[ws.NetSpec], WeightModel], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check_model(broken, SIREN)


def test_less_than_the_largest_group_may_be_declared_on_request() -> None:
    check_model(Modest, SIREN, exact=False)


def test_embeddings_have_length_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.functional, "normalize", lambda out, dim: 2 * out)
    with pytest.raises(AssertionError, match="lengths of embeddings: largest difference"):
        check_model(lambda spec: Embedding(Toy(spec)), SIREN)


def test_a_saved_model_that_comes_back_another_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    make = build("mlp")
    check_model(make, SIREN)
    monkeypatch.setattr(_model_checks, "load_model", lambda folder: make(SIREN))
    with pytest.raises(AssertionError, match="expected the saved model to come back with the same outputs"):
        check_model(make, SIREN)


@pytest.mark.parametrize(
    ("reads", "taken", "text"),
    [
        ("chain", "any", "reads='chain', .*: expected ValueError, got Reader"),
        ("any", "chain", "reads='any', .*: expected a model, got ValueError"),
        ("hidden", "any", "reads='hidden', mlp.*: expected ValueError, got Reader"),
    ],
)
def test_a_model_reads_what_it_declares(reads: str, taken: str, text: str) -> None:
    class Reader(Toy):
        pass

    def make(spec: ws.NetSpec) -> WeightModel:
        Reader.reads = taken  # type: ignore[assignment]
        model = Reader(spec)
        Reader.reads = reads  # type: ignore[assignment]
        return model

    with pytest.raises(AssertionError, match=text):
        _model.check_reads(make)


def test_what_cannot_be_checked_as_a_model_is_refused() -> None:
    with pytest.raises(TypeError, match="make: expected a function that makes a model for a spec, got MLP"):
        check_model(ws.models.MLP(SIREN, 3, hidden=8), SIREN)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="spec: expected a NetSpec, got str"):
        check_model(Toy, "siren")  # type: ignore[arg-type]


def test_a_failing_check_hides_its_own_frames() -> None:
    """pytest shows the line of the test: every frame of the package that an assert passes is marked hidden."""
    for check in (
        lambda: check_model(Wide, SIREN),
        lambda: testing.check_transform(ws.transforms.Identity(), SIREN),
        lambda: testing.assert_invariant(lambda w: w.flat[:, 0], SPEC),
        lambda: testing.assert_same_function(networks(SPEC), networks(SPEC, seed=2)),
    ):
        with pytest.raises(AssertionError) as caught:
            check()
        frames = [entry for entry in caught.traceback if "weightspace" in str(entry.path.parent)]
        own = [entry for entry in frames if "tests" not in entry.path.parts]
        assert own
        assert [entry.name for entry in own if "__tracebackhide__" not in entry.frame.f_locals] == []
