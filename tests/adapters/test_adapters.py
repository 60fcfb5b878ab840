"""Low-rank adapters: folders in every naming, ranks that differ, the balanced form, and what others do with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import generator
from torch import Tensor

import weightspace as ws
from weightspace import adapters

SIZES = {"layers.0.q_proj": (6, 5), "layers.0.v_proj": (6, 7)}
NAMES = {
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "named": ("base_model.model.{}.lora_A.default.weight", "base_model.model.{}.lora_B.default.weight"),
    "diffusers": ("{}.lora.down.weight", "{}.lora.up.weight"),
    "kohya": ("{}.lora_down.weight", "{}.lora_up.weight"),
}


def _write(folder: Path, rank: int = 2, seed: int = 0, naming: str = "peft", **config: Any) -> dict[str, Tensor]:
    """Write a folder; return the products."""
    folder.mkdir()
    gen, tensors, products = generator(seed), {}, {}
    for name, (inputs, outputs) in SIZES.items():
        a, b = torch.randn(rank, inputs, generator=gen), torch.randn(outputs, rank, generator=gen)
        tensors |= {key.format(name): value for key, value in zip(NAMES[naming], (a, b), strict=True)}
        products[name] = b @ a
    whole = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "base_model_name_or_path": "base", **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    ws.checkpoints.write_checkpoint(tensors, folder / "adapter_model.safetensors")
    return products


def _products(w: ws.Weights) -> dict[str, Tensor]:
    return {name: w.view(f"{name}.B") @ w.view(f"{name}.A") for name in SIZES}


@pytest.mark.parametrize("naming", NAMES)
def test_every_naming_is_read(naming: str, tmp_path: Path) -> None:
    expected = _write(tmp_path / "a", naming=naming)
    w = adapters.read(tmp_path / "a")
    assert [axis.activation for axis in w.spec.hidden] == ["linear", "linear"]
    for name, product in _products(w).items():
        torch.testing.assert_close(product[0], 2 * expected[name])  # alpha / r


def test_scalings(tmp_path: Path) -> None:
    plain = _write(tmp_path / "a", rank=4, use_rslora=True)
    torch.testing.assert_close(
        _products(adapters.read(tmp_path / "a"))["layers.0.q_proj"][0], 2 * plain["layers.0.q_proj"]
    )
    _write(tmp_path / "b", rank=4, alpha_pattern={"v_proj": 12})
    found = _products(adapters.read(tmp_path / "b"))
    torch.testing.assert_close(found["layers.0.q_proj"][0], plain["layers.0.q_proj"])
    torch.testing.assert_close(found["layers.0.v_proj"][0], 3 * plain["layers.0.v_proj"])


def test_ranks_that_differ_are_filled_with_zeros(tmp_path: Path) -> None:
    expected = [_write(tmp_path / f"{rank}", rank, seed=rank) for rank in (2, 3)]
    w = adapters.read([tmp_path / "2", tmp_path / "3"])
    assert w.view("layers.0.q_proj.A").shape == (2, 3, 6)
    for row, (own, rank) in enumerate(zip(expected, (2, 3), strict=True)):
        for name, product in _products(w).items():
            torch.testing.assert_close(product[row], 4 / rank * own[name])
    balanced = adapters.balance(w)
    assert bool(balanced.flat.isfinite().all())
    assert not balanced.view("layers.0.q_proj.A")[0, 2].any()
    for name, product in _products(balanced).items():
        torch.testing.assert_close(product, _products(w)[name], atol=1e-5, rtol=1e-5)


def _adapters(batch: int = 5, rank: int = 3) -> ws.Weights:
    axes, params = [], []
    for i, (name, (inputs, outputs)) in enumerate(SIZES.items(), start=1):
        first, last = ("in" if i == 1 else f"in{i}"), ("out" if i == len(SIZES) else f"out{i}")
        axes += [ws.Axis(first, inputs), ws.Axis(f"h{i}", rank, "linear"), ws.Axis(last, outputs)]
        params += [ws.Param(f"{name}.A", (f"h{i}", first)), ws.Param(f"{name}.B", (last, f"h{i}"))]
    spec = ws.NetSpec(tuple(axes), tuple(params))
    return ws.testing.random_weights(spec, batch, generator=generator(), dtype=torch.float64)


def test_the_balanced_form_depends_on_products_alone() -> None:
    w = _adapters()
    g = ws.Symmetry.sample(w.spec, batch=5, generator=generator(1), dtype=torch.float64)
    one, other = adapters.balance(w), adapters.balance(g.act(w))
    torch.testing.assert_close(one.flat, other.flat)
    assert float((g.act(w).flat - w.flat).abs().max()) > 0.3
    a, b = one.view("layers.0.q_proj.A"), one.view("layers.0.q_proj.B")
    torch.testing.assert_close(a @ a.mT, b.mT @ b)
    torch.testing.assert_close(ws.align.canonicalize(w)[0].flat.abs().sort(1).values, one.flat.abs().sort(1).values)
    values = adapters.singular_values(w)
    torch.testing.assert_close(values, adapters.singular_values(g.act(w)))
    torch.testing.assert_close(values[:, :3], torch.linalg.svdvals(_products(w)["layers.0.q_proj"])[:, :3])
    scaled = w.replace(w.flat * 1.1)
    torch.testing.assert_close(adapters.singular_values(scaled), 1.21 * values)


def test_adapters_are_matched_mixed_and_read() -> None:
    w = _adapters()
    g = ws.Symmetry.sample(w.spec, batch=5, generator=generator(1), dtype=torch.float64)
    found = ws.align.match(w, g.act(w), group="full")
    torch.testing.assert_close(found.act(g.act(w)).flat, w.flat, atol=1e-8, rtol=1e-8)
    mix = ws.transforms.MixUp("full")
    mixed, _ = mix(w.to(torch.float32), torch.arange(5), num_classes=5, generator=generator())
    assert bool(mixed.flat.isfinite().all())
    model = ws.models.Statistics(w.spec, 3, seed=0).double()
    one, other = (model(adapters.balance(v)) for v in (w, g.act(w)))
    torch.testing.assert_close(one, other)
    assert float((model(w) - model(g.act(w))).detach().abs().max()) > 1e-3


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"peft_type": "IA3"}, r"expected an adapter of peft_type 'LORA', got 'IA3'"),
    "no alpha": ({"lora_alpha": "a"}, "expected a finite number lora_alpha, got 'a'"),
}


@pytest.mark.parametrize("name", BAD)
def test_configurations_that_are_refused(name: str, tmp_path: Path) -> None:
    config, text = BAD[name]
    _write(tmp_path / "a", **config)
    with pytest.raises(ValueError, match=text):
        adapters.read(tmp_path / "a")


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder with adapter_config\.json, got none"):
        adapters.read(tmp_path)
    with pytest.raises(ValueError, match="expected at least one folder of an adapter, got none"):
        adapters.read([])
    _write(tmp_path / "a")
    _write(tmp_path / "b", base_model_name_or_path="other")
    with pytest.raises(ValueError, match=r"expected adapters of one base model, got \['base', 'other'\]"):
        adapters.read([tmp_path / "a", tmp_path / "b"])
    state = ws.checkpoints.read_checkpoint(tmp_path / "a" / "adapter_model.safetensors")
    key = "base_model.model.layers.0.q_proj.lora_"
    for change, text in (
        (
            {key + "magnitude_vector": torch.ones(5)},
            r"got \['base_model.model.layers.0.q_proj.lora_magnitude_vector'\]",
        ),
        ({key + "A.weight": torch.ones(2, 6, 3, 3)}, r"got \['base_model.model.layers.0.q_proj.lora_A.weight'\] too"),
        ({key + "A.weight": torch.ones(3, 6)}, r"got others for \['layers.0.q_proj'\]"),
    ):
        ws.checkpoints.write_checkpoint({**state, **change}, tmp_path / "a" / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=text):
            adapters.read(tmp_path / "a")
    fewer = {k: v for k, v in state.items() if "q_proj" in k}
    ws.checkpoints.write_checkpoint(state, tmp_path / "a" / "adapter_model.safetensors")
    _write(tmp_path / "c")
    ws.checkpoints.write_checkpoint(fewer, tmp_path / "c" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"expected the modules of .*, got others in .*: \['layers.0.v_proj'\]"):
        adapters.read([tmp_path / "a", tmp_path / "c"])
    (tmp_path / "c" / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected one of adapter_model\.safetensors, adapter_model\.bin"):
        adapters.read(tmp_path / "c")


def test_other_networks_are_refused() -> None:
    for spec in (
        ws.mlp(2, 3, 1),
        ws.mlp(2, 3, 1, activation="linear"),
        ws.mlp(2, 6, 3, 1, activation="linear", bias=False),
    ):
        w = ws.testing.random_weights(spec, 1, generator=generator())
        for call in (adapters.balance, adapters.singular_values):
            with pytest.raises(ValueError, match="expected pairs of matrices around linear axes, got"):
                call(w)
    with pytest.raises(TypeError, match="weights: expected Weights, got Tensor"):
        adapters.balance(torch.zeros(2, 3))  # type: ignore[arg-type]
