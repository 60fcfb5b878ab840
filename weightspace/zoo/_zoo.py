"""Read a zoo: its splits as networks, and epochs of batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._networks import COLUMNS, Networks
from weightspace._spec import NetSpec
from weightspace._table import rows_of
from weightspace._weights import Weights
from weightspace.zoo._columns import Columns, check_shards, row_numbers
from weightspace.zoo._dataset import NetworkDataset, NetworkStream
from weightspace.zoo._format import InitRegime, Manifest, Shard, ZooSettings
from weightspace.zoo._summary import summary
from weightspace.zoo._target import read_settled

RESIDENT_BYTES = 2 << 30
"""Splits of at most this size are held in memory by :meth:`Zoo.batches`, and larger ones read from the files."""
MOST_CLASSES = 1000
Verify = bool | Literal["lazy"]


class Zoo:
    """Networks on disk, with labels, sources, recipe and fit quality; opened by :meth:`open`.

    ``zoo["train"]`` is a split as :class:`Networks`, :meth:`batches` walks through one, :meth:`table` has its columns.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[0, 1, 0])
        >>> path = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks).path
        >>> zoo = Zoo.open(path)
        >>> zoo.splits, zoo["train"]
        (('train',), Networks(3 x siren(2-4-1, omega=30), label, source, view, psnr, cpu))
        >>> [len(batch) for batch in zoo.batches("train", 2, generator=torch.Generator().manual_seed(0))]
        [2, 1]
    """

    def __init__(self, path: Path, manifest: Manifest | None = None, columns: Columns | None = None) -> None:
        if manifest is None or columns is None:
            raise TypeError(f"expected ws.Zoo.open({str(path)!r:.200}), got Zoo(...), which opens nothing")
        self._path = path
        self._manifest = manifest
        self._columns = columns

    @classmethod
    def open(cls, path: str | Path, *, verify: Verify = "lazy", allow_incomplete: bool = False) -> Zoo:
        """Open a zoo. Its shards are mapped, not read, so that a million networks open in a moment.

        Every shard's size, types and shapes are compared with the manifest now. Its sha256 is compared before the
        first number of it is given out.

        Args:
            path: the folder of the zoo.
            verify: ``"lazy"`` for that; ``True`` to compare every sha256 now, which reads the whole zoo, at roughly a
                second per gigabyte; ``False`` never to.
            allow_incomplete: whether to open a zoo whose fit has not ended, with the shards that are done so far.

        Raises:
            ValueError: for a folder that is no zoo, or one of an unknown version, a fit that has not ended, or a shard
                that is missing, truncated or altered.
        """
        if verify not in (True, False, "lazy"):
            raise ValueError(f"verify: expected True, False or 'lazy', got {verify!r}")
        path = Path(path)
        manifest = read_settled(path) if allow_incomplete else Manifest.read(path)
        done = [shard for shard in manifest.shards if shard.done]
        check_shards(path, done, manifest.spec.num_params, digest=verify is True)
        if len(done) < len(manifest.shards) and not allow_incomplete:
            raise ValueError(
                f"{path}: {len(done)} of {len(manifest.shards)} shards are done; run the fit again to finish it, "
                "or open it with allow_incomplete=True"
            )
        return cls(path, manifest, Columns(path, manifest, hashed=verify == "lazy"))

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {self.count(split)}" for split in self.splits)
        return f"Zoo({str(self.path)!r}, {counts}, {self.init_regime} inits, {self.spec})"

    @property
    def path(self) -> Path:
        """The folder of the zoo."""
        return self._path

    @property
    def spec(self) -> NetSpec:
        """The spec of its networks."""
        return self._manifest.spec

    @property
    def recipe(self) -> dict[str, Any]:
        """How the networks were fitted, as the writer recorded it."""
        return json.loads(json.dumps(self._manifest.settings.recipe))

    @property
    def init_regime(self) -> InitRegime:
        """How the networks started: ``"independent"``, ``"shared"``, ``"meta"`` (a learned start) or ``"unknown"``."""
        return self._manifest.settings.init_regime

    @property
    def seed(self) -> int | None:
        """The seed of the fit, if the writer recorded one."""
        return self._manifest.settings.seed

    @property
    def num_views(self) -> int:
        """Fits per signal."""
        return self._manifest.settings.views

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the signals come from and what wrote the zoo."""
        return json.loads(json.dumps(self._manifest.settings.provenance))

    @property
    def data_digest(self) -> str | None:
        """Hash of the signals, if the writer recorded one."""
        return self._manifest.settings.data_digest

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty when they have none."""
        return tuple(self._manifest.settings.classes)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The manifest's record of every shard."""
        return self._manifest.shards

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order in which they were planned."""
        return tuple(self._columns.of_split)

    def count(self, split: str) -> int:
        """Return the number of networks in a split."""
        return sum(shard.count for shard in self._columns.shards(split))

    @property
    def settings(self) -> ZooSettings:
        """The settings that the zoo records of its networks as a whole."""
        return self._manifest.settings

    @property
    def num_classes(self) -> int:
        """The number of classes: as many as are named, or else one more than the largest label.

        Raises:
            ValueError: if a network has no label, if labels are real-valued, or if a label is too large for a class:
                not among the named ones, or, without names, far above the number of networks.

        Example:
            >>> import tempfile
            >>> import weightspace as ws
            >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[0, 2, 1])
            >>> ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks).num_classes
            3
        """
        if not self.splits:
            raise ValueError(f"{self.path}: expected finished shards to count the classes of, got none")
        labels = torch.cat([self.labels(split) for split in self.splits])
        if labels.is_floating_point():
            raise ValueError("expected a zoo with classes, got real-valued labels; train with objective='regression'")
        if without := int((labels < 0).sum()):
            raise ValueError(
                f"expected a zoo with labels, got {without} of {len(labels)} networks without (label -1); "
                "fit labelled signals"
            )
        largest = int(labels.max())
        if self.classes and largest >= len(self.classes):
            raise ValueError(f"expected labels of the {len(self.classes)} classes, got {largest}; verify the zoo")
        if largest >= max(MOST_CLASSES, len(labels)):
            raise ValueError(
                f"expected labels that number classes, got the label {largest} in a zoo of {len(labels)} networks; "
                "number the classes 0, 1, ..., or store the labels as real numbers to predict them"
            )
        return len(self.classes) or largest + 1

    def __getitem__(self, split: str) -> Networks:
        """Return all networks of a split: mapped if the split is one shard, else joined in memory, once.

        Raises:
            ValueError: for a split that the zoo does not have.
        """
        columns = {name: self._columns.whole(name, split) for name in COLUMNS}
        return Networks(self.weights(split), **columns, columns=self._columns.further(split))

    def __len__(self) -> int:
        """Return the number of networks in all splits."""
        return sum(map(self.count, self.splits))

    def table(self, split: str) -> dict[str, NDArray[Any]]:
        """Return all columns of a split as arrays ``[batch]`` by name, as ``pandas.DataFrame`` takes them.

        They are ``label`` (and ``class``, its name, where the classes have names), ``source``, ``view``, ``psnr`` and
        the further columns.

        Example:
            >>> import tempfile
            >>> import weightspace as ws
            >>> w = ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1))
            >>> networks = ws.Networks(w, label=[0, 1, 0], columns={"accuracy": [0.9, 0.8, 0.7]})
            >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks, classes=["cat", "dog"])
            >>> {name: values[0].item() for name, values in zoo.table("train").items()}
            {'label': 0, 'class': 'cat', 'source': 0, 'view': 0, 'psnr': nan, 'accuracy': 0.9}
        """
        label = self.labels(split).numpy()
        columns = {"label": label, "source": self.sources(split), "view": self.views(split), "psnr": self.psnr(split)}
        found = {name: np.asarray(values) for name, values in {**columns, **self._columns.further(split)}.items()}
        if self.classes and label.dtype.kind == "i":
            names = np.array([*self.classes, ""])  # an unlabelled network, -1, is of none
            found = {"label": label, "class": names[label], **found}
        return found

    def weights(self, split: str) -> Weights:
        """Return a split's weights, see :meth:`__getitem__`."""
        return Weights(self._columns.whole("flat", split), self.spec)

    def labels(self, split: str) -> Tensor:
        """Return ``[batch]`` int64, -1 where unlabelled, or float32 for real-valued labels."""
        return self._columns.whole("label", split)

    def sources(self, split: str) -> Tensor:
        """Return ``[batch]`` int64: the signal that each network was fitted to."""
        return self._columns.whole("source", split)

    def views(self, split: str) -> Tensor:
        """Return ``[batch]`` int64: which of the fits to its signal each network is."""
        return self._columns.whole("view", split)

    def psnr(self, split: str) -> Tensor:
        """Return ``[batch]`` float32, dB; NaN where unknown."""
        return self._columns.whole("psnr", split)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        rows: Tensor | None = None,
        device: torch.device | str | None = None,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> Iterator[Networks]:
        """Iterate over one epoch: batches of networks, every network once.

        A split whose weights fit ``resident_bytes`` is held in memory, or on the device, from its first epoch on. The
        rows of a larger one are gathered from the mapped files, batch by batch. The batches are the same in both cases:
        their order depends on the generator alone, not on how the split is cut into shards. The order is drawn when
        this method is called. Without shuffling, a batch within one shard is a view of the mapped file.

        Args:
            split: name of the split.
            batch_size: networks in a batch; the last may have fewer.
            generator: source of the order.
            shuffle: whether to shuffle; if not, the order is that on disk.
            drop_last: whether to leave out a last batch that is not full.
            rows: numbers of the networks to iterate over, or a mask of the split; by default the whole split.
            device: where the batches are to be; by default in memory.
            resident_bytes: the largest size of a split's weights to hold in memory; 0 to read from the files always.

        Raises:
            TypeError: when asked to shuffle without a generator.
            ValueError: for an unknown split, a batch size below one, or rows that the split does not have.
        """
        whole_number("batch_size", batch_size)
        whole_number("resident_bytes", resident_bytes, 0)
        if shuffle and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator: expected a torch.Generator to shuffle with, got {type(generator).__name__}; "
                "make one with torch.Generator().manual_seed(0), or pass shuffle=False"
            )
        order = None if rows is None else row_numbers("rows", rows, self.count(split))
        count = self.count(split) if order is None else len(order)
        if shuffle and generator is not None:
            drawn = torch.randperm(count, generator=generator, device=generator.device).cpu()
            order = drawn if order is None else order[drawn]
        stop = count - count % batch_size if drop_last else count
        device = torch.device("cpu" if device is None else device)
        return self._columns.batches(split, order, stop, batch_size, device, resident_bytes)

    def take(self, split: str, rows: Tensor) -> Networks:
        """Return the networks of a split at ``rows``, in that order, gathered from the mapped files.

        Args:
            split: name of the split.
            rows: numbers of networks ``[batch]``, or a mask over the whole split.

        Raises:
            ValueError: for an unknown split, or rows of another form.
            IndexError: for a row that is not there.
        """
        rows = row_numbers("rows", rows, self.count(split))
        columns = {name: self._columns.rows(name, split).take(rows) for name in COLUMNS}
        further = {name: rows_of(values, rows) for name, values in self._columns.further(split).items()}
        return Networks(Weights(self._columns.rows("flat", split).take(rows), self.spec), **columns, columns=further)

    def dataset(self, split: str, *, transform: Callable[[Networks], Any] | None = None) -> NetworkDataset:
        """Return a split as a map-style ``torch.utils.data.Dataset``, which a ``DataLoader`` batches by index lists.

        A sample is one network, a batch of one, and batches are ``Networks``: the default collation knows how to join
        them. :meth:`batches` is faster, as it needs no workers.

        Args:
            split: name of the split.
            transform: a function of ``Networks`` that is called on whole batches, such as a transform that leaves
                labels alone; it draws from a generator that is seeded from torch's, in every worker another one.

        Raises:
            TypeError: for a transform that is not a function.
            ValueError: for an unknown split.

        Example:
            >>> import tempfile
            >>> import weightspace as ws
            >>> networks = ws.Networks(ws.Weights(torch.zeros(5, 17), ws.siren(2, 4, 1)), label=[0, 1, 0, 1, 0])
            >>> data = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks).dataset("train")
            >>> loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
            >>> len(data), [len(batch) for batch in loader]
            (5, [2, 2, 1])
        """
        return NetworkDataset(self, split, transform)

    def stream(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        transform: Callable[[Networks], Any] | None = None,
    ) -> NetworkStream:
        """Return batches of a split as a ``torch.utils.data.IterableDataset`` that shards itself.

        Every network comes once over all workers of a ``DataLoader(stream, batch_size=None)``, and over all ranks of
        ``torch.distributed``. Shuffled, all ranks have as many networks, so that up to one a rank is left out. The
        batches of a rank do not depend on the number of workers.

        Args:
            split: name of the split.
            batch_size: networks in a batch.
            shuffle: whether to shuffle, anew after each ``stream.set_epoch(epoch)``.
            seed: of the order, together with the epoch.
            transform: as for :meth:`dataset`.

        Raises:
            TypeError: for a transform that is not a function.
            ValueError: for an unknown split, or a batch size below one.
        """
        return NetworkStream(self, split, batch_size, shuffle, seed, transform)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy a zoo to another process as its path: the shards are mapped there too."""
        whole = all(shard.done for shard in self.shards)
        return _reopened, (str(self.path), whole)

    def summary(self) -> dict[str, Any]:
        """Describe the zoo by plain values: spec, recipe, and per split counts, labels and PSNR in dB.

        An imported zoo says under ``"imported"`` how the keys of its files were matched and what was assumed.
        """
        return summary(self)


def _reopened(path: str, whole: bool) -> Zoo:
    return Zoo.open(path, verify=False, allow_incomplete=not whole)
