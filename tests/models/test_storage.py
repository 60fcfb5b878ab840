"""Models on disk: what comes back, models of version 0.1.0, classes of users, and damaged files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers import networks as drawn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import weightspace as ws
from weightspace.models import Autoencoder, Averaged, Ensemble, Model, Normalize, build, load_model, save_model
from weightspace.models._storage import MODEL_FORMAT
from weightspace.models._wrappers import Embedding
from weightspace.transforms import Flip

SPEC = ws.siren(2, 5, 4, 1)
OLD = Path(__file__).parents[1] / "data" / "v0.1.0"
EXPECTED = load_file(OLD / "models.safetensors")


def networks(batch: int = 6, seed: int = 1) -> ws.Weights:
    return drawn(SPEC, batch, seed, torch.float32)


def numbers(out: Tensor | ws.Weights) -> Tensor:
    return out.flat if isinstance(out, ws.Weights) else out


class Own(Model):
    """A model outside of the library."""

    equivariance = "permutation"

    def __init__(self, spec: ws.NetSpec, out_features: int, *, width: int = 3, seed: int | None = None) -> None:
        super().__init__(spec, out_features, Normalize(spec), {"width": width})
        with ws.models.layers.seeded_by(seed):
            self.net = nn.Sequential(nn.Linear(len(spec.params), width), nn.Linear(width, out_features))

    def compute(self, weights: ws.Weights) -> Tensor:
        return self.net(torch.stack([value.flatten(1).mean(1) for _, value in weights.items()], 1))


OWN = f"{__name__}:Own"


# Models come back.


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_saved_model_keeps_its_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    model = ws.models.MLP(SPEC, 3, hidden=np.int64(8), layers=2).to(dtype).eval()  # pyright: ignore
    again = load_model(save_model(model, tmp_path)).eval()
    w = drawn(SPEC).to(dtype)
    assert torch.equal(numbers(again(w)), model(w))
    assert again.config["hidden"] == 8


def test_wrappers_come_back_with_the_models_in_them(tmp_path: Path) -> None:
    w, sizes = networks(), {"hidden": 8, "layers": 1}
    models = [build("scale-gmn", SPEC, 4, seed=seed, **sizes) for seed in range(3)]
    encoder = build("nfn-hnp", SPEC, 8, seed=0, **sizes)
    for wrapped in (
        Embedding(models[0]),
        Ensemble([Embedding(models[0]), Embedding(Ensemble(models[1:]))]),
        Autoencoder(Embedding(encoder), queries=2, hidden=8, attention_heads=2, reach=3.0, seed=1),
        build("nft", SPEC, 1, seed=0, head="editing", fourier=3, **sizes),
    ):
        again = load_model(save_model(wrapped.eval(), tmp_path / type(wrapped).__name__)).eval()
        assert type(again) is type(wrapped)
        assert torch.equal(numbers(again(w)), numbers(wrapped(w)))
        assert (again.equivariance, again.track, again.output) == (wrapped.equivariance, wrapped.track, wrapped.output)
        assert json.dumps(again.config, default=lambda m: m.config) == json.dumps(
            wrapped.config, default=lambda m: m.config
        )
        if isinstance(wrapped, Autoencoder):
            assert isinstance(again, Autoencoder)
            x = ws.signals.grid(3, 3)
            assert torch.equal(again.decode(again(w), x), wrapped.decode(wrapped(w), x))


def test_what_is_no_data_is_not_saved(tmp_path: Path) -> None:
    averaged = Averaged(ws.models.MLP(SPEC, 3, hidden=8), [Flip(1.0)])
    with pytest.raises(TypeError, match="expected a config of plain numbers, names and models, got Flip"):
        save_model(averaged, tmp_path / "averaged")
    assert not (tmp_path / "averaged").exists()


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    folder = save_model(build("nfn-np", SPEC, 3, hidden=4, layers=1, head="embedding"), tmp_path / "model")
    about = json.loads((folder / "model.json").read_text())
    assert ws.NetSpec.from_json(json.dumps(about.pop("spec"))) == SPEC
    inner = {"out_features": 3, "variant": "np", "hidden": 4, "layers": 1, "head": "invariant", "fourier": 0}
    assert about == {
        "format": MODEL_FORMAT,
        "model": "embedding",
        "config": {"model": {"model": "nfn-np", "config": {**inner, "dropout": 0.0}}},
        "dtype": "float32",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


# Models of users.


def test_a_model_of_ones_own_is_built_saved_and_found_by_its_import_path(tmp_path: Path) -> None:
    model = build(OWN, SPEC, 3, seed=0, width=5, head="embedding").eval()
    assert isinstance(model, Embedding)
    assert type(model.model) is Own
    again = load_model(save_model(model, tmp_path)).eval()
    assert torch.equal(numbers(again(networks())), numbers(model(networks())))
    assert json.loads((tmp_path / "model.json").read_text())["config"]["model"]["model"] == OWN


def test_a_class_that_cannot_be_imported_is_not_saved(tmp_path: Path) -> None:
    class Local(ws.models.MLP):  # pyright: ignore
        pass

    with pytest.raises(TypeError, match=r"expected a model whose class can be imported, got .*Local; define it at the"):
        save_model(Local(ws.mlp(2, 3, 1), 2), tmp_path / "local")
    assert not (tmp_path / "local").exists()


def test_a_file_is_no_reason_to_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "own_models_of_a_test.py"
    module.write_text(
        "import weightspace as ws\n"
        "from weightspace.models import Model, Normalize\n"
        "class Sum(Model):\n"
        "    def __init__(self, spec, out_features, *, seed=None):\n"
        "        super().__init__(spec, out_features, Normalize(spec), {})\n"
        "    def compute(self, weights):\n"
        "        return weights.flat[:, : self.out_features]\n"
    )
    monkeypatch.chdir(tmp_path)
    model, w = build("own_models_of_a_test:Sum", SPEC, 2), networks()
    folder = save_model(model, tmp_path / "model")
    assert torch.equal(numbers(load_model(folder)(w)), numbers(model(w)))
    monkeypatch.delitem(sys.modules, "own_models_of_a_test")
    with pytest.raises(ValueError, match=r"model.json: .*own_models_of_a_test:Sum, whose module is not imported"):
        load_model(folder)
    assert "own_models_of_a_test" not in sys.modules
    assert torch.equal(numbers(load_model(folder, imports=True)(w)), numbers(model(w)))
    monkeypatch.delitem(sys.modules, "own_models_of_a_test")
    module.unlink()
    with pytest.raises(ValueError, match="expected a module that can be imported, got 'own_models_of_a_test'"):
        load_model(folder, imports=True)


# Models of version 0.1.0.


@pytest.mark.parametrize("name", sorted(path.name.removeprefix("model-") for path in OLD.glob("model-*")))
def test_models_of_version_0_1_0_open_with_the_same_outputs(name: str, tmp_path: Path) -> None:
    folder = OLD / f"model-{name}"
    assert json.loads((folder / "model.json").read_text())["format"] == 1
    model = load_model(folder).eval()
    w = ws.Weights(EXPECTED["networks"], model.spec)
    torch.testing.assert_close(numbers(model(w)), EXPECTED[name], atol=1e-6, rtol=1e-5)
    other = w.replace(w.flat + 0.1 * torch.linspace(-1, 1, w.flat.numel()).view_as(w.flat))
    assert not torch.allclose(numbers(model(other)), EXPECTED[name], atol=1e-4)
    again = load_model(save_model(model, tmp_path)).eval()
    assert torch.equal(numbers(again(w)), numbers(model(w)))


def test_every_model_of_version_0_1_0_is_there() -> None:
    names = {path.name.removeprefix("model-") for path in OLD.glob("model-*")}
    assert {"dwsnet-editing", "dwsnet-embedding", "functional", "hybrid", "hybrid-grid"} <= names
    assert len(names) == 20
    assert sum(path.stat().st_size for path in OLD.rglob("*") if path.is_file()) < 900_000


def test_options_that_only_version_0_1_0_had_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(OLD / "model-hybrid", tmp_path / "model")
    for option, value in (("neurons", 4), ("back", False)):
        edited(folder, lambda about, o=option, v=value: about["options"].update({o: v}))
        with pytest.raises(ValueError, match=rf"model.json: .*got 'hybrid' with options \['{option}'\] that only"):
            load_model(folder)
        edited(folder, lambda about, o=option: about["options"].pop(o))
    edited(folder, lambda about: about["options"].update(neurons=0, back=True))  # as they are now
    assert load_model(folder).track == "probing"


# Damaged files.


def edited(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change ``model.json``."""
    about = json.loads((folder / "model.json").read_text())
    change(about)
    (folder / "model.json").write_text(json.dumps(about))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(ws.models.MLP(SPEC, 3, hidden=8, seed=0), tmp_path / "model")


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    other = save_model(ws.models.MLP(SPEC, 4, hidden=8), tmp_path / "other")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"model.json: expected a model .*got .*\[3, 8\], and weights with \[4, 8\]"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"model.safetensors: expected the weights of model.json's model"):
        load_model(folder)
    state = load_file(other / "model.safetensors")
    save_file({name: value for name, value in state.items() if name != "net.0.bias"}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.json: expected a model .*net.0.bias \[8\], and weights with None"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors"):
        load_model(folder)
    with pytest.raises(FileNotFoundError, match=r"expected model\.json"):
        load_model(tmp_path)


