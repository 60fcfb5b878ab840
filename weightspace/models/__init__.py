"""Models on weights: one published model a file, plus the plain baselines."""

from __future__ import annotations

from weightspace._equivariant import EquivariantLinear
from weightspace.models._autoencoder import Autoencoder
from weightspace.models._averaged import Averaged
from weightspace.models._base import Model, Normalize, fold_phases
from weightspace.models._dwsnet import DWSNet, InvariantHead
from weightspace.models._ensemble import Ensemble
from weightspace.models._export import load_model, save_model
from weightspace.models._forward_messages import ForwardMessages
from weightspace.models._functional import Functional
from weightspace.models._gmn import GMN
from weightspace.models._hybrid import Hybrid
from weightspace.models._hybrid_grid import HybridGrid
from weightspace.models._mlp import MLP
from weightspace.models._nfn import NFNHNP, NFNNP
from weightspace.models._nft import NFT
from weightspace.models._ng_gnn import NGGNN
from weightspace.models._ng_t import NGT
from weightspace.models._probe_gen import ProbeGen
from weightspace.models._registry import MODELS, build
from weightspace.models._rows import INR2Vec, WeightTokens
from weightspace.models._scale_gmn import ScaleGMN
from weightspace.models._statistics import Statistics
from weightspace.models._typed_messages import TypedMessages

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
