"""Go on with a zoo that was begun: what must be the same, what is planned anew, and what is removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from weightspace._files import TEMPORARY, remove_leftovers
from weightspace._lock import LOCK, FolderLock
from weightspace.zoo._format import Manifest
from weightspace.zoo._shards import shard_problem
from weightspace.zoo._target import RECORD, remove_records


def check_same(path: Path, found: Manifest, expected: Manifest) -> None:
    """Raise ``ValueError`` unless a folder's manifest is of the zoo that is to be made there."""
    if other := _difference(expected, found):
        raise ValueError(f"{path} was begun otherwise: {other}; fit into another folder or ask for the same")


def _difference(expected: Manifest, found: Manifest) -> str | None:
    """Describe the first field in which a zoo differs from the one that is asked for, or return ``None``."""
    if expected.spec != found.spec:
        return f"spec: expected {expected.spec}, got {found.spec}"
    for name in ("recipe", "init_regime", "seed", "views", "classes", "data_digest"):
        mine, theirs = getattr(expected.settings, name), getattr(found.settings, name)
        if name == "recipe" and mine != theirs:
            names = [key for key in {**mine, **theirs} if mine.get(key, ...) != theirs.get(key, ...)]
            mine, theirs = ({key: own[key] for key in names if key in own} for own in (mine, theirs))
        if mine != theirs:
            return f"{name}: expected {mine!r}, got {theirs!r}"
    mine, theirs = ([shard.plan for shard in manifest.shards] for manifest in (expected, found))
    if len(mine) != len(theirs):
        return f"plan: expected {len(mine)} shards, got {len(theirs)}"
    for index, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        if own != other:
            return f"plan, shard {index}: expected {own}, got {other}"
    return None


def sound(path: Path, manifest: Manifest) -> Manifest:
    """Return the manifest with every shard planned again whose file is missing, truncated or altered."""
    shards = tuple(
        shard.planned_again()
        if shard.done and shard_problem(path, shard, manifest.spec.num_params, digest=True)
        else shard
        for shard in manifest.shards
    )
    return replace(manifest, shards=shards)


def tidy(path: Path) -> None:
    """Remove what a killed writer left in a finished zoo: its lock file, records and temporary files.

    A zoo that has nothing of the kind is left alone, and so is one that another process writes to.
    """
    folders = [folder for folder in (path, path / "shards") if folder.is_dir() and not folder.is_symlink()]
    names = [entry.name for folder in folders for entry in folder.iterdir()]
    if not any(name == LOCK or name.endswith((RECORD, TEMPORARY)) for name in names):
        return
    try:
        lock = FolderLock(path)
    except ValueError:
        return
    try:
        for folder in folders:
            remove_leftovers(folder)
        if path / "shards" in folders and all(shard.done for shard in Manifest.read(path).shards):
            remove_records(path)
    finally:
        lock.release()
