"""The field's own form, a folder of ``.pth`` state dicts and a ``splits.json``: into a zoo and back."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from weightspace._files import check_empty, staged, write_atomic
from weightspace._spec import NetSpec
from weightspace._table import plain
from weightspace.zoo._folder import plain_listing, weight_files
from weightspace.zoo._format import MANIFEST
from weightspace.zoo._layouts import LAYOUTS, Layout, write_layout
from weightspace.zoo._listing import LabelFrom, Listing, SourceOf, keys_by, look_alike, read_listings
from weightspace.zoo._reader import FLOATS, Convention, StateDictReader
from weightspace.zoo._spec_file import read_spec_file, write_spec_file
from weightspace.zoo._write import write_zoo
from weightspace.zoo._zoo import Zoo

LISTING = "splits.json"


def import_state_dicts(
    folder: str | Path,
    out: str | Path,
    *,
    splits: str | Path | Mapping[str, Any] = LISTING,
    spec: NetSpec | None = None,
    activation: str | None = None,
    omega: float | Sequence[float] | None = None,
    output_shift: float | None = None,
    label_from: LabelFrom = "auto",
    labels: str | Path | None = None,
    source_of: SourceOf | None = None,
    ignore: Sequence[str] = (),
    shard_size: int = 4096,
    provenance: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Zoo:
    """Turn a folder of state dicts into a zoo. Files are read as tensors only; code in them is refused, not run.

    Files are ``.pth``, ``.pt``, ``.ckpt`` or ``.bin`` of ``torch.save``, ``.safetensors`` or ``.npz``, with a state
    dict alone or under ``"state_dict"``, ``"model_state_dict"`` or ``"model"``, in any floating type. A folder without
    a listing is read as a whole: its folders ``train``, ``val`` and ``test`` are the splits, or a hash of each file's
    signal draws 70 : 10 : 20.

    What the networks compute is not in such files. It comes from ``spec``, or from ``spec.json``, which
    :func:`export_state_dicts` writes beside ``splits.json``, together with classes, init_regime, recipe and seed. Where
    there is neither, the networks are chains of linear layers as wide as the tensors of the first file, and
    ``activation``, ``omega`` and ``output_shift`` say the rest. What is not given is assumed to be as in the released
    corpora, sines of omega 30 with 0.5 added to the output. It is recorded as ``provenance["assumed"]``, and warned of
    unless the keys are those of the corpora.

    Args:
        folder: the folder that holds the files, at any depth.
        out: the folder of the zoo, new or empty.
        splits: ``{split: {"path": [...], "label": [...]}}`` or ``{split: [path, ...]}``, or the JSON file with it,
            relative to ``folder``. Paths are looked up in the folder; of paths from another machine the longest end
            that is there counts. Lists ``"source"``, ``"view"`` and ``"psnr"`` beside ``"label"`` are read too. Any
            other list becomes a further column, and the paths as listed the column ``"name"``.
        spec: the spec of the networks. Its parameters are matched to the files' keys by name, else by layer: layers
            whose names differ in a number come in the order of the numbers, others in the order of the file.
        activation: activation of the hidden layers, where there is no spec.
        omega: frequency of the sines, one or one for each hidden layer, where there is no spec.
        output_shift: constant added to the output, where there is no spec.
        label_from: ``"splits"`` (the lists of ``splits``), ``"file"`` (the key ``"label"`` beside the parameters),
            ``"auto"`` (the first of these that is there, else unlabelled), or a function of the path as listed. Labels
            are whole numbers; if any has a fraction, all are real-valued.
        labels: of a plain folder: ``"folder"``: the folder that a file lies in is its class; a ``.csv`` file with the
            columns "file", "label" and any further ones, which become columns of the zoo; ``"none"``.
        source_of: the signal that a network was fitted to, as a function of its path as listed, with any hashable
            value, or as a regular expression, of which the groups (or else the match) count. By default each file has
            a source of its own. Networks of one source get the views 0, 1, ... in the order listed.
        ignore: patterns of keys that are no parameters of the network, such as ``"*.grid"``; they are passed over.
        shard_size: networks in a shard.
        provenance: data set name, licence, citation, ...; the original keys, and how they were matched, are added.
        settings: recipe, init_regime (``"unknown"`` by default), seed, classes, ... as for :meth:`ZooWriter.create`;
            these win over ``spec.json``.

    Raises:
        TypeError: for ``splits`` that are neither a mapping nor a path.
        ValueError: for a missing file, one outside of the folder or one that is not plain tensors; for missing, extra
            or misshapen keys, lists of other names, networks that are not finite, and labels that are no numbers. The
            message names the file, and nothing is written.

    Warns:
        UserWarning: if nothing says what the networks compute, or if several files seem to be fits of one signal
            while nothing says which.

    Example:
        >>> import json, pathlib, tempfile
        >>> import weightspace as ws
        >>> folder, spec = pathlib.Path(tempfile.mkdtemp()), ws.siren(2, 4, 1)
        >>> w = ws.Weights(torch.zeros(1, 17), spec)
        >>> torch.save({f"net.{name}": value for name, value in w.state_dict().items()}, folder / "a.pth")
        >>> listing = {"train": {"path": ["a.pth"], "label": [7]}}
        >>> zoo = import_state_dicts(folder, folder / "zoo", splits=listing, spec=spec)
        >>> zoo.count("train"), zoo.labels("train")
        (1, tensor([7]))

    Reference:
        The corpora released with Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023.
    """
    folder, out = Path(folder), Path(out)
    check_empty(out, MANIFEST)
    splits, settings = _listed(folder, splits, labels, source_of, settings)
    listings = read_listings(folder, splits, label_from, source_of)
    real = False
    convention = Convention(activation, omega if isinstance(omega, float | int | None) else tuple(omega), output_shift)
    if spec is None and not convention.given:
        written = read_spec_file(folder if isinstance(splits, Mapping) else (folder / splits).parent)
        if written is not None:
            spec, settings, real = written[0], {**written[1], **settings}, written[2]
    reader = StateDictReader(spec, convention, ignore)
    weights = {split: reader.read(listing) for split, listing in listings.items()}
    if reader.must_warn:
        warnings.warn(f"{folder}: {reader.warning}", UserWarning, stacklevel=2)
    found = {split: own.labels() or [None] * len(own.files) for split, own in listings.items()}
    form = {**reader.form(), **_sources(folder, listings, found, source_of)}
    real = real or any(isinstance(label, float) for own in found.values() for label in own)
    return write_zoo(
        out,
        {split: listing.networks(weights[split], real=real) for split, listing in listings.items()},
        shard_size=shard_size,
        provenance={**(provenance or {}), **reader.assumed(), "state_dicts": form},
        **settings,
    )


def _listed(
    folder: Path,
    splits: str | Path | Mapping[str, Any],
    labels: str | Path | None,
    source_of: SourceOf | None,
    settings: dict[str, Any],
) -> tuple[str | Path | Mapping[str, Any], dict[str, Any]]:
    """Return the listing, made of the files of a plain folder where there is none, and the settings with classes."""
    if splits != LISTING or (folder / LISTING).exists() or not folder.is_dir():
        if labels is not None:
            raise ValueError(f"labels: expected them for a folder without a listing, got a listing too: {splits!r:.80}")
        return splits, settings
    keys = (
        None
        if source_of is None
        else keys_by(source_of, [f.relative_to(folder).as_posix() for f in weight_files(folder)])
    )
    table, classes = plain_listing(folder, labels, keys)
    return table, {**({"classes": classes} if classes else {}), **settings}


def _sources(
    folder: Path, listings: Mapping[str, Listing], labels: Mapping[str, Any], source_of: SourceOf | None
) -> dict[str, Any]:
    """Warn if each file counts as a signal of its own although names say otherwise; return what to record of it."""
    if source_of is not None or not all(listing.numbered for listing in listings.values()):
        return {}
    if (alike := look_alike(listings, labels)) is None:
        return {"sources": "one a file"}
    warnings.warn(
        f"{folder}: each file counts as a fit of a signal of its own, but {alike[0]!r:.200} and {alike[1]!r:.200} look "
        "like fits of one; pass source_of=, such as a regular expression, or splits may share signals",
        UserWarning,
        stacklevel=3,
    )
    return {"sources": "one a file", "alike": list(alike)}


def export_state_dicts(
    zoo: Zoo, folder: str | Path, *, layout: Layout = "own", absolute: bool | None = None, prefix: str = "zoo"
) -> None:
    """Write a zoo as ``<split>/000000.pth`` state dicts, a ``spec.json`` and a ``splits.json``, which is written last.

    An imported zoo gets back its key names, and its labels in the files if they were there. The lists ``"source"``,
    ``"view"``, ``"psnr"`` and those of further columns in ``splits.json``, beside ``"path"`` and ``"label"``, and the
    spec, classes, init_regime, recipe and seed in ``spec.json`` make an import the inverse.

    Other layouts are those that the loaders of other libraries read. They hold weights and classes, and always a "val"
    split: where the zoo has none, a tenth of the training sources.

    Args:
        zoo: the zoo.
        folder: the folder to write, new or empty.
        layout: ``"own"``; ``"dwsnets"``: keys ``seq.0.weight``, ``{split: {"path", "label"}}``; ``"scalegmn"``, also
            of the augmentation release: the same keys, ``{split: [path]}``, the label in each file, a folder for each
            view; ``"nfn"``: keys ``net.0.linear.weight``, files ``<prefix>_<label>s/net<number>.pth``.
        absolute: whether paths in ``splits.json`` are absolute; by default in the layout ``"dwsnets"``, whose loader
            opens them as they are.
        prefix: of the folders of the layout ``"nfn"``.

    Raises:
        ValueError: for a folder that holds something already, a zoo whose provenance names keys not its own, or an
            unknown layout; for other layouts than the own also for networks that are no chain, and without classes.
        OSError: if the disk is full, with the name of the file; nothing is left behind.

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
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {list(LAYOUTS)}, got {layout!r}")
    check_empty(folder, MANIFEST)
    if layout != "own":
        with staged(folder) as stage:
            always = layout == "dwsnets" if absolute is None else absolute
            write_layout(zoo, stage, folder, layout, absolute=always, prefix=prefix)
        return
    form = _form(zoo)
    listing = {}
    with staged(folder) as stage:
        for split in zoo.splits:
            listing[split] = {
                "path": [f"{folder.resolve()}/{p}" if absolute else p for p in _export_split(zoo, split, stage, *form)],
                "label": zoo.labels(split).tolist(),
                "source": zoo.sources(split).tolist(),
                "view": zoo.views(split).tolist(),
                "psnr": plain(zoo.psnr(split)),
                **{name: plain(values) for name, values in zoo[split].columns.items()},
            }
        real = any(zoo.labels(split).is_floating_point() for split in zoo.splits)
        write_spec_file(zoo, stage, real_labels=real)
        write_atomic(stage / "splits.json", json.dumps(listing).encode())


