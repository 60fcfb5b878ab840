"""The benchmarks: which networks are fitted to which signals, and the card that says so beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from weightspace._architectures import siren
from weightspace._files import read_json, write_atomic
from weightspace._spec import NetSpec
from weightspace.bench._environment import environment
from weightspace.datasets import load
from weightspace.datasets._catalogue import find
from weightspace.fitting import RECIPES, FitConfig, add_views, fit_zoo
from weightspace.fitting._add_views import added_views
from weightspace.fitting._executors import Executor
from weightspace.fitting._fit import OnProgress
from weightspace.zoo import Zoo
from weightspace.zoo._format import MANIFEST, Manifest

CARD = "CARD.md"
_HASH = re.compile(r"^- hash of the networks: `([0-9a-f]{64})`$", re.MULTILINE)
BAR = 40
"""Characters of the longest bar of a histogram."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A zoo that anybody can make again.

    Args:
        data: name of the data set.
        prepared: options with which the data set is prepared.
        counts: number of signals of each split; all where None.
        widths: hidden widths of the SIRENs.
        config: how they are fitted.
        traps: what misleads those who compare figures on it.
    """

    data: str
    prepared: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    counts: Mapping[str, int] | None = None
    widths: tuple[int, ...] = (32, 32)
    config: FitConfig = RECIPES["dws"]
    traps: tuple[str, ...] = ()


_FASHION_TRAP = (
    "Published figures are of 55,000 training images, of released networks; some with 10 views, shared starts or "
    "image supervision. Say which.",
)
_FAMILY_TRAP = ("Classes are far from equal in size: say which average a figure is.",)

BENCHMARKS: dict[str, Benchmark] = {
    "digits": Benchmark(
        data="digits",
        widths=(16, 16),
        traps=("Who wrote a digit is not known, so that one hand may be on both sides of the split.",),
    ),
    "fashion": Benchmark(
        data="fashion-mnist", counts={"train": 55_000, "val": 5_000, "test": 10_000}, traps=_FASHION_TRAP
    ),
    "fashion-12000": Benchmark(
        data="fashion-mnist",
        counts={"train": 12_000, "val": 5_000, "test": 10_000},
        traps=(*_FASHION_TRAP, "The validation images are those after the first 12,000, not those of `fashion`."),
    ),
    "emoji": Benchmark(data="emoji", traps=("Drawings of one concept by several vendors are not independent.",)),
    "parts3d": Benchmark(data="kicad", prepared={"per_family": 4, "points": 2048, "signed": False}, traps=_FAMILY_TRAP),
    "furniture": Benchmark(data="furniture", prepared={"points": 2048}, traps=_FAMILY_TRAP),
    "mnist": Benchmark(data="mnist", counts={"train": 55_000, "val": 5_000, "test": 10_000}),
    "cifar10": Benchmark(data="cifar-10"),
    "modelnet40": Benchmark(data="modelnet40", prepared={"points": 2048}),
    "shapenet": Benchmark(data="shapenet", prepared={"points": 2048}, traps=_FAMILY_TRAP),
}


def benchmark(
    name: str,
    path: str | Path,
    *,
    views: int = 1,
    counts: Mapping[str, int] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    executor: str | Executor = "local",
    on_progress: OnProgress | None = None,
) -> Zoo:
    """Make the zoo of a benchmark, with a card beside it; called again, it goes on where it stopped.

    ``"digits"``, ``"fashion"``, ``"fashion-12000"``, ``"emoji"``, ``"parts3d"`` (electronic parts of KiCad),
    ``"furniture"``, ``"mnist"``, ``"cifar10"``, ``"modelnet40"`` and ``"shapenet"``: SIRENs of two hidden layers,
    fitted as those of the papers.
    On one machine the same call makes the same networks, bit for bit.

    Args:
        name: of the benchmark.
        path: folder of the zoo; ``CARD.md`` in it says what it is made of and its hash.
        views: networks of each training signal. Validation and test signals have one.
        counts: fewer signals of each split than the benchmark has, for a trial; the card says so.
        device: see :func:`weightspace.fit_zoo`; likewise ``workers``, ``executor`` and ``on_progress``.

    Raises:
        FileNotFoundError: if the data set is not on this machine; the message says how to obtain it.
        ValueError: for an unknown name, a data set that was prepared with other options, or a folder that holds
            another zoo.

    Example:
        >>> import tempfile
        >>> zoo = benchmark("digits", tempfile.mkdtemp(), counts={"train": 6, "test": 2}, views=2)
        >>> zoo.count("train"), zoo.count("test"), (zoo.path / "CARD.md").read_text().splitlines()[0]
        (12, 2, '# digits')
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark: expected one of {list(BENCHMARKS)}, got {name!r}")
    chosen, path = BENCHMARKS[name], Path(path)
    data = load(chosen.data)
    _check_prepared(name, chosen)
    spec = siren(data.in_features, *chosen.widths, data.out_features)
    options: dict[str, Any] = {"device": device, "workers": workers, "executor": executor, "on_progress": on_progress}
    counts, whole = counts or chosen.counts, counts is None
    spec = replace(spec, init=chosen.config.init or spec.init)
    extended = (path / MANIFEST).exists() and _check_extended(name, path, spec, counts)
    if not extended:
        fit_zoo(path, data, spec, config=chosen.config, counts=counts, **options)
    if extended or views > 1:
        add_views(path, data, views, splits=["train"], **options)
    zoo = Zoo.open(path, verify=False)
    write_atomic(path / CARD, _card(name, chosen, zoo, whole=whole).encode())
    return zoo


