"""Damaged and hostile zoos and state dicts: a clear error or the right value, in bounds, and nothing else touched."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

import weightspace as ws
from weightspace.fitting import add_views
from weightspace.zoo import Zoo, ZooWriter, copy, export_state_dicts, import_state_dicts, merge, verify, write_zoo
from weightspace.zoo._format import Manifest
from weightspace.zoo._layer_order import in_layer_order

SPEC = ws.siren(2, 4, 1)
PLAN = [("train", 2, 0), ("test", 2, 1)]
CONFIG = ws.FitConfig(steps=1)


def weights(count: int = 6, seed: int = 0) -> ws.Weights:
    return ws.Weights(torch.randn(count, SPEC.num_params, generator=torch.Generator().manual_seed(seed)), SPEC)


def data() -> ws.signals.ImageSet:
    return ws.signals.ImageSet(np.random.default_rng(0).integers(0, 255, (4, 4, 4), dtype=np.uint8))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    body = json.loads((path / "manifest.json").read_text())
    change(body)
    (path / "manifest.json").write_text(json.dumps(body))


# Links: nothing is written or removed through one.


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("precious.txt", "my.done.json", ".x.weightspace-tmp"):
        (folder / name).write_text("mine")
    return folder


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path: Path, victim: Path) -> None:
    before, zoo = files(victim), tmp_path / "zoo"
    zoo.mkdir()
    (zoo / ".weightspace-lock").symlink_to(victim / "precious.txt")
    with pytest.raises(ValueError, match=r"expected a new or empty folder, got one that holds '\.weightspace-lock'"):
        ws.fit_zoo(zoo, data(), SPEC, config=CONFIG)
    with pytest.raises(ValueError, match=r"expected a new or empty folder, got one that holds '\.weightspace-lock'"):
        write_zoo(zoo, train=ws.Networks(weights()))
    (zoo / ".weightspace-lock").unlink()
    ws.fit_zoo(zoo, data(), SPEC, config=CONFIG)
    (zoo / ".weightspace-lock").symlink_to(victim / "precious.txt")
    for go_on in (lambda: ws.fit_zoo(zoo, data(), SPEC, config=CONFIG), lambda: add_views(zoo, data(), 2)):
        with pytest.raises(ValueError, match=r"weightspace-lock: expected a plain file to lock, got a symbolic link"):
            go_on()
    assert files(victim) == before


def test_shards_that_are_a_link_are_not_written_through(tmp_path: Path, victim: Path) -> None:
    before, zoo = files(victim), tmp_path / "zoo"
    writer = ZooWriter.create(zoo, SPEC, plan=PLAN)
    target = writer.target(0)
    (zoo / "shards").symlink_to(victim)
    networks, match = (
        ws.Networks(weights(2), source=[0, 1]),
        "shards: expected a folder of the zoo, got a symbolic link",
    )
    for write in (lambda: writer.write(0, networks), lambda: target.write(networks)):
        with pytest.raises(ValueError, match=match):
            write()
    writer.close()
    with pytest.raises(ValueError, match=match):
        ZooWriter.resume(zoo, SPEC, plan=PLAN)
    (zoo / "shards").unlink()
    ws.fit_zoo(tmp_path / "fitted", data(), SPEC, config=CONFIG)
    (tmp_path / "fitted" / "shards").rename(tmp_path / "moved")
    (tmp_path / "fitted" / "shards").symlink_to(tmp_path / "moved")
    assert ws.Zoo.open(tmp_path / "fitted").count("train") == 4  # reading through one harms nobody
    (tmp_path / "moved" / "mine.done.json").write_text("mine")
    add_views(tmp_path / "fitted", data(), 1)  # nothing to do, and nothing tidied
    with pytest.raises(ValueError, match=match):
        add_views(tmp_path / "fitted", data(), 2)
    assert files(victim) == before
    assert (tmp_path / "moved" / "mine.done.json").exists()


# Manifests.


DEEP = "[" * 100_000
MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nested recipe": lambda body: body.update(recipe={"a": json.loads("[" * 200 + "]" * 200)}),
    "a number of many digits": lambda body: body.update(seed=10**400),
    "provenance of infinity": lambda body: body.update(provenance={"a": float("inf")}),
    "huge count": lambda body: body["shards"][0].update(count=10**30),
    "bytes beyond any file": lambda body: body["shards"][0].update(bytes=10**30),
    "a hash that is none": lambda body: body["shards"][0].update(sha256="\x1b[2J"),
    "huge axis": lambda body: body["spec"]["axes"][1].update(size=2**62),
    "huge layer": lambda body: body["spec"]["axes"][1].update(size=2**39),
    "many axes": lambda body: body["spec"]["params"][0].update(axes=["h1", "in"] + ["k"] * 100),
    "omega beyond floats": lambda body: body["spec"]["axes"][1].update(omega=10**309),
    "views beyond": lambda body: body.update(views=10**99),
}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("checked", ["lazy", False])
def test_a_manifest_that_no_writer_makes_is_refused(tmp_path: Path, name: str, checked: Any) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights()))
    change_manifest(zoo.path, MANIFESTS[name])
    if name == "views beyond":
        assert Zoo.open(zoo.path, verify=checked).num_views == 10**99
        return
    with pytest.raises(ValueError, match=str(tmp_path / "zoo")) as caught:
        Zoo.open(zoo.path, verify=checked)
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("file", ["manifest.json", "spec.json", "splits.json"])
@pytest.mark.parametrize("text", [DEEP, "1" * 5000, "\x00", '{"a":' * 3000, '"\\ud800"', "[]", "null"])
def test_json_that_is_not_what_it_should_be(tmp_path: Path, file: str, text: str) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights()))
    export_state_dicts(zoo, tmp_path / "out")
    folder = zoo.path if file == "manifest.json" else tmp_path / "out"
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=file):
        Zoo.open(zoo.path) if file == "manifest.json" else import_state_dicts(tmp_path / "out", tmp_path / "again")


def test_a_manifest_larger_than_any_is_not_read(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights()))
    with open(zoo.path / "manifest.json", "r+b") as file:
        file.truncate(3 << 30)  # three gigabytes of nothing
    with pytest.raises(
        ValueError, match=r"manifest.json: expected a zoo manifest of at most 16 MiB, got a larger file"
    ):
        Zoo.open(zoo.path)


def test_a_manifest_too_large_to_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weightspace.zoo import _format

    monkeypatch.setattr(_format, "MOST_JSON", 5000)
    with pytest.raises(ValueError, match=r"got 40 shards, which take .* MiB; use a larger shard_size"):
        ZooWriter.create(tmp_path / "zoo", SPEC, plan=[("train", 1, number) for number in range(40)])


@pytest.mark.parametrize("kind", ["axes", "parameters", "layers", "keys"])
def test_checks_take_linear_time(kind: str, tmp_path: Path) -> None:
    """Processor seconds of this process, so that other work on the machine does not count."""
    count, body = 40_000, json.loads(SPEC.to_json())
    started = time.process_time()
    if kind == "axes":
        body["axes"] += [{"name": f"z{i}", "size": 1, "activation": None, "omega": 1.0} for i in range(count)]
        ws.NetSpec.from_json(json.dumps(body))
    if kind == "parameters":
        body["axes"][1]["activation"] = "other"
        body["params"] += [{"name": f"p{i}", "axes": ["h1"], "kind": "norm", "key": "all"} for i in range(count)]
        ws.NetSpec.from_json(json.dumps(body))
    if kind == "layers":
        assert len(ws.siren(*[1] * (count // 4)).layers) == count // 4 - 1
    if kind == "keys":
        layers = [f"{i}.weight" for i in range(count)]
        assert in_layer_order(dict.fromkeys(sorted(layers), torch.ones(1, 1)), tmp_path)[0] == layers
        texts = [f"{chr(97 + i // 676)}{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}.weight" for i in range(10_000)]
        in_layer_order({name: torch.ones(i + 1, i + 2) for i, name in enumerate(texts[:300])}, tmp_path)
    assert time.process_time() - started < 10


# Shards.


def forge(zoo: Zoo, **columns: torch.Tensor) -> None:
    """Put other columns into the first shard, with an honest hash."""
    file = zoo.path / zoo.shards[0].file
    content = save({**load_file(file), **columns})
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change_manifest(zoo.path, lambda body: body["shards"][0].update(bytes=len(content), sha256=digest))


def test_verify_finds_networks_that_evaluate_to_nan(tmp_path: Path) -> None:
    zoo = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, config=ws.FitConfig(steps=5))
    forge(zoo, flat=torch.full((4, SPEC.num_params), 3e38))
    opened = Zoo.open(zoo.path)
    assert ws.evaluate(opened.weights("train"), ws.signals.grid(4, 4)).isnan().all()
    assert verify(opened) == []
    (problem,) = verify(opened, data())
    assert "got nan dB; these are other networks, or other data" in problem


def test_infinite_quality_does_not_end_a_summary(tmp_path: Path) -> None:
    psnr = torch.tensor([torch.inf, 1.0, -torch.inf, torch.nan, 3.0, 2.0])
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights(), psnr=psnr))
    quality = zoo.summary()["splits"]["train"]["psnr"]
    assert (quality["min"], quality["median"], quality["max"], quality["mean"]) == (1.0, 2.0, 3.0, 2.0)
    json.dumps(zoo.summary(), allow_nan=False)
    none = write_zoo(tmp_path / "none", train=ws.Networks(weights(1), psnr=[torch.inf]))
    assert none.summary()["splits"]["train"]["psnr"] is None


@pytest.mark.parametrize(
    ("labels", "classes", "match"),
    [
        (
            [10**9, 0, 1, 2, 1, 0],
            (),
            "expected labels that number classes, got the label 1000000000 in a zoo of 6 netw",
        ),
        (
            [1000, 0, 1, 2, 1, 0],
            (),
            "got the label 1000 in a zoo of 6 networks; number the classes 0, 1, ..., or store",
        ),
        ([2**62, 0, 1, 2, 1, 0], (), f"got the label {2**62}"),
        ([-1, 0, 1, 2, 1, 0], (), r"expected a zoo with labels, got 1 of 6 networks without \(label -1\)"),
        ([0.5, 0, 1, 2, 1, 0], (), "got real-valued labels; train with objective='regression'"),
    ],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: list[float], classes: Any, match: str) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights(), label=labels), classes=classes)
    with pytest.raises(ValueError, match=match):
        _ = zoo.num_classes


def test_numbers_of_classes(tmp_path: Path) -> None:
    def classes(name: str, labels: list[int], **settings: Any) -> int:
        return write_zoo(tmp_path / name, train=ws.Networks(weights(), label=labels), **settings).num_classes

    assert classes("found", [0, 5, 1, 2, 1, 0]) == 6
    assert classes("named", [0, 1, 1, 0, 1, 0], classes=["a", "b", "c"]) == 3
    assert classes("few", [999, 1, 1, 0, 1, 0]) == 1000  # a small zoo of a large data set
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights(), label=[0] * 6), classes=["a", "b"])
    forge(zoo, label=torch.tensor([0, 1, 10**9, 0, 0, 0]))
    with pytest.raises(ValueError, match="expected labels of the 2 classes, got 1000000000; verify the zoo"):
        _ = Zoo.open(zoo.path).num_classes
    with ZooWriter.create(tmp_path / "empty", SPEC, plan=PLAN), pytest.raises(ValueError, match="got none"):
        _ = Zoo.open(tmp_path / "empty", allow_incomplete=True).num_classes


def test_real_labels_are_verified(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights(), label=[0.5, -7.25, 3, 1e30, 0, -1]))
    assert zoo.labels("train").tolist() == [0.5, -7.25, 3.0, pytest.approx(1e30), 0.0, -1.0]
    assert verify(zoo) == []
    labels = zoo.summary()["splits"]["train"]["labels"]
    assert (labels["min"], labels["max"]) == (-7.25, pytest.approx(1e30))
    forge(zoo, label=torch.tensor([0.5, torch.nan, 0, 0, torch.inf, 0]))
    (problem,) = verify(Zoo.open(zoo.path))
    assert problem.endswith("2 labels are not finite, first in row 1")
    forge(zoo, label=torch.arange(6))
    change_manifest(zoo.path, lambda body: body.update(classes=["a"]))
    (problem,) = verify(Zoo.open(zoo.path))
    assert problem.endswith("expected labels of the 1 classes, got 1")


def test_labels_of_two_kinds_are_refused(tmp_path: Path) -> None:
    real, whole, none = (ws.Networks(weights(2, k), label) for k, label in enumerate(([0.5, 1], [0, 1], None)))
    for other in (whole, none):
        for splits in ({"train": real, "test": other}, {"train": other, "test": real}):
            with pytest.raises(ValueError, match="label: expected real numbers in every split or in none, got others"):
                write_zoo(tmp_path / "zoo", splits)
    with ZooWriter.create(tmp_path / "zoo", SPEC, plan=PLAN) as writer:
        writer.write(0, whole.replace(source=[0, 1]))
        late = real.replace(source=[2, 3])
        with pytest.raises(ValueError, match="label: expected whole numbers as in the shards before, got real numbers"):
            writer.write(1, late)
        with pytest.raises(ValueError, match="label: expected whole numbers as in the shards before, got real numbers"):
            writer.accept(1, writer.target(1).write(late))
        assert writer.pending() == [1]
    with pytest.raises(ValueError, match="zoos: expected whole labels in all of them or real-valued ones in all"):
        merge([write_zoo(tmp_path / "a", train=whole), write_zoo(tmp_path / "b", train=late)], tmp_path / "both")
    zoo = write_zoo(tmp_path / "c", train=whole, shard_size=1)
    forge(zoo, label=torch.tensor([0.5]))
    assert "expected labels of one kind in all shards" in verify(Zoo.open(zoo.path))[0]


def test_no_view_of_a_source_is_written_twice(tmp_path: Path) -> None:
    match = r"expected every view of a source once, got source 1, view 0 twice in 'train' \(1 doubled in all\)"
    with pytest.raises(ValueError, match="split 'train': " + match):
        write_zoo(tmp_path / "zoo", train=ws.Networks(weights(2), source=[1, 1], view=[0, 0]))
    for number in range(2):
        torch.save(weights(2).state_dict(number), tmp_path / f"{number}.pth")
    listing = {"train": {"path": ["0.pth", "1.pth"], "source": [1, 1], "view": [0, 0]}}
    with pytest.raises(ValueError, match=match):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits=listing, spec=SPEC)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_shard_that_may_not_be_read_is_called_so() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        zoo = write_zoo(folder + "/zoo", train=ws.Networks(weights()))
        (zoo.path / zoo.shards[0].file).chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(ValueError, match=r"train-00000.safetensors cannot be read: Permission denied"):
                Zoo.open(zoo.path)
        finally:
            os.seteuid(0)


# Readers beside a writer.


def test_a_reader_sees_finished_shards_while_the_writer_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer commits between the reader's two steps: the old manifest, and the records that are gone then."""
    writer = ZooWriter.create(tmp_path / "zoo", SPEC, plan=PLAN)
    writer.write(0, ws.Networks(weights(2), source=[0, 1]), commit=False)
    read, commits = Manifest.read.__func__, [writer.commit]  # pyright: ignore[reportFunctionMemberAccess]

    def reading(cls: type[Manifest], path: Path) -> Manifest:
        found = read(cls, path)
        if commits:
            commits.pop()()
        return found

    monkeypatch.setattr(Manifest, "read", classmethod(reading))
    assert [shard.done for shard in Zoo.open(tmp_path / "zoo", allow_incomplete=True).shards] == [True, False]
    assert commits == []


