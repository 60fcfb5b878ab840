"""Every transform against the contract; negative controls; what is particular to one of them."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace.transforms import (
    Affine,
    Compose,
    Flip,
    GaussianNoise,
    Identity,
    LabelSmoothing,
    MixUp,
    OneOf,
    Permute,
    PhaseShift,
    PositiveScale,
    QuantilePrune,
    RandomApply,
    Rotate,
    Scale,
    SelfMixUp,
    Shear,
    SignFlip,
    Transform,
    Translate,
    WeightDropout,
)


def _load_contract():
    """The contract module lies beside this file; tests are no package."""
    path = Path(__file__).with_name("transform_contract.py")
    spec = importlib.util.spec_from_file_location("transform_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contract = _load_contract()
Row, networks, points, generator = contract.Row, contract.networks, contract.points, contract.generator

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
}
ANY = tuple(SPECS)
PLANE = ("siren2", "siren3", "relu2", "tanh2", "even2", "nobias", "linear")
BIASED = tuple(name for name in SPECS if name != "nobias")
DEEP = tuple(name for name in SPECS if name != "linear")

ROWS = [
    Row(Rotate(40.0), PLANE, ("siren1", "gelu4")),
    Row(Translate(0.3), BIASED, ("nobias",)),
    Row(Scale(0.7, 1.4), ANY),
    Row(Scale(0.7, 1.4, isotropic=False), ANY),
    Row(Shear(0.3), (*PLANE, "gelu4"), ("siren1",)),
    Row(Flip(0.5), ANY),
    Row(Flip(0.5, axes=(1,)), (*PLANE, "gelu4"), ("siren1",)),
    Row(Affine([[1.0, 0.2], [0.1, 0.9]], [0.1, -0.2]), ("siren2", "relu2"), ("siren1", "nobias"), random=False),
    Row(Affine([[0.0, -1.0], [1.0, 0.0]]), ("siren2", "nobias"), ("siren3",), random=False),
    Row(GaussianNoise(0.2), ANY),
    Row(WeightDropout(0.3), ANY),
    Row(QuantilePrune(0.6), tuple(n for n in ANY if n != "linear")),
    Row(LabelSmoothing(0.2), ("siren2",), random=False, changes=False),
    Row(Identity(), ("siren2",), random=False, changes=False),
    Row(Permute(), DEEP, ("linear",)),
    Row(SignFlip(), ("siren2", "siren3", "siren1", "tanh2", "even2", "nobias"), ("relu2", "gelu4", "linear")),
    Row(PhaseShift(2), ("siren2", "siren3", "siren1"), ("relu2", "tanh2", "even2", "nobias", "linear")),
    Row(PositiveScale(3.0), ("relu2",), ("siren2", "tanh2", "gelu4", "linear")),
    Row(MixUp(), ANY),
    Row(MixUp("random", alpha=0.4), ANY),
    Row(MixUp("permutation", per_layer=True), ANY),
    Row(MixUp("signed", labels="hard"), ("siren2", "tanh2", "even2"), ("relu2",)),
    Row(MixUp("full"), ("siren2", "tanh2", "even2", "relu2")),
    Row(SelfMixUp(Permute(), alpha=0.4), DEEP, ("linear",)),
    Row(RandomApply(Rotate(40.0), 0.5), PLANE, ("siren1",)),
    Row(RandomApply(MixUp(), 0.9), ("siren2",)),
    Row(OneOf([Translate(), Flip(), Permute()]), tuple(n for n in BIASED if n != "linear"), ("nobias", "linear")),
    Row(OneOf([MixUp(), LabelSmoothing()], [0.8, 0.2]), ("siren2",)),
    Row(Compose([]), ("siren2",), random=False, changes=False),
    Row(Compose([Rotate(20.0), Translate(), Shear()]), ("siren2", "siren3", "relu2"), ("siren1",)),
    Row(Compose([Permute(), SignFlip(), PhaseShift()]), ("siren2", "siren3"), ("relu2",)),
    Row(Compose([RandomApply(Rotate()), Compose([Permute(), Translate()])]), ("siren2", "tanh2"), ("linear",)),
    Row(Compose([GaussianNoise(0.1), MixUp(), Rotate(), LabelSmoothing()]), ("siren2", "relu2")),
]
CASES = [pytest.param(row, name, id=f"{row.transform!r}-{name}") for row in ROWS for name in row.specs]
REFUSED = [pytest.param(row.transform, name, id=f"{row.transform!r}-{name}") for row in ROWS for name in row.refuses]


@pytest.mark.parametrize(("row", "name"), CASES)
def test_contract(row, name: str, dtype: torch.dtype, device: torch.device) -> None:
    w = networks(SPECS[name], dtype, device=device)
    contract.check_all(row.transform, w, random=row.random, changes=row.changes)


MIXES = [
    MixUp(),
    Compose([MixUp(), MixUp()]),
    RandomApply(MixUp(), 0.6),
    RandomApply(Compose([MixUp(), MixUp()]), 1.0),
    RandomApply(Compose([MixUp(), MixUp(alpha=0.5)]), 0.5),
    RandomApply(RandomApply(Compose([MixUp(), MixUp(), MixUp()]), 0.7), 0.7),
    Compose([RandomApply(Compose([MixUp(), MixUp()]), 0.6), MixUp()]),
    Compose([MixUp(), RandomApply(MixUp(), 0.5), OneOf([MixUp(alpha=2.0), Identity()])]),
    OneOf([MixUp(), Compose([MixUp(), RandomApply(MixUp(), 0.5)])]),
    RandomApply(OneOf([Compose([MixUp(), MixUp()]), MixUp()], [0.7, 0.3]), 0.8),
]


@pytest.mark.parametrize("transform", MIXES, ids=repr)
def test_labels_say_what_each_network_is_made_of(transform: Transform, device: torch.device) -> None:
    contract.check_labels_follow(transform, networks(SPECS["siren2"], torch.float64, device=device))


class LabelsOfChosenRows(Transform):
    """RandomApply, but it hands on the labels of the chosen rows alone: partners' labels are then the raw ones."""

    preserves, mixes_networks = "nothing", True

    def __init__(self, inner: RandomApply) -> None:
        self.inner = inner

    def sample(self, weights: ws.Weights, *, generator: torch.Generator, pool: ws.Weights | None = None):
        return self.inner.sample(weights, generator=generator, pool=pool)

    def apply(self, weights: ws.Weights, draw) -> ws.Weights:
        return self.inner.apply(weights, draw)

    def apply_labels(self, soft: torch.Tensor, draw, *, pool: torch.Tensor | None = None) -> torch.Tensor:
        out, rows = soft.clone(), (draw.choice == 0).nonzero()[:, 0]
        part = draw.parts[0][rows]
        out[rows] = self.inner.members[0].apply_labels(soft[rows], part, pool=soft if pool is None else pool)
        return out


