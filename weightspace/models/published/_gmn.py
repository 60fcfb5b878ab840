"""GMN: message passing on the graph of a network, forth and back (Lim et al. 2024)."""

from __future__ import annotations

from weightspace.models.published._scale_gmn import ScaleGMN


class GMN(ScaleGMN):
    r"""Message passing from a network's inputs to its outputs and back, with weights that are updated too.

    .. math::
        m_i = mean_j \; p_{ij} \odot \phi(p_{ij}, h_i), \qquad p_{ij} = e_{ij} \odot \Gamma h_j, \qquad
        h_i' = h_i + \Gamma [h_i, m_i] \odot \phi(h_i, m_i)

    :class:`ScaleGMN` without its types: every function sees features themselves and not invariants of them, nothing is
    folded, and permutations are all that it respects. Next to the other it tells what signs, scales and phases are
    worth. Cost of a step forward, with ``E`` weights and ``d`` channels: about ``17 E d^2`` FLOP a bidirectional round
    and network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: rounds; each goes through the network from inputs to outputs (and back).
        direction: ``"bidirectional"``, or ``"forward"`` alone.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``.
        dropout: in all functions of neurons and weights.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.GMN(spec, 10, hidden=8, layers=1)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Lim et al., *Graph Metanetworks for Processing Diverse Neural Architectures*, 2024, section 2; both directions
        as in Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024. Published: accuracy predictors and
        edited INRs, no classes of Fashion-MNIST INRs. Departures: those of :class:`ScaleGMN`; gated products in place
        of MLPs; sequential networks alone, where the paper reads convolutions, norms and residual links too.
    """

    respects = "permutation"
    typed = False