# State dicts.


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    one, file = torch.zeros(1), tmp_path / "a.pth"
    for width in (10**6, 10**12):
        torch.save(
            {"0.weight": one.expand(width, 2), "0.bias": one.expand(width), "1.weight": one.expand(1, width)}, file
        )
        with pytest.raises(ValueError, match=r"a.pth, '0.weight': expected a tensor with all its values, got \[1"):
            import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=SPEC)
    shared = torch.zeros(1000, 100)
    torch.save({f"{i}.weight": shared for i in range(100)}, file)
    with pytest.raises(
        ValueError, match=r"a.pth: expected tensors of at most 16 times the file's \d+ bytes, got 40000000"
    ):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=SPEC)
    assert not (tmp_path / "zoo").exists()


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    import zipfile

    torch.save({"0.weight": torch.zeros(1000, 1000)}, tmp_path / "b.pth")
    with (
        zipfile.ZipFile(tmp_path / "b.pth") as archive,
        zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry))
    assert torch.load(tmp_path / "a.pth", weights_only=True)["0.weight"].shape == (1000, 1000)  # torch reads them
    with pytest.raises(ValueError, match=r"a.pth: expected a file of torch.save, got .* its entries are compressed"):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=SPEC)


def test_many_small_files_with_a_large_first_one(tmp_path: Path) -> None:
    large = ws.mlp(2, 3000, 1)
    torch.save(ws.Weights(torch.zeros(1, large.num_params), large).state_dict(), tmp_path / "0.pth")
    for number in range(1, 60):
        torch.save({"a": torch.zeros(1)}, tmp_path / f"{number}.pth")
    listing = {"train": [f"{number}.pth" for number in range(60)]}
    with pytest.raises(ValueError, match=r"0.pth: expected 60 files of 12001 numbers each, got \d+ bytes in all"):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits=listing, spec=large)


