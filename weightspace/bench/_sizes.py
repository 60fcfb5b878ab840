"""The sizes of the models, in one place: what trains in minutes on a CPU, and what the papers' releases use."""

from __future__ import annotations

from typing import Any

Size = tuple[str, dict[str, Any]]
"""The name of a model, and its options."""

SMALL: dict[str, Size] = {
    "statistics": ("statistics", {}),
    "mlp": ("mlp", {}),
    "inr2vec": ("inr2vec", {"hidden": 128}),
    "weight-tokens": ("weight-tokens", {"hidden": 32, "layers": 2}),
    "dwsnet": ("dwsnet", {"hidden": 16, "layers": 2}),
    "nfn-np": ("nfn-np", {"hidden": 32, "layers": 2}),
    "nfn-hnp": ("nfn-hnp", {"hidden": 32, "layers": 2}),
    "nft": ("nft", {"hidden": 16, "layers": 1, "attention_heads": 1, "fourier": 16}),
    "ng-gnn": ("ng-gnn", {"hidden": 16, "layers": 2, "fourier": 32}),
    "ng-t": ("ng-t", {"hidden": 16, "layers": 2, "attention_heads": 2, "fourier": 32}),
    "gmn": ("gmn", {"hidden": 16, "layers": 2}),
    "scale-gmn": ("scale-gmn", {"hidden": 16, "layers": 2}),
    "typed-messages": ("typed-messages", {"hidden": 32, "layers": 2}),
    "forward-messages": ("forward-messages", {}),
    "ng-gnn-probes": ("ng-gnn", {"hidden": 16, "layers": 2, "fourier": 32, "probes": 16}),
    "probe-net": ("probe-net", {}),
    "probe-grid-net": ("probe-grid-net", {"hidden": 16}),
    "probe-gen": ("probe-gen", {}),
    "render-cnn": ("render-cnn", {"hidden": 16}),
}

RELEASED: dict[str, Size] = {
    "dwsnet 16 x 2": ("dwsnet", {"hidden": 16, "layers": 2}),
    "dwsnet 32 x 4": ("dwsnet", {"hidden": 32, "layers": 4}),
    "dwsnet 32 x 4, attention": ("dwsnet", {"hidden": 32, "layers": 4, "attention": 8}),
    "nfn-np 512 x 3": ("nfn-np", {"hidden": 512, "layers": 3}),
    "nfn-hnp 512 x 3": ("nfn-hnp", {"hidden": 512, "layers": 3}),
    "nft 64 x 3": ("nft", {}),
    "ng-gnn 32 x 4": ("ng-gnn", {"hidden": 32, "layers": 4}),
    "ng-gnn 32 x 4, 64 probes": ("ng-gnn", {"hidden": 32, "layers": 4, "probes": 64}),
    "ng-t 64 x 4": ("ng-t", {"hidden": 64, "layers": 4}),
    "ng-t 64 x 4, 64 probes": ("ng-t", {"hidden": 64, "layers": 4, "probes": 64}),
    "scale-gmn 128 x 2, forward": ("scale-gmn", {"hidden": 128, "layers": 2, "direction": "forward"}),
    "scale-gmn 128 x 2": ("scale-gmn", {"hidden": 128, "layers": 2}),
    "gmn 32 x 2": ("gmn", {"hidden": 32, "layers": 2}),
    "scale-gmn 32 x 2": ("scale-gmn", {"hidden": 32, "layers": 2}),
    "statistics": ("statistics", {}),
    "inr2vec 512 x 3": ("inr2vec", {"hidden": 512, "layers": 3}),
    "weight-tokens 128 x 3": ("weight-tokens", {}),
    "mlp 512 x 3": ("mlp", {}),
    "forward-messages 128": ("forward-messages", {}),
    "typed-messages 64 x 2": ("typed-messages", {"hidden": 64, "layers": 2}),
    "probe-net 256 points": ("probe-net", {}),
    "probe-grid-net 14 x 14": ("probe-grid-net", {}),
    "probe-gen 128 probes": ("probe-gen", {}),
    "render-cnn 28 x 28": ("render-cnn", {}),
}

OURS: dict[str, Size] = {
    "forward-messages": ("forward-messages", {"rbfs": 0}),
    "query-grid": ("render-cnn", {"hidden": 48, "size": 20, "learned": True, "dropout": 0.3}),
    "render-cnn": ("render-cnn", {"layers": 4, "dropout": 0.3}),
}
"""The sizes of the recipes behind the best figures, where they are not those of a release."""