def test_labels_that_do_not_follow_the_weights_fail_the_contract() -> None:
    w = networks(SPECS["siren2"], torch.float64)
    twice = RandomApply(Compose([MixUp(), MixUp()]), 1.0)
    for broken in (LabelsOfChosenRows(twice), MixUp("random"), MixUp(labels="hard"), MixUp(per_layer=True)):
        with pytest.raises(AssertionError):
            contract.check_labels_follow(broken, w)


@pytest.mark.parametrize("transform", [*(row.transform for row in ROWS), *MIXES], ids=repr)
def test_the_text_of_a_transform_makes_it_again(transform: Transform) -> None:
    again = eval(repr(transform), {name: getattr(ws.transforms, name) for name in ws.transforms.__all__})
    assert repr(again) == repr(transform)
    w = networks(SPECS["relu2" if isinstance(transform, PositiveScale) else "siren2"], torch.float64)
    if not contract.accepts(transform, w.spec):
        return
    assert again(w, generator=generator()).flat.equal(transform(w, generator=generator()).flat)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OneOf([Flip(), Rotate()], [0.1, 0.9]), OneOf([Flip(), Rotate()], [0.9, 0.1])),
        (RandomApply(Flip(), 0.1), RandomApply(Flip(), 0.2)),
        (SelfMixUp(Permute(), alpha=0.1), SelfMixUp(Permute(), alpha=0.2)),
        (Affine([[1.0000001]]), Affine([[1.0000002]])),
        (Affine([[1.0]], [0.0]), Affine([[1.0]])),
        (Compose([MixUp(alpha=0.5)]), Compose([MixUp(alpha=0.6)])),
        (Scale(isotropic=True), Scale(isotropic=False)),
        (Flip(axes=(0,)), Flip(axes=(1,))),
    ],
)
def test_the_text_of_a_transform_holds_every_setting(one: Transform, other: Transform) -> None:
    assert repr(one) != repr(other)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: Compose([t]), RandomApply, lambda t: OneOf([t, Identity()])])
