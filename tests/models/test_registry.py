"""Models by name: the library's, those of users by import path, and their heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from _helpers import networks
from torch import Tensor

import weightspace as ws
from weightspace.models import MODELS, DWSNet, Model, build, ours, published
from weightspace.models._registry import WRAPPERS
from weightspace.models._wrappers import Editor, Embedding

SPEC = ws.siren(2, 5, 4, 1)


def test_every_exported_class_has_names_of_its_own() -> None:
    classes = [getattr(room, name) for room in (ours, published) for name in room.__all__]
    names = [name for kind in classes for name in getattr(kind, "presets", {}) or (kind.name,)]
    assert len(set(names)) == len(names)
    assert set(names) == {*MODELS, "autoencoder"}
    assert set(WRAPPERS) == {"autoencoder", "averaged", "editor", "embedding", "ensemble"}
    assert list(MODELS) == sorted(MODELS)


def test_models_are_in_the_room_of_their_kind() -> None:
    files = {path.stem for room in (ours, published) for path in Path(str(room.__file__)).parent.glob("_[a-z]*.py")}
    homes = {getattr(room, name).__module__.rpartition(".")[2] for room in (ours, published) for name in room.__all__}
    assert homes == files


def test_build_knows_names_and_passes_options() -> None:
    assert type(build("dwsnet", SPEC, 2, hidden=4, layers=1)) is DWSNet
    with pytest.raises(ValueError, match=r"unknown model: expected one of \['dwsnet', 'forward-.*got 'resnet'"):
        build("resnet", SPEC, 2)
    with pytest.raises(ValueError, match=r"got 'nfn-hpn'; did you mean 'nfn-hnp'\?"):
        build("nfn-hpn", SPEC, 2)
    with pytest.raises(TypeError, match="width"):
        build("mlp", SPEC, 2, width=4)


def test_both_variants_of_nfn_have_a_name() -> None:
    for name, variant in (("nfn-np", "np"), ("nfn-hnp", "hnp")):
        model = build(name, SPEC, 3, hidden=4, layers=1, seed=0)
        assert type(model) is ws.models.NFN
        assert model.config["variant"] == variant
        direct = ws.models.NFN(SPEC, 3, variant=variant, hidden=4, layers=1, seed=0)  # pyright: ignore
        w = networks(SPEC, dtype=torch.float32)
        assert torch.equal(direct(w), model(w))  # pyright: ignore
    with pytest.raises(TypeError, match="variant"):  # no default, which one of the names would not mean
        ws.models.NFN(SPEC, 3)  # pyright: ignore
    with pytest.raises(ValueError, match="variant: expected 'np' or 'hnp', got 'pn'"):
        ws.models.NFN(SPEC, 3, variant="pn")  # pyright: ignore


def test_heads_that_a_model_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"head: expected one of \['embedding', 'invariant'\] for 'mlp', got 'mean'"):
        build("mlp", SPEC, 3, head="mean")  # pyright: ignore
    with pytest.raises(
        ValueError, match=r"head: expected one of \['embedding', 'invariant'\] for 'probe-net', got 'editing'"
    ):
        build("probe-net", SPEC, 1, head="editing")
    with pytest.raises(ValueError, match="head: expected 'invariant' or 'equivariant', got 'mean'"):
        DWSNet(SPEC, 4, head="mean")  # pyright: ignore
    assert isinstance(build("mlp", SPEC, 3, hidden=4, head="embedding"), Embedding)
    assert isinstance(build("gmn", SPEC, 1, hidden=4, layers=1, head="editing"), Editor)


class Mean(Model):
    """A user's model without a seed, which build asks for only where one is given."""

    equivariance = "permutation"

    def __init__(self, spec: ws.NetSpec, out_features: int) -> None:
        super().__init__(spec, out_features, ws.models.Normalize(spec), {})

    def compute(self, weights: ws.Weights) -> Tensor:
        return weights.flat.mean(1, keepdim=True).expand(-1, self.out_features)


class Chained(Mean):
    reads = "chain"


def test_users_models_are_found_by_import_path(conv_spec: ws.NetSpec) -> None:
    path = f"{__name__}:Mean"
    assert type(build(path, SPEC, 2)) is Mean
    ws.testing.assert_invariant(build(path, SPEC, 2), SPEC)
    with pytest.raises(TypeError, match="seed"):
        build(path, SPEC, 2, seed=0)
    assert type(build(path, conv_spec, 2)) is Mean
    with pytest.raises(ValueError, match="Chained reads sequential networks of linear layers alone"):
        build(f"{__name__}:Chained", conv_spec, 2)
    for wrong, message in (
        (f"{__name__}:Nothing", "expected an object named 'Nothing'"),
        (f"{__name__}:SPEC", "expected a class, got NetSpec"),
        ("torch.nn:Linear", r"expected a subclass of weightspace.models._model.Model, got Linear"),
        (
            "weightspace.models._wrappers:Embedding",
            r"expected a subclass of .*Model, got Embedding",
        ),
        ("no_such_module:Mean", "expected a module that can be imported, got 'no_such_module'"),
    ):
        with pytest.raises(ValueError, match=message):
            build(wrong, SPEC, 2)
