"""The field's own form, a folder of ``.pth`` state dicts and a ``splits.json``: into a zoo and back."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightspace._architectures import siren
from weightspace._files import check_empty, staged, write_atomic
from weightspace._spec import NetSpec
from weightspace._weights import Weights, check_finite
from weightspace.zoo._format import MANIFEST
from weightspace.zoo._listing import LabelFrom, Listing, read_listings, read_spec_file, write_spec_file
from weightspace.zoo._write import write_zoo
from weightspace.zoo._zoo import Zoo

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
HEADS = (b"PK", b"\x80")
"""How the files of ``torch.save`` begin: zip archives, and the pickles of earlier versions."""
REMEDY = "save the network's state_dict, and it alone, with torch.save"


def import_state_dicts(
    folder: str | Path,
    out: str | Path,
    *,
    splits: str | Path | Mapping[str, Any] = "splits.json",
    spec: NetSpec | None = None,
    label_from: LabelFrom = "auto",
    source_of: Callable[[str], Hashable] | None = None,
    shard_size: int = 4096,
    provenance: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Zoo:
    """Turn a folder of state dicts into a zoo. Files are read as tensors only; code in them is refused, not run.

    Args:
        folder: where the files are.
        out: the zoo's folder, new or empty.
        splits: ``{split: {"path": [...], "label": [...]}}`` or ``{split: [path, ...]}``, or the JSON file with it,
            relative to ``folder``. Paths are looked up in the folder; of paths from another machine the longest end
            that is there counts. Lists ``"source"``, ``"view"`` and ``"psnr"`` beside ``"label"`` are read too.
        spec: what each network is; its parameters are matched to the files' keys by name, else by layer and order.
            By default what :func:`export_state_dicts` wrote into ``spec.json`` beside ``splits.json``, with its
            classes, init_regime, recipe and seed; where there is no such file, a SIREN with omega 30 and output
            shift 0.5, its widths taken from the first file.
        label_from: ``"splits"`` (the lists of ``splits``), ``"file"`` (the key ``"label"`` beside the parameters),
            ``"auto"`` (the first of these that is there, else unlabelled), or a function of the path as listed.
        source_of: the signal that a path as listed was fitted to, anything hashable; by default each file has its
            own. Networks of one source get the views 0, 1, ... in the order listed.
        shard_size: networks in a shard.
        provenance: data set name, licence, citation, ...; the original key names are added.
        settings: recipe, init_regime (``"unknown"`` by default), seed, classes, ... as for :meth:`ZooWriter.create`;
            what is given here wins over ``spec.json``.

    Raises:
        TypeError: for ``splits`` that are neither a mapping nor a path.
        ValueError: for a missing file or one that is not plain tensors, missing, extra or misshapen keys, networks
            that are not finite, labels that are no integers; it names the file, and nothing is written.

    Example:
        >>> import json, pathlib, tempfile
        >>> import weightspace as ws
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> w = ws.Weights(torch.zeros(1, 17), ws.siren(2, 4, 1))
        >>> torch.save({f"seq.{name}": value for name, value in w.state_dict().items()}, folder / "a.pth")
        >>> listing = {"train": {"path": ["a.pth"], "label": [7]}}
        >>> zoo = import_state_dicts(folder, folder / "zoo", splits=listing)
        >>> zoo.count("train"), zoo.labels("train")
        (1, tensor([7]))

    Reference:
        The corpora released with Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023.
    """
    folder, out = Path(folder), Path(out)
    check_empty(out, MANIFEST)
    listings = read_listings(folder, splits, label_from, source_of)
    if spec is None and (found := read_spec_file(folder if isinstance(splits, Mapping) else (folder / splits).parent)):
        spec, settings = found[0], {**found[1], **settings}
    reader = _Reader(spec)
    batches = {split: reader.batch(listing) for split, listing in listings.items()}
    form = {"keys": reader.keys, "label_in_file": reader.label_in_file, "dtype": str(reader.dtype).split(".")[-1]}
    return write_zoo(
        out,
        {split: listing.networks(batches[split]) for split, listing in listings.items()},
        shard_size=shard_size,
        provenance={**(provenance or {}), "state_dicts": form},
        **settings,
    )


def export_state_dicts(zoo: Zoo, folder: str | Path) -> None:
    """Write a zoo as ``<split>/000000.pth`` state dicts, a ``spec.json`` and a ``splits.json``, which is written last.

    An imported zoo gets back its key names, and its labels in the files if they were there. The lists ``"source"``,
    ``"view"`` and ``"psnr"`` in ``splits.json``, beside ``"path"`` and ``"label"``, and the spec, classes, init_regime,
    recipe and seed in ``spec.json`` make an import the inverse.

    Args:
        zoo: what to write.
        folder: where to, new or empty.

    Raises:
        ValueError: for a folder that holds something already.
        OSError: if the disk is full.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[0, 1, 0])
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks)
        >>> folder = tempfile.mkdtemp()
        >>> export_state_dicts(zoo, folder)
        >>> list(torch.load(folder + "/train/000000.pth", weights_only=True))
        ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    folder = Path(folder)
    check_empty(folder, MANIFEST)
    listing = {}
    with staged(folder) as stage:
        for split in zoo.splits:
            files = _export_split(zoo, split, stage)
            listing[split] = {
                "path": files,
                "label": zoo.labels(split).tolist(),
                "source": zoo.sources(split).tolist(),
                "view": zoo.views(split).tolist(),
                "psnr": [None if value != value else value for value in zoo.psnr(split).tolist()],
            }
        write_spec_file(zoo, stage)
        write_atomic(stage / "splits.json", json.dumps(listing).encode())


