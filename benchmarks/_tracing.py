"""What ``ws.spec_of`` reads of public libraries, in which time and memory; each network in a process of its own.

    python -m benchmarks.resnets tracing LABEL [NAME ...]

``LABEL`` names the tracer in ``benchmarks/results/tracing.json``, whose rows of other labels stay. Needs torchvision
and transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import weightspace as ws
from benchmarks._common import earlier_rows, save

VISION = [
    *("alexnet", "vgg11", "vgg11_bn", "resnet18", "resnet50", "wide_resnet50_2"),
    *("resnext50_32x4d", "densenet121", "googlenet", "inception_v3", "squeezenet1_0", "mobilenet_v2"),
    *(
        "mobilenet_v3_small",
        "mnasnet1_0",
        "shufflenet_v2_x1_0",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "regnet_x_400mf",
    ),
    *("regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t", "maxvit_t"),
]
SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT: dict[str, Callable[[Any], nn.Module]] = {
    "bert": lambda t: t.BertForSequenceClassification(t.BertConfig(**SIZES, max_position_embeddings=16)),
    "gpt2": lambda t: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16)),
    "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=16)),
    "vit": lambda t: t.ViTForImageClassification(
        t.ViTConfig(**{k: v for k, v in SIZES.items() if k != "vocab_size"}, image_size=16, patch_size=4)
    ),
    "t5": lambda t: t.T5EncoderModel(t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)),
}
NAMES = [f"torchvision {name}" for name in VISION] + [f"transformers {name}" for name in TEXT]


def network(name: str) -> tuple[nn.Module, Tensor]:
    """Make a network of a library, and an example of its input."""
    library, model = name.split()
    if library == "torchvision":
        import torchvision

        options = {"init_weights": False, "aux_logits": False} if model in ("googlenet", "inception_v3") else {}
        return getattr(torchvision.models, model)(**options).eval(), torch.zeros(1, 3, 224, 224)
    import transformers

    x = torch.zeros(1, 3, 16, 16) if model == "vit" else torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    return TEXT[model](transformers).eval(), x


def resident(field: str) -> int:
    """Return a number of bytes from ``/proc/self/status``."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def row(name: str) -> dict[str, Any]:
    """Read one network, here."""
    warnings.simplefilter("ignore")
    module, x = network(name)
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start, processor = time.perf_counter(), time.process_time()
    found: dict[str, Any] = {"network": name, "checkpoint_mb": size / 2**20}
    try:
        spec = ws.spec_of(module, x)
    except Exception as error:
        found |= {"read": False, "error": f"{type(error).__name__}: {error!s:.160}"}
    else:
        moved = sum(
            torch.Size(spec.shape(p.name)).numel() for p in spec.params if any(spec.axis(a).hidden for a in p.axes)
        )
        found |= {"read": True, "hidden_axes": len(spec.hidden), "share_of_parameters_moved": moved / spec.num_params}
    found |= {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
    return found | {"peak_over_checkpoint": (resident("VmHWM") - before) / size}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("label")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--here", action="store_true", help="print the row of one network, measured in this process")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.here:
        print(json.dumps(row(args.names[0])))
        return
    rows = []
    for name in args.names or NAMES:
        command = [sys.executable, "-m", "benchmarks.resnets", "tracing", args.label, name, "--here"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-500:]}")
        rows.append({"tracer": args.label, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    what = {
        "benchmark": "resnets",
        "what": "ws.spec_of of networks of public libraries, one thread; the peak is the growth of resident memory "
        "during the call over the bytes of the state dict",
    }
    libraries = {name: version(name) for name in ("torchvision", "transformers")}
    rows = earlier_rows("tracing", {"benchmark": "resnets"}, "tracer", [args.label]) + rows
    save("tracing", {**what, "libraries": libraries, "rows": rows}, threads=1)
