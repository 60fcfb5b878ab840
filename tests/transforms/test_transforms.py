"""Properties of single transforms, of compositions, and errors at the doors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from _helpers import generator, networks, points

import weightspace as ws
from weightspace.transforms import (
    Affine,
    Compose,
    Flip,
    GaussianNoise,
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

SIREN = ws.siren(2, 7, 5, 1, omega=(3.0, 2.0))
SPACE = ws.siren(3, 6, 1, omega=2.0)
RELU = ws.mlp(2, 6, 5, 3, activation="relu")


# ------------------------------------------------------------------------------------------- coordinates


def test_rotation_in_the_plane_keeps_lengths_and_its_bound() -> None:
    w = networks(SIREN, batch=200)
    matrix = Rotate(30.0).sample(w, generator=generator()).matrix
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2, dtype=torch.float64).expand(200, 2, 2))
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg()
    assert 25 < angle.max() <= 30
    assert -30 <= angle.min() < -25


def test_rotation_of_pictures_of_unequal_sides_keeps_distances_in_pixels() -> None:
    size = (16, 48)
    steps = (torch.tensor(size, dtype=torch.float64) - 1) / 2
    pixels = ws.signals.grid(*size).double()
    across = torch.cdist(pixels * steps, pixels * steps)
    w = networks(SIREN, batch=4)
    for transform in (Rotate(45.0, size=size), Compose([Rotate(45.0, size=list(size)), Flip(0.5)])):
        draw = transform.sample(w, generator=generator())
        moved = draw.phi(pixels)
        torch.testing.assert_close(
            torch.cdist(moved * steps, moved * steps), across.expand(4, -1, -1), rtol=0, atol=1e-5
        )
        found = ws.evaluate(transform.apply(w, draw), pixels)
        torch.testing.assert_close(found, ws.evaluate(w, moved), rtol=1e-9, atol=1e-9)
    sheared = Rotate(45.0).sample(w, generator=generator()).phi(pixels) * steps  # the control: it does not
    assert (torch.cdist(sheared, sheared) - across).abs().max() > 10


def test_a_size_of_equal_sides_changes_no_bit() -> None:
    for w, size in ((networks(SIREN, batch=9), (28, 28)), (networks(SPACE, batch=9), (7, 7, 7))):
        plain, sized = (t.sample(w, generator=generator()).matrix for t in (Rotate(45.0), Rotate(45.0, size=size)))
        assert plain.equal(sized)
    assert repr(Rotate(45.0)) == "Rotate(degrees=45.0)"
    assert repr(Rotate(45.0, size=[2, 3])) == "Rotate(degrees=45.0, size=(2, 3))"
    assert Rotate(45.0, size=[2, 3]) == Rotate(45.0, size=(2, 3)) != Rotate(45.0)


@pytest.mark.parametrize(
    ("size", "kind"), [(16, TypeError), ("16", TypeError), ((16, 0), ValueError), ((1.5, 2), TypeError)]
)
def test_impossible_sizes_are_refused(size: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="Rotate"):
        Rotate(45.0, size=size)  # type: ignore[arg-type]


def test_rotation_in_space_is_proper_and_bounded() -> None:
    w = networks(SPACE, batch=200)
    matrix = Rotate(30.0).sample(w, generator=generator()).matrix
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64).expand(200, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(200, dtype=torch.float64))
    trace = torch.diagonal(matrix, dim1=1, dim2=2).sum(1)
    angle = ((trace - 1) / 2).clamp(-1, 1).acos().rad2deg()
    assert 25 < angle.max() <= 30 + 1e-6


def test_known_bug_translate_changes_the_first_bias_alone_and_exactly() -> None:
    w, x = networks(SIREN), points(2)
    draw = Translate(0.5).sample(w, generator=generator())
    moved = Translate(0.5).apply(w, draw)
    changed = [name for name, value in moved.items() if not value.equal(w.view(name))]
    assert changed == ["0.bias"]
    torch.testing.assert_close(ws.evaluate(moved, x), ws.evaluate(w, x[None] + draw.offset[:, None]))


def test_coordinates_change_the_first_layer_alone() -> None:
    w = networks(SIREN, dtype=torch.float32)
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

    w, x = networks(spec, dtype=dtype), points(2, dtype=dtype).expand(6, -1, -1)
    transform = Affine([[1.0, 0.2], [0.1, 0.9]], [0.3, -0.2])
    draw = transform.sample(w, generator=generator())
    within = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(forward(transform.apply(w, draw), x), forward(w, draw.phi(x)), atol=within, rtol=within)


def test_coordinates_refuse_convolutions(conv_spec: ws.NetSpec) -> None:
    with pytest.raises(ValueError, match="linear maps of the input coordinates"):
        Flip()(networks(conv_spec, dtype=torch.float32), generator=generator())


def test_isotropic_scales_are_equal_and_bounded() -> None:
    w = networks(SIREN, batch=300)
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
    w = networks(spec, batch=4)
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
    w = networks(ws.siren(2, 64, 64, 1), 4, dtype=torch.float32)
    moved = WeightDropout(0.25)(w, generator=generator())
    zero = moved.flat == 0
    assert abs(float(zero.float().mean()) - 0.25) < 0.02
    assert moved.flat[~zero].equal(w.flat[~zero])


@pytest.mark.parametrize("largest", [0.0, 0.3, 1.0])
def test_pruning_equals_torch_quantile(dtype: torch.dtype, largest: float) -> None:
    w = networks(SIREN, 20, dtype=dtype)
    draw = QuantilePrune(largest).sample(w, generator=generator())
    assert float(draw.values.max()) <= largest
    pruned = QuantilePrune(largest).apply(w, draw)
    for i, q in enumerate(draw.values.tolist()):
        size = w.flat[i].abs()
        expected = torch.where(size.double() < torch.quantile(size.double(), q), 0.0, w.flat[i])
        assert pruned.flat[i].equal(expected)


def test_pruning_takes_half_precision() -> None:
    w = networks(SIREN, dtype=torch.float32).to(torch.bfloat16)
    assert QuantilePrune(0.5)(w, generator=generator()).dtype == torch.bfloat16


def test_label_smoothing_touches_labels_alone() -> None:
    w = networks(SIREN, dtype=torch.float32, batch=2)
    moved, soft = LabelSmoothing(0.3)(w, torch.tensor([0, 2]), num_classes=3, generator=generator())
    assert moved.flat.equal(w.flat)
    torch.testing.assert_close(soft, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))


# ---------------------------------------------------------------------------------------------- symmetry


def test_signs_scales_and_phases_keep_their_bounds() -> None:
    siren, relu = (
        networks(SIREN, batch=200),
        networks(RELU, batch=200),
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
    w = networks(SIREN)
    chain = Compose([WeightDropout(1.0), MixUp()])
    assert float(chain(w, generator=generator()).flat.abs().max()) == 0


def test_random_apply_changes_its_share_of_networks_and_labels() -> None:
    w = networks(SIREN, dtype=torch.float32, batch=300)
    labels = torch.arange(300) % 3
    moved, soft = RandomApply(MixUp(), 0.3)(w, labels, num_classes=3, generator=generator())
    changed = (moved.flat != w.flat).any(1)
    assert abs(float(changed.float().mean()) - 0.3) < 0.08
    assert soft[~changed].argmax(1).equal(labels[~changed])
    assert set(soft[~changed].unique().tolist()) == {0.0, 1.0}
    assert float((soft[changed].amax(1) < 1).float().mean()) > 0.5


def test_one_of_follows_its_probabilities() -> None:
    w = networks(SIREN, dtype=torch.float32, batch=400)
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
        Permute()(networks(SIREN, dtype=torch.float32), labels, num_classes=classes, generator=generator())


def test_doors_refuse_other_types() -> None:
    w = networks(SIREN, dtype=torch.float32)
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