def outside(folder: Path) -> Iterator[str]:
    """Paths that lead out of ``folder / "in"``, to a file that can be imported."""
    yield "../private.pth"
    yield str(folder / "private.pth")
    yield "sub/../../private.pth"
    (folder / "in" / "link.pth").symlink_to(folder / "private.pth")
    yield "link.pth"
    (folder / "in" / "up").symlink_to(folder)
    yield "up/private.pth"


@pytest.mark.parametrize("which", range(5))
def test_files_outside_of_the_folder_are_not_read(tmp_path: Path, which: int) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    torch.save(weights(1).state_dict(), tmp_path / "private.pth")
    path = list(outside(tmp_path))[which]
    match = "got one outside of it; copy it there" if (tmp_path / "in" / path).is_file() else "no such file"
    with pytest.raises(ValueError, match=match):
        import_state_dicts(tmp_path / "in", tmp_path / "zoo", splits={"train": [path]}, spec=SPEC)
    torch.save(weights(1, 5).state_dict(), tmp_path / "in" / "sub" / "private.pth")
    mine = import_state_dicts(
        tmp_path / "in", tmp_path / "mine", splits={"train": ["/elsewhere/sub/private.pth"]}, spec=SPEC
    )
    assert torch.equal(mine.weights("train").flat, weights(1, 5).flat)  # the longest end that is there