TEXTS = {
    "nothing": b"",
    "half": b"{",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "no format": b"{}",
    "deep nesting": b"[" * 100_000,
    "deep nesting of objects": b'{"format":' * 100_000,
    "no text": b"\xff\xfe\x00",
    "a long number": b'{"format": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_that_is_no_description_is_refused_by_the_name_of_the_file(folder: Path, text: bytes) -> None:
    (folder / "model.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"model.json: expected "):
        load_model(folder)


def nested(depth: int) -> Any:
    found: Any = {"model": "mlp", "config": {"out_features": 3}}
    for _ in range(depth):
        found = {"model": "embedding", "config": {"model": found}}
    return found


CHANGES: dict[str, Callable[[Any], Any]] = {
    "format 7": lambda a: a.update(format=7),
    "format true": lambda a: a.update(format=True),
    "format text": lambda a: a.update(format="2"),
    "format of the old version": lambda a: a.update(format=1),
    **{f"no {key}": lambda a, k=key: a.pop(k) for key in ("model", "config", "spec")},
    "model a list": lambda a: a.update(model=[]),
    "model null": lambda a: a.update(model=None),
    "model unknown": lambda a: a.update(model="resnet"),
    "model another": lambda a: a.update(model="statistics"),
    "model a wrapper": lambda a: a.update(model="embedding"),
    "model no path": lambda a: a.update(model=":"),
    "model no class": lambda a: a.update(model="math:pi"),
    "model another class": lambda a: a.update(model="torch.nn:Linear"),
    "config a list": lambda a: a.update(config=[]),
    "config null": lambda a: a.update(config=None),
    "config with text": lambda a: a["config"].update(hidden="8"),
    "config unknown": lambda a: a["config"].update(width=8),
    "config nested": lambda a: a["config"].update(hidden={"model": "mlp", "config": {}}),
    "config no number": lambda a: a["config"].update(dropout=float("nan")),
    "dtype int8": lambda a: a.update(dtype="int8"),
    "dtype a list": lambda a: a.update(dtype=[]),
    "dtype a function": lambda a: a.update(dtype="load"),
    "spec a list": lambda a: a.update(spec=[]),
    "spec null": lambda a: a.update(spec=None),
    "spec without axes": lambda a: a["spec"].pop("axes"),
    "spec of other networks": lambda a: a.update(spec=json.loads(ws.siren(2, 6, 1).to_json())),
    "spec of huge networks": lambda a: a["spec"]["axes"][1].update(size=10**9),
    "huge hidden": lambda a: a["config"].update(hidden=10**12),
    "large hidden": lambda a: a["config"].update(hidden=500),
    "huge layers": lambda a: a["config"].update(layers=10**9),
    "huge out_features": lambda a: a["config"].update(out_features=10**400),
    "nested wrappers": lambda a: a.update(nested(300)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_damaged_descriptions_are_refused_by_the_name_of_the_file(folder: Path, change: Callable[[Any], Any]) -> None:
    load_model(folder)
    edited(folder, change)
    with pytest.raises(ValueError, match=r"model.json: expected ") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 1500


def test_a_newer_format_is_refused_by_its_number(folder: Path) -> None:
    edited(folder, lambda about: about.update(format=7))
    with pytest.raises(ValueError, match=r"expected model format 1 or 2, got 7; a newer weightspace may read it"):
        load_model(folder)


@pytest.mark.parametrize("name", ["render-cnn", "nft", "ng-t", "forward-messages"])
def test_huge_sizes_are_refused_before_any_memory_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(build(name, SPEC, 3, hidden=8, layers=1), tmp_path)
    made: list[int] = []
    linear = nn.Linear.__init__

    def note(self: nn.Linear, inputs: int, outputs: int, *args: Any, **options: Any) -> None:
        linear(self, inputs, outputs, *args, **options)
        made.append(0 if self.weight.is_meta else self.weight.numel())

    edited(folder, lambda about: about["config"].update(hidden=1000))
    monkeypatch.setattr(nn.Linear, "__init__", note)
    with pytest.raises(ValueError, match=r"model.json: expected "):
        load_model(folder)
    assert not any(made)
