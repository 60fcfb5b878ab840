"""Folders of weights as people have them: no listing, other formats, labels in folders or tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers import networks, run_command
from safetensors.torch import save_file

import weightspace as ws
from weightspace.zoo import import_state_dicts

SPEC = ws.siren(2, 4, 3, 1)


def states(count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    w = networks(SPEC, count, seed, torch.float32)
    return [w.state_dict(row) for row in range(count)]


def fill(folder: Path, names: list[str]) -> list[dict[str, torch.Tensor]]:
    found = states(len(names))
    for name, state in zip(names, found, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / name)
    return found


def by_name(zoo: ws.Zoo) -> dict[str, tuple[str, int]]:
    return {
        name: (split, label)
        for split in zoo.splits
        for name, label in zip(zoo.table(split)["name"].tolist(), zoo.labels(split).tolist(), strict=True)
    }


def test_a_plain_folder_is_split_by_rule(tmp_path: Path) -> None:
    names = [f"net{k}.pth" for k in range(60)]
    fill(tmp_path / "a", names)
    zoo = import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC)
    assert zoo.splits == ("train", "val", "test")
    assert 30 < zoo.count("train") < 55
    found = by_name(zoo)
    assert sorted(found) == sorted(names)
    assert {label for _, label in found.values()} == {-1}
    fill(tmp_path / "a", [*names, "another.pth"])
    again = by_name(import_state_dicts(tmp_path / "a", tmp_path / "again", spec=SPEC))
    assert all(again[name] == found[name] for name in names)
    pairs = import_state_dicts(tmp_path / "a", tmp_path / "pairs", spec=SPEC, source_of=lambda p: p[:4])
    assert len({split for name, (split, _) in by_name(pairs).items() if name.startswith("net1")}) == 1


def test_folders_are_splits_and_classes(tmp_path: Path) -> None:
    names = [
        f"{split}/{kind}/{split}{k}.pt" for split in ("train", "test") for kind in ("cat", "dog") for k in range(2)
    ]
    fill(tmp_path / "a", names)
    zoo = import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, labels="folder")
    assert zoo.classes == ("cat", "dog")
    assert by_name(zoo) == {name: (name.split("/")[0], int("dog" in name)) for name in names}
    fill(tmp_path / "a", ["odd.pt"])
    with pytest.raises(ValueError, match=r"expected every file in one of .*'val', 'test'\), got 'odd\.pt' in none"):
        import_state_dicts(tmp_path / "a", tmp_path / "new", spec=SPEC)


def test_a_table_gives_labels_and_columns(tmp_path: Path) -> None:
    names = [f"n{k}.pth" for k in range(8)]
    fill(tmp_path / "a", names)
    table = tmp_path / "labels.csv"
    table.write_text("file,label,lr,note\n" + "".join(f"n{k},{'ab'[k % 2]},{0.5 * k},x{k}\n" for k in range(8)))
    zoo = import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, labels=table)
    assert zoo.classes == ("a", "b")
    tables = [[zoo.table(split)[c] for c in ("name", "label", "lr", "note")] for split in zoo.splits]
    rows = [row for columns in tables for row in zip(*columns, strict=True)]
    assert all((int(n[1]) % 2, 0.5 * int(n[1]), f"x{n[1]}") == (label, lr, note) for n, label, lr, note in rows)
    table.write_text("file,label\n" + "".join(f"n{k}.pth,{k / 4}\n" for k in range(8)))
    assert (
        import_state_dicts(tmp_path / "a", tmp_path / "real", spec=SPEC, labels=table).labels("train").dtype
        == torch.float32
    )


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("file,label\nn0.pth,1\n", r"expected a row for every file, got none for 2: \['n1.pth', 'n2.pth'\]"),
        ("file,label\nn0.pth,1\nn0.pth,1\n", "expected every file once, got 'n0.pth' twice"),
        ("file,class\nn0.pth,1\n", "expected the columns 'file' and 'label', got"),
        ("file,label\nn0.pth\n", "line 2: expected 2 values as in the first line"),
        ("", "expected a row for every network, got none"),
        (None, "expected a table in UTF-8, got"),
    ],
)
def test_tables_that_miss_something_are_refused(tmp_path: Path, table: str | None, text: str) -> None:
    fill(tmp_path / "a", ["n0.pth", "n1.pth", "n2.pth"])
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ValueError, match=text):
        import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, labels=tmp_path / "labels.csv")
    assert not (tmp_path / "zoo").exists()


def test_every_format_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "train"
    folder.mkdir(parents=True)
    given = states(7)
    torch.save(given[0], folder / "0.pth")
    save_file(given[1], folder / "1.safetensors")
    np.savez(folder / "2.npz", **{name: value.numpy() for name, value in given[2].items()})
    torch.save({"state_dict": given[3], "epoch": 4}, folder / "3.ckpt")
    torch.save({"model": given[4]}, folder / "4.pt")
    torch.save({**given[5], "0.num_batches_tracked": torch.tensor(3), "0.grid": torch.zeros(9)}, folder / "5.pth")
    torch.save(given[6], folder / "6.bin")
    (folder / "notes.txt").write_text("text")
    (folder / ".hidden.pth").write_bytes(b"")
    zoo = import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, ignore=["*.grid"])
    expected = ws.Weights.from_state_dicts(given, SPEC)
    assert torch.equal(zoo.weights("train").flat, expected.flat)
    with pytest.raises(ValueError, match=r"5\.pth: expected the keys .*extra \['0.grid'\]"):
        import_state_dicts(tmp_path / "a", tmp_path / "new", spec=SPEC)
    with pytest.raises(TypeError, match=r"ignore: expected a list of patterns of keys, got '\*\.grid'"):
        import_state_dicts(tmp_path / "a", tmp_path / "new", spec=SPEC, ignore="*.grid")
    (folder / "7.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"7\.safetensors: expected a safetensors file"):
        import_state_dicts(tmp_path / "a", tmp_path / "new", spec=SPEC, ignore=["*.grid"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_every_precision_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    (tmp_path / "train").mkdir()
    given = [{f"net.{name}": value.to(dtype) for name, value in state.items()} for state in states(2)]
    for number, state in enumerate(given):
        torch.save(state, tmp_path / "train" / f"{number}.pth")
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", spec=SPEC)
    assert zoo.weights("train").dtype == torch.float32
    assert torch.equal(zoo.weights("train")[1].view("1.weight")[0], given[1]["net.1.weight"].float())


def test_what_is_no_folder_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"expected a splits\.json, or files that end in \.pth, .* got neither"):
        import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC)
    fill(tmp_path / "a", ["n0.pth"])
    with pytest.raises(ValueError, match=r"expected every file in a folder of its class, got 'n0\.pth'"):
        import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, labels="folder")
    with pytest.raises(ValueError, match=r"labels: expected 'folder', 'none' or a \.csv file, got 'classes'"):
        import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, labels="classes")
    (tmp_path / "a" / "splits.json").write_text(json.dumps({"train": ["n0.pth"]}))
    with pytest.raises(ValueError, match="labels: expected them for a folder without a listing"):
        import_state_dicts(tmp_path / "a", tmp_path / "zoo", spec=SPEC, labels="folder")


def test_the_command_reads_frequencies_and_modules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any) -> tuple[int, str, str]:
        return run_command(capsys, *arguments)

    fill(tmp_path / "a", [f"{kind}/{kind}{k}.pth" for kind in ("x", "y") for k in range(6)])
    options = ("--labels", "folder", "--output-shift", "0", "--activation", "sine")
    code, _, err = run("import", tmp_path / "a", tmp_path / "zoo", "--omega", "30,1", *options)
    assert code == 0, err
    zoo = ws.Zoo.open(tmp_path / "zoo")
    assert [axis.omega for axis in zoo.spec.hidden] == [30.0, 1.0]
    assert zoo.classes == ("x", "y")
    (tmp_path / "own_net.py").write_text(
        "import torch\n\nclass Sine(torch.nn.Module):\n    def forward(self, x):\n        return torch.sin(7 * x)\n\n"
        "def make():\n    n = torch.nn\n"
        "    return n.Sequential(n.Linear(2, 4), Sine(), n.Linear(4, 3), Sine(), n.Linear(3, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    code, _, err = run("import", tmp_path / "a", tmp_path / "read", "--module", "own_net:make")
    assert code == 0, err
    assert {axis.omega for axis in ws.Zoo.open(tmp_path / "read").spec.hidden} == {7.0}
    for arguments, text in (
        (("--omega", "fast"), "expected --omega as a number, or one a hidden layer such as 30,1, got 'fast'"),
        (("--module", "own_net:make", "--omega", "3"), "expected --module, or --widths"),
    ):
        code, _, err = run("import", tmp_path / "a", tmp_path / "new", *arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert text in err