def _form(zoo: Zoo) -> tuple[dict[str, str], torch.dtype, bool]:
    """Return the keys, the dtype and whether labels lie in the files, as an import recorded them in the provenance.

    Raises:
        ValueError: for a record that no import makes.
    """
    own = list(zoo.spec.by_state_key)
    form = zoo.provenance.get("state_dicts", {})
    form = form if isinstance(form, Mapping) else {"keys": form}
    keys, dtype = form.get("keys") or dict.fromkeys(own), form.get("dtype", "float32")
    names = {str(kind).removeprefix("torch."): kind for kind in FLOATS}
    good = isinstance(keys, Mapping) and set(keys) == set(own)
    keys = {name: keys[name] or name for name in own} if good else {}
    if not good or len(set(map(str, keys.values()))) < len(own) or not all(isinstance(k, str) for k in keys.values()):
        raise ValueError(
            f"{zoo.path}: expected a distinct key for each of the spec's parameters in provenance['state_dicts'], got "
            f"{form!r:.200}; write the zoo again without that entry"
        )
    if not isinstance(dtype, str) or dtype not in names:
        raise ValueError(f"{zoo.path}: expected one of {list(names)} as dtype of the state dicts, got {dtype!r:.80}")
    return keys, names[dtype], form.get("label_in_file") is True


def _export_split(
    zoo: Zoo, split: str, folder: Path, keys: Mapping[str, str], dtype: torch.dtype, labelled: bool
) -> list[str]:
    """Write the state dicts of one split, and return their paths below the folder."""
    weights, labels = zoo.weights(split), zoo.labels(split).tolist()
    files = [f"{split}/{index:06d}.pth" for index in range(len(weights))]
    for index, file in enumerate(files):
        body: dict[str, Any] = {keys[name]: value.to(dtype) for name, value in weights.state_dict(index).items()}
        if labelled:
            body["label"] = labels[index]
        data = io.BytesIO()
        torch.save(body, data)
        write_atomic(folder / file, data.getvalue(), sync=False)
    return files