def test_alignment_that_a_spec_cannot_have_is_refused_before_any_work(wrap: Callable) -> None:
    mixed = ws.mlp(2, 4, 4, 1, activation=("sine", "relu"))
    wrap(MixUp("signed")).check(SPECS["siren2"])
    with pytest.raises(ValueError, match=r"commute with signs.*got .*relu"):
        wrap(MixUp("signed")).check(mixed)
    for spec in SPECS.values():
        wrap(MixUp("full")).check(spec)


@pytest.mark.parametrize(("transform", "name"), REFUSED)
def test_refuses_specs_that_lack_what_it_needs(transform: Transform, name: str) -> None:
    w = networks(SPECS[name], torch.float32)
    for use in (transform, transform.sample):
        with pytest.raises(ValueError, match=r"expected .*, got .*; "):
            use(w, generator=generator())
    with pytest.raises(ValueError, match="expected"):
        transform.check(SPECS[name])


def test_every_public_transform_has_a_row() -> None:
    public = [getattr(ws.transforms, name) for name in ws.transforms.__all__]
    concrete = {c for c in public if isinstance(c, type) and issubclass(c, Transform) and not c.__abstractmethods__}
    assert concrete <= {type(row.transform) for row in ROWS}


def test_messages_name_the_trouble_and_the_remedy() -> None:
    with pytest.raises(
        ValueError, match=r"Rotate.*2 to 3 input coordinates, got a 1-D INR; rotation acts on the plane"
    ):
        Rotate()(networks(SPECS["siren1"], torch.float32), generator=generator())
    with pytest.raises(ValueError, match=r"SignFlip.*commute with signs.*got .*relu.*use Permute"):
        SignFlip()(networks(SPECS["relu2"], torch.float32), generator=generator())
    with pytest.raises(ValueError, match=r"Translate.*a bias behind every map of the input.*bias=True"):
        Translate()(networks(SPECS["nobias"], torch.float32), generator=generator())


# ---------------------------------------------------------------------------------------- negative controls


class Broken(Transform):
    """A transform from two functions, to be caught by the contract."""

    def __init__(self, inner: Transform, spoil: Callable[[ws.Weights, ws.Weights], ws.Weights]) -> None:
        self.inner, self.spoil, self.preserves = inner, spoil, inner.preserves

    def sample(self, weights: ws.Weights, *, generator: torch.Generator):
        return self.inner.sample(weights, generator=generator)

    def apply(self, weights: ws.Weights, draw) -> ws.Weights:
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
        (SignFlip(), _forget_next_column),
        (SignFlip(), _forget_bias),
        (Permute(), _forget_next_column),
        (PhaseShift(), _forget_next_column),
        (Translate(), _forget_bias),
        (Translate(), _shift_beyond_the_first_layer),
        (Rotate(), lambda before, after: after.replace(2 * before.flat - after.flat)),
        (GaussianNoise(), lambda before, after: before),
    ],
)
def test_a_broken_transform_fails_the_contract(inner: Transform, spoil: Callable) -> None:
    w = networks(SPECS["siren2"], torch.float64)
    contract.check_keeps(inner, w)
    with pytest.raises(AssertionError):
        contract.check_keeps(Broken(inner, spoil), w)


