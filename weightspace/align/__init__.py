"""Alignment: find the symmetry that moves one network onto another; canonical forms, anchors and barriers."""

from weightspace.align._activations import match_activations
from weightspace.align._anchor import anchor
from weightspace.align._canonical import align_to, canonicalize
from weightspace.align._distances import distances
from weightspace.align._learned import LearnedAligner
from weightspace.align._matching import distance, match
from weightspace.align._pairs import Aligner
from weightspace.align._path import barrier, interpolate
from weightspace.align._sinkhorn import sinkhorn
from weightspace.align._zoo import align_zoo, alignment

__all__ = [
    "Aligner",
    "LearnedAligner",
    "align_to",
    "align_zoo",
    "alignment",
    "anchor",
    "barrier",
    "canonicalize",
    "distance",
    "distances",
    "interpolate",
    "match",
    "match_activations",
    "sinkhorn",
]