@pytest.mark.parametrize("path", ["/etc/passwd", "a\x1b[2J.pth", "a" * 5000, "a/" * 200_000, "a\0b", "", "."])
def test_paths_that_are_none(tmp_path: Path, path: str) -> None:
    started = time.process_time()
    with pytest.raises(
        ValueError, match=r"no such file, nor any end of that path|expected a file in .*outside"
    ) as caught:
        import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": [path]}, spec=SPEC)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert "root:" not in str(caught.value)
    assert time.process_time() - started < 5


FORMS: dict[str, Any] = {
    "list": [1],
    "dtype": {"dtype": "nothere"},
    "int8": {"dtype": "int8"},
    "other keys": {"keys": {"a": "b"}},
    "one key for all": {"keys": dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias"), "same")},
    "keys that are no texts": {"keys": dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias"), 3)},
    "keys of nothing": {"keys": [[]]},
}


@pytest.mark.parametrize("name", FORMS)
def test_an_export_does_not_believe_provenance(tmp_path: Path, name: str) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights()), provenance={"state_dicts": FORMS[name]})
    with pytest.raises(ValueError, match=r"zoo: expected (a distinct key|one of .*'float64')"):
        export_state_dicts(zoo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights()))
    copy(zoo.path, f"memory://{tmp_path.name}/zoo")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=r"could not write .*train/000000.pth \(\d+ bytes\): No space left on device"):
            export_state_dicts(zoo, tmp_path / "out")
    from fsspec.implementations.memory import MemoryFileSystem

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", full)
        with pytest.raises(OSError, match=r"could not copy .*manifest.json to .*: No space left on device"):
            copy(f"memory://{tmp_path.name}/zoo", tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]