def test_writing_into_the_input_fails_the_contract() -> None:
    def write(before: ws.Weights, after: ws.Weights) -> ws.Weights:
        before.flat.add_(0)
        return after

    with pytest.raises(AssertionError):
        contract.check_outline(Broken(Permute(), write), networks(SPECS["siren2"], torch.float32))


def test_changing_nothing_fails_the_contract() -> None:
    w = networks(SPECS["siren2"], torch.float32)
    with pytest.raises(AssertionError):
        contract.check_outline(Identity(), w)
    with pytest.raises(AssertionError):
        contract.check_outline(Permute(), w, changes=False)


def test_one_draw_for_the_whole_batch_fails_the_contract() -> None:
    class Shared(Transform):
        preserves = "function"

        def sample(self, weights: ws.Weights, *, generator: torch.Generator):
            return Permute().sample(weights[:1], generator=generator)[torch.zeros(len(weights), dtype=torch.int64)]

        def apply(self, weights: ws.Weights, draw) -> ws.Weights:
            return draw.act(weights)

    with pytest.raises(AssertionError):
        contract.check_independence(Shared(), networks(SPECS["siren2"], torch.float32))


# ------------------------------------------------------------------------------------------- coordinates


def test_rotation_in_the_plane_keeps_lengths_and_its_bound() -> None:
    w = networks(SPECS["siren2"], torch.float64, batch=200)
    matrix = Rotate(30.0).sample(w, generator=generator()).matrix
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2, dtype=torch.float64).expand(200, 2, 2))
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg()
    assert 25 < angle.max() <= 30
    assert -30 <= angle.min() < -25


def test_rotation_in_space_is_proper_and_bounded() -> None:
    w = networks(SPECS["siren3"], torch.float64, batch=200)
    matrix = Rotate(30.0).sample(w, generator=generator()).matrix
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64).expand(200, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(200, dtype=torch.float64))
    trace = torch.diagonal(matrix, dim1=1, dim2=2).sum(1)
    angle = ((trace - 1) / 2).clamp(-1, 1).acos().rad2deg()
    assert 25 < angle.max() <= 30 + 1e-6


def test_known_bug_translate_changes_the_first_bias_alone_and_exactly() -> None:
    w, x = networks(SPECS["siren2"], torch.float64), points(SPECS["siren2"], torch.float64)
    draw = Translate(0.5).sample(w, generator=generator())
    moved = Translate(0.5).apply(w, draw)
    changed = [name for name, value in moved.items() if not value.equal(w.view(name))]
    assert changed == ["0.bias"]
    torch.testing.assert_close(ws.evaluate(moved, x), ws.evaluate(w, x[None] + draw.offset[:, None]))


def test_coordinates_change_the_first_layer_alone() -> None:
    w = networks(SPECS["siren2"], torch.float32)
    for transform in (Rotate(), Scale(), Shear(), Flip(1.0)):
        moved = transform(w, generator=generator())
        assert [name for name, value in moved.items() if not value.equal(w.view(name))] == ["0.weight"]


