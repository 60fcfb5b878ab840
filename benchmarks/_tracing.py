"""Networks of public libraries that ``ws.spec_of`` reads, with time and memory; each in a process of its own.

    python -m benchmarks.resnets tracing LABEL [NAME ...]
    python -m benchmarks.resnets tracing LABEL [NAME ...] --align

``LABEL`` names the version in ``benchmarks/results/tracing.json``, whose rows of other labels stay. The second form
reads a network and aligns two of it with random weights, and writes ``benchmarks/results/align-modules.json``. Needs
torchvision and transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
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


class Usage:
    """Time, and growth of the resident memory at its peak, from now on."""

    def __init__(self) -> None:
        self.before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.start, self.processor = time.perf_counter(), time.process_time()

    def until_now(self, size: int) -> dict[str, float]:
        """Return seconds, and the growth over a size in bytes."""
        return {
            "seconds": time.perf_counter() - self.start,
            "processor_seconds": time.process_time() - self.processor,
            "peak_over_checkpoint": (resident("VmHWM") - self.before) / size,
        }


def bytes_of(state: Mapping[str, Tensor]) -> int:
    """Return the size of a state dict."""
    return sum(value.numel() * value.element_size() for value in state.values())


def row(name: str) -> dict[str, Any]:
    """Read one network, here."""
    module, x = network(name)
    size = bytes_of(module.state_dict())
    found: dict[str, Any] = {"network": name, "checkpoint_mb": size / 2**20}
    usage = Usage()
    try:
        spec = ws.spec_of(module, x)
    except Exception as error:
        found |= {"read": False, "error": f"{type(error).__name__}: {error!s:.160}"}
    else:
        moved = sum(
            torch.Size(spec.shape(p.name)).numel() for p in spec.params if any(spec.axis(a).hidden for a in p.axes)
        )
        found |= {"read": True, "hidden_axes": len(spec.hidden), "share_of_parameters_moved": moved / spec.num_params}
    return found | usage.until_now(size)


def aligned(name: str) -> dict[str, Any]:
    """Read one network and align two of it, here."""
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        module, x = network(name)
        states.append(module.state_dict())
    usage = Usage()
    found = ws.checkpoints.align_state_dicts(module, *states, example_input=x)
    used = usage.until_now(sum(map(bytes_of, states)))
    return {"network": name, **used, "squared_distance_before": found.before, "squared_distance_after": found.after}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("label")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--align", action="store_true", help="align two of each network too")
    parser.add_argument("--here", action="store_true", help="print the row of one network, measured in this process")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.here:
        print(json.dumps((aligned if args.align else row)(args.names[0])))
        return
    rows = []
    for name in args.names or NAMES:
        command = [sys.executable, "-m", "benchmarks.resnets", "tracing", args.label, name, "--here"]
        done = subprocess.run([*command, *["--align"] * args.align], capture_output=True, text=True, env=os.environ)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-500:]}")
        rows.append({"version": args.label, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    what = {
        "benchmark": "resnets",
        "what": f"{'reading a network and aligning two of it' if args.align else 'ws.spec_of'}, networks of public "
        "libraries, one thread; the peak is the growth of resident memory over the bytes of the state dict(s)",
    }
    libraries = {name: version(name) for name in ("torchvision", "transformers")}
    file = "align-modules" if args.align else "tracing"
    rows = earlier_rows(file, what, "version", [args.label]) + rows
    save(file, {**what, "libraries": libraries, "rows": rows}, threads=1)
