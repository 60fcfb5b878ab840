"""Published models, one file each, and the baselines of the field."""

from weightspace.models.published._dwsnet import DWSNet
from weightspace.models.published._gmn import GMN
from weightspace.models.published._inr2array import Autoencoder
from weightspace.models.published._inr2vec import INR2Vec, WeightTokens
from weightspace.models.published._mlp import MLP
from weightspace.models.published._nfn import NFN
from weightspace.models.published._nft import NFT
from weightspace.models.published._ng_gnn import NeuralGraphGNN
from weightspace.models.published._ng_t import NeuralGraphTransformer
from weightspace.models.published._probe_gen import ProbeGen
from weightspace.models.published._render_cnn import RenderCNN
from weightspace.models.published._scale_gmn import ScaleGMN
from weightspace.models.published._statistics import Statistics

__all__ = [
    "GMN",
    "MLP",
    "NFN",
    "NFT",
    "Autoencoder",
    "DWSNet",
    "INR2Vec",
    "NeuralGraphGNN",
    "NeuralGraphTransformer",
    "ProbeGen",
    "RenderCNN",
    "ScaleGMN",
    "Statistics",
    "WeightTokens",
]
