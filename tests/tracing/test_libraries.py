"""Networks of public libraries: small configurations are read, and keep their outputs under a random symmetry.

The libraries are no dependency: without them these tests are skipped (``pip install siren-pytorch transformers``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightspace as ws
from weightspace.tracing import spec_of

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def _bert(t: Any) -> nn.Module:
    return t.BertForSequenceClassification(t.BertConfig(**SIZES, max_position_embeddings=16, num_labels=3))


def _gpt2(t: Any) -> nn.Module:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16, **ends))


def _llama(t: Any) -> nn.Module:
    return t.LlamaForCausalLM(t.LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=16))


def _vit(t: Any) -> nn.Module:
    sizes = {name: size for name, size in SIZES.items() if name != "vocab_size"}
    return t.ViTForImageClassification(t.ViTConfig(**sizes, image_size=16, patch_size=4, num_labels=5))


def _t5(t: Any) -> nn.Module:
    return t.T5EncoderModel(t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4))


HEADS = [(32, "linear")] * 4
"""The queries and keys, and the values, of two layers: four blocks of eight, each with a matrix."""
BLOCKS = [(32, "other")] * 2
"""Heads that move as wholes: GPT-2 stores its matrices as ``[in, out]``, on which others are not proved."""
GROUPED = [(16, "other"), (32, "other")] * 2
"""Keys and values of two heads, and queries of two for each: rotary embeddings leave the order inside."""
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
MODELS: dict[str, tuple[Callable[[Any], nn.Module], Tensor, list[tuple[int, str]], float]] = {
    "bert": (_bert, IDS, [(32, "other"), (48, "gelu"), (48, "gelu"), (32, "tanh"), *HEADS], 1e-9),
    "gpt2": (_gpt2, IDS, [(32, "other"), (128, "other"), (128, "other"), *BLOCKS], 1e-9),
    "llama": (
        _llama,
        IDS,
        [(32, "other"), (48, "other"), (48, "other"), *GROUPED],
        1e-5,
    ),  # its norms compute in float32
    "vit": (_vit, torch.zeros(1, 3, 16, 16), [(48, "gelu"), (48, "gelu"), *HEADS], 1e-9),
    "t5": (_t5, IDS, [(48, "relu"), (48, "relu"), (4, "other"), *HEADS], 1e-5),  # so do these
}


def _keeps(module: nn.Module, spec: ws.NetSpec, x: Tensor, generator: torch.Generator, atol: float) -> None:
    module = module.double().eval()
    x = torch.randn(x.shape, generator=generator, dtype=torch.float64) if x.is_floating_point() else x
    state = module.state_dict()
    off = {
        id(v): v + 0.05 * torch.randn(v.shape, generator=generator, dtype=v.dtype)
        for v in {id(v): v for v in state.values()}.values()
    }
    noise = {key: off[id(value)] for key, value in state.items()}
    shared = {}  # tied tensors stay tied
    for key, value in state.items():
        noise[key] = shared.setdefault(value.data_ptr(), noise[key])
    w = ws.Weights.from_state_dicts([{key: noise[key] for key in spec.by_state_key}] * 2, spec)
    moved = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64).act(w)

    def run(state: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            found = torch.func.functional_call(module, state, (x,), tie_weights=False)
        return found if isinstance(found, Tensor) else found[0]

    expected = run(noise)
    for state in moved.state_dicts():
        torch.testing.assert_close(run(state), expected, atol=atol, rtol=atol)
    for axis in spec.hidden:  # the negative control: the columns of one tensor alone
        broken = w.clone()
        touching = [p for p in spec.params if p.kind == "weight" and axis.name in p.axes]
        view = broken.view(touching[-1].name)
        view.copy_(view.flip(touching[-1].axes.index(axis.name) + 1))
        assert float((run(broken.state_dict(0)) - expected).abs().max()) > 10 * atol


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers(name: str, generator: torch.Generator) -> None:
    transformers = pytest.importorskip("transformers")
    make, x, hidden, atol = MODELS[name]
    torch.manual_seed(0)
    module = make(transformers)
    spec = spec_of(module, x)
    assert sorted((axis.size, str(axis.activation)) for axis in spec.hidden) == sorted(hidden)
    _keeps(module, spec, x, generator, atol)


def test_siren_pytorch(generator: torch.Generator) -> None:
    siren = pytest.importorskip("siren_pytorch")
    net = siren.SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=3, final_activation=nn.Identity())
    spec = spec_of(net)
    assert [(axis.size, axis.activation, axis.omega) for axis in spec.hidden] == [(16, "sine", w) for w in (30, 1, 1)]
    w = ws.Weights.from_state_dicts([net.state_dict()], spec)
    x = 2 * torch.rand(50, 2, generator=generator) - 1
    torch.testing.assert_close(ws.evaluate(w, x)[0], net(x), atol=1e-5, rtol=1e-5)
    _keeps(net, spec, x, generator, 1e-9)
    ends = siren.SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=3, final_activation=nn.Sigmoid())
    assert spec_of(ends) == spec


def test_the_modulated_siren_of_siren_pytorch(generator: torch.Generator) -> None:
    siren = pytest.importorskip("siren_pytorch")
    net = siren.SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=3)
    wrapper = siren.SirenWrapper(net, latent_dim=4, image_width=5, image_height=6)
    latent = torch.randn(4, generator=generator)
    spec = spec_of(wrapper, {"latent": latent})
    assert {axis.activation for axis in spec.hidden} == {"other"}
    assert len(spec.hidden) == 3
