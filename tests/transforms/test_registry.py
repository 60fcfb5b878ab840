"""Augmentations by name: frozen strengths, compositions, import paths, entry points."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import weightspace as ws
from weightspace import _plugins
from weightspace._activation import ACTIVATIONS, names_where
from weightspace.transforms import AUGMENTATIONS, Compose, GaussianNoise, Permute, SignFlip, augmentation

STRENGTHS = {
    "rotate": "Rotate(degrees=15.0)",
    "translate": "Translate(max_shift=0.15)",
    "scale": "Scale(low=0.85, high=1.15, isotropic=True)",
    "shear": "Shear(max_shear=0.15)",
    "flip": "Flip(p=0.5, axes=(1,))",
    "small-affine": (
        "Compose([Rotate(degrees=4.0), Translate(max_shift=0.05), Scale(low=0.95, high=1.05, isotropic=True)])"
    ),
    "noise": "GaussianNoise(std=0.1)",
    "dropout": "WeightDropout(p=0.05)",
    "quantile": "QuantilePrune(max_quantile=0.1)",
    "label-smoothing": "LabelSmoothing(rate=0.1)",
    "permute": "Permute()",
    "sign": "SignFlip(p=0.5)",
    "phase": "PhaseShift(max_shift=1)",
    "positive-scale": "PositiveScale(max_scale=2.0)",
    "linear-mix": "LinearMix(max_scale=2.0)",
    "mixup": "MixUp(align=None, alpha=1.0, labels='mixed', per_layer=False)",
    "mixup-weights-only": "MixUp(align=None, alpha=1.0, labels='hard', per_layer=False)",
    "mixup-random": "MixUp(align='random', alpha=1.0, labels='mixed', per_layer=False)",
    "mixup-permutation": "MixUp(align='permutation', alpha=1.0, labels='mixed', per_layer=False)",
    "mixup-signed": "MixUp(align='signed', alpha=1.0, labels='mixed', per_layer=False)",
    "mixup-full": "MixUp(align='full', alpha=1.0, labels='mixed', per_layer=False)",
    "mixup-per-layer": "MixUp(align='permutation', alpha=1.0, labels='mixed', per_layer=True)",
    "mixup-self": "SelfMixUp(GaussianNoise(std=0.2), alpha=1.0)",
}


def test_the_strength_of_a_name_never_changes() -> None:
    """Records of experiments refer to names; names may be added, none may come to mean something else."""
    assert {name: repr(AUGMENTATIONS[name]) for name in STRENGTHS} == STRENGTHS
    assert all(augmentation(name) == AUGMENTATIONS[name] for name in AUGMENTATIONS)


def test_names_joined_by_plus_compose() -> None:
    assert augmentation("permute+sign") == Compose([Permute(), SignFlip()])
    assert augmentation("small-affine+noise") == Compose([*AUGMENTATIONS["small-affine"].members, GaussianNoise(0.1)])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a user in the working directory."""
    name = f"aug_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from weightspace.transforms import GaussianNoise, Permute, SelfMixUp\n"
        "class Mine(GaussianNoise):\n    pass\n"
        "strong = Mine(0.5)\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_an_import_path_names_a_class_or_a_transform(module: str) -> None:
    made = augmentation(f"{module}:Mine")
    assert repr(made) == "Mine(std=0.1)"
    assert repr(augmentation(f"{module}:strong")) == "Mine(std=0.5)"
    both = augmentation(f"permute+{module}:strong")
    assert repr(both) == "Compose([Permute(), Mine(std=0.5)])"
    ws.testing.check_transform(both, ws.siren(2, 5, 1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("{module}:number", "expected a Transform or a subclass of it, got int"),
        ("{module}:SelfMixUp", "SelfMixUp: expected a class that is made without arguments, got TypeError: "),
        ("{module}:Missing", "expected an object named 'Missing' in the module"),
        ("no_such_package.aug:Mine", "expected a module that can be imported, got 'no_such_package.aug'"),
        ("weightspace:siren", "expected a Transform or a subclass of it, got function"),
        (
            "weightspace.transforms.coordinates:Coordinates",
            "expected a class that is made without arguments, got TypeError",
        ),
        ("sing", "or an import path such as my_package.module:Name, got 'sing'; did you mean 'sign'?"),
        ("sign+", "unknown augmentation: expected one of"),
    ],
)
def test_names_that_lead_nowhere_are_refused_in_one_line(module: str, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        augmentation(name.format(module=module))
    assert "\n" not in str(caught.value)


def test_entry_points_of_installed_packages(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setattr(_plugins, "entry_points", lambda group: [EntryPoint("theirs", f"{module}:Mine", group)])
    assert repr(augmentation("theirs+sign")) == "Compose([Mine(std=0.1), SignFlip(p=0.5)])"
    with pytest.raises(ValueError, match="did you mean 'theirs'"):
        augmentation("their")


def test_messages_list_the_activations_of_the_table() -> None:
    for kind, scale in (("SignFlip", "sign"), ("PositiveScale", "positive")):
        transform = getattr(ws.transforms, kind)()
        refused = next(name for name, row in ACTIVATIONS.items() if row.scale != scale)
        with pytest.raises(ValueError, match=re.escape(f"({names_where(scale=scale)})")):
            transform.check(ws.mlp(2, 4, 1, activation=refused))
    with pytest.raises(ValueError, match=re.escape(f"({names_where(periodic=True)})")):
        ws.transforms.PhaseShift().check(ws.mlp(2, 4, 1, activation="relu"))
