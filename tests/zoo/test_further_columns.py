"""Further columns of a zoo: numbers and texts that travel with the networks, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import labelled
from safetensors.torch import load_file, save_file

import weightspace as ws
from weightspace.zoo import Zoo, ZooWriter, export_state_dicts, import_state_dicts, merge, subset, verify, write_zoo

SPEC = ws.siren(2, 4, 1)
TEXTS = ["adam", "", "naïve 数", "x" * 50, "sgd", "adam", "a\nb"]


def columns(count: int = 7) -> dict:
    rows = [k % 7 for k in range(count)]
    lr = [[0.1, None, 1e-300, 3.0, -1.5, 2.0, 0.3][k] for k in rows]
    return {"lr": lr, "epochs": rows, "optimizer": [TEXTS[k] for k in rows]}


def networks(count: int = 7, first: int = 0) -> ws.Networks:
    return labelled(SPEC, count).replace(source=torch.arange(first, first + count), columns=columns(count))


def same(found: ws.Networks, rows: list[int]) -> bool:
    expected = columns()
    lr = [float("nan") if expected["lr"][k] is None else expected["lr"][k] for k in rows]
    return (
        np.array_equal(found.columns["lr"].numpy(), np.array(lr), equal_nan=True)
        and found.columns["epochs"].tolist() == rows
        and found.columns["optimizer"].tolist() == [TEXTS[k] for k in rows]
    )


def test_columns_follow_the_networks() -> None:
    batch = networks()
    assert (batch.columns["lr"].dtype, batch.columns["epochs"].dtype) == (torch.float64, torch.int64)
    assert same(batch, list(range(7)))
    assert same(batch[[2, 0]], [2, 0])
    assert same(batch[torch.arange(7) > 4], [5, 6])
    assert same(batch[1:4].to("cpu"), [1, 2, 3])
    assert same(batch[-1], [6])
    assert [len(one) for one in batch] == [1] * 7
    assert same(list(batch)[3], [3])
    assert same(ws.Networks.cat([batch[:2], batch[4:]]), [0, 1, 4, 5, 6])
    assert repr(batch).endswith("label, source, lr, epochs, optimizer, cpu)")
    mixed = ws.Networks.cat([batch.replace(columns={"a": [1] * 7}), batch.replace(columns={"a": [0.5] * 7})])
    assert mixed.columns["a"].tolist() == [1.0] * 7 + [0.5] * 7
    assert batch.replace(columns={"good": [True, False] * 3 + [True]}).columns["good"].dtype == torch.int64


@pytest.mark.parametrize("shard_size", [2, 100])
def test_columns_lie_in_the_zoo(tmp_path: Path, shard_size: int) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=networks(), test=networks(2, 10), shard_size=shard_size)
    zoo = Zoo.open(zoo.path, verify=True)
    assert zoo.settings.columns == {"lr": "real", "epochs": "whole", "optimizer": "text"}
    assert same(zoo["train"], list(range(7)))
    assert same(zoo["train"][0], [0])
    assert same(zoo.take("train", torch.tensor([6, 2, 3])), [6, 2, 3])
    assert [same(batch, batch.columns["epochs"].tolist()) for batch in zoo.batches("train", 3, shuffle=False)] == [
        True
    ] * 3
    shuffled = zoo.batches("train", 3, generator=torch.Generator().manual_seed(0), resident_bytes=0)
    assert all(same(batch, batch.columns["epochs"].tolist()) for batch in shuffled)
    assert verify(zoo) == []
    assert (len(zoo), len(zoo["train"])) == (9, 7)
    part = subset(zoo, tmp_path / "part", {"train": [5, 1]})
    assert same(part["train"], [5, 1])
    other = write_zoo(tmp_path / "other", train=networks(7, 20))
    assert merge([zoo, other], tmp_path / "both")["train"].columns["optimizer"].tolist() == TEXTS * 2


def test_the_table_has_every_column(tmp_path: Path) -> None:
    data = networks().replace(label=[0, 1, -1, 0, 1, 0, 1])
    table = write_zoo(tmp_path / "zoo", train=data, classes=("cat", "dog")).table("train")
    assert list(table) == ["label", "class", "source", "view", "psnr", "lr", "epochs", "optimizer"]
    assert table["class"].tolist()[:3] == ["cat", "dog", ""]
    assert table["optimizer"].tolist() == TEXTS
    assert math.isnan(table["lr"][1])
    assert all(isinstance(values, np.ndarray) and values.shape == (7,) for values in table.values())
    assert "class" not in write_zoo(tmp_path / "bare", train=networks()).table("train")


def test_a_zoo_without_further_columns_is_of_version_1(tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo", train=labelled(SPEC, 3))
    body = json.loads((tmp_path / "zoo" / "manifest.json").read_text())
    assert body["version"] == 1
    assert "columns" not in body
    write_zoo(tmp_path / "more", train=networks())
    assert json.loads((tmp_path / "more" / "manifest.json").read_text())["version"] == 2


def test_columns_go_out_and_come_back(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=networks())
    export_state_dicts(zoo, tmp_path / "files")
    again = import_state_dicts(tmp_path / "files", tmp_path / "again")
    assert same(again["train"], list(range(7)))
    assert again.table("train")["name"].tolist()[:2] == ["train/000000.pth", "train/000001.pth"]
    export_state_dicts(again, tmp_path / "files again")
    third = import_state_dicts(tmp_path / "files again", tmp_path / "third")
    assert third["train"].columns["name"].tolist() == again["train"].columns["name"].tolist()


def test_fits_of_named_signals_know_the_names(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((6, 4, 4), dtype=np.float32)
    names = [f"{k}.png" for k in range(6)]
    data = ws.signals.ImageSet(images, splits={"train": [0, 1, 2, 3], "test": [4, 5]}, names=names)
    config = ws.FitConfig(steps=2, views=2)
    zoo = ws.fit_zoo(tmp_path / "zoo", data, SPEC, config=config, workers=1, shard_size=3)
    assert zoo["test"].columns["name"].tolist() == ["4.png", "4.png", "5.png", "5.png"]
    more = ws.fitting.add_views(tmp_path / "zoo", data, 3, workers=1)
    table = more.table("train")
    assert all(names[source] == name for source, name in zip(table["source"], table["name"], strict=True))
    ws.signals.save(tmp_path / "data.npz", data)
    assert ws.datasets.load(tmp_path / "data.npz").names.tolist() == names
    with pytest.raises(ValueError, match=r"names: expected one text an image, \[6\], got \[5\]"):
        ws.signals.ImageSet(images, names=names[:5])
    with pytest.raises(TypeError, match="names: expected texts, got int64"):
        ws.signals.ImageSet(images, names=np.arange(6))


@pytest.mark.parametrize(
    ("further", "text"),
    [
        ({"lr": [1, 2]}, r"column 'lr': expected one value for each of 7 networks, got shape \[2\]"),
        ({"lr": [[1]] * 7}, r"column 'lr': expected one value for each of 7 networks, got shape \[7, 1\]"),
        ({"lr": [[1], [1, 2]]}, "column 'lr': expected a number or text each, got nested lists"),
        ({"lr": [1j] * 7}, "column 'lr': expected numbers, or texts alone, got complex128"),
        ({"lr": [object()] * 7}, "column 'lr': expected numbers, or texts alone, got object"),
        ({"lr": ["x" * 5000] * 7}, "column 'lr': expected texts of at most 4096 bytes, got 'xxx"),
        ({"psnr": [1] * 7}, r"columns: expected names of letters, .* none of flat, .*, got 'psnr'"),
        ({"a/b": [1] * 7}, "columns: expected names of letters, .*, got 'a/b'"),
        ({3: [1] * 7}, "columns: expected names of letters, .*, got 3"),
    ],
)
def test_columns_that_cannot_be_are_refused(further: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        networks().replace(columns=further)


def test_networks_of_other_columns_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="columns: expected a mapping from names to values, got list"):
        networks().replace(columns=[1] * 7)
    bare = networks(7, 10).replace(columns={})
    with pytest.raises(ValueError, match=r"columns: expected \['lr', .*\] in all parts, got \[\]; drop some with"):
        ws.Networks.cat([networks(), bare])
    with pytest.raises(ValueError, match=r"columns: expected \['lr', .*\] in every split, got \[\] in 'test'"):
        write_zoo(tmp_path / "zoo", train=networks(), test=bare)
    texts = bare.replace(columns={**columns(), "lr": ["0.1"] * 7})
    with pytest.raises(ValueError, match="column 'lr': expected numbers in all parts or texts in all, got both"):
        write_zoo(tmp_path / "zoo", train=networks(), test=texts)
    assert not (tmp_path / "zoo").exists()
    zoos = [write_zoo(tmp_path / "a", train=networks()), write_zoo(tmp_path / "b", train=bare)]
    with pytest.raises(ValueError, match=r"expected the same further columns, got \{'lr': 'real', .*\} and \{\}"):
        merge(zoos, tmp_path / "both")
    plan = [("train", 7, None)]
    with ZooWriter.create(tmp_path / "c", SPEC, plan=plan, columns={"lr": "real"}) as writer:
        with pytest.raises(ValueError, match=r"columns: expected \{'lr': 'real'\} as the zoo has, got \{\}"):
            writer.write(0, bare)
        writer.write(0, bare.replace(columns={"lr": [0.5] * 7}))


@pytest.mark.parametrize("bad", [{"a/b": "real"}, {"lr": "complex"}, ["lr"], {"psnr": "real"}])
def test_a_manifest_of_impossible_columns_is_refused(tmp_path: Path, bad: object) -> None:
    file = write_zoo(tmp_path / "zoo", train=networks()).path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "columns": bad}))
    with pytest.raises(ValueError, match="malformed zoo manifest: columns: expected"):
        Zoo.open(tmp_path / "zoo")


@pytest.mark.parametrize("change", ["gone", "shape", "kind"])
def test_a_shard_without_its_column_is_refused(tmp_path: Path, change: str) -> None:
    zoo = write_zoo(tmp_path / "zoo", train=networks())
    file, body = zoo.path / zoo.shards[0].file, json.loads((zoo.path / "manifest.json").read_text())
    tensors = load_file(file)
    if change == "gone":
        del tensors["column.lr"]
    else:
        tensors["column.lr"] = torch.zeros(7, 2) if change == "shape" else torch.zeros(7, dtype=torch.int64)
    save_file(tensors, file)
    body["shards"][0]["bytes"] = file.stat().st_size
    (zoo.path / "manifest.json").write_text(json.dumps(body))
    texts = {
        "gone": "expected the column 'column.lr' in",
        "shape": "holds other tensors",
        "kind": "of real values, got",
    }
    with pytest.raises(ValueError, match=texts[change]):
        _ = Zoo.open(zoo.path, verify=False)["train"]