def _export_split(zoo: Zoo, split: str, folder: Path) -> list[str]:
    """Write one split's state dicts; their paths below the folder."""
    form = zoo.provenance.get("state_dicts", {})
    keys = form.get("keys") or {param.name: param.name for param in zoo.spec.params}
    dtype = getattr(torch, form.get("dtype", "float32"))
    weights, labels = zoo.weights(split), zoo.labels(split).tolist()
    (folder / split).mkdir()
    files = [f"{split}/{index:06d}.pth" for index in range(len(weights))]
    for index, file in enumerate(files):
        body: dict[str, Any] = {keys[name]: value.to(dtype) for name, value in weights.state_dict(index).items()}
        if form.get("label_in_file"):
            body["label"] = labels[index]
        data = io.BytesIO()
        torch.save(body, data)
        (folder / file).write_bytes(data.getvalue())
    return files


class _Reader:
    """Reads files of one form; the form (key names, label inside, dtype, spec) is that of the first file."""

    def __init__(self, spec: NetSpec | None) -> None:
        self.spec = spec
        self.keys: dict[str, str] = {}
        self.label_in_file = False
        self.dtype: torch.dtype | None = None

    def batch(self, listing: Listing) -> Weights:
        """All networks of one split; notes the labels that the files hold."""
        flat = None
        for row, file in enumerate(listing.files):
            state = _load(file)
            label = state.pop("label", None)
            if label is None and listing.need_file_labels:
                raise ValueError(f"{file}: expected the key 'label' beside the parameters; or pass label_from='splits'")
            if not self.keys:
                self._learn(state, file)
                self.label_in_file = label is not None
            listing.file_labels.append(label)
            assert self.spec is not None
            if flat is None:
                flat = torch.empty(len(listing.files), self.spec.num_params)
            self._fill(flat[row], state, file)
        if all(label is None for label in listing.file_labels):
            listing.take_file_labels = False
        assert flat is not None
        assert self.spec is not None
        check_finite("state dicts", flat, listing.files)
        return Weights(flat, self.spec)

    def _learn(self, state: dict[str, Any], file: Path) -> None:
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{file}: expected tensors, got {type(value).__name__} under {key!r}")
        if self.spec is None:
            self.spec = _infer(state, file)
        names = [param.name for param in self.spec.params]
        self.dtype = next(iter(state.values())).dtype
        if set(names) == set(state):
            self.keys = {name: name for name in names}
        elif len(names) == len(state):
            self.keys = dict(zip(names, _in_layer_order(state), strict=True))
        else:
            raise ValueError(
                f"{file}: expected {len(names)} parameters {names} for {self.spec}, got {list(state)}; "
                "pass the spec of these networks"
            )

    def _fill(self, row: Tensor, state: dict[str, Any], file: Path) -> None:
        """Lay one state dict into its row."""
        assert self.spec is not None
        missing = [key for key in self.keys.values() if key not in state]
        extra = [key for key in state if key not in self.keys.values()]
        if missing or extra:
            raise ValueError(f"{file}: expected the keys {list(self.keys.values())}, missing {missing}, extra {extra}")
        for name, key in self.keys.items():
            value, shape = state[key], self.spec.shape(name)
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{file}, {key!r}: expected shape {list(shape)}, got {got}")
            if value.dtype not in FLOATS or value.dtype != self.dtype:
                raise ValueError(
                    f"{file}, {key!r}: expected {self.dtype if self.dtype in FLOATS else 'torch.float32'} as zoos hold "
                    f"float32 and one form of file, got {value.dtype}; convert the files"
                )
            row[self.spec.slices[name]] = value.detach().reshape(-1)


