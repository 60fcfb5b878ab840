"""``fit``: signals to weights, thousands of independent networks at once."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._spec import INITS, Init, NetSpec
from weightspace._weights import Weights, check_weights, summary
from weightspace.fitting._init import initial_weights
from weightspace.fitting.kernels._minibatch import point_keys
from weightspace.fitting.kernels._tensor import ChunkResult, fit_chunk

Kernel = Literal["auto", "compiled", "triton", "torch"]
CPU_CHUNK = 8
CUDA_CHUNK_BYTES = 4 << 30


@dataclass(frozen=True)
class FitConfig:
    """How networks are fitted: the recipe that a zoo records.

    Args:
        steps: Adam steps of each network.
        lr: Adam step size.
        init: initialisation convention ("dws", "siren", "torch"), which the fitted networks' spec then records; the
            spec's own where None.
        views: independent fits of every signal.
        seed: of the initial weights; each network's derive from (seed, source, view).
        target_psnr: dB at which a network stops early, looked at every ten steps; never where None.
        shared_init: start every network from the same point (a different data set altogether: see the docs).
        points: points that each step looks at, drawn anew for every network and step, for signals of many points; all
            of them (full batch) where None.

    Raises:
        TypeError: for a field of another type.
        ValueError: for a number out of range, an unknown init, or a target PSNR together with ``points``: what a few
            points say of it is noise.

    Example:
        >>> FitConfig(steps=200, lr=5e-3).regime
        'independent'
    """

    steps: int = 1000
    lr: float = 5e-4
    init: Init | None = None
    views: int = 1
    seed: int = 0
    target_psnr: float | None = None
    shared_init: bool = False
    points: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("views", 1), ("seed", 0)):
            whole_number(name, getattr(self, name), least)
        if self.points is not None:
            whole_number("points", self.points)
            if self.target_psnr is not None:
                raise ValueError(
                    "target_psnr: expected full batches (points=None) to measure it on, got minibatches of "
                    f"{self.points} points; choose the number of steps instead"
                )
        for name in ("lr", "target_psnr"):
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, int | float) or (value is None and name != "lr")):
                raise TypeError(f"{name}: expected a number, got {value!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr: expected a positive number, got {self.lr}")
        if self.target_psnr is not None and not math.isfinite(self.target_psnr):
            raise ValueError(f"target_psnr: expected a finite number of dB, or None, got {self.target_psnr}")
        if self.init is not None and self.init not in INITS:
            raise ValueError(f"unknown init: expected one of {list(INITS)}, got {self.init!r}")

    @property
    def regime(self) -> str:
        """Init regime: the largest single factor in every published figure of the field."""
        return "shared" if self.shared_init else "independent"

    def recipe(self) -> dict[str, Any]:
        """What a zoo's manifest records."""
        return {"optimizer": "adam", "batch": "full" if self.points is None else "points", **asdict(self)}


