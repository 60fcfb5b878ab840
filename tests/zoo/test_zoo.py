"""Reading zoos: round trip, memory mapping, batches, what is refused and what verify finds."""

import json
import subprocess
import sys

import pytest
import torch

import weightspace as ws
from weightspace.zoo import Zoo, ZooWriter, stats, verify, write_zoo

SPEC = ws.siren(2, 8, 8, 1)


def networks(count, seed=0, spec=SPEC):
    generator = torch.Generator().manual_seed(seed)
    return ws.Weights(torch.randn(count, spec.num_params, generator=generator), spec)


def make(path, *, shard_size=5, train=13, test=6, **settings):
    """A zoo of two views a source; ``psnr`` of one network is unknown."""
    psnr = torch.arange(train, dtype=torch.float32)
    psnr[3] = float("nan")
    data = {
        "train": ws.Networks(
            networks(train), torch.arange(train) % 3, torch.arange(train) // 2, torch.arange(train) % 2, psnr
        ),
        "test": ws.Networks(networks(test, seed=1), None, 100 + torch.arange(test)),
    }
    settings = {"recipe": {"steps": 20, "lr": 1e-3}, "seed": 5, "classes": ["a", "b", "c"], **settings}
    zoo = write_zoo(path, data, shard_size=shard_size, init_regime="independent", **settings)
    return zoo, data


@pytest.mark.parametrize("shard_size", [1, 5, 100])
def test_round_trip(tmp_path, shard_size):
    _, data = make(tmp_path / "zoo", shard_size=shard_size, provenance={"data set": "toy", "licence": "CC0"})
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.splits == ("train", "test")
    assert zoo.spec == SPEC
    assert zoo.recipe == {"steps": 20, "lr": 1e-3}
    assert (zoo.init_regime, zoo.seed, zoo.num_views, zoo.classes) == ("independent", 5, 2, ("a", "b", "c"))
    assert zoo.provenance["data set"] == "toy"
    assert zoo.provenance["weightspace"] == ws.__version__
    assert {"torch", "created"} <= set(zoo.provenance)
    for split, own in data.items():
        count = len(own)
        assert zoo.count(split) == len(zoo[split]) == count
        assert zoo[split].spec == SPEC
        assert torch.equal(zoo.weights(split).flat, own.weights.flat)
        assert torch.equal(zoo.labels(split), torch.full((count,), -1) if own.label is None else own.label)
        assert torch.equal(zoo.sources(split), own.source)
        assert torch.equal(zoo.views(split), torch.zeros(count, dtype=torch.int64) if own.view is None else own.view)
        expected = torch.full((count,), float("nan")) if own.psnr is None else own.psnr
        assert torch.equal(zoo.psnr(split).nan_to_num(-1), expected.nan_to_num(-1))
        columns = (zoo.labels(split), zoo.sources(split), zoo.views(split), zoo.psnr(split))
        whole = zoo[split]
        for read, column in zip((whole.label, whole.source, whole.view, whole.psnr), columns, strict=True):
            assert torch.equal(read.nan_to_num(-1), column.nan_to_num(-1))
        for column in (zoo.labels(split), zoo.sources(split), zoo.views(split)):
            assert column.dtype == torch.int64
    assert verify(zoo) == []


def test_one_shard_is_a_view_and_writing_to_it_leaves_the_file(tmp_path):
    make(tmp_path / "zoo", shard_size=100)
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.weights("train").flat.data_ptr() == zoo.weights("train").flat.data_ptr()
    first, *_ = zoo.batches("train", 4, shuffle=False)
    assert first.weights.flat.data_ptr() == zoo.weights("train").flat.data_ptr()
    zoo.weights("train").flat.zero_()
    assert Zoo.open(tmp_path / "zoo").weights("train").flat.abs().sum() > 0


def test_opening_does_not_read_the_shards(tmp_path):
    spec = ws.mlp(2, 256, 256, 1)
    write_zoo(tmp_path / "zoo", {"train": ws.Networks(networks(256, spec=spec))})
    size = sum(file.stat().st_size for file in (tmp_path / "zoo" / "shards").iterdir())
    assert size > 60e6
    script = """if True:
        import sys
        import torch
        from weightspace.zoo import Zoo
        def resident():
            with open("/proc/self/status") as file:
                return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        Zoo.open(sys.argv[2])
        before = resident()
        zoo = Zoo.open(sys.argv[1])
        flat = zoo.weights("train").flat
        next(zoo.batches("train", 4, shuffle=False))
        opened = resident()
        flat.sum()
        print(opened - before, resident() - before)
    """
    make(tmp_path / "small")
    command = [sys.executable, "-c", script, str(tmp_path / "zoo"), str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    opened, read = map(int, done.stdout.split())
    assert opened < size / 4
    assert read > size / 2  # the measure does see the file once it is read


def test_no_zoo(tmp_path):
    with pytest.raises(ValueError, match=r"expected a zoo, a folder with a manifest.json, got none"):
        Zoo.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="expected a zoo manifest in JSON"):
        Zoo.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(ValueError, match="expected a manifest with format 'weightspace-zoo'"):
        Zoo.open(tmp_path)