def test_coordinates_follow_every_parameter_that_reads_the_input(dtype: torch.dtype) -> None:
    spec = ws.NetSpec(
        (ws.Axis("in", 2), ws.Axis("h", 4, "sine", 2.0), ws.Axis("out", 3)),
        (
            ws.Param("a", ("h", "in")),
            ws.Param("a_bias", ("h",), "bias"),
            ws.Param("b", ("out", "h")),
            ws.Param("skip", ("out", "in")),
            ws.Param("b_bias", ("out",), "bias"),
        ),
    )

    def forward(w: ws.Weights, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.sin(2.0 * (x @ w.view("a").mT + w.view("a_bias")[:, None]))
        return hidden @ w.view("b").mT + x @ w.view("skip").mT + w.view("b_bias")[:, None]

    w, x = networks(spec, dtype), points(spec, dtype).expand(contract.BATCH, -1, -1)
    transform = Affine([[1.0, 0.2], [0.1, 0.9]], [0.3, -0.2])
    draw = transform.sample(w, generator=generator())
    torch.testing.assert_close(
        forward(transform.apply(w, draw), x), forward(w, draw.phi(x)), **contract.tolerance(dtype)
    )


def test_coordinates_refuse_convolutions(conv_spec: ws.NetSpec) -> None:
    with pytest.raises(ValueError, match="linear maps of the input coordinates"):
        Flip()(networks(conv_spec, torch.float32), generator=generator())


def test_isotropic_scales_are_equal_and_bounded() -> None:
    w = networks(SPECS["siren2"], torch.float64, batch=300)
    same = torch.diagonal(Scale(0.5, 2.0).sample(w, generator=generator()).matrix, dim1=1, dim2=2)
    free = torch.diagonal(Scale(0.5, 2.0, isotropic=False).sample(w, generator=generator()).matrix, dim1=1, dim2=2)
    assert same[:, 0].equal(same[:, 1])
    assert not free[:, 0].equal(free[:, 1])
    for factor in (same, free):
        assert 0.5 <= factor.min() < 0.55
        assert 1.8 < factor.max() <= 2.0
        assert abs(float((factor > 1).double().mean()) - 0.5) < 0.1


# ------------------------------------------------------------------------------------------------- noise


def test_noise_is_relative_to_each_tensor_of_each_network() -> None:
    spec = ws.siren(2, 64, 64, 1)
    w = networks(spec, torch.float64, batch=4)
    for factor, name in ((100.0, "1.weight"), (0.01, "0.weight")):
        w.view(name).mul_(factor)
    w.flat[2] *= 50
    moved = GaussianNoise(0.1)(w, generator=generator())
    for name in ("0.weight", "1.weight", "1.bias"):
        change = (moved.view(name) - w.view(name)).flatten(1).std(1)
        expected = 0.1 * w.view(name).flatten(1).std(1)
        torch.testing.assert_close(change, expected, rtol=0.35, atol=0.0)
    assert moved.view("2.bias").equal(w.view("2.bias"))


def test_dropout_zeroes_its_share_and_scales_nothing() -> None:
    w = networks(ws.siren(2, 64, 64, 1), torch.float32, batch=4)
    moved = WeightDropout(0.25)(w, generator=generator())
    zero = moved.flat == 0
    assert abs(float(zero.float().mean()) - 0.25) < 0.02
    assert moved.flat[~zero].equal(w.flat[~zero])


@pytest.mark.parametrize("largest", [0.0, 0.3, 1.0])
def test_pruning_equals_torch_quantile(dtype: torch.dtype, largest: float) -> None:
    w = networks(SPECS["siren2"], dtype, batch=20)
    draw = QuantilePrune(largest).sample(w, generator=generator())
    assert float(draw.values.max()) <= largest
    pruned = QuantilePrune(largest).apply(w, draw)
    for i, q in enumerate(draw.values.tolist()):
        size = w.flat[i].abs()
        expected = torch.where(size.double() < torch.quantile(size.double(), q), 0.0, w.flat[i])
        assert pruned.flat[i].equal(expected)


def test_pruning_takes_half_precision() -> None:
    w = networks(SPECS["siren2"], torch.float32).to(torch.bfloat16)
    assert QuantilePrune(0.5)(w, generator=generator()).dtype == torch.bfloat16


def test_label_smoothing_touches_labels_alone() -> None:
    w = networks(SPECS["siren2"], torch.float32, batch=2)
    moved, soft = LabelSmoothing(0.3)(w, torch.tensor([0, 2]), num_classes=3, generator=generator())
    assert moved.flat.equal(w.flat)
    torch.testing.assert_close(soft, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))


# ---------------------------------------------------------------------------------------------- symmetry


