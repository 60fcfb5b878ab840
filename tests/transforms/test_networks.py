"""Transforms on ``Networks``: the weights move, labels and sources stay, and what no longer holds is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers import generator, labelled

import weightspace as ws
from weightspace.transforms import (
    Compose,
    GaussianNoise,
    LabelSmoothing,
    MixUp,
    OneOf,
    Permute,
    RandomApply,
    Rotate,
    SelfMixUp,
    Transform,
)

SPEC = ws.siren(2, 5, 4, 1)


def rows() -> ws.Networks:
    return labelled(SPEC, 8).replace(source=torch.arange(8), view=torch.zeros(8, dtype=torch.int64), psnr=[30.0] * 8)


@pytest.mark.parametrize(
    "transform", [Permute(), Rotate(), Compose([Permute(), GaussianNoise()]), SelfMixUp(Permute())]
)
def test_the_weights_of_networks_are_moved(transform: Transform) -> None:
    given = rows()
    before = given.weights.flat.clone()
    moved = transform(given, generator=generator())
    assert isinstance(moved, ws.Networks)
    assert moved.weights.flat.equal(transform(given.weights, generator=generator()).flat)
    assert all(getattr(moved, name).equal(getattr(given, name)) for name in ("label", "source", "view"))
    assert given.weights.flat.equal(before)


def test_the_psnr_of_a_fit_is_kept_by_what_preserves_the_function_alone() -> None:
    assert Permute()(rows(), generator=generator()).psnr.equal(rows().psnr)
    assert Rotate()(rows(), generator=generator()).psnr is None
    assert GaussianNoise()(rows(), generator=generator()).psnr is None


@pytest.mark.parametrize(
    "transform",
    [
        MixUp(),
        LabelSmoothing(),
        RandomApply(MixUp(), 0.5),
        Compose([Permute(), LabelSmoothing()]),
        OneOf([Permute(), Compose([Rotate(), MixUp()])]),
    ],
    ids=repr,
)
def test_transforms_that_change_labels_say_how_to_call_them(transform: Transform) -> None:
    given = rows()
    with pytest.raises(ValueError, match=r"leaves labels alone.*aug\(networks.weights, networks.label, num_classes="):
        transform(given, generator=generator())
    mixed, soft = transform(given.weights, given.label, num_classes=3, generator=generator())
    assert len(mixed) == len(soft) == 8


def test_networks_bring_their_own_labels() -> None:
    given = rows()
    cases: list[dict[str, Any]] = [{"labels": given.label}, {"pool": given.weights}]
    for options in cases:
        with pytest.raises(ValueError, match=r"expected Networks alone, got .* beside them; pass networks\.weights"):
            Permute()(given, generator=generator(), **options)
    with pytest.raises(TypeError, match=r"generator: expected a torch.Generator, got int"):
        Permute()(given, generator=0)  # type: ignore[arg-type]