def change_manifest(path, change):
    file = path / "manifest.json"
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


def test_unknown_version(tmp_path):
    make(tmp_path / "zoo")
    change_manifest(tmp_path / "zoo", lambda body: body.update(version=7))
    with pytest.raises(ValueError, match="expected zoo format version 1 or 2, got 7; read it with"):
        Zoo.open(tmp_path / "zoo")


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("shards"),
        lambda body: body.update(colour="red"),
        lambda body: body["shards"][0].update(file="../../secret.safetensors"),
        lambda body: body["shards"][0].update(file="/shards/x.safetensors"),
        lambda body: body["shards"][0].update(state="half"),
        lambda body: body["spec"].pop("axes"),
    ],
)
def test_malformed_manifest(tmp_path, change):
    make(tmp_path / "zoo")
    change_manifest(tmp_path / "zoo", change)
    with pytest.raises(ValueError, match="malformed"):
        Zoo.open(tmp_path / "zoo")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"views": "x"}, "views: expected at least 1, got 'x'"),
        ({"views": True}, "views: expected at least 1, got True"),
        ({"init_regime": "odd"}, r"init_regime: expected one of \['independent', .*got 'odd'"),
        ({"seed": "q"}, "seed: expected an integer or None, got 'q'"),
        ({"recipe": None}, "recipe: expected a mapping, got None"),
        ({"provenance": [1]}, r"provenance: expected a mapping, got \[1\]"),
        ({"classes": "abc"}, "classes: expected a sequence of names, got 'abc'"),
        ({"classes": {"a": 0}}, "classes: expected a sequence of names, got {'a': 0}"),
        ({"classes": [1]}, r"classes: expected a sequence of names, got \[1\]"),
        ({"classes": None}, "classes: expected a sequence of names, got None"),
        ({"data_digest": 5}, "data_digest: expected a text or None, got 5"),
        ({"shards": []}, r"shards: expected a list of at least one shard, got \[\]"),
        ({"shards": {}}, "shards: expected a list of at least one shard, got {}"),
    ],
)
def test_manifest_values_are_checked(tmp_path, change, match):
    make(tmp_path / "zoo")
    change_manifest(tmp_path / "zoo", lambda body: body.update(change))
    for read in (Zoo.open, lambda path: Zoo.open(path, verify=False)):
        with pytest.raises(ValueError, match=r"manifest.json: malformed zoo manifest: " + match + ".*; copy the zoo"):
            read(tmp_path / "zoo")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"split": None}, "train-00000.safetensors, split: expected a name, got None"),
        ({"split": "../x"}, "split: expected a name, got '../x'"),
        ({"count": 0}, "train-00000.safetensors, count: expected at least 1, got 0"),
        ({"count": True}, "count: expected at least 1, got True"),
        ({"count": "5"}, "count: expected at least 1, got '5'"),
        ({"file": None}, "file: expected shards/<name>.safetensors, got None"),
        ({"state": None}, "state: expected 'planned' or 'done', got None"),
        ({"bytes": None}, "expected bytes and sha256 of a done shard, got None, "),
        ({"sha256": 7}, "expected bytes and sha256 of a done shard, got .*, 7"),
    ],
)
def test_shard_records_are_checked(tmp_path, change, match):
    make(tmp_path / "zoo")
    change_manifest(tmp_path / "zoo", lambda body: body["shards"][0].update(change))
    with pytest.raises(ValueError, match="malformed zoo manifest: .*" + match):
        Zoo.open(tmp_path / "zoo")


def test_a_shard_listed_twice(tmp_path):
    make(tmp_path / "zoo")
    change_manifest(tmp_path / "zoo", lambda body: body["shards"].append(body["shards"][0]))
    with pytest.raises(ValueError, match=r"shards: expected each file once, got 'shards/train-00000.safetensors' tw"):
        Zoo.open(tmp_path / "zoo")