def test_signs_scales_and_phases_keep_their_bounds() -> None:
    siren, relu = (
        networks(SPECS["siren2"], torch.float64, batch=200),
        networks(SPECS["relu2"], torch.float64, batch=200),
    )
    sign = SignFlip(0.25).sample(siren, generator=generator())
    assert abs(float((sign.scale["h1"] < 0).double().mean()) - 0.25) < 0.05
    assert sorted(PhaseShift(2).sample(siren, generator=generator()).shift["h2"].unique().tolist()) == [-2, -1, 0, 1, 2]
    factor = PositiveScale(3.0).sample(relu, generator=generator()).scale["h1"]
    assert 1 / 3 <= factor.min() < 0.4
    assert 2.6 < factor.max() <= 3
    assert not sign.perm
    assert not sign.shift


# ------------------------------------------------------------------------------------------- composition


def test_compose_keeps_the_weakest_and_flattens() -> None:
    assert Compose([Permute(), SignFlip()]).preserves == "function"
    assert Compose([Permute(), Rotate()]).preserves == "coordinates"
    assert Compose([Rotate(), GaussianNoise()]).preserves == "nothing"
    assert OneOf([Rotate(), Permute()]).preserves == "coordinates"
    assert Compose([Compose([Permute(), SignFlip()]), Rotate()]) == Compose([Permute(), SignFlip(), Rotate()])


def test_composition_mixes_what_the_earlier_stages_made() -> None:
    w = networks(SPECS["siren2"], torch.float64)
    chain = Compose([WeightDropout(1.0), MixUp()])
    assert float(chain(w, generator=generator()).flat.abs().max()) == 0


def test_random_apply_changes_its_share_of_networks_and_labels() -> None:
    w = networks(SPECS["siren2"], torch.float32, batch=300)
    labels = torch.arange(300) % 3
    moved, soft = RandomApply(MixUp(), 0.3)(w, labels, num_classes=3, generator=generator())
    changed = (moved.flat != w.flat).any(1)
    assert abs(float(changed.float().mean()) - 0.3) < 0.08
    assert soft[~changed].argmax(1).equal(labels[~changed])
    assert set(soft[~changed].unique().tolist()) == {0.0, 1.0}
    assert float((soft[changed].amax(1) < 1).float().mean()) > 0.5


def test_one_of_follows_its_probabilities() -> None:
    w = networks(SPECS["siren2"], torch.float32, batch=400)
    draw = OneOf([Permute(), Rotate(), SignFlip()], [1, 0, 3]).sample(w, generator=generator())
    share = torch.bincount(draw.choice, minlength=3) / 400
    torch.testing.assert_close(share, torch.tensor([0.25, 0.0, 0.75]), atol=0.08, rtol=0.0)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianNoise(-1.0),
        lambda: GaussianNoise(math.nan),
        lambda: WeightDropout(1.5),
        lambda: QuantilePrune(-0.1),
        lambda: LabelSmoothing(2.0),
        lambda: Rotate(-1.0),
        lambda: Translate(math.inf),
        lambda: Scale(0.0, 1.0),
        lambda: Scale(2.0, 1.0),
        lambda: Shear(-0.1),
        lambda: Flip(2.0),
        lambda: Flip(0.5, axes=(0, 0)),
        lambda: Flip(0.5, axes=(-1,)),
        lambda: Affine([[1.0, 0.0]]),
        lambda: Affine([[1.0]], [0.0, 1.0]),
        lambda: SignFlip(-0.5),
        lambda: PhaseShift(0),
        lambda: PositiveScale(0.5),
        lambda: MixUp("nearest"),
        lambda: MixUp(alpha=0.0),
        lambda: MixUp(labels="soft"),
        lambda: MixUp("none"),
        lambda: SelfMixUp(MixUp()),
        lambda: RandomApply(Flip(), 1.5),
        lambda: OneOf([]),
        lambda: OneOf([Flip()], [0.0]),
        lambda: OneOf([Flip()], [math.nan]),
        lambda: OneOf([Flip()], [math.inf]),
        lambda: OneOf([Flip(), Flip()], [1.7e308, 1.7e308]),
        lambda: Affine([[math.nan]]),
        lambda: Affine([[1.0]], [math.inf]),
        lambda: SignFlip(math.nan),
        lambda: Scale(0.5, math.inf),
        lambda: MixUp(alpha=math.nan),
        lambda: SelfMixUp(Permute(), alpha=-1.0),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], Transform]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rotate("15"),
        lambda: Translate(None),
        lambda: Shear(True),
        lambda: Scale("a", "b"),
        lambda: Scale(0.5, "b"),
        lambda: Flip("a"),
        lambda: Flip(axes=1),
        lambda: Flip(axes=(0.5,)),
        lambda: Affine("a"),
        lambda: Affine([[1.0]], ["a"]),
        lambda: GaussianNoise("a"),
        lambda: WeightDropout("a"),
        lambda: QuantilePrune("a"),
        lambda: LabelSmoothing("a"),
        lambda: SignFlip("a"),
        lambda: PhaseShift(1.5),
        lambda: PositiveScale("a"),
        lambda: MixUp(alpha="a"),
        lambda: SelfMixUp(Permute(), alpha="a"),
        lambda: RandomApply(Flip(), "a"),
        lambda: RandomApply(3),
        lambda: OneOf([Flip()], ["a"]),
        lambda: OneOf([Flip()], 0.5),
        lambda: OneOf(Flip()),
        lambda: Compose(Flip()),
        lambda: Compose(None),
        lambda: ws.transforms.augmentation(None),
    ],
)
def test_settings_of_another_type_are_refused(make: Callable[[], Transform]) -> None:
    with pytest.raises(TypeError, match=r"expected .*, got "):
        make()