def _check_extended(name: str, path: Path, spec: NetSpec, counts: Mapping[str, int] | None) -> bool:
    """Return whether a zoo has several views; one that has must be this benchmark's, as ``fit_zoo`` cannot tell then.

    Raises:
        ValueError: for networks of another spec, or other numbers of signals.
    """
    manifest = Manifest.read(path)
    if manifest.settings.views == 1:
        return False
    found = Counter[str]()
    for shard in manifest.shards:
        if not added_views(shard):
            found[shard.split] += shard.count
    if manifest.spec != spec or (counts is not None and dict(found) != dict(counts)):
        raise ValueError(
            f"{path}: expected the zoo of {name}, {spec} with {dict(counts or {}) or 'all'} signals, "
            f"got {manifest.spec} with {dict(found)}; use another folder"
        )
    return True


def _check_prepared(name: str, chosen: Benchmark) -> None:
    """Raise ``ValueError`` if the data set in the cache was prepared with other options than the benchmark's."""
    if not chosen.prepared:
        return
    made = read_json(find(chosen.data).path.with_suffix(".json"), "the record of a data set", remedy="prepare it again")
    found = made.get("options", {}) if isinstance(made, dict) else {}
    for option, value in chosen.prepared.items():
        if found.get(option) != value:
            raise ValueError(
                f"{name}: expected {chosen.data} prepared with {option}={value}, got {found.get(option)}; "
                f"run: {_prepare(chosen)}"
            )


def _prepare(chosen: Benchmark) -> str:
    """Return the command that prepares a benchmark's data set."""
    words = []
    for name, value in chosen.prepared.items():
        flag = name.replace("_", "-")
        words.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}")
    return f"weightspace data prepare {chosen.data} {' '.join(words)}"


def content_hash(zoo: Zoo) -> str:
    """Return one hash of all networks of a zoo: of the hashes of its shards, in their order."""
    return hashlib.sha256("".join(str(shard.sha256) for shard in zoo.shards).encode()).hexdigest()


def check_card(zoo: Zoo) -> None:
    """Raise ``ValueError`` if the card beside a zoo tells the hash of other networks; a zoo may have none."""
    path = zoo.path / CARD
    if not path.is_file():
        return
    told = _HASH.search(path.read_text(encoding="utf-8", errors="replace"))
    if told is not None and told[1] != (found := content_hash(zoo)):
        raise ValueError(
            f"{path}: expected the networks whose hash it tells, {told[1][:12]}, got {found[:12]}; make the zoo again, "
            "or remove the card if the networks were meant to change"
        )


def _card(name: str, chosen: Benchmark, zoo: Zoo, *, whole: bool) -> str:
    """Write the card of a benchmark's zoo, in Markdown."""
    data, made = find(chosen.data), environment(threads=None)
    about = zoo.summary()
    sizes = [
        f"| {split} | {own['count']:,} | {own['sources']:,} | {own['views']} | {_psnr(own['psnr'])} |"
        for split, own in about["splits"].items()
    ]
    lines = [
        f"# {name}",
        "",
        *([] if whole else ["**A trial: fewer signals than the benchmark has.**", ""]),
        f"- signals: `{data.name}`, {data.description}, {data.classes} classes",
        f"- split: {data.split}",
        f"- licence: {data.licence}",
        f"- citation: {data.citation}",
        f"- obtained by: {data.obtain}",
        *([f"- prepared by: `{_prepare(chosen)}`"] if chosen.prepared else []),
        f"- networks: `{about['spec']}`, {about['num_params']:,} parameters",
        f"- recipe: `{json.dumps(asdict(chosen.config))}`",
        f"- made again by: `weightspace benchmark {name} ZOO --views {zoo.num_views}`",
        f"- hash of the networks: `{content_hash(zoo)}`",
        f"- made with: {', '.join(f'{key} {value}' for key, value in made['versions'].items())}; "
        f"{made['hardware']['processor']}",
        "",
        "| split | networks | signals | views | PSNR, dB: mean (5 % to 95 %) |",
        "|:--|--:|--:|--:|--:|",
        *sizes,
        "",
        "PSNR of the training networks, a line for each decibel:",
        "",
        "```",
        *_histogram(zoo.psnr("train")),
        "```",
        "",
        *(f"Mind: {trap}" for trap in chosen.traps),
        *([""] if chosen.traps else []),
        "On one machine the same command makes the same networks, bit for bit. On another processor the compiled code",
        "may round sums in another order: networks then differ in their last digits, and so does the hash; signals,",
        "splits and seeds are the same.",
        "",
    ]
    return "\n".join(lines)


def _psnr(found: Mapping[str, float] | None) -> str:
    return "unknown" if found is None else f"{found['mean']:.1f} ({found['q05']:.1f} to {found['q95']:.1f})"


def _histogram(psnr: Tensor) -> list[str]:
    """Return a line for each decibel: its lower end, a bar, the number of networks."""
    known = psnr[psnr.isfinite()]
    if not len(known):
        return ["unknown"]
    values, counts = known.floor().long().unique(return_counts=True)
    by_value = dict(zip(values.tolist(), counts.tolist(), strict=True))
    most = max(by_value.values())
    return [
        f"{value:4d}  {'#' * round(BAR * by_value.get(value, 0) / most):{BAR}}  {by_value.get(value, 0)}"
        for value in range(min(by_value), max(by_value) + 1)
    ]