def test_altered_byte(tmp_path):
    make(tmp_path / "zoo")
    shard = tmp_path / "zoo" / "shards" / "train-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-40] ^= 1
    shard.write_bytes(data)
    altered = r"train-00001.safetensors is altered: expected sha256 \w+"
    with pytest.raises(ValueError, match=altered):
        Zoo.open(tmp_path / "zoo", verify=True)
    generator = torch.Generator().manual_seed(0)
    reads = {
        "weights": lambda zoo: zoo.weights("train"),
        "labels": lambda zoo: zoo.labels("train"),
        "batches": lambda zoo: next(zoo.batches("train", 2, shuffle=False)),
        "split": lambda zoo: zoo["train"],
        "take": lambda zoo: zoo.take("train", torch.tensor([0, 12])),
        "shuffled": lambda zoo: next(zoo.batches("train", 2, generator=generator)),
        "summary": lambda zoo: zoo.summary(),
        "stats": stats,
    }
    for read in reads.values():  # no number of a damaged file is given out
        zoo = Zoo.open(tmp_path / "zoo")
        for _ in range(2):
            with pytest.raises(ValueError, match=altered):
                read(zoo)
        assert len(zoo.weights("test")) == 6  # its own shards are sound
        read(Zoo.open(tmp_path / "zoo", verify=False))
    (problem,) = verify(Zoo.open(tmp_path / "zoo", verify=False))
    assert "train-00001.safetensors is altered" in problem


@pytest.mark.parametrize("checked", [True, False])
def test_truncated_and_missing_shards(tmp_path, checked):
    make(tmp_path / "zoo")
    shards = tmp_path / "zoo" / "shards"
    whole = (shards / "train-00000.safetensors").read_bytes()
    (shards / "train-00000.safetensors").write_bytes(whole[:-1])
    match = f"train-00000.safetensors is truncated or altered: expected {len(whole)} bytes, got {len(whole) - 1}"
    with pytest.raises(ValueError, match=match):
        Zoo.open(tmp_path / "zoo", verify=checked)
    (shards / "test-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"test-00001.safetensors is missing"):
        Zoo.open(tmp_path / "zoo", verify=checked)


def test_another_shape_than_the_spec(tmp_path):
    make(tmp_path / "zoo")
    change_manifest(tmp_path / "zoo", lambda body: body.update(spec=json.loads(ws.siren(2, 4, 1).to_json())))
    with pytest.raises(ValueError, match="holds other tensors"):
        Zoo.open(tmp_path / "zoo")


def test_incomplete(tmp_path):
    plan = [("train", 2, 0), ("train", 3, 1), ("test", 2, 2)]
    writer = ZooWriter.create(tmp_path / "zoo", SPEC, plan=plan)
    writer.write(1, ws.Networks(networks(3), source=[2, 3, 4]))
    with pytest.raises(ValueError, match="1 of 3 shards are done; run the fit again to finish it"):
        Zoo.open(tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo", allow_incomplete=True)
    assert (zoo.splits, zoo.count("train")) == (("train",), 3)
    assert len(verify(zoo)) == 2
    assert zoo.summary()["shards_done"] == 1


def forge(path, columns):
    """Put other columns into the first shard, with an honest hash: what a foreign writer could do."""
    import hashlib

    from safetensors.torch import save

    from weightspace.zoo._shards import map_shard

    file = path / "shards" / "train-00000.safetensors"
    data = save({**{name: value.clone() for name, value in map_shard(file).items()}, **columns})
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    change_manifest(path, lambda body: body["shards"][0].update(sha256=digest, bytes=len(data)))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"flat": torch.full((5, SPEC.num_params), float("nan"))}, "5 networks are not finite, first in row 0"),
        ({"label": torch.tensor([0, 1, 2, 3, 0])}, "expected labels of the 3 classes, got 3"),
        ({"label": torch.tensor([0, 1, -2, 1, 0])}, "expected labels of the 3 classes, got -2"),
        ({"view": torch.tensor([0, 1, 2, 0, 0])}, "expected views below 2, got 2"),
        (
            {"source": torch.tensor([0, 1, 100, 101, 50])},
            r"expected no source in two splits, got source 100 \(2 in all\)",
        ),
        (
            {"source": torch.tensor([0, 0, 1, 1, 4])},
            r"expected every view of a source once, got source 4, view 0 twice in 'train' \(1 doubled in all\)",
        ),
    ],
)
def test_verify_finds(tmp_path, columns, match):
    make(tmp_path / "zoo")
    forge(tmp_path / "zoo", columns)
    (problem,) = verify(Zoo.open(tmp_path / "zoo"))
    with pytest.raises(ValueError, match=match):
        raise ValueError(problem)


def test_summary(tmp_path):
    zoo, _ = make(tmp_path / "zoo")
    found = zoo.summary()
    json.dumps(found)
    assert found["init_regime"] == "independent"
    assert found["splits"]["test"]["psnr"] is None
    train = found["splits"]["train"]
    assert (train["count"], train["sources"], train["views"]) == (13, 7, 2)
    assert train["labels"] == {0: 5, 1: 4, 2: 4}
    assert (train["psnr"]["min"], train["psnr"]["max"]) == (0, 12)
    assert train["psnr"]["mean"] == pytest.approx(75 / 12)
    assert "train 13" in repr(zoo)


def test_properties_are_copies(tmp_path):
    zoo, _ = make(tmp_path / "zoo")
    zoo.recipe["steps"] = 0
    assert zoo.recipe["steps"] == 20