@dataclass(frozen=True, eq=False)
class FitResult:
    """Fitted networks and what they are fits of.

    Args:
        weights: ``batch`` networks, on the CPU, all views of a signal side by side.
        psnr: dB, ``[batch]``, of signals of range one, after the last step.
        source: int64 ``[batch]``, the signal each network was fitted to.
        view: int64 ``[batch]``, which of its independent fits.
        steps: int64 ``[batch]``, Adam steps taken.

    Example:
        >>> import weightspace as ws
        >>> result = ws.fit(*ws.signals.images(torch.rand(3, 8, 8)), ws.siren(2, 8, 8, 1), steps=2)
        >>> result.psnr.shape, result.steps.tolist()
        (torch.Size([3]), [2, 2, 2])
    """

    weights: Weights
    psnr: Tensor
    source: Tensor
    view: Tensor
    steps: Tensor


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
    on_done: Callable[[int, Tensor], None] | None = None,
    **options: Any,
) -> FitResult:
    r"""Fit one network to every signal, ``views`` times over.

    Minimises :math:`\frac{1}{M c} \sum_m \lVert f(w_i)(x_m) - y_{im} \rVert^2` for each network alone, by Adam with
    closed-form gradients. On a CPU a network's bits depend on its signal and start alone: not on ``chunk``,
    ``workers``, or the other signals.

    Args:
        coords: ``[point, in]``, the same points for every signal, or ``[signal, point, in]``.
        targets: ``[signal, point, out]``, of range one.
        spec: the network.
        config: the recipe; ``options`` replace single fields of it (``steps=``, ``lr=``, ``views=``, ...).
        sources: int64 ``[signal]``, stable numbers of the signals; their positions where None.
        start: one network that all start from, such as :func:`weightspace.fitting.meta_start` learns; by default each
            starts from its own random point (or all from one, see ``shared_init``).
        first_view: number of the first view to fit, below ``views``: the others are there already.
        device: where to compute; the result comes back on the CPU.
        workers: threads on a CPU (one core each); all cores where None.
        chunk: networks computed together; what fits the cache (or the GPU) where None.
        kernel: ``"compiled"``: machine code that keeps one network in one core's caches; ``"triton"``: the same idea
            on a CUDA device, one network a block; ``"torch"``: batched tensor operations, on any device. They agree
            up to rounding. ``"auto"``: compiled on a CPU and triton on a CUDA device, wherever the spec allows it
            and numba or triton is there.
        on_done: called with the number of networks and their PSNR after each chunk, by one thread at a time; what it
            raises ends the fit.
        options: fields of :class:`FitConfig`.

    Returns:
        The networks in the order of the signals, all views of a signal side by side.

    Raises:
        ValueError: for non-finite or misshapen signals, sources that repeat, options out of range, or a kernel that
            cannot fit this spec on this device.
        TypeError: for unknown options.
        FloatingPointError: if a network's weights stop being finite.

    Example:
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.images(torch.rand(3, 8, 8).numpy())
        >>> result = ws.fit(coords, targets, ws.siren(2, 8, 8, 1), steps=20, lr=5e-3, views=2)
        >>> len(result.weights), result.source.tolist(), result.view.tolist()
        (6, [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
    """
    config = _configured(config, options)
    coords, targets = (torch.as_tensor(t, dtype=torch.float32).detach().cpu() for t in (coords, targets))
    sources = torch.arange(len(targets)) if sources is None else torch.as_tensor(sources, dtype=torch.int64)
    check_signals(coords, targets, spec)
    spec = spec if config.init is None else replace(spec, init=config.init)  # a spec says how its networks began
    _check_sources(sources, len(targets))
    if start is not None:
        check_start(start, spec)
    if whole_number("first_view", first_view, 0) >= config.views:
        raise ValueError(f"first_view: expected less than the {config.views} views of the recipe, got {first_view}")
    device = torch.device(device)
    way = _way(kernel, spec, device)
    size = _chunk_size(spec, config.points or coords.shape[-2], device)
    size = size if chunk is None else whole_number("chunk", chunk)
    wanted = os.cpu_count() or 1 if workers is None else whole_number("workers", workers)
    job = _Job(spec, coords, targets, sources, start, range(first_view, config.views), config, device, way)
    out, lock = job.blank(), threading.Lock()

    def one(start: int) -> None:
        rows = slice(start, min(start + size, len(out.source)))
        job.run(rows, out)
        if on_done is not None and not job.stopped:
            with lock:
                on_done(rows.stop - start, out.psnr[rows])

    with _one_thread_each(), ThreadPoolExecutor(1 if device.type == "cuda" else wanted) as pool:
        try:
            for future in [pool.submit(one, start) for start in range(0, len(out.source), size)]:
                future.result()
        except BaseException:
            job.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return out