def test_files_beside_the_manifest(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights()), extra={"a.bin": b"x" * 9, "b.txt": b""})
    assert (zoo.path / "a.bin").read_bytes() == b"x" * 9
    assert sorted(path.name for path in zoo.path.iterdir()) == ["a.bin", "b.txt", "manifest.json", "shards"]
    for name in ("manifest.json", "shards", "../a", "a/b", ".hidden", "", ".."):
        with pytest.raises(ValueError, match=rf"extra: expected names of files beside manifest.json, got {name!r}"):
            write_zoo(tmp_path / "other", train=ws.Networks(weights()), extra={name: b""})
    assert not (tmp_path / "other").exists()


# Views added to a zoo that is damaged, or that a killed process has left.


def test_views_are_not_added_to_a_damaged_zoo(tmp_path: Path) -> None:
    zoo = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, config=CONFIG)
    file = zoo.path / zoo.shards[0].file
    whole = file.read_bytes()
    for damage in (whole[:100], b"", whole[:8] + b"x" * (len(whole) - 8), None):
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(
            ValueError, match=r"train-00000.safetensors (is|holds) .*run the first fit again to mend it"
        ):
            add_views(zoo.path, data(), 2)
    file.write_bytes(whole)
    change_manifest(zoo.path, lambda body: body["shards"][0].update(key={"of": 1, "views": "x"}))
    with pytest.raises(ValueError, match="expected the data"):
        add_views(zoo.path, data().subset([0]), 2)


