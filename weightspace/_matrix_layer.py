"""Add, activate and pool the features of matrices in one pass, with a backward pass to match.

What a layer on weights does beside its matrix product is bound by memory: sums over rows and columns, broadcasts,
an activation. Compiled code does all of it while a block of networks lies in the processor's cache. Plain torch
computes the same on other devices and types, for second derivatives, and under torch's own transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Reduction = Literal["mean", "max"]
Pooled = tuple[Tensor, Tensor, Tensor]
"""Features ``[batch, n, m, feature]``, and what pooling over ``m`` and over ``n`` leaves of them."""
BLOCK = 2**18
"""Bytes of features that one step reads and writes: a block of networks this large stays in the cache."""


def check_reduction(reduction: Reduction) -> Reduction:
    """Raise ``ValueError`` for another name than ``"mean"`` and ``"max"``."""
    if reduction not in ("mean", "max"):
        raise ValueError(f"reduction: expected 'mean' or 'max', got {reduction!r}")
    return reduction


def matrix_layer(
    x: Tensor, weight: Tensor | None, rows: Tensor, cols: Tensor, *, relu: bool, reduction: Reduction
) -> Pooled:
    r"""Map the features of a matrix, add those of its rows and columns, activate, and pool both ways.

    .. math:: y_{ij} = \sigma(W x_{ij} + r_i + c_j), \qquad p_i = pool_j \, y_{ij}, \quad q_j = pool_i \, y_{ij}

    Args:
        x: ``[batch, n, m, in]``.
        weight: ``W``, ``[out, in]``; the identity where None.
        rows: ``r``, ``[batch, n, out]``.
        cols: ``c``, ``[batch, m, out]``.
        relu: whether sigma is a ReLU instead of the identity.
        reduction: whether pooling takes the mean or the maximum.

    Returns:
        ``y`` ``[batch, n, m, out]``, ``p`` ``[batch, n, out]`` and ``q`` ``[batch, m, out]``.

    Example:
        >>> x = torch.tensor([[[[1.0], [-2.0]]]])
        >>> y, p, q = matrix_layer(x, None, torch.zeros(1, 1, 1), torch.zeros(1, 2, 1), relu=True, reduction="mean")
        >>> y.flatten().tolist(), p.flatten().tolist(), q.flatten().tolist()
        ([1.0, 0.0], [0.5], [1.0, 0.0])
    """
    if _compiled(x, weight, rows, cols):
        return _MatrixLayer.apply(x, weight, rows, cols, relu, reduction)  # pyright: ignore[reportReturnType]
    return _plain(x, weight, rows, cols, relu, reduction)


def _compiled(*tensors: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._are_functorch_transforms_active():  # as autograd.Function asks
        return False
    given = [t for t in tensors if t is not None]
    return all(t.device.type == "cpu" and t.dtype == given[0].dtype for t in given) and (
        given[0].dtype in (torch.float32, torch.float64)
    )


def _plain(x: Tensor, weight: Tensor | None, rows: Tensor, cols: Tensor, relu: bool, reduction: Reduction) -> Pooled:
    y = x if weight is None else torch.nn.functional.linear(x, weight)
    y = y + rows[:, :, None] + cols[:, None]
    y = torch.relu(y) if relu else y
    return (y, y.amax(2), y.amax(1)) if reduction == "max" else (y, y.mean(2), y.mean(1))


class _MatrixLayer(torch.autograd.Function):
    """The compiled path: block by block, a matrix product and one pass of compiled code, in both directions."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, rows: Tensor, cols: Tensor, relu: bool, reduction: Reduction
    ) -> Pooled:
        from weightspace import _matrix_kernels as kernels  # late: a program that trains nothing loads no compiler

        x, rows, cols = x.contiguous(), rows.contiguous(), cols.contiguous()
        batch, n, m, channels = x.shape
        out = rows.shape[-1]
        y, p, q = x.new_empty(batch, n, m, out), torch.empty_like(rows), torch.empty_like(cols)
        maximum, low = reduction == "max", y.numpy().dtype.type(0 if relu else -np.inf)
        at_p, at_q = (torch.empty(v.shape if maximum else 0, dtype=torch.int32) for v in (p, q))
        arrays = [t.detach().numpy() for t in (y, rows, cols, p, q)]
        places = [t.numpy() for t in (at_p, at_q)]
        for block in _blocks(y):
            if weight is None:
                y[block] = x[block]
            else:
                torch.mm(x[block].view(-1, channels), weight.t(), out=y[block].view(-1, out))
            own = [a[block] for a in arrays]
            if maximum:
                kernels.forward_max(*own, low, *(a[block] for a in places))
            else:
                kernels.forward_mean(*own, low)
        ctx.relu, ctx.maximum, ctx.low = relu, maximum, low
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, rows, cols, y, at_p, at_q)
        return y, p, q

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        from weightspace import _matrix_kernels as kernels

        x, weight, rows, cols, y, at_p, at_q = ctx.saved_tensors
        inputs: tuple[Any, ...] = x, weight, rows, cols
        if torch.is_grad_enabled():  # for a second derivative the first one is made of torch's own operators
            return *_differentiable(ctx, inputs, grads), None, None
        channels, out = x.shape[-1], rows.shape[-1]
        gp = torch.zeros_like(rows) if grads[1] is None else grads[1].contiguous()
        gq = torch.zeros_like(cols) if grads[2] is None else grads[2].contiguous()
        ga, gb = torch.empty_like(rows), torch.empty_like(cols)
        blocks = _blocks(y)
        g = torch.empty_like(y if weight is None else y[blocks[0]])  # with a matrix it is needed block by block alone
        gx = torch.empty_like(x) if weight is not None and ctx.needs_input_grad[0] else None
        gw = torch.zeros_like(weight) if weight is not None and ctx.needs_input_grad[1] else None
        arrays = [t.numpy() for t in (y if grads[0] is None else grads[0].contiguous(), y, gp, gq, ga, gb)]
        places = [t.numpy() for t in (at_p, at_q)]
        settings = (grads[0] is not None, ctx.low, ctx.low.dtype.type(0))
        for block in blocks:
            own = [a[block] for a in arrays]
            target = g[block] if weight is None else g[: len(own[0])]
            if ctx.maximum:
                kernels.backward_max(target.numpy(), *own, *settings, *(a[block] for a in places))
            else:
                kernels.backward_mean(target.numpy(), *own, *settings)
            flat = target.view(-1, out)
            if gx is not None and weight is not None:
                torch.mm(flat, weight, out=gx[block].view(-1, channels))
            if gw is not None:
                gw.addmm_(flat.t(), x[block].view(-1, channels))
        return g if weight is None else gx, gw, ga, gb, None, None


def _differentiable(ctx: Any, inputs: Sequence[Any], grads: Sequence[Any]) -> list[Tensor | None]:
    """Return the gradients of the four inputs as a graph."""
    x, weight, rows, cols = inputs
    outputs = _plain(x, weight, rows, cols, ctx.relu, "max" if ctx.maximum else "mean")
    pairs = [(value, grad) for value, grad in zip(outputs, grads, strict=True) if grad is not None]
    needed = ctx.needs_input_grad[:4]
    wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad([v for v, _ in pairs], wanted, [g for _, g in pairs], create_graph=True))
    return [next(found) if need else None for need in needed]


def _blocks(features: Tensor) -> list[slice]:
    """Cut a batch into blocks of about ``BLOCK`` bytes of features."""
    size = max(1, BLOCK // max(1, features[:1].numel() * features.element_size()))
    return [slice(start, start + size) for start in range(0, len(features), size)]