class _Job:
    """One call of :func:`fit`: what its chunks share."""

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
        way: Kernel,
    ) -> None:
        self.spec, self.config, self.device, self.way = spec, config, device, way
        self.coords = coords.to(device) if coords.ndim == 2 else coords
        self.targets, self.start = targets, start
        self.source = sources.repeat_interleave(len(views))
        self.view = torch.tensor(views).repeat(len(sources))
        self.signal = torch.arange(len(targets)).repeat_interleave(len(views))
        self.flag = np.zeros(1, dtype=np.uint8)

    @property
    def stopped(self) -> bool:
        return bool(self.flag[0])

    def stop(self) -> None:
        """Make every chunk under way give up at its next step."""
        self.flag[0] = 1

    def blank(self) -> FitResult:
        """Room for the result."""
        count = len(self.source)
        weights = Weights(torch.empty(count, self.spec.num_params, dtype=torch.float32), self.spec)
        steps = torch.empty(count, dtype=torch.int64)
        return FitResult(weights, torch.empty(count, dtype=torch.float32), self.source, self.view, steps)

    def run(self, rows: slice, out: FitResult) -> None:
        """Fit one chunk and put it into its place."""
        if self.stopped:
            return
        config, source, view, signal = self.config, self.source[rows], self.view[rows], self.signal[rows]
        if self.start is not None:
            start = self.start.replace(self.start.flat.expand(len(source), -1))
        else:
            start = initial_weights(
                self.spec, source, view, seed=config.seed, init=config.init, shared=config.shared_init
            )
        done = self._fit(
            start,
            self.coords if self.coords.ndim == 2 else self.coords[signal],
            self.targets[signal],
            steps=config.steps,
            lr=config.lr,
            target_mse=None if config.target_psnr is None else 10 ** (-config.target_psnr / 10),
            points=config.points,
            keys=None if config.points is None else point_keys(source, view, seed=config.seed),
        )
        if self.stopped:
            return
        if diverged := int((~torch.isfinite(done.flat).all(1)).sum()):
            raise FloatingPointError(
                f"{diverged} of {len(done.flat)} networks of a chunk diverged; lower lr {config.lr}"
            )
        out.weights.flat[rows] = done.flat.cpu()
        out.psnr[rows] = -10 * done.mse.clamp_min(1e-12).log10().cpu()
        out.steps[rows] = done.steps

    def _fit(
        self, start: Weights, coords: Tensor, targets: Tensor, *, keys: Tensor | None, **options: Any
    ) -> ChunkResult:
        if self.way == "compiled":
            from weightspace.fitting.kernels._cpu import fit_chunk_compiled

            return fit_chunk_compiled(start, coords, targets, keys=keys, stop=self.flag, **options)

        def give_up(count: int) -> None:
            if self.stopped:
                raise _Stopped

        start, coords, targets = start.to(self.device), coords.to(self.device), targets.to(self.device)
        keys = None if keys is None else keys.to(self.device)
        if self.way == "triton":
            from weightspace.fitting.kernels._cuda import fit_chunk_triton

            return fit_chunk_triton(start, coords, targets, keys=keys, on_step=give_up, **options)
        return fit_chunk(start, coords, targets, keys=keys, on_step=give_up, **options)


def _way(kernel: str, spec: NetSpec, device: torch.device) -> Kernel:
    """Which kernel is to fit: never ``"auto"``."""
    if kernel not in get_args(Kernel):
        raise ValueError(f"unknown kernel: expected one of {list(get_args(Kernel))}, got {kernel!r}")
    if kernel == "triton" or (kernel == "auto" and device.type == "cuda"):
        from weightspace.fitting.kernels._cuda import unavailable

        if (reason := unavailable(spec, device)) and kernel == "triton":
            raise ValueError(f"kernel='triton': {reason}; use kernel='torch'")
        return "torch" if reason else "triton"
    if kernel == "torch" or (kernel == "auto" and device.type != "cpu"):
        return "torch"
    reason = f"it runs on the CPU, got device {str(device)!r}" if device.type != "cpu" else _cannot_compile(spec)
    if reason and kernel == "compiled":
        raise ValueError(f"kernel='compiled': {reason}; use kernel='torch'")
    return "torch" if reason else "compiled"


