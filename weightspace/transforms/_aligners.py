"""Aligners as MixUp takes them: by the name of a group, or as a function of the user."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightspace._symmetry import GROUPS, Symmetry
from weightspace._weights import Weights
from weightspace.align import Aligner, match

Align = Literal["random", "permutation", "signed", "scaled", "full"]
ALIGN: tuple[str, ...] = ("random", *GROUPS[1:])


def element(align: Align | Aligner, a: Weights, b: Weights) -> Symmetry:
    """Return ``g`` such that ``g.act(b)`` is close to ``a``, network by network.

    Raises:
        TypeError: if an aligner returns something other than a ``Symmetry``.
        ValueError: if the ``Symmetry`` is of another spec or number of networks.
    """
    if not len(b):
        return Symmetry.identity(b.spec, batch=0)
    if not callable(align):
        return match(a, b, group=align)  # pyright: ignore[reportArgumentType]
    found: Any = align(a, b)
    if not isinstance(found, Symmetry):
        raise TypeError(
            f"MixUp: expected a Symmetry from the aligner {name_of(align)}, got {type(found).__name__}; "
            "return g such that g.act(b) is close to a"
        )
    if found.spec != b.spec or len(found) != len(b):
        raise ValueError(
            f"MixUp: expected {len(b)} elements for {b.spec} from the aligner {name_of(align)}, "
            f"got {len(found)} for {found.spec}; return one element for each network of b"
        )
    return found


def pairwise(align: Align | Aligner, weights: Weights, partner: Weights, index: Tensor) -> Symmetry:
    """Return what moves each partner onto its network, where partners are networks ``index`` of the same batch.

    Two networks that are each other's partner are matched once: the inverse moves the other way, and is as good,
    because permutations, signs and phases change no distance. Positive scales do, so with them all are matched.
    """
    if align not in ("permutation", "signed") and any(a.symmetry.scale == "positive" for a in weights.spec.hidden):
        return element(align, weights, partner)
    here = torch.arange(len(index), device=index.device)
    once = (index[index] != here) | (here <= index)
    found = element(align, weights[once], partner[once])
    back = found[(once.cumsum(0) - 1)[index[~once]]].inverse()
    return Symmetry.cat([found, back])[torch.cat([here[once], here[~once]]).argsort()]


def name_of(aligner: Any) -> str:
    """Return the qualified name of an aligner, with a digest of the parameters of a learned one.

    A run is recognised by the text of its transforms, so aligners that differ should have different names.

    Example:
        >>> import weightspace as ws
        >>> name_of(ws.align.match)
        'weightspace.align._matching.match'
        >>> name_of(partial(ws.align.match, group="full"))
        "partial(weightspace.align._matching.match, group='full')"
    """
    if isinstance(aligner, partial):
        settings = [*map(repr, aligner.args), *(f"{key}={value!r}" for key, value in aligner.keywords.items())]
        return f"partial({', '.join([name_of(aligner.func), *settings])})"
    owner = getattr(aligner, "__self__", aligner)
    name = f"{_path(aligner)}:{aligner.__code__.co_firstlineno}" if _is_lambda(aligner) else _path(aligner)
    return f"{name}<{digest(*owner.state_dict().values())}>" if isinstance(owner, nn.Module) else name


def _path(found: Any) -> str:
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}.{named.__qualname__}"


def _is_lambda(found: Any) -> bool:
    return getattr(found, "__name__", "") == "<lambda>"


def digest(*tensors: Tensor) -> str:
    """Return twelve digits that tell these numbers from others."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().to("cpu", torch.float64).numpy().tobytes())
    return found.hexdigest()[:12]
