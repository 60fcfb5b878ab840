"""``fit``: signals to weights, thousands of independent networks at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import check_keywords, warn_if_wide, whole_number
from weightspace._evaluate import PSNR_LIMIT, psnr
from weightspace._networks import Networks
from weightspace._progress import bar
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.fitting._checks import check_signals, check_sources, check_start, real_tensor, warn_of_poor_fits
from weightspace.fitting._config import FitConfig
from weightspace.fitting._init import initial_weights
from weightspace.fitting.kernels._minibatch import point_keys
from weightspace.fitting.kernels._problem import ChunkResult, FitProblem
from weightspace.fitting.kernels._tensor import fit_tensor

Kernel = Literal["auto", "compiled", "triton", "torch"]
OnProgress = Callable[[int, int, Tensor], None]
"""A callback: networks done, networks in all, and the PSNR in dB of those that were done last."""
CPU_CHUNK = 8
CUDA_CHUNK_BYTES = 4 << 30


def fit(
    coords: Tensor,
    targets: Tensor,
    spec: NetSpec,
    *,
    config: FitConfig | None = None,
    sources: Tensor | None = None,
    start: Weights | None = None,
    first_view: int = 0,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    chunk: int | None = None,
    kernel: Kernel = "auto",
    on_progress: OnProgress | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Networks:
    r"""Fit one network to every signal, ``views`` times over.

    Minimises :math:`\frac{1}{M c} \sum_m \lVert f(w_i)(x_m) - y_{im} \rVert^2` for each network alone, by Adam with
    closed-form gradients. On a CPU a network's bits depend on its signal and start alone: not on ``chunk``,
    ``workers``, or the other signals.

    Args:
        coords: ``[point, in]``, the same points for every signal, or ``[signal, point, in]``.
        targets: ``[signal, point, out]``, real numbers of range one.
        spec: the network.
        config: the recipe; ``options`` replace single fields of it (``steps=``, ``lr=``, ``views=``, ...).
        sources: int64 ``[signal]``, stable numbers of the signals; their positions where None.
        start: one network that all start from, such as :func:`weightspace.fitting.meta_start` learns, or one for each
            signal; by default each starts from its own random point (or all from one, see ``shared_init``).
        first_view: number of the first view to fit, below ``views``: the others are there already.
        device: where to compute; the result comes back on the CPU.
        workers: threads on a CPU (one core each); all cores where None.
        chunk: networks computed together; what fits the cache (or the GPU) where None.
        kernel: ``"compiled"``: machine code that keeps one network in one core's caches; ``"triton"``: the same idea
            on a CUDA device, one network a block; ``"torch"``: batched tensor operations, on any device. They agree
            up to rounding. ``"auto"``: compiled on a CPU and triton on a CUDA device, wherever the spec allows it
            and numba or triton is there.
        on_progress: called after each chunk with the networks done, the networks in all and the PSNR of the chunk, by
            one thread at a time. An exception that it raises ends the fit.
        progress: whether to show a bar; by default in notebooks alone.
        options: fields of :class:`FitConfig`.

    Returns:
        The networks on the CPU, in the order of the signals, all views of a signal side by side, with their source,
        view and PSNR (of signals of range one, after the last step).

    Raises:
        ValueError: for non-finite, misshapen or complex signals, targets of whole numbers, sources that repeat, options
            out of range, or a kernel that cannot fit this spec on this device.
        TypeError: for unknown options.
        FloatingPointError: if a network's weights stop being finite.

    Warns:
        UserWarning: for targets whose range is far from one, such as pixels from 0 to 255, and networks that fit their
            signals at less than 5 dB on average.

    Example:
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.images(torch.rand(3, 8, 8).numpy())
        >>> result = ws.fit(coords, targets, ws.siren(2, 8, 8, 1), steps=20, lr=5e-3, views=2)
        >>> len(result), result.source.tolist(), result.view.tolist()
        (6, [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
    """
    job = _Job.prepare(coords, targets, spec, _configured(config, options), sources, start, first_view, device, kernel)
    warn_if_wide("targets", *(value.item() for value in torch.aminmax(job.targets)))
    wanted = os.cpu_count() or 1 if workers is None else whole_number("workers", workers)
    size = job.chunk_size if chunk is None else whole_number("chunk", chunk)
    with bar("fit", progress) as shown:
        networks = job.run(size, wanted, on_progress if shown is None else _shown(shown, on_progress))[0]
    assert networks.psnr is not None
    warn_of_poor_fits(networks.psnr)
    return networks


def _shown(shown: Callable[[int, int, str], None], on_progress: OnProgress | None) -> OnProgress:
    """Return a callback that moves a bar, and then calls the user's."""

    def step(done: int, total: int, psnr: Tensor) -> None:
        shown(done, total, f"{float(psnr.mean()):.1f} dB")
        if on_progress is not None:
            on_progress(done, total, psnr)

    return step


class _Job:
    """The state that the chunks of one call of :func:`fit` share."""

    def __init__(
        self,
        spec: NetSpec,
        coords: Tensor,
        targets: Tensor,
        sources: Tensor,
        start: Weights | None,
        views: range,
        config: FitConfig,
        device: torch.device,
        kernel: Kernel,
    ) -> None:
        self.spec, self.config, self.device, self.kernel = spec, config, device, kernel
        self.coords = coords.to(device) if coords.ndim == 2 else coords
        self.targets, self.start = targets, start
        self.signal = torch.arange(len(targets)).repeat_interleave(len(views))
        self.source = sources.repeat_interleave(len(views))
        self.view = torch.tensor(views).repeat(len(sources))
        count = len(self.source)
        self.flat = torch.empty(count, spec.num_params, dtype=torch.float32)
        self.psnr = torch.empty(count, dtype=torch.float32)
        self.steps = torch.empty(count, dtype=torch.int64)
        self.flag = np.zeros(1, dtype=np.uint8)

    @classmethod
    def prepare(
        cls,
        coords: Tensor,
        targets: Tensor,
        spec: NetSpec,
        config: FitConfig,
        sources: Tensor | None,
        start: Weights | None,
        first_view: int,
        device: str | torch.device,
        kernel: Kernel,
    ) -> _Job:
        """Check the arguments of :func:`fit`, and make its state."""
        coords, targets = real_tensor("coords", coords, scaled=False), real_tensor("targets", targets, scaled=True)
        sources = torch.arange(len(targets)) if sources is None else torch.as_tensor(sources, dtype=torch.int64)
        check_signals(coords, targets, spec)
        spec = spec if config.init is None else replace(spec, init=config.init)  # a spec records how its networks began
        check_sources(sources, len(targets))
        if start is not None:
            check_start(start, spec, len(targets))
        if whole_number("first_view", first_view, 0) >= config.views:
            raise ValueError(f"first_view: expected less than the {config.views} views of the recipe, got {first_view}")
        device = torch.device(device)
        chosen = choose_kernel(kernel, spec, device)
        return cls(spec, coords, targets, sources, start, range(first_view, config.views), config, device, chosen)

    @property
    def chunk_size(self) -> int:
        """The number of networks computed together: a few for a CPU's cache, many for a share of a GPU's memory."""
        if self.device.type != "cuda":
            return CPU_CHUNK
        neurons = sum(axis.size for axis in self.spec.hidden) + self.spec.in_features + self.spec.out_features
        points = self.config.points or self.coords.shape[-2]
        return max(1, CUDA_CHUNK_BYTES // (4 * (2 * points * neurons + 4 * self.spec.num_params)))

    @property
    def stopped(self) -> bool:
        """Whether the fit has been ended by an error or an interrupt."""
        return bool(self.flag[0])

    def run(self, size: int, workers: int, on_progress: OnProgress | None) -> tuple[Networks, Tensor]:
        """Fit all chunks, and return the networks and the Adam steps that each took."""
        count, done, lock = len(self.source), 0, threading.Lock()

        def one(start: int) -> None:
            nonlocal done
            rows = slice(start, min(start + size, count))
            self._run_chunk(rows)
            if on_progress is not None and not self.stopped:
                with lock:
                    done += rows.stop - start
                    on_progress(done, count, self.psnr[rows])

        with _one_thread_each(), ThreadPoolExecutor(1 if self.device.type == "cuda" else workers) as pool:
            try:
                for future in [pool.submit(one, start) for start in range(0, count, size)]:
                    future.result()
            except BaseException:
                self.flag[0] = 1  # every chunk under way returns at its next step
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        networks = Networks(Weights(self.flat, self.spec), None, self.source, self.view, self.psnr)
        return networks, self.steps

    def _run_chunk(self, rows: slice) -> None:
        """Fit one chunk and put it into its place."""
        if self.stopped:
            return
        config, source, view, signal = self.config, self.source[rows], self.view[rows], self.signal[rows]
        if self.start is not None:
            start = self.start[torch.zeros_like(signal) if len(self.start) == 1 else signal]
        else:
            start = initial_weights(
                self.spec, source, view, seed=config.seed, init=config.init, shared=config.shared_init
            )
        problem = FitProblem(
            start,
            self.coords if self.coords.ndim == 2 else self.coords[signal],
            self.targets[signal],
            steps=config.steps,
            lr=config.lr,
            target_mse=None if config.target_psnr is None else 10 ** (-config.target_psnr / 10),
            points=config.points,
            keys=None if config.points is None else point_keys(source, view, seed=config.seed),
            stop=self.flag,
        )
        done = self._fit(problem)
        if self.stopped:
            return
        if diverged := int((~torch.isfinite(done.flat).all(1)).sum()):
            raise FloatingPointError(
                f"{diverged} of {len(done.flat)} networks of a chunk diverged; lower lr {config.lr}"
            )
        self.flat[rows] = done.flat.cpu()
        self.psnr[rows] = psnr(done.mse, limit=PSNR_LIMIT).cpu()
        self.steps[rows] = done.steps

    def _fit(self, problem: FitProblem) -> ChunkResult:
        if self.kernel == "compiled":
            from weightspace.fitting.kernels._cpu import fit_cpu

            return fit_cpu(problem)
        if self.kernel == "triton":
            from weightspace.fitting.kernels._cuda import fit_cuda

            return fit_cuda(problem.to(self.device))
        return fit_tensor(problem.to(self.device))


def choose_kernel(kernel: str, spec: NetSpec, device: torch.device) -> Kernel:
    """Return the kernel that fits this spec on this device, never ``"auto"``."""
    if kernel not in get_args(Kernel):
        raise ValueError(f"unknown kernel: expected one of {list(get_args(Kernel))}, got {kernel!r}")
    if kernel == "triton" or (kernel == "auto" and device.type == "cuda"):
        from weightspace.fitting.kernels._cuda import unavailable

        if (reason := unavailable(spec, device)) and kernel == "triton":
            raise ValueError(f"kernel='triton': {reason}; use kernel='torch'")
        return "torch" if reason else "triton"
    if kernel == "torch" or (kernel == "auto" and device.type != "cpu"):
        return "torch"
    reason = _cannot_compile(spec, device)
    if reason and kernel == "compiled":
        raise ValueError(f"kernel='compiled': {reason}; use kernel='torch'")
    return "torch" if reason else "compiled"


def _cannot_compile(spec: NetSpec, device: torch.device) -> str:
    """Say why the compiled kernel cannot fit this spec here; the text is empty where it can."""
    try:
        from weightspace.fitting.kernels._cpu import unavailable
    except ImportError as error:
        return f"expected numba, which compiles it, got {error}"
    return unavailable(spec, device)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep products to one thread each: chunks run one a core, and threads inside them would change the rounding."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def _configured(config: FitConfig | None, options: dict[str, Any]) -> FitConfig:
    """Return the recipe with the options in place of its fields."""
    if not isinstance(config, FitConfig | None):
        raise TypeError(f"config: expected a FitConfig, got {type(config).__name__}")
    check_keywords("unknown option", options, [field.name for field in fields(FitConfig)])
    return replace(config or FitConfig(), **options)