def _cannot_compile(spec: NetSpec) -> str:
    """Why the compiled kernel cannot fit this spec here; nothing where it can."""
    try:
        from weightspace.fitting.kernels._plan import supported
    except ImportError as error:
        return f"expected numba, which compiles it, got {error}"
    return "" if supported(spec) else f"expected a hidden layer and activations that it has, got {summary(spec)}"


def _chunk_size(spec: NetSpec, points: int, device: torch.device) -> int:
    """Networks computed together: a few for a CPU's cache, as many as a share of the memory holds on a GPU."""
    if device.type != "cuda":
        return CPU_CHUNK
    neurons = sum(axis.size for axis in spec.hidden) + spec.in_features + spec.out_features
    return max(1, CUDA_CHUNK_BYTES // (4 * (2 * points * neurons + 4 * spec.num_params)))


class _Stopped(Exception):
    """Another chunk failed, or the user interrupted: this one gives up."""


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Chunks run one a core: threads inside their products would wait for one another, and change the rounding."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def _configured(config: FitConfig | None, options: dict[str, Any]) -> FitConfig:
    if not isinstance(config, FitConfig | None):
        raise TypeError(f"config: expected a FitConfig, got {type(config).__name__}")
    known = [field.name for field in fields(FitConfig)]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"unknown option: expected some of {known}, got {unknown[0]!r}")
    return replace(config or FitConfig(), **options)


def check_signals(coords: Tensor, targets: Tensor, spec: NetSpec) -> None:
    """Raise ``ValueError`` unless networks of this spec can be fitted to these signals."""
    if not isinstance(spec, NetSpec):
        raise TypeError(f"spec: expected a NetSpec, got {type(spec).__name__}; make one with ws.siren or ws.mlp")
    _ = spec.layers  # refuses what is not a chain
    if coords.ndim not in (2, 3) or coords.shape[-1] != spec.in_features:
        raise ValueError(
            f"coords: expected [point, {spec.in_features}] for this spec (or [signal, point, {spec.in_features}]), "
            f"got {list(coords.shape)}"
        )
    points = coords.shape[-2]
    if targets.ndim != 3 or targets.shape[1:] != (points, spec.out_features):
        raise ValueError(
            f"targets: expected [signal, {points}, {spec.out_features}] for these points and this spec, "
            f"got {list(targets.shape)}"
        )
    if coords.ndim == 3 and len(coords) != len(targets):
        raise ValueError(f"coords: expected points of each of the {len(targets)} signals, got those of {len(coords)}")
    if not len(targets) or not points:
        raise ValueError(f"expected at least one signal and one point, got {len(targets)} and {points}")
    for name, value in (("coords", coords), ("targets", targets)):
        if not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name}: expected finite numbers, got {bad} that are NaN or infinite; remove them")


def check_start(start: Weights, spec: NetSpec) -> None:
    """Raise ``ValueError`` unless this is one network that networks of the spec can start from."""
    check_weights("start", start)
    if replace(start.spec, init=spec.init) != spec or start.flat.shape != (1, spec.num_params):
        raise ValueError(
            f"start: expected one network of {summary(spec)}, got {list(start.flat.shape)} of {summary(start.spec)}"
        )
    if start.dtype != torch.float32 or not bool(start.flat.isfinite().all()):
        raise ValueError("start: expected finite float32 weights; networks are fitted in float32")


def _check_sources(sources: Tensor, count: int) -> None:
    if sources.shape != (count,):
        raise ValueError(f"sources: expected one number for each of {count} signals, got {list(sources.shape)}")
    if int(sources.min()) < 0 or len(sources.unique()) != len(sources):
        raise ValueError("sources: expected distinct numbers of at least 0; use views= to fit a signal more than once")