def _load(file: Path) -> dict[str, Any]:
    """One file's tensors. ``weights_only`` is what keeps code in a pickle from running."""
    with open(file, "rb") as opened:
        head = opened.read(16)
    if not head.startswith(HEADS):
        raise ValueError(f"{file}: expected a file of torch.save, got one that begins with {head!r}; {REMEDY}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file}: expected a state dict of plain tensors, got a file that holds code or other objects, or none of "
            f"torch.save; nothing of it was run; {REMEDY}"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{file}: expected a file of torch.save, got a damaged or other one "
            f"({type(error).__name__}: {error!s:.120}); {REMEDY}"
        ) from error
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{file}: expected a state dict, names to tensors, got {type(state).__name__}")
    for key, value in state.items():
        if isinstance(value, Tensor) and (kind := _without_values(value)):
            raise ValueError(
                f"{file}, {key!r}: expected a dense tensor with its values, got a {kind} one; save dense tensors"
            )
    return dict(state)


def _without_values(value: Tensor) -> str | None:
    """Of what kind a tensor is whose numbers do not lie in memory one after another; ``None`` for all others."""
    if value.is_meta:
        return "meta"
    if value.is_nested:
        return "nested"
    return None if value.layout == torch.strided else str(value.layout).removeprefix("torch.")


def _in_layer_order(state: Mapping[str, Tensor]) -> list[str]:
    """Keys by layer as first met, within a layer the weight before the bias."""
    layers = dict.fromkeys(key.rpartition(".")[0] for key in state)
    return [
        key
        for layer in layers
        for key in sorted((k for k in state if k.rpartition(".")[0] == layer), key=lambda k: -state[k].ndim)
    ]


def _infer(state: Mapping[str, Tensor], file: Path) -> NetSpec:
    """A SIREN of the usual convention with the widths that the tensors have."""
    values = [state[key] for key in _in_layer_order(state)]
    weights = [value for value in values if value.ndim == 2]
    biases = [value for value in values if value.ndim == 1]
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)] if weights else []
    chained = all(weight.shape[1] == width for weight, width in zip(weights, widths, strict=False))
    fits = [bias.shape[0] for bias in biases] in ([], widths[1:])
    if not weights or not chained or not fits or len(weights) + len(biases) != len(values):
        shapes = {key: list(value.shape) for key, value in state.items()}
        raise ValueError(f"{file}: expected the layers of a SIREN in order, weight and bias, got {shapes}; pass spec=")
    return siren(*widths, omega=30.0, output_shift=0.5, bias=bool(biases))
