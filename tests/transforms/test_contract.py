"""Every transform against the public contract, and broken transforms that each of its checks must catch."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from _helpers import generator, networks

import weightspace as ws
from weightspace import transforms as t
from weightspace.testing import _transform as contract
from weightspace.testing import check_transform


@dataclass(frozen=True)
class Row:
    """One transform under test.

    Args:
        transform: the transform.
        specs: names of specs that it takes.
        refuses: names of specs that it must refuse.
        random: whether it draws random numbers for the weights.
        changes: whether it changes the weights.
    """

    transform: t.Transform
    specs: tuple[str, ...]
    refuses: tuple[str, ...] = ()
    random: bool = True
    changes: bool = True


SPECS = {
    "siren2": ws.siren(2, 7, 5, 1, omega=(3.0, 2.0)),
    "siren3": ws.siren(3, 6, 1, omega=2.0),
    "siren1": ws.siren(1, 4, 3, 1, omega=2.0),
    "relu2": ws.mlp(2, 6, 5, 3, activation="relu"),
    "tanh2": ws.mlp(2, 6, 5, 1, activation="tanh"),
    "even2": ws.mlp(2, 6, 5, 1, activation=("cosine", "gaussian")),
    "gelu4": ws.mlp(4, 5, 2, activation="gelu"),
    "nobias": ws.siren(2, 5, 4, 1, omega=2.0, bias=False),
    "linear": ws.mlp(2, 3),
    "rank": ws.mlp(2, 6, 3, 1, activation=("relu", "linear")),
}
ANY = tuple(SPECS)
PLANE = ("siren2", "siren3", "relu2", "tanh2", "even2", "nobias", "linear", "rank")
BIASED = tuple(name for name in SPECS if name != "nobias")
DEEP = tuple(name for name in SPECS if name != "linear")


def match_full(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
    """An aligner as a user would write it."""
    return ws.align.match(a, b, group="full")


ROWS = [
    Row(t.Rotate(40.0), PLANE, ("siren1", "gelu4")),
    Row(t.Rotate(40.0, size=(16, 48)), tuple(n for n in PLANE if n != "siren3"), ("siren1", "siren3", "gelu4")),
    Row(t.Rotate(40.0, size=(4, 9, 6)), ("siren3",), ("siren2", "siren1")),
    Row(t.Translate(0.3), BIASED, ("nobias",)),
    Row(t.Scale(0.7, 1.4), ANY),
    Row(t.Scale(0.7, 1.4, isotropic=False), ANY),
    Row(t.Shear(0.3), (*PLANE, "gelu4"), ("siren1",)),
    Row(t.Flip(0.5), ANY),
    Row(t.Flip(0.5, axes=(1,)), (*PLANE, "gelu4"), ("siren1",)),
    Row(t.Affine([[1.0, 0.2], [0.1, 0.9]], [0.1, -0.2]), ("siren2", "relu2"), ("siren1", "nobias"), random=False),
    Row(t.Affine([[0.0, -1.0], [1.0, 0.0]]), ("siren2", "nobias"), ("siren3",), random=False),
    Row(t.GaussianNoise(0.2), ANY),
    Row(t.WeightDropout(0.3), ANY),
    Row(t.QuantilePrune(0.6), tuple(n for n in ANY if n != "linear")),
    Row(t.LabelSmoothing(0.2), ("siren2",), random=False, changes=False),
    Row(t.Identity(), ("siren2",), random=False, changes=False),
    Row(t.Permute(), DEEP, ("linear",)),
    Row(t.SignFlip(), ("siren2", "siren3", "siren1", "tanh2", "even2", "nobias"), ("relu2", "gelu4", "linear")),
    Row(t.PhaseShift(2), ("siren2", "siren3", "siren1"), ("relu2", "tanh2", "even2", "nobias", "linear")),
    Row(t.PositiveScale(3.0), ("relu2",), ("siren2", "tanh2", "gelu4", "linear")),
    Row(t.LinearMix(3.0), ("rank",), ("relu2", "siren2", "linear")),
    Row(t.MixUp(), ANY),
    Row(t.MixUp("random", alpha=0.4), ANY),
    Row(t.MixUp("permutation", per_layer=True), ANY),
    Row(t.MixUp("signed", labels="hard"), ("siren2", "tanh2", "even2"), ("relu2",)),
    Row(t.MixUp("scaled"), ("siren2", "relu2", "gelu4")),
    Row(t.MixUp("full"), ("siren2", "tanh2", "even2", "relu2")),
    Row(t.MixUp(match_full), ("siren2", "tanh2", "relu2", "linear")),
    Row(t.SelfMixUp(t.Permute(), alpha=0.4), DEEP, ("linear",)),
    Row(t.RandomApply(t.Rotate(40.0), 0.5), PLANE, ("siren1",)),
    Row(t.RandomApply(t.MixUp(), 0.9), ("siren2",)),
    Row(
        t.OneOf([t.Translate(), t.Flip(), t.Permute()]), tuple(n for n in BIASED if n != "linear"), ("nobias", "linear")
    ),
    Row(t.OneOf([t.MixUp(), t.LabelSmoothing()], [0.8, 0.2]), ("siren2",)),
    Row(t.Compose([]), ("siren2",), random=False, changes=False),
    Row(t.Compose([t.Rotate(20.0), t.Translate(), t.Shear()]), ("siren2", "siren3", "relu2"), ("siren1",)),
    Row(t.Compose([t.Permute(), t.SignFlip(), t.PhaseShift()]), ("siren2", "siren3"), ("relu2",)),
    Row(
        t.Compose([t.RandomApply(t.Rotate()), t.Compose([t.Permute(), t.Translate()])]),
        ("siren2", "tanh2"),
        ("linear",),
    ),
    Row(t.Compose([t.GaussianNoise(0.1), t.MixUp(), t.Rotate(), t.LabelSmoothing()]), ("siren2", "relu2")),
]
CASES = [pytest.param(row, name, id=f"{row.transform!r}-{name}") for row in ROWS for name in row.specs]
REFUSED = [pytest.param(row.transform, name, id=f"{row.transform!r}-{name}") for row in ROWS for name in row.refuses]


@pytest.mark.parametrize(("row", "name"), CASES)
def test_contract(row: Row, name: str, dtype: torch.dtype, device: torch.device) -> None:
    settings: dict[str, Any] = {"random": row.random, "changes": row.changes}
    check_transform(row.transform, SPECS[name], dtype=dtype, device=device, **settings)


@pytest.mark.parametrize("name", t.AUGMENTATIONS)
def test_contract_of_the_registry_on_all_kinds_of_networks(name: str) -> None:
    plain = name == "label-smoothing"
    check_transform(t.AUGMENTATIONS[name], random=not plain, changes=not plain)


@pytest.mark.parametrize(("transform", "name"), REFUSED)
def test_refuses_specs_that_lack_a_requirement(transform: t.Transform, name: str) -> None:
    w = networks(SPECS[name], dtype=torch.float32)
    contract.check_refusal(transform, SPECS[name])
    for use in (transform, transform.sample):
        with pytest.raises(ValueError, match=r"expected .*, got .*; "):
            use(w, generator=generator())
    with pytest.raises(ValueError, match="expected"):
        check_transform(transform, SPECS[name])


def test_every_public_transform_has_a_row() -> None:
    public = [getattr(ws.transforms, name) for name in ws.transforms.__all__]
    concrete = {c for c in public if isinstance(c, type) and issubclass(c, t.Transform) and not c.__abstractmethods__}
    assert concrete <= {type(row.transform) for row in ROWS}


MIXES = [
    t.MixUp(),
    t.Compose([t.MixUp(), t.MixUp()]),
    t.RandomApply(t.MixUp(), 0.6),
    t.RandomApply(t.Compose([t.MixUp(), t.MixUp()]), 1.0),
    t.RandomApply(t.Compose([t.MixUp(), t.MixUp(alpha=0.5)]), 0.5),
    t.RandomApply(t.RandomApply(t.Compose([t.MixUp(), t.MixUp(), t.MixUp()]), 0.7), 0.7),
    t.Compose([t.RandomApply(t.Compose([t.MixUp(), t.MixUp()]), 0.6), t.MixUp()]),
    t.Compose([t.MixUp(), t.RandomApply(t.MixUp(), 0.5), t.OneOf([t.MixUp(alpha=2.0), t.Identity()])]),
    t.OneOf([t.MixUp(), t.Compose([t.MixUp(), t.RandomApply(t.MixUp(), 0.5)])]),
    t.RandomApply(t.OneOf([t.Compose([t.MixUp(), t.MixUp()]), t.MixUp()], [0.7, 0.3]), 0.8),
]


@pytest.mark.parametrize("transform", MIXES, ids=repr)
def test_labels_say_what_each_network_is_made_of(transform: t.Transform, device: torch.device) -> None:
    contract.check_labels_follow(transform, networks(SPECS["siren2"], device=device))


@pytest.mark.parametrize("transform", [*(row.transform for row in ROWS), *MIXES, *t.AUGMENTATIONS.values()], ids=repr)
def test_every_transform_can_be_pickled(transform: t.Transform) -> None:
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    assert again.preserves == transform.preserves
    for name, spec in SPECS.items():
        assert contract.accepts(again, spec) is contract.accepts(transform, spec), name
    spec = next(spec for spec in SPECS.values() if contract.accepts(transform, spec))
    w = networks(spec)
    assert again(w, generator=generator()).flat.equal(transform(w, generator=generator()).flat)


@pytest.mark.parametrize(
    "transform", [row.transform for row in ROWS if row.transform != t.MixUp(match_full)] + MIXES, ids=repr
)
def test_the_text_of_a_transform_makes_it_again(transform: t.Transform) -> None:
    again = eval(repr(transform), {name: getattr(ws.transforms, name) for name in ws.transforms.__all__})
    assert repr(again) == repr(transform)
    assert again == transform
    assert hash(again) == hash(transform)
    own = {t.PositiveScale: "relu2", t.LinearMix: "rank"}
    w = networks(SPECS[own.get(type(transform), "siren2")])
    if not contract.accepts(transform, w.spec):
        return
    assert again(w, generator=generator()).flat.equal(transform(w, generator=generator()).flat)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (t.OneOf([t.Flip(), t.Rotate()], [0.1, 0.9]), t.OneOf([t.Flip(), t.Rotate()], [0.9, 0.1])),
        (t.RandomApply(t.Flip(), 0.1), t.RandomApply(t.Flip(), 0.2)),
        (t.SelfMixUp(t.Permute(), alpha=0.1), t.SelfMixUp(t.Permute(), alpha=0.2)),
        (t.Affine([[1.0000001]]), t.Affine([[1.0000002]])),
        (t.Affine([[1.0]], [0.0]), t.Affine([[1.0]])),
        (t.Compose([t.MixUp(alpha=0.5)]), t.Compose([t.MixUp(alpha=0.6)])),
        (t.Scale(isotropic=True), t.Scale(isotropic=False)),
        (t.Flip(axes=(0,)), t.Flip(axes=(1,))),
        (t.MixUp("full"), t.MixUp("signed")),
        (t.MixUp(match_full), t.MixUp(ws.align.match)),
    ],
)
def test_the_text_of_a_transform_holds_every_setting(one: t.Transform, other: t.Transform) -> None:
    assert repr(one) != repr(other)
    assert one != other


# ---------------------------------------------------------------------------------------- negative controls

SIREN = SPECS["siren2"]


class Broken(t.Transform):
    """A transform whose parts are replaced, to be caught by the contract."""

    def __init__(self, inner: t.Transform, spoil: Callable[[ws.Weights, ws.Weights], ws.Weights]) -> None:
        self.inner, self.spoil, self.preserves = inner, spoil, inner.preserves
        self.requires, self.mixes_networks = inner.requires, inner.mixes_networks

    def __repr__(self) -> str:
        return f"Broken({self.inner!r})"

    def sample(self, weights: ws.Weights, *, generator: torch.Generator, **pool: Any) -> Any:
        return self.inner.sample(weights, generator=generator, **pool)

    def apply(self, weights: ws.Weights, draw: Any) -> ws.Weights:
        return self.spoil(weights, self.inner.apply(weights, draw))


def _forget_next_column(before: ws.Weights, after: ws.Weights) -> ws.Weights:
    after.view("1.weight").copy_(before.view("1.weight"))
    return after


def _forget_bias(before: ws.Weights, after: ws.Weights) -> ws.Weights:
    after.view("0.bias").copy_(before.view("0.bias"))
    return after


def _shift_beyond_the_first_layer(before: ws.Weights, after: ws.Weights) -> ws.Weights:
    after.view("1.bias").add_(0.05)
    return after


@pytest.mark.parametrize(
    ("inner", "spoil"),
    [
        (t.SignFlip(), _forget_next_column),
        (t.SignFlip(), _forget_bias),
        (t.Permute(), _forget_next_column),
        (t.PhaseShift(), _forget_next_column),
        (t.Translate(), _forget_bias),
        (t.Translate(), _shift_beyond_the_first_layer),
        (t.Rotate(), lambda before, after: after.replace(2 * before.flat - after.flat)),
        (t.GaussianNoise(), lambda before, after: before),
        (t.GaussianNoise(), lambda before, after: before.clone()),
    ],
)
def test_a_broken_transform_fails_the_contract(inner: t.Transform, spoil: Callable) -> None:
    w = networks(SIREN)
    contract.check_preserves(inner, w)
    check_transform(inner, SIREN)
    with pytest.raises(AssertionError, match=r"Broken\(.* on siren\(2-7-5-1.*preserves"):
        contract.check_preserves(Broken(inner, spoil), w)
    with pytest.raises(AssertionError, match=r"Broken\(.* on siren\(2-7-5-1"):
        check_transform(Broken(inner, spoil), SIREN)


def _written(before: ws.Weights, after: ws.Weights) -> ws.Weights:
    before.flat.add_(0)
    return after


def _shared(before: ws.Weights, after: ws.Weights) -> ws.Weights:
    return before


@pytest.mark.parametrize(
    ("inner", "spoil", "changes", "text"),
    [
        (t.Permute(), _written, True, "expected the input to stay as it is, got it written"),
        (t.Permute(), lambda before, after: after.to(torch.float16), True, "expected spec, shape, dtype and device"),
        (t.Permute(), lambda before, after: after[:2], True, "expected spec, shape, dtype and device"),
        (t.Permute(), lambda before, after: ws.Weights(after.flat, ws.siren(2, 7, 5, 1)), True, "expected spec"),
        (t.Identity(), lambda before, after: after, True, "expected other weights, got the same; pass changes=False"),
        (t.Permute(), lambda before, after: after, False, "expected the weights to stay as they are, got others"),
        (t.Identity(), _shared, False, "expected a result in new memory, got one that shares the input's"),
    ],
)
def test_a_result_of_another_outline_fails_the_contract(
    inner: t.Transform, spoil: Callable, changes: bool, text: str
) -> None:
    with pytest.raises(AssertionError, match=text):
        contract.check_outline(Broken(inner, spoil), networks(SIREN, dtype=torch.float32), changes=changes)


class Labels(Broken):
    """A transform whose labels are spoilt."""

    def apply_labels(self, soft: torch.Tensor, draw: Any, *, pool: torch.Tensor | None = None) -> torch.Tensor:
        return self.spoil(soft, self.inner.apply_labels(soft, draw))  # type: ignore[arg-type,return-value]

    def apply(self, weights: ws.Weights, draw: Any) -> ws.Weights:
        return self.inner.apply(weights, draw)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda before, after: 2 * after, "sums of soft labels: largest difference 1"),
        (lambda before, after: after[:, :2], "expected soft labels of shape, dtype and device"),
        (lambda before, after: after.double(), "expected soft labels of shape, dtype and device"),
    ],
)
def test_labels_that_are_no_distributions_fail_the_contract(spoil: Callable, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        contract.check_outline(Labels(t.Permute(), spoil), networks(SIREN, dtype=torch.float32))


class Unseeded(t.Permute):
    """A transform that draws from the global stream, or always the same."""

    mode = "global"

    def sample(self, weights: ws.Weights, *, generator: torch.Generator) -> ws.Symmetry:
        seed = int(torch.randint(2**31, ())) if self.mode == "global" else 5
        return super().sample(weights, generator=torch.Generator().manual_seed(seed))


class Fixed(Unseeded):
    mode = "fixed"


class Noisy(t.Permute):
    """A transform that follows its generator but advances the global stream as well."""

    def sample(self, weights: ws.Weights, *, generator: torch.Generator) -> ws.Symmetry:
        torch.rand(())
        return super().sample(weights, generator=generator)


def test_random_numbers_from_elsewhere_fail_the_contract() -> None:
    w = networks(SIREN)
    with pytest.raises(AssertionError, match="expected equal seeds to give equal results"):
        contract.check_seeds(Unseeded(), w)
    with pytest.raises(AssertionError, match="expected another seed to give another result, got the same"):
        contract.check_seeds(Fixed(), w)
    with pytest.raises(AssertionError, match="expected no random numbers, got results that depend on the seed"):
        contract.check_seeds(t.Permute(), w, random=False)
    with pytest.raises(AssertionError, match="got some from the global stream"):
        contract.check_seeds(Noisy(), w)


class Called(t.Permute):
    """A transform whose call differs from sample and apply."""

    part = "weights"

    def __call__(self, weights: Any, labels: Any = None, **options: Any) -> Any:
        moved, soft = super().__call__(weights, labels, **options)
        return (moved, soft.flip(1)) if self.part == "labels" else (moved.replace(moved.flat + 1), soft)


class CalledLabels(Called):
    part = "labels"


class LongDraw(t.Transform):
    """A transform whose draw has one entry too many."""

    preserves = "nothing"

    def sample(self, weights: ws.Weights, *, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(len(weights) + 1, generator=generator)

    def apply(self, weights: ws.Weights, draw: torch.Tensor) -> ws.Weights:
        return weights.replace(weights.flat * draw[: len(weights), None].to(weights.flat))


def test_a_call_that_is_not_sample_and_apply_fails_the_contract() -> None:
    w = networks(SIREN)
    with pytest.raises(AssertionError, match="what sample and apply give, got other weights"):
        contract.check_call(Called(), w)
    with pytest.raises(AssertionError, match="the labels of sample and apply_labels, got others"):
        contract.check_call(CalledLabels(), w)
    with pytest.raises(AssertionError, match="expected a draw of length 6, got 7"):
        contract.check_call(LongDraw(), w)
    with pytest.raises(AssertionError, match=r"expected draw\[slice\(0, 1, None\)\] of length 1, got 6"):
        contract.check_rows(Loose(), w)


class Loose(LongDraw):
    """A transform whose draw ignores the rows that are asked for."""

    class Draw:
        def __init__(self, values: torch.Tensor) -> None:
            self.values = values

        def __len__(self) -> int:
            return len(self.values)

        def __getitem__(self, index: Any) -> Any:
            return self

    def sample(self, weights: ws.Weights, *, generator: torch.Generator) -> Any:
        return Loose.Draw(torch.rand(len(weights), generator=generator))

    def apply(self, weights: ws.Weights, draw: Any) -> ws.Weights:
        return super().apply(weights, draw.values)


class Mixed(t.Transform):
    """A transform that reads the batch in ``apply``: a row alone gives another result."""

    preserves = "nothing"

    def sample(self, weights: ws.Weights, *, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(len(weights), generator=generator)

    def apply(self, weights: ws.Weights, draw: torch.Tensor) -> ws.Weights:
        return weights.replace(weights.flat + weights.flat.mean(0) * draw[:, None].to(weights.flat))


class FirstLabels(t.Permute):
    """A transform whose labels go by the place in the batch instead of the draw."""

    def apply_labels(self, soft: torch.Tensor, draw: Any, *, pool: torch.Tensor | None = None) -> torch.Tensor:
        return soft.roll(1, 0)


def test_draws_that_do_not_follow_rows_fail_the_contract() -> None:
    w = networks(SIREN)
    with pytest.raises(AssertionError, match=r"rows slice\(0, 1, None\) applied alone: largest difference"):
        contract.check_rows(Mixed(), w)
    with pytest.raises(AssertionError, match=r"labels of rows slice\(0, 1, None\) alone: largest difference"):
        contract.check_rows(FirstLabels(), w)


class Kept(t.Permute):
    """A transform that makes a network out of none."""

    def apply(self, weights: ws.Weights, draw: ws.Symmetry) -> ws.Weights:
        return draw.act(weights) if len(weights) else ws.Weights(torch.zeros(1, weights.spec.num_params), weights.spec)


def test_networks_out_of_none_fail_the_contract() -> None:
    with pytest.raises(AssertionError, match="expected no networks from an empty batch, got 1"):
        contract.check_empty(Kept(), networks(SIREN))


class OneDraw(t.Permute):
    """A transform with one draw for the whole batch."""

    def sample(self, weights: ws.Weights, *, generator: torch.Generator) -> ws.Symmetry:
        return super().sample(weights[:1], generator=generator)[torch.zeros(len(weights), dtype=torch.int64)]


def test_one_draw_for_the_whole_batch_fails_the_contract() -> None:
    with pytest.raises(AssertionError, match="expected a draw for each network, got one for the whole batch"):
        contract.check_independence(OneDraw(), networks(SIREN, dtype=torch.float32))


class Careless(t.Permute):
    """A transform whose call does not look at its requirements."""

    def __call__(self, weights: Any, labels: Any = None, **options: Any) -> Any:
        return weights.clone()


class Curt(t.Permute):
    """A transform whose error does not say what was expected."""

    def __call__(self, weights: Any, labels: Any = None, **options: Any) -> Any:
        raise ValueError("no")


def test_specs_that_are_not_refused_well_fail_the_contract() -> None:
    contract.check_refusal(t.Permute(), SPECS["linear"])
    with pytest.raises(AssertionError, match=r"expected a ValueError as from check\(spec\), got a result"):
        contract.check_refusal(Careless(), SPECS["linear"])
    with pytest.raises(AssertionError, match="expected an error that says expected and got, got 'no'"):
        contract.check_refusal(Curt(), SPECS["linear"])
    for broken in (Careless(), Curt()):
        with pytest.raises(AssertionError, match=r"linear|mlp"):
            check_transform(broken)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("preserves", "all", r"expected preserves to be one of \['function', 'coordinates', 'nothing'\], got 'all'"),
        ("requires", ("sine",), "expected requires to hold Requirements, got str"),
        ("mixes_networks", "yes", "expected mixes_networks to be True or False, got 'yes'"),
    ],
)
def test_declarations_that_the_library_cannot_read_fail_the_contract(name: str, value: Any, text: str) -> None:
    broken = type("Odd", (t.Permute,), {name: value})()
    with pytest.raises(AssertionError, match=text):
        check_transform(broken)


class LabelsOfChosenRows(t.Transform):
    """RandomApply, but it hands on the labels of the chosen rows alone: partners' labels are then the raw ones."""

    preserves, mixes_networks = "nothing", True

    def __init__(self, inner: t.RandomApply) -> None:
        self.inner = inner

    def sample(self, weights: ws.Weights, *, generator: torch.Generator, pool: ws.Weights | None = None) -> Any:
        return self.inner.sample(weights, generator=generator, pool=pool)

    def apply(self, weights: ws.Weights, draw: Any) -> ws.Weights:
        return self.inner.apply(weights, draw)

    def apply_labels(self, soft: torch.Tensor, draw: Any, *, pool: torch.Tensor | None = None) -> torch.Tensor:
        out, rows = soft.clone(), (draw.choice == 0).nonzero()[:, 0]
        part = draw.parts[0][rows]
        out[rows] = self.inner.members[0].apply_labels(soft[rows], part, pool=soft if pool is None else pool)
        return out


def test_labels_that_do_not_follow_the_weights_fail_the_contract() -> None:
    w = networks(SIREN)
    twice = t.RandomApply(t.Compose([t.MixUp(), t.MixUp()]), 1.0)
    for broken in (LabelsOfChosenRows(twice), t.MixUp("random"), t.MixUp(labels="hard"), t.MixUp(per_layer=True)):
        with pytest.raises(AssertionError, match="labels of the mixture"):
            contract.check_labels_follow(broken, w)
    with pytest.raises(AssertionError, match="expected mixed weights, got the networks as they were"):
        contract.check_labels_follow(t.Identity(), w)


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(TypeError, match="transform: expected a Transform, got str"):
        check_transform("permute")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="spec: expected a NetSpec, got int"):
        check_transform(t.Permute(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dtype: expected torch.float32, torch.float64 or None, got torch.float16"):
        check_transform(t.Permute(), dtype=torch.float16)
    far = t.Affine(torch.eye(7).tolist())
    with pytest.raises(ValueError, match=r"expected a transform that takes one of .*; pass spec="):
        check_transform(far)
    check_transform(far, ws.mlp(7, 4, 1), random=False, changes=False)
