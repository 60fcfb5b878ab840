"""Make the subset of Fashion-MNIST that ships with the package, from the full data set.

The first 300 training and the first 100 test images of each class, in file order, as an uncompressed .npz in xz.

    python benchmarks/make_embedded.py [--folder FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import lzma
from pathlib import Path

import numpy as np

from weightspace import datasets
from weightspace.datasets._named import EMBEDDED, fashion_mnist

DEFAULT_OUT = Path(datasets.__file__).parent / "data" / EMBEDDED


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the first ``count`` images of every class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))


def packed(folder: Path | None) -> bytes:
    full = fashion_mnist(folder)
    assert full.labels is not None
    train = full.splits["train"][first_of_each_class(full.labels[full.splits["train"]], 300)]
    test = full.splits["test"][first_of_each_class(full.labels[full.splits["test"]], 100)]
    chosen = full.subset(np.concatenate([train, test]))
    assert chosen.labels is not None
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=chosen.images,
        labels=chosen.labels.astype(np.uint8),
        sources=chosen.sources.astype(np.uint32),
        train=np.isin(np.arange(len(chosen)), chosen.splits["train"]),
    )
    return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the full data set is, if not in a usual place")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    args = parser.parse_args()
    args.out.write_bytes(packed(args.folder))
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
