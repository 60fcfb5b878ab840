"""Copy zoos to object stores and back; networks are fitted into folders, and read from folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weightspace._files import check_empty, staged
from weightspace.zoo._format import MANIFEST, Manifest
from weightspace.zoo._shards import shard_problem
from weightspace.zoo._zoo import Zoo


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a finished zoo between a folder and a place that fsspec knows; the manifest comes last.

    Args:
        source: a folder, or a URL such as ``s3://bucket/zoo`` (each kind needs its own fsspec package, ``s3fs`` here).
        target: likewise; one of the two must be a folder. A folder must be new or empty, and appears whole or not at
            all; a URL must not hold a zoo yet.

    Raises:
        OSError: if the disk is full, with the name of the file; nothing is left behind.
        ValueError: for two URLs, a target that holds something, a source that is no finished zoo, or a file that did
            not arrive as it was.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import weightspace as ws
        >>> networks, folder = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1))), tempfile.mkdtemp()
        >>> zoo = ws.zoo.write_zoo(folder + "/zoo", train=networks)
        >>> copy(zoo.path, "memory://example")
        >>> copy("memory://example", folder + "/back")
        >>> ws.Zoo.open(folder + "/back").count("train")
        3
    """
    if "://" in str(source) and "://" in str(target):
        raise ValueError(f"expected a folder as source or as target, got {source} and {target}; copy in two steps")
    if "://" in str(target):
        _upload(Path(source), str(target))
    else:
        _download(str(source), Path(target))


def _upload(folder: Path, url: str) -> None:
    zoo = Zoo.open(folder, verify=True)
    there, root = _place(url)
    if there.exists(f"{root}/{MANIFEST}"):
        raise ValueError(f"{url}: expected a place without a zoo, got one; copy to another, or remove it first")
    there.makedirs(f"{root}/shards", exist_ok=True)
    for file in (*(shard.file for shard in zoo.shards), MANIFEST):
        there.put_file(str(folder / file), f"{root}/{file}")
        sizes = ((folder / file).stat().st_size, there.info(f"{root}/{file}")["size"])
        if sizes[0] != sizes[1]:
            raise ValueError(f"{url}/{file}: expected {sizes[0]} bytes to arrive, got {sizes[1]}; copy again")


def _download(url: str, folder: Path) -> None:
    there, root = _place(url)
    check_empty(folder, MANIFEST)
    if not there.exists(f"{root}/{MANIFEST}"):
        raise ValueError(f"{url}: expected a zoo, a place with a {MANIFEST}, got none")
    with staged(folder) as stage:
        (stage / "shards").mkdir()
        _get(there, f"{root}/{MANIFEST}", stage / MANIFEST)
        manifest = Manifest.read(stage)
        if left := sum(not shard.done for shard in manifest.shards):
            raise ValueError(f"{url}: expected a finished zoo, got {left} shards that are not done; finish it first")
        for shard in manifest.shards:
            _get(there, f"{root}/{shard.file}", stage / shard.file)
            if problem := shard_problem(stage, shard, manifest.spec.num_params, digest=True):
                raise ValueError(f"{url}: {problem}; copy again")


def _get(there: Any, source: str, target: Path) -> None:
    """Copy one file from a file system; an error names the file here, as most of them would not."""
    try:
        there.get_file(source, str(target))
    except OSError as error:
        raise OSError(error.errno, f"could not copy {source} to {target}: {error.strerror or error}") from error


def _place(url: str) -> tuple[Any, str]:
    """Return the file system of a URL or path, and the path on it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError('URLs need fsspec: pip install "weightspace[ray]"') from error
    found, root = url_to_fs(url)
    return found, root.rstrip("/")