def test_numbers_may_be_numpy_scalars_and_members_any_iterable() -> None:
    assert PhaseShift(np.int64(2)) == PhaseShift(2)
    assert Flip(axes=(np.int64(1),)) == Flip(axes=(1,))
    assert Rotate(np.float32(15)).degrees == 15
    assert len(Compose(t for t in (Flip(), Rotate())).members) == 2
    assert OneOf([Flip(), Rotate()], torch.tensor([1.0, 3.0])).probabilities == (0.25, 0.75)


@pytest.mark.parametrize("make", [Compose, OneOf])
def test_members_must_be_transforms(make: Callable) -> None:
    with pytest.raises(TypeError, match="expected transforms, got int"):
        make([Flip(), 3])


@pytest.mark.parametrize(
    ("labels", "classes", "text"),
    [
        (torch.zeros(3, dtype=torch.int64), 3, r"expected int64 \[6\]"),
        (torch.zeros(6, 2, dtype=torch.int64), 3, r"expected int64 \[6\]"),
        (torch.zeros(6, dtype=torch.int64), None, "num_classes"),
        (torch.full((6,), 3), 3, r"classes in \[0, 3\), got 3 to 3"),
        (torch.full((6,), -1), 3, r"got -1 to -1"),
        (torch.zeros(6, 4), 3, "expected 3 columns, got 4"),
        (torch.full((6, 3), math.nan), 3, "expected finite soft labels, got NaN or infinity"),
        (torch.zeros(6, dtype=torch.int64), 0, "num_classes: expected at least 1, got 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor, classes: int | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Permute()(networks(SPECS["siren2"], torch.float32), labels, num_classes=classes, generator=generator())


def test_doors_refuse_other_types() -> None:
    w = networks(SPECS["siren2"], torch.float32)
    with pytest.raises(TypeError, match="expected Weights, got Tensor"):
        Permute()(w.flat, generator=generator())
    with pytest.raises(TypeError, match=r"expected a torch.Generator, got int"):
        Permute()(w, generator=0)
    with pytest.raises(TypeError, match="labels: expected a tensor, got list"):
        Permute()(w, [0] * 6, num_classes=2, generator=generator())
    with pytest.raises(TypeError, match="num_classes: expected a whole number, got '2'"):
        Permute()(w, torch.zeros(6, dtype=torch.int64), num_classes="2", generator=generator())
    with pytest.raises(ValueError, match="features of shape"):
        GaussianNoise()(w.replace(w.flat[:, :, None]), generator=generator())
    with pytest.raises(ValueError, match="expected no pool"):
        Permute()(w, generator=generator(), pool=w)
