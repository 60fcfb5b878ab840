"""Exports that other libraries read, by transcriptions of what their loaders do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from _helpers import labelled

import weightspace as ws
from weightspace.zoo import export_state_dicts, import_state_dicts, write_zoo

SPEC = ws.siren(2, 4, 3, 1)


@pytest.fixture
def zoo(tmp_path: Path) -> ws.Zoo:
    source = torch.arange(40).repeat_interleave(2)
    train = labelled(SPEC, 80).replace(source=source, view=torch.arange(80) % 2)
    return write_zoo(tmp_path / "zoo", train=train, test=labelled(SPEC, 6, seed=1).replace(source=torch.arange(40, 46)))


def rows_of(zoo: ws.Zoo, states: list[dict[str, torch.Tensor]]) -> list[int]:
    """Return the number of each network in both splits together, found by its numbers."""
    every = torch.cat([zoo.weights("train").flat, zoo.weights("test").flat])
    flat = torch.stack([torch.cat([value.flatten() for value in state.values()]) for state in states])
    same = (flat[:, None] == every).all(2)
    assert same.sum(1).tolist() == [1] * len(flat)
    return same.int().argmax(1).tolist()


def test_dwsnets_reads_it(zoo: ws.Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_state_dicts(zoo, tmp_path / "out", layout="dwsnets")
    monkeypatch.chdir("/")
    table = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert set(table) == {"train", "val", "test"}
    seen = list[int]()
    for split, entry in table.items():
        states = [torch.load(path, weights_only=True) for path in entry["path"]]  # its loader opens paths as they are
        assert list(states[0]) == [f"seq.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
        rows = rows_of(zoo, states)
        labels = torch.cat([zoo.labels("train"), zoo.labels("test")])
        assert entry["label"] == labels[rows].tolist()
        assert (min(rows) >= 80) == (split == "test")
        seen += rows
    assert sorted(seen) == list(range(86))
    sources = {
        split: {row // 2 for row in rows_of(zoo, [torch.load(p, weights_only=True) for p in table[split]["path"]])}
        for split in ("train", "val")
    }
    assert not sources["train"] & sources["val"]


def test_scalegmn_reads_it(zoo: ws.Zoo, tmp_path: Path) -> None:
    export_state_dicts(zoo, tmp_path / "out", layout="scalegmn")
    table = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert all(isinstance(paths, list) for paths in table.values())
    root = f"{tmp_path / 'out'}/"
    files = [root + "/".join(path.split("/")[-2:]) for paths in table.values() for path in paths]  # as its loader does
    states = [torch.load(file, weights_only=True) for file in files]
    labels = [int(state.pop("label")) for state in states]
    rows = rows_of(zoo, states)
    assert labels == torch.cat([zoo.labels("train"), zoo.labels("test")])[rows].tolist()
    views = torch.cat([zoo.views("train"), zoo.views("test")])[rows].tolist()
    assert [Path(file).parent.name for file in files] == [f"view{view}" for view in views]


def test_nfn_reads_it(zoo: ws.Zoo, tmp_path: Path) -> None:
    export_state_dicts(zoo, tmp_path / "out", layout="nfn", prefix="randinit_fashion")
    files = sorted((tmp_path / "out").glob("*_*s/net*.pth"))
    assert len(files) == 86
    assert len({file.stem for file in files}) == 86
    states = [torch.load(file, weights_only=True) for file in files]
    keys = [f"net.{i}{'.linear' if i < 2 else ''}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert list(states[0]) == keys
    labels = [int(file.parent.name.removeprefix("randinit_fashion_").removesuffix("s")) for file in files]
    assert labels == torch.cat([zoo.labels("train"), zoo.labels("test")])[rows_of(zoo, states)].tolist()


@pytest.mark.parametrize("layout", ["dwsnets", "nfn"])
def test_an_import_reads_it_too(zoo: ws.Zoo, tmp_path: Path, layout: str) -> None:
    export_state_dicts(zoo, tmp_path / "out", layout=layout)  # pyright: ignore[reportArgumentType]
    again = import_state_dicts(tmp_path / "out", tmp_path / "again", spec=SPEC)
    assert torch.equal(again.weights("test").flat, zoo.weights("test").flat)
    assert torch.equal(again.labels("test"), zoo.labels("test"))


def test_paths_are_absolute_or_relative(zoo: ws.Zoo, tmp_path: Path) -> None:
    for name, layout, absolute, expected in (
        ("a", "dwsnets", False, "train/net0.pth"),
        ("b", "nfn", True, str(tmp_path / "b")),
        ("c", "own", True, str(tmp_path / "c")),
        ("d", "own", None, "train/000000.pth"),
    ):
        export_state_dicts(zoo, tmp_path / name, layout=layout, absolute=absolute)  # pyright: ignore[reportArgumentType]
        assert json.loads((tmp_path / name / "splits.json").read_text())["train"]["path"][0].startswith(expected)


def test_what_others_cannot_read_is_refused(zoo: ws.Zoo, tmp_path: Path, conv_spec: ws.NetSpec) -> None:
    with pytest.raises(ValueError, match=r"layout: expected one of \['own', .*, got 'pickle'"):
        export_state_dicts(zoo, tmp_path / "out", layout="pickle")  # pyright: ignore[reportArgumentType]
    bare = write_zoo(tmp_path / "bare", train=labelled(SPEC, 4, known=False))
    with pytest.raises(ValueError, match="expected labels that number classes in 'train', as nfn reads them"):
        export_state_dicts(bare, tmp_path / "out", layout="nfn")
    one = write_zoo(tmp_path / "one", train=labelled(SPEC, 1))
    with pytest.raises(ValueError, match="expected a 'val' split, or two sources in 'train'"):
        export_state_dicts(one, tmp_path / "out", layout="dwsnets")
    weights = ws.Weights(torch.zeros(2, conv_spec.num_params), conv_spec)
    cnn = write_zoo(tmp_path / "cnn", train=ws.Networks(weights, label=[0, 1]))
    with pytest.raises(ValueError, match="layout: expected a chain of linear layers for 'scalegmn'"):
        export_state_dicts(cnn, tmp_path / "out", layout="scalegmn")
    assert not (tmp_path / "out").exists()