def test_what_a_killed_process_left_behind_a_finished_zoo_is_removed(tmp_path: Path) -> None:
    zoo = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, config=CONFIG)
    added = add_views(zoo.path, data(), 2)
    before = files(zoo.path)
    left = [zoo.path / ".weightspace-lock", zoo.path / ".a.weightspace-tmp", zoo.path / "shards" / ".b.weightspace-tmp"]
    left.append((zoo.path / added.shards[-1].file).with_suffix(".done.json"))
    for path in left:
        path.write_text("{}")
    assert add_views(zoo.path, data(), 2).count("train") == 8
    assert files(zoo.path) == before
    zoo.path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert add_views(zoo.path, data(), 2).count("train") == 8


@pytest.mark.parametrize("name", ["n" * 255, "nä" * 127])
def test_long_names(tmp_path: Path, name: str) -> None:
    name = name.encode()[:255].decode(errors="ignore")
    zoo = write_zoo(tmp_path / "a", train=ws.Networks(weights()))
    merge([zoo], tmp_path / name)
    export_state_dicts(zoo, tmp_path / "x" / name)
    copy(zoo.path, f"memory://{tmp_path.name}/long")
    copy(f"memory://{tmp_path.name}/long", tmp_path / "y" / name)
    assert verify(Zoo.open(tmp_path / name)) == verify(Zoo.open(tmp_path / "y" / name)) == []
