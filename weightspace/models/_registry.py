"""The models by name."""

from __future__ import annotations

from typing import Any

from weightspace._spec import NetSpec
from weightspace.models._base import Model
from weightspace.models.ours._forward_messages import ForwardMessages
from weightspace.models.ours._probe_grid_net import HybridGrid
from weightspace.models.ours._probe_net import Hybrid
from weightspace.models.ours._typed_messages import TypedMessages
from weightspace.models.published._dwsnet import DWSNet
from weightspace.models.published._gmn import GMN
from weightspace.models.published._inr2vec import INR2Vec, WeightTokens
from weightspace.models.published._mlp import MLP
from weightspace.models.published._nfn import NFNHNP, NFNNP
from weightspace.models.published._nft import NFT
from weightspace.models.published._ng_gnn import NGGNN
from weightspace.models.published._ng_t import NGT
from weightspace.models.published._probe_gen import ProbeGen
from weightspace.models.published._render_cnn import Functional
from weightspace.models.published._scale_gmn import ScaleGMN
from weightspace.models.published._statistics import Statistics

MODELS: dict[str, type[Model]] = {
    "dwsnet": DWSNet,
    "forward-messages": ForwardMessages,
    "functional": Functional,
    "gmn": GMN,
    "hybrid": Hybrid,
    "hybrid-grid": HybridGrid,
    "inr2vec": INR2Vec,
    "mlp": MLP,
    "nfn-hnp": NFNHNP,
    "nfn-np": NFNNP,
    "nft": NFT,
    "ng-gnn": NGGNN,
    "ng-t": NGT,
    "probe-gen": ProbeGen,
    "scale-gmn": ScaleGMN,
    "statistics": Statistics,
    "typed-messages": TypedMessages,
    "weight-tokens": WeightTokens,
}


def build(name: str, spec: NetSpec, out_features: int, **options: Any) -> Model:
    """A model by its name.

    Args:
        name: one of :data:`MODELS`.
        spec: the networks to read.
        out_features: number of outputs.
        options: of the model's class. ``head="invariant"`` is what every model has, ``head="equivariant"`` (weights to
            weights) some. Those have ``head="editing"`` too, with one output: the networks, and a learned step away
            from them. With ``head="embedding"`` every model gives outputs of length one, for contrastive objectives.

    Raises:
        ValueError: for an unknown name, or a head that the model does not have.

    Example:
        >>> import weightspace as ws
        >>> type(build("mlp", ws.siren(2, 8, 8, 1), 10)).__name__
        'MLP'
    """
    if name not in MODELS:
        raise ValueError(f"unknown model: expected one of {sorted(MODELS)}, got {name!r}")
    kind, options = MODELS[name], dict(options)
    head = options.pop("head", "invariant")
    heads = (*kind.heads, "embedding", *(["editing"] if "equivariant" in kind.heads else []))
    if head not in heads:
        raise ValueError(f"head: expected one of {sorted(heads)} for {name!r}, got {head!r}")
    if head in ("equivariant", "editing"):
        options["head"] = "equivariant"
    model = kind(spec, out_features, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]
    model.unit = head == "embedding"
    return model.edits() if head == "editing" else model
