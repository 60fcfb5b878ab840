"""``Objective``: a model and networks in, a loss and a score for each network out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from weightspace._networks import Networks
from weightspace._weights import Weights
from weightspace.zoo import Zoo


class Objective(ABC):
    """A loss to minimise, and a score by which epochs are compared, where higher is better.

    An objective is called with the model and networks as the model shall see them, transformed already. It keeps no
    state between calls. Your own objective is a class with :meth:`__call__`.
    """

    score_name: str

    @classmethod
    def for_zoo(cls, zoo: Zoo) -> Self:
        """Make the objective for the networks of a zoo, where it needs to know of them."""
        return cls()

    def __repr__(self) -> str:
        """The text by which a run folder knows the objective: objectives that differ read differently."""
        return type(self).__name__

    def check(self, model: Any) -> None:  # noqa: B027 (most objectives take any model)
        """Raise ``TypeError`` or ``ValueError`` for a model that the objective cannot train."""

    def targets(self, networks: Networks) -> Tensor:
        """Return the targets of networks, float ``[batch, ...]``, which transforms may mix.

        An objective without labels has no use for them; the default is a column of zeros.
        """
        return torch.zeros(len(networks), 1, device=networks.weights.device)

    @abstractmethod
    def __call__(
        self, model: Any, networks: Networks, targets: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch and the score of each network.

        Args:
            model: the model; whether it trains is its mode, ``model.training``.
            networks: a batch, as the model shall see it. Its labels are those before any mixing.
            targets: what :meth:`targets` returned, mixed if a transform mixes.
            generator: source of randomness, on the networks' device.

        Returns:
            ``(loss [], score [batch])``; the score takes no gradient.
        """


def check_output(output: Any, kind: type) -> None:
    """Raise ``TypeError`` for a model's output that is not of the type that an objective expects."""
    if not isinstance(output, kind):
        words, head = ("Weights", "equivariant") if kind is Weights else ("a tensor", "invariant")
        raise TypeError(
            f"expected a model with an {head} head, which returns {words}, got {type(output).__name__}; "
            f"build it with head={head!r}"
        )


def digest(values: Tensor) -> str:
    """Return a short name of these numbers."""
    return hashlib.sha256(values.detach().cpu().double().numpy().tobytes()).hexdigest()[:16]
