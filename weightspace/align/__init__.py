"""Alignment: the symmetry that moves one network onto another."""

from weightspace.align._activations import match_activations
from weightspace.align._canonical import anchor, canonicalize
from weightspace.align._learned import LearnedAligner
from weightspace.align._matching import distance, match, match_to
from weightspace.align._path import Barrier, barrier, interpolate
from weightspace.align._phases import fold_phases
from weightspace.align._sinkhorn import sinkhorn
from weightspace.align._zoo import align_zoo, alignment

__all__ = [
    "Barrier",
    "LearnedAligner",
    "align_zoo",
    "alignment",
    "anchor",
    "barrier",
    "canonicalize",
    "distance",
    "fold_phases",
    "interpolate",
    "match",
    "match_activations",
    "match_to",
    "sinkhorn",
]
