"""Models on weights: one published model a file, plus the plain baselines."""

from __future__ import annotations

from weightspace._equivariant import EquivariantLinear
from weightspace.models._averaged import Averaged
from weightspace.models._base import Model, Normalize, fold_phases
from weightspace.models._ensemble import Ensemble
from weightspace.models._export import load_model, save_model
from weightspace.models._registry import MODELS, build
from weightspace.models.ours._forward_messages import ForwardMessages
from weightspace.models.ours._probe_grid_net import HybridGrid
from weightspace.models.ours._probe_net import Hybrid
from weightspace.models.ours._typed_messages import TypedMessages
from weightspace.models.published._dwsnet import DWSNet, InvariantHead
from weightspace.models.published._gmn import GMN
from weightspace.models.published._inr2array import Autoencoder
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

__all__ = [
    "GMN",
    "MLP",
    "MODELS",
    "NFNHNP",
    "NFNNP",
    "NFT",
    "NGGNN",
    "NGT",
    "Autoencoder",
    "Averaged",
    "DWSNet",
    "Ensemble",
    "EquivariantLinear",
    "ForwardMessages",
    "Functional",
    "Hybrid",
    "HybridGrid",
    "INR2Vec",
    "InvariantHead",
    "Model",
    "Normalize",
    "ProbeGen",
    "ScaleGMN",
    "Statistics",
    "TypedMessages",
    "WeightTokens",
    "build",
    "fold_phases",
    "load_model",
    "save_model",
]
