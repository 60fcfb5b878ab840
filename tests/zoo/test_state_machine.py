"""Zoos against a plain dictionary, under any sequence of operations and crashes that Hypothesis finds.

Set ``WEIGHTSPACE_EXAMPLES`` to try more sequences than the suite does, and other ones each time; set
``WEIGHTSPACE_STORE`` to the URL of an empty place, such as ``s3://bucket/empty``, to copy through that instead of the
memory: any file system that fsspec knows must pass.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import weightspace as ws
from weightspace.zoo import (
    Zoo,
    ZooWriter,
    _writer,
    copy,
    export_state_dicts,
    import_state_dicts,
    merge,
    split,
    subset,
    verify,
)
from weightspace.zoo._format import Manifest

SPEC = ws.siren(1, 2, 1)
ANCHOR = ws.testing.random_weights(SPEC, 1, generator=torch.Generator().manual_seed(0)).to(torch.float32)
EXAMPLES = int(os.environ.get("WEIGHTSPACE_EXAMPLES", "0"))
STORE = os.environ.get("WEIGHTSPACE_STORE", "memory://zoos").rstrip("/")
EVENTS = st.one_of(st.just(0), st.integers(1, 8))
"""The change of the disk before which an operation is killed for a first time; 0 where it is not."""
SPLITS = ("train", "test")
MOST = 7
"""Zoos at a time."""
Row = tuple[float, float, bytes]
"""Label, PSNR and weights of a network; its key is (source, view)."""
Rows = dict[tuple[int, int], Row]


class Crash(BaseException):
    """The end of a process, as far as its files are concerned."""


@dataclass
class Part:
    """A planned shard of the model: its split, its content, its key in the plan, and whether it is there."""

    split: str
    networks: ws.Networks
    key: Any
    done: bool = False


@dataclass
class Model:
    """A zoo as a plain dictionary holds it.

    Args:
        real: whether labels are real-valued.
        parts: the planned shards, in the order of the plan.
        settings: what a writer that goes on must ask for.
        writer: the writer, while there is one.
        committed: whether the manifest says what the records say.
    """

    real: bool
    parts: list[Part]
    settings: dict[str, Any]
    writer: ZooWriter | None = None
    committed: bool = True

    @property
    def plan(self) -> list[tuple[str, int, Any]]:
        return [(part.split, len(part.networks), part.key) for part in self.parts]

    @property
    def pending(self) -> list[int]:
        return [number for number, part in enumerate(self.parts) if not part.done]

    @property
    def views(self) -> int:
        return self.settings.get("views", 1)

    def rows(self) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for part in self.parts:
            if part.done:
                found.setdefault(part.split, {}).update(rows(part.networks))
        return found

    def sources(self) -> set[int]:
        return {source for own in self.rows().values() for source, _ in own}


def rows(networks: ws.Networks) -> Rows:
    columns = [getattr(networks, name).tolist() for name in ("source", "view", "label", "psnr")]
    flat = [row.tobytes() for row in networks.weights.flat.numpy()]
    return {(source, view): (label, psnr, own) for source, view, label, psnr, own in zip(*columns, flat, strict=True)}


def being_written(model: Model) -> bool:
    return model.writer is not None


def to_be_written(model: Model) -> bool:
    return model.writer is not None and bool(model.pending)


def to_be_committed(model: Model) -> bool:
    return model.writer is not None and not model.committed


def unfinished(model: Model) -> bool:
    return bool(model.pending) or not model.committed


def at_rest(model: Model) -> bool:
    return model.writer is None and any(part.done for part in model.parts)


def finished(model: Model) -> bool:
    return model.writer is None and not unfinished(model)


def can_be_extended(model: Model) -> bool:
    return finished(model) and model.views < 4


def one_is(*kinds: Callable[[Model], bool], room: bool = False) -> Callable[[Any], Any]:
    """Allow a rule where there is a zoo of each kind, and with ``room`` where another zoo may be made."""

    def there(machine: Zoos) -> bool:
        models = machine.models.values()
        return (len(models) < MOST or not room) and all(any(map(kind, models)) for kind in kinds)

    return precondition(there)


class Zoos(RuleBasedStateMachine):
    """Operations on zoos in a folder, mirrored in a dictionary."""

    models: dict[str, Model]

    def __init__(self) -> None:
        super().__init__()
        self.models, self.fresh, self.number = {}, 0, 0
        self.folder = Path(tempfile.mkdtemp(prefix="zoos-"))
        self.fsync, os.fsync = os.fsync, lambda handle: None  # no power is cut here, and disks are slow

    def teardown(self) -> None:
        os.fsync = self.fsync
        for model in self.models.values():
            if model.writer is not None:
                model.writer.close()
        shutil.rmtree(self.folder)

    # Helpers.

    def some(self, data: st.DataObject, kind: Callable[[Model], bool]) -> tuple[Path, Model]:
        """Draw a zoo of a kind."""
        name = data.draw(st.sampled_from([name for name, model in self.models.items() if kind(model)]), label="zoo")
        return self.folder / name, self.models[name]

    def new(self) -> Path:
        self.number += 1
        return self.folder / f"zoo{self.number}"

    def networks(self, count: int, real: bool, sources: torch.Tensor | None = None, view: int = 0) -> ws.Networks:
        """Make networks of the given sources, or of fresh ones."""
        if sources is None:
            sources = self.fresh + torch.arange(count)
            self.fresh += count
        rng = np.random.default_rng([int(sources[0]), count, view])
        flat = torch.from_numpy(rng.standard_normal((count, SPEC.num_params), dtype=np.float32))
        label = torch.from_numpy(rng.standard_normal(count) if real else rng.integers(0, 3, count))
        psnr = torch.from_numpy(rng.uniform(20, 40, count))
        return ws.Networks(ws.Weights(flat, SPEC), label, sources, torch.full((count,), view), psnr)

    def write(self, model: Model, number: int, commit: bool) -> None:
        assert model.writer is not None
        model.writer.write(number, model.parts[number].networks, commit=commit)
        model.parts[number].done, model.committed = True, commit

    def resume(self, path: Path, model: Model) -> ZooWriter:
        model.writer = ZooWriter.resume(path, SPEC, plan=model.plan, **model.settings)
        model.committed = True
        return model.writer

    def close(self, model: Model) -> None:
        assert model.writer is not None
        model.writer.close()
        model.writer = None

    def die(self, model: Model) -> None:
        """Let a writer vanish as with its process: the lock is free, and its file is still there."""
        assert model.writer is not None
        lock = model.writer._lock
        lock._finalizer.detach()
        os.close(lock._handle)
        model.writer = None

    def failing(self, event: int, act: Callable[[], Any], error: BaseException, afterwards: bool) -> bool:
        """Act until the disk is to be changed for the ``event``-th time, and say whether it came so far.

        Args:
            event: the change that fails with ``error``.
            act: what to do.
            error: what is raised.
            afterwards: whether later changes succeed, as after an error, or fail, as a dead process makes none.
        """
        calls, left = (os.replace, os.unlink), event

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise error
                if left < 0 and not afterwards:
                    raise OSError("a dead process does nothing")
                return call(*arguments, **options)

            return counting

        os.replace = counted(os.replace)
        if not afterwards:  # a full disk keeps nobody from removing files
            os.unlink = counted(os.unlink)
        try:
            act()
        except type(error):
            return True
        finally:
            os.replace, os.unlink = calls
        return False

    def made(self, event: int, operation: Callable[[Path], Any]) -> tuple[Path, Any]:
        """Make a zoo by an operation that is killed once before, and has then left all of it or nothing."""
        path = self.new()
        if event:
            failed = self.failing(event, lambda: operation(path), Crash(), afterwards=False)
            assert path.exists() or failed
            if path.exists():
                assert verify(Zoo.open(path, verify=True)) == []
                shutil.rmtree(path)
        return path, operation(path)

    def add(self, path: Path, zoo: Zoo, found: dict[str, Rows], real: bool, size: int | None = None) -> None:
        """Note a zoo that an operation has made, and check that it is what it should be."""
        assert zoo.path == path
        assert {own: rows(zoo[own]) for own in zoo.splits} == found
        parts, first = list[Part](), dict.fromkeys(zoo.splits, 0)
        for shard in zoo.shards:
            start = first[shard.split]
            first[shard.split] = start + shard.count
            own = zoo[shard.split][torch.arange(start, start + shard.count)]  # a copy: the file may be damaged later
            parts.append(Part(shard.split, own, shard.key, done=True))
        if size is not None:
            full = [shard.count == size for shard in zoo.shards]
            assert sum(not own for own in full) <= len(zoo.splits)  # all shards but the last of each split are full
            assert max(shard.count for shard in zoo.shards) <= size
        settings = {key: value for key, value in vars(zoo.settings).items() if key != "provenance"}
        self.models[path.name] = Model(real, parts, settings)

    # One zoo.

    @initialize(data=st.data(), real=st.booleans(), counts=st.lists(st.integers(1, 4), min_size=1, max_size=5))
    def begin(self, data: st.DataObject, real: bool, counts: list[int]) -> None:
        self.create(data, real, counts)

    @rule(data=st.data(), real=st.booleans(), counts=st.lists(st.integers(1, 4), min_size=1, max_size=5))
    @one_is(room=True)
    def create(self, data: st.DataObject, real: bool, counts: list[int]) -> None:
        splits = data.draw(st.lists(st.sampled_from(SPLITS), min_size=len(counts), max_size=len(counts)))
        parts = [
            Part(own, self.networks(count, real), [number])
            for number, (own, count) in enumerate(zip(splits, counts, strict=True))
        ]
        path, model = self.new(), Model(real, parts, {"seed": 3, "recipe": {"steps": 1}})
        model.writer = ZooWriter.create(path, SPEC, plan=model.plan, **model.settings)
        self.models[path.name] = model

    @rule(data=st.data(), commit=st.booleans())
    @one_is(to_be_written)
    def write_one(self, data: st.DataObject, commit: bool) -> None:
        _, model = self.some(data, to_be_written)
        self.write(model, data.draw(st.sampled_from(model.pending)), commit)

    @rule(data=st.data())
    @one_is(to_be_written)
    def write_from_another_process(self, data: st.DataObject) -> None:
        _, model = self.some(data, to_be_written)
        assert model.writer is not None
        number = data.draw(st.sampled_from(model.pending))
        model.writer.accept(number, model.writer.target(number).write(model.parts[number].networks))
        model.parts[number].done, model.committed = True, False

    @rule(data=st.data(), commit=st.booleans(), event=st.integers(1, 4), dies=st.booleans())
    @one_is(to_be_written)
    def fail(self, data: st.DataObject, commit: bool, event: int, dies: bool) -> None:
        """End the process while it writes a shard, and go on in another; or fill the disk, and go on in the same."""
        path, model = self.some(data, to_be_written)
        assert model.writer is not None
        pending, number, committed = set(model.pending), data.draw(st.sampled_from(model.pending)), model.committed
        error = Crash() if dies else OSError(28, "full")
        failed = self.failing(event, lambda: self.write(model, number, commit), error, afterwards=not dies)
        if dies:
            self.die(model)
            self.resume(path, model)
        elif failed:
            model.committed = committed
        left = set(model.writer.pending())
        assert left <= pending  # nothing that was done is lost
        assert pending - left <= {number}  # what was being written may be there, or not
        assert failed or number not in left
        model.parts[number].done = number not in left

    @rule(data=st.data())
    @one_is(to_be_committed)
    def commit(self, data: st.DataObject) -> None:
        _, model = self.some(data, to_be_committed)
        assert model.writer is not None
        model.writer.commit()
        model.committed = True

    @rule(data=st.data())
    @one_is(being_written)
    def stop(self, data: st.DataObject) -> None:
        path, model = self.some(data, being_written)
        with pytest.raises(ValueError, match="expected a zoo that nobody writes to"):  # while the first is there
            ZooWriter.resume(path, SPEC, plan=model.plan, **model.settings)
        self.close(model)

    @rule(data=st.data())
    @one_is(lambda model: model.writer is None and unfinished(model))
    def go_on(self, data: st.DataObject) -> None:
        path, model = self.some(data, lambda model: model.writer is None and unfinished(model))
        assert self.resume(path, model).pending() == model.pending

    @rule(data=st.data())
    @one_is(unfinished)
    def finish(self, data: st.DataObject) -> None:
        path, model = self.some(data, unfinished)
        writer = self.resume(path, model) if model.writer is None else model.writer
        for number in model.pending:
            self.write(model, number, commit=False)
        writer.commit()
        model.committed = True
        self.close(model)

    @rule(data=st.data(), how=st.sampled_from(("cut", "changed", "gone")))
    @one_is(at_rest)
    def damage(self, data: st.DataObject, how: str) -> None:
        """Damage a shard: going on finds it, and makes it anew."""
        path, model = self.some(data, at_rest)
        number = data.draw(st.sampled_from([number for number, part in enumerate(model.parts) if part.done]))
        file = path / Manifest.read(path).shards[number].file
        whole = file.read_bytes()
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(whole[:-3] if how == "cut" else whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        assert self.resume(path, model).pending() == sorted([*model.pending, number])
        self.write(model, number, commit=True)
        assert file.read_bytes() == whole
        self.close(model)

    @rule(data=st.data(), event=st.integers(1, 4))
    @one_is(can_be_extended)
    def extend(self, data: st.DataObject, event: int) -> None:
        """Plan one more view of the first shard, crash, plan it again, and write it."""
        path, model = self.some(data, can_be_extended)
        first, view = model.parts[0], model.views
        assert first.networks.source is not None
        sources = first.networks.source.unique()
        networks = self.networks(len(sources), model.real, sources, view)
        kinds = Manifest.read(path).settings.columns  # an imported zoo knows the names of its files
        assert set(kinds.values()) <= {"text"}
        networks = networks.replace(columns={name: np.array(["again"] * len(sources)) for name in kinds})
        added = Part(first.split, networks, {"again": view}, done=True)
        options = {"views": view + 1, "recipe": {"views": view + 1}, "plan": [(added.split, len(sources), added.key)]}
        made = list[ZooWriter]()
        self.failing(event, lambda: made.append(ZooWriter.extend(path, **options)), Crash(), afterwards=False)
        for model.writer in made:
            self.die(model)
        with ZooWriter.extend(path, **options) as writer:
            (number,) = writer.pending()
            writer.write(number, added.networks)
        model.parts.append(added)
        model.settings = {**model.settings, "views": view + 1, "recipe": {"views": view + 1}}

    # Several zoos.

    @rule(data=st.data(), size=st.integers(1, 6), event=EVENTS)
    @one_is(finished, room=True)
    def merge(self, data: st.DataObject, size: int, event: int) -> None:
        one, mine = self.some(data, finished)
        other, theirs = self.some(data, finished)
        assume(mine.real == theirs.real and not mine.sources() & theirs.sources())
        zoos = [Zoo.open(one), Zoo.open(other)]
        path, zoo = self.made(event, lambda path: merge(zoos, path, shard_size=size))
        both = (mine.rows(), theirs.rows())
        found = {own: {**both[0].get(own, {}), **both[1].get(own, {})} for own in {*both[0], *both[1]}}
        self.add(path, zoo, found, mine.real, size)

    @rule(data=st.data(), size=st.integers(1, 6), event=EVENTS)
    @one_is(finished, room=True)
    def subset(self, data: st.DataObject, size: int, event: int) -> None:
        one, mine = self.some(data, finished)
        zoo = Zoo.open(one)
        own = data.draw(st.sampled_from(zoo.splits))
        index = data.draw(st.lists(st.integers(0, zoo.count(own) - 1), min_size=1, unique=True))
        found = rows(zoo[own][index])
        path, made = self.made(event, lambda path: subset(zoo, path, {own: index}, shard_size=size))
        assert list(rows(made[own])) == list(found)  # in the order that was asked for
        self.add(path, made, {own: found}, mine.real, size)

    @rule(data=st.data(), seed=st.integers(0, 9), size=st.integers(1, 6))
    @one_is(finished, room=True)
    def split(self, data: st.DataObject, seed: int, size: int) -> None:
        one, mine = self.some(data, finished)
        path, error = self.new(), ""
        try:
            zoo = split(Zoo.open(one), path, {"a": 0.5, "b": 0.5}, seed=seed, shard_size=size)
        except ValueError as caught:
            error = str(caught)
        else:
            found = {own: rows(zoo[own]) for own in zoo.splits}
            assert not {source for source, _ in found["a"]} & {source for source, _ in found["b"]}
            assert {**found["a"], **found["b"]} == {
                key: row for own in mine.rows().values() for key, row in own.items()
            }
            self.add(path, zoo, found, mine.real, size)
        assert path.exists() or "expected sources for every split" in error

    @rule(data=st.data(), size=st.integers(1, 6), event=EVENTS)
    @one_is(finished, room=True)
    def align(self, data: st.DataObject, size: int, event: int) -> None:
        one, mine = self.some(data, finished)
        zoo = Zoo.open(one)
        path, aligned = self.made(event, lambda path: ws.align.align_zoo(zoo, path, ANCHOR, shard_size=size))
        for own in zoo.splits:
            back = ws.align.alignment(aligned, own).inverse().act(aligned.weights(own))
            assert torch.allclose(back.flat, zoo.weights(own).flat, atol=1e-5)
        found = {own: rows(aligned[own]) for own in aligned.splits}
        known = {own: {key: row[:2] for key, row in rows.items()} for own, rows in found.items()}
        assert known == {own: {key: row[:2] for key, row in rows.items()} for own, rows in mine.rows().items()}
        self.add(path, aligned, found, mine.real, size)

    @rule(data=st.data(), event=EVENTS)
    @one_is(finished, room=True)
    def copy(self, data: st.DataObject, event: int) -> None:
        one, mine = self.some(data, finished)
        url = f"{STORE}/{self.folder.name}/{self.number}"
        copy(one, url)
        with pytest.raises(ValueError, match="expected a place without a zoo"):
            copy(one, url)
        path, _ = self.made(event, lambda path: copy(url, path))
        self.add(path, Zoo.open(path, verify=True), mine.rows(), mine.real)

    @rule(data=st.data(), size=st.integers(1, 6), event=EVENTS)
    @one_is(finished, room=True)
    def export_and_import(self, data: st.DataObject, size: int, event: int) -> None:
        one, mine = self.some(data, finished)
        dicts = self.folder / "dicts"
        zoo = Zoo.open(one)
        if event and not self.failing(event, lambda: export_state_dicts(zoo, dicts), Crash(), afterwards=False):
            shutil.rmtree(dicts)
        export_state_dicts(zoo, dicts)
        path, zoo = self.made(event, lambda path: import_state_dicts(dicts, path, shard_size=size))
        shutil.rmtree(dicts)
        self.add(path, zoo, mine.rows(), mine.real, size)

    @rule(data=st.data())
    @one_is(at_rest)
    def remove(self, data: st.DataObject) -> None:
        path, _ = self.some(data, at_rest)
        del self.models[path.name]
        shutil.rmtree(path)

    # Reading.

    @rule(data=st.data(), size=st.integers(1, 7), resident=st.booleans(), seed=st.integers(0, 3))
    @one_is(finished)
    def read(self, data: st.DataObject, size: int, resident: bool, seed: int) -> None:
        path, model = self.some(data, finished)
        zoo = Zoo.open(path)
        for own in zoo.splits:
            options = {"resident_bytes": 2**30 if resident else 0}
            batches = zoo.batches(own, size, generator=torch.Generator().manual_seed(seed), **options)
            found = rows(ws.Networks.cat(list(batches)))
            order = torch.randperm(zoo.count(own), generator=torch.Generator().manual_seed(seed))
            assert list(found.items()) == list(rows(zoo[own][order]).items())
            assert found == model.rows()[own]

    @invariant()
    def every_zoo_is_what_the_dictionary_says(self) -> None:
        for name, model in self.models.items():
            path = self.folder / name
            zoo = Zoo.open(path, allow_incomplete=True)
            assert {own: rows(zoo[own]) for own in zoo.splits} == model.rows()
            if finished(model):
                assert verify(Zoo.open(path)) == []
                assert not [
                    own for own in path.rglob("*") if own.name.startswith(".") or own.name.endswith(".done.json")
                ]

    @invariant()
    def nothing_is_left_beside_the_zoos(self) -> None:
        assert {path.name for path in self.folder.iterdir()} == set(self.models)


def run(examples: int, **options: Any) -> None:
    run_state_machine_as_test(
        Zoos,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


@pytest.mark.filterwarnings("ignore")
def test_zoos_under_any_sequence_of_operations() -> None:
    run(EXAMPLES or 30, derandomize=not EXAMPLES)


@pytest.mark.filterwarnings("ignore")
def test_a_zoo_that_forgets_what_a_killed_writer_did_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writer, "adopt", lambda path, manifest, digest: manifest)
    with pytest.raises((AssertionError, ValueError)):
        run(60, derandomize=True, phases=[Phase.generate])
