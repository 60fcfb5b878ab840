"""Writing zoos: resuming, crashes at every moment, full disks, and what is refused."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import weightspace as ws
from weightspace import _files
from weightspace.zoo import Zoo, ZooWriter, verify, write_zoo

SPEC = ws.siren(2, 8, 8, 1)
PLAN = [("train", 4, [0, 4]), ("train", 4, [4, 8]), ("test", 3, [8, 11])]
SETTINGS = {
    "recipe": {"steps": 10, "lr": 0.01},
    "seed": 1,
    "views": 2,
    "init_regime": "independent",
    "data_digest": "d0",
}


def networks(count, seed=0, spec=SPEC):
    generator = torch.Generator().manual_seed(seed)
    return ws.Weights(torch.randn(count, spec.num_params, generator=generator), spec)


def begin(path, **changes):
    return ZooWriter.open_or_create(path, SPEC, **{"plan": PLAN, **SETTINGS, **changes})


def fill(writer, indices=None):
    for index in writer.pending() if indices is None else indices:
        _, count, (start, stop) = PLAN[index]
        writer.write(index, ws.Networks(networks(count, seed=index), source=range(start, stop)))


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_resume_goes_on_and_ends_as_an_unbroken_run(tmp_path):
    fill(begin(tmp_path / "whole"))
    fill(begin(tmp_path / "broken"), [1])
    with begin(tmp_path / "broken") as writer:
        assert writer.pending() == [0, 2]
        assert [shard.key for shard in writer.shards] == [[0, 4], [4, 8], [8, 11]]
        fill(writer)
    assert begin(tmp_path / "broken").pending() == []
    whole, broken = files(tmp_path / "whole"), files(tmp_path / "broken")
    assert set(whole) == set(broken)
    assert all(whole[name] == broken[name] for name in whole if name != "manifest.json")
    assert verify(Zoo.open(tmp_path / "broken")) == []


@pytest.mark.parametrize("moment", ["between", "shard", "manifest"])
def test_killed_and_resumed(tmp_path, moment):
    """SIGKILL between two shards, before a shard gets its name, and between a shard and its manifest."""
    script = textwrap.dedent(f"""
        import os, signal, sys
        import test_writer as t
        from weightspace import _files
        writer = t.begin(t.Path(sys.argv[1]))
        t.fill(writer, [0])
        replace = os.replace
        def fatal(source, target):
            if {moment!r} in str(target):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
        if {moment!r} == "between":
            os.kill(os.getpid(), signal.SIGKILL)
        os.replace = fatal
        t.fill(writer, [1])
    """)
    script = script.replace("t.Path", "__import__('pathlib').Path")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.getcwd()])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "zoo")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [name for name in files(tmp_path / "zoo") if name.endswith(_files.TEMPORARY)]
    assert bool(left) == (moment != "between")
    zoo = Zoo.open(tmp_path / "zoo", allow_incomplete=True)
    assert torch.equal(zoo.weights("train").flat, networks(4, seed=0).flat)
    writer = begin(tmp_path / "zoo")
    assert writer.pending() == [1, 2]
    assert not [name for name in files(tmp_path / "zoo") if name.endswith(_files.TEMPORARY)]
    fill(writer)
    assert verify(Zoo.open(tmp_path / "zoo")) == []


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_resume_plans_damaged_shards_anew(tmp_path, damage):
    fill(begin(tmp_path / "zoo"))
    shard = tmp_path / "zoo" / "shards" / "train-00001.safetensors"
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(whole[:-5] if damage == "truncated" else whole[:-1] + bytes([whole[-1] ^ 1]))
    writer = begin(tmp_path / "zoo")
    assert writer.pending() == [1]
    with pytest.raises(ValueError, match="2 of 3 shards are done"):
        Zoo.open(tmp_path / "zoo")
    fill(writer)
    assert shard.read_bytes() == whole
    assert verify(Zoo.open(tmp_path / "zoo")) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"recipe": {"steps": 11, "lr": 0.01}}, r"recipe: expected \{'steps': 11\}, got \{'steps': 10\}"),
        ({"seed": 2}, "seed: expected 2, got 1"),
        ({"views": 3}, "views: expected 3, got 2"),
        ({"init_regime": "shared"}, "init_regime: expected 'shared', got 'independent'"),
        ({"data_digest": "d1"}, "data_digest: expected 'd1', got 'd0'"),
        ({"classes": ["a"]}, "classes: expected"),
        ({"plan": PLAN[:2]}, "plan: expected 2 shards, got 3"),
        ({"plan": [("train", 4, [1, 5]), *PLAN[1:]]}, "plan, shard 0: expected"),
    ],
)
def test_resume_refuses_another_fit(tmp_path, changes, match):
    fill(begin(tmp_path / "zoo"), [0])
    before = files(tmp_path / "zoo")
    with pytest.raises(ValueError, match=match):
        begin(tmp_path / "zoo", **changes)
    assert files(tmp_path / "zoo") == before


def test_resume_refuses_another_spec_and_another_version(tmp_path):
    begin(tmp_path / "zoo")
    with pytest.raises(ValueError, match=r"spec: expected siren\(2-4-1, omega=30\), got siren\(2-8-8-1, omega=30\)"):
        ZooWriter.resume(tmp_path / "zoo", ws.siren(2, 4, 1), plan=PLAN, **SETTINGS)
    with pytest.raises(ValueError, match="expected a zoo"):
        ZooWriter.resume(tmp_path / "none", SPEC, plan=PLAN, **SETTINGS)


def fail(error):
    def raising(*_args):
        raise error

    return raising


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_an_error_while_writing_changes_nothing(tmp_path, monkeypatch, step, error):
    writer = begin(tmp_path / "zoo")
    fill(writer, [0])
    before = files(tmp_path / "zoo")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail(error))
        with pytest.raises(type(error)):
            fill(writer, [1])
    assert files(tmp_path / "zoo") == before
    fill(writer)  # the same writer goes on
    assert verify(Zoo.open(tmp_path / "zoo")) == []


def test_an_error_between_shard_and_manifest(tmp_path, monkeypatch):
    writer = begin(tmp_path / "zoo")
    replace = os.replace

    def only_shards(source, target):
        if "manifest" in str(target):
            raise FULL
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", only_shards)
        with pytest.raises(OSError, match=r"could not write .*manifest.json .*No space left on device; free"):
            fill(writer, [0])
    assert writer.pending() == [0, 1, 2]
    writer.close()
    assert begin(tmp_path / "zoo").pending() == [0, 1, 2]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_device(tmp_path, monkeypatch):
    writer = begin(tmp_path / "zoo")
    shard, opened = tmp_path / "zoo" / "shards" / "train-00000.safetensors", os.open

    def full(path, flags, *mode):
        if _files.TEMPORARY not in str(path):
            return opened(path, flags, *mode)
        os.close(opened(path, flags, *mode))
        return opened("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match=r"could not write .*train-00000.* bytes\): No space left on device") as caught:
        fill(writer, [0])
    assert caught.value.errno == errno.ENOSPC
    assert list(shard.parent.iterdir()) == []
    monkeypatch.undo()
    fill(writer)
    assert verify(Zoo.open(tmp_path / "zoo")) == []


def test_a_write_that_stops_in_the_middle(tmp_path):
    """A limit on the size of files makes the system refuse the second part of the write."""
    writer = begin(tmp_path / "zoo")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="could not write"):
            fill(writer, [0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "zoo" / "shards").iterdir()) == []
    fill(writer)
    assert verify(Zoo.open(tmp_path / "zoo")) == []


def test_no_source_in_two_splits(tmp_path):
    fill(begin(tmp_path / "zoo"), [0])
    with begin(tmp_path / "fresh") as writer:
        fill(writer, [0])
        with pytest.raises(ValueError, match="expected no source in two splits"):
            writer.write(2, ws.Networks(networks(3), source=[3, 9, 10]))
    writer = begin(tmp_path / "zoo")  # after resuming too
    with pytest.raises(ValueError, match=r"expected no source in two splits, got source 3 \(1 in all\)"):
        writer.write(2, ws.Networks(networks(3), source=[3, 9, 10]))
    again = ws.Networks(networks(4), source=[0, 1, 2, 3], view=[1, 1, 1, 1])
    writer.write(1, again)  # within a split a source may come again
    assert writer.pending() == [2]


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"source": [0, 1, 2]}, r"source: expected one value for each of 4 networks, got shape \[3\]"),
        ({"source": None}, "source: expected the signal of each network, got none"),
        ({"source": [0.0, 1.0, 2.0, 3.0]}, "source: expected whole numbers, got torch.float"),
        ({"label": [0, 1, 2, 0]}, "label: expected integers from -1 and below 2, got 2"),
        ({"label": [-2, 1, 1, 0]}, "label: expected integers from -1 and below 2, got -2"),
        ({"label": [0.5, 1, 1, 0]}, "label: expected whole numbers of the 2 classes, got real ones"),
        ({"view": [0, 0, 0, 2]}, "view: expected integers from 0 and below 2, got 2"),
        (
            {"source": ["a", "b", "c", "d"]},
            r"source: expected whole numbers, one for each of 4 networks, got \['a', 'b'",
        ),
        ({"psnr": ["30"] * 4}, r"psnr: expected numbers, one for each of 4 networks, got \['30'"),
        ({"psnr": torch.zeros(4, 1)}, r"psnr: expected one value for each of 4 networks, got shape \[4, 1\]"),
    ],
)
def test_columns_refused(tmp_path, columns, match):
    writer = begin(tmp_path / "zoo", classes=["a", "b"])
    with pytest.raises(ValueError, match=match):
        writer.write(0, ws.Networks(networks(4), **{"source": range(4), **columns}))
    assert writer.pending() == [0, 1, 2]


def test_weights_and_index_refused(tmp_path):
    writer = begin(tmp_path / "zoo")
    with pytest.raises(ValueError, match="expected the 4 planned for shards/train-00000"):
        writer.write(0, ws.Networks(networks(3), source=range(3)))
    with pytest.raises(ValueError, match="expected the zoo's spec"):
        writer.write(0, ws.Networks(networks(4, spec=ws.siren(2, 4, 1)), source=range(4)))
    with pytest.raises(TypeError, match=r"expected float32 weights, got torch.float64; convert"):
        writer.write(0, ws.Networks(networks(4).to(torch.float64), source=range(4)))
    with pytest.raises(TypeError, match="networks: expected Networks, got Weights; wrap them"):
        writer.write(0, networks(4))
    with pytest.raises(ValueError, match="expected a shard of the plan, 0 to 2, got 3"):
        writer.write(3, ws.Networks(networks(4), source=range(4)))
    fill(writer, [0])
    with pytest.raises(ValueError, match="expected a pending shard, got 0"):
        fill(writer, [0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_networks_that_are_not_finite_are_refused(tmp_path, value):
    writer = begin(tmp_path / "zoo")
    bad = networks(4)
    bad.flat[1, 3] = bad.flat[1, 4] = bad.flat[2, 0] = value
    match = (
        r"expected finite weights, got NaN or infinity in networks \[1, 2\] \(2 of 4\); leave them out, or .*lower lr"
    )
    with pytest.raises(ValueError, match="networks: " + match):
        writer.write(0, ws.Networks(bad, source=range(4)))
    assert writer.pending() == [0, 1, 2]
    assert not (tmp_path / "zoo" / "shards").exists()
    data = {"train": ws.Networks(networks(4)), "test": ws.Networks(bad)}
    with pytest.raises(ValueError, match="split 'test': " + match):
        write_zoo(tmp_path / "other", data, shard_size=1)
    assert not (tmp_path / "other").exists()
    bad.flat.nan_to_num_(0, 1, -1)
    writer.write(0, ws.Networks(bad, source=range(4)))  # nothing else was wrong with them
    assert writer.pending() == [1, 2]


def test_one_tensor_for_two_columns_and_inputs_untouched(tmp_path):
    writer = begin(tmp_path / "zoo")
    numbers, weights = torch.arange(4), networks(4)
    kept = weights.flat.clone()
    writer.write(0, ws.Networks(weights, source=numbers, label=numbers))
    assert torch.equal(numbers, torch.arange(4))
    assert torch.equal(weights.flat, kept)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"plan": []}, "plan: expected at least one shard"),
        ({"plan": [("../train", 4, 0)]}, "plan: expected a split name"),
        ({"plan": [("train", 0, 0)]}, "plan: expected at least one network"),
        ({"recipe": {"target": float("inf")}}, "recipe: expected plain values that JSON can hold"),
        ({"recipe": {"loss": torch.nn.MSELoss}}, "recipe: expected plain values that JSON can hold"),
        ({"init_regime": "random"}, r"init_regime: expected one of \['independent', 'shared', 'meta', 'unknown'\]"),
        ({"views": 0}, "views: expected at least 1"),
        ({"seed": 0.5}, "seed: expected an integer or None"),
        ({"classes": "abc"}, "classes: expected a sequence of names"),
        ({"classes": None}, "classes: expected a sequence of names, got None"),
        ({"recipe": [1]}, r"recipe: expected a mapping, got \[1\]"),
        ({"data_digest": 5}, "data_digest: expected a text or None, got 5"),
    ],
)
def test_create_refuses(tmp_path, settings, match):
    with pytest.raises(ValueError, match=match):
        begin(tmp_path / "zoo", **settings)
    assert not (tmp_path / "zoo").exists()


def test_create_only_where_nothing_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"got one that holds 'thesis.tex' and is no zoo"):
        begin(tmp_path)
    with pytest.raises(ValueError, match="got a file"):
        begin(tmp_path / "thesis.tex")
    begin(tmp_path / "zoo")
    with pytest.raises(ValueError, match="got a zoo; resume it or write to another folder"):
        ZooWriter.create(tmp_path / "zoo", SPEC, plan=PLAN)


def test_create_after_a_crash_before_the_first_manifest(tmp_path):
    leftover = _files.temporary(tmp_path / "manifest.json")
    leftover.write_text("{")
    begin(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_write_zoo_leaves_nothing_behind(tmp_path, monkeypatch):
    data = {"train": ws.Networks(networks(9)), "test": ws.Networks(networks(2), None, [3, 11])}
    with pytest.raises(ValueError, match="expected no source in two splits"):
        write_zoo(tmp_path / "zoo", data, shard_size=4)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail(FULL))
        with pytest.raises(OSError, match="No space left"):
            write_zoo(tmp_path / "zoo", {"train": data["train"]})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "zoo").mkdir()
    zoo = write_zoo(tmp_path / "zoo", {"train": data["train"]}, shard_size=4)
    assert [file.name for file in tmp_path.iterdir()] == ["zoo"]
    assert torch.equal(zoo.sources("train"), torch.arange(9))


@pytest.mark.parametrize(
    ("splits", "settings", "match"),
    [
        ({}, {}, "splits: expected at least one split"),
        (
            {"train": ws.Networks(networks(0))},
            {},
            "expected a batch of at least one network",
        ),
        ({"train": ws.Networks(networks(2))}, {"shard_size": 0}, "shard_size: expected at least 1"),
        ({"train": ws.Networks(networks(2))}, {"views": 0}, "views: expected at least 1"),
    ],
)
def test_write_zoo_refuses(tmp_path, splits, settings, match):
    with pytest.raises(ValueError, match=match):
        write_zoo(tmp_path / "zoo", splits, **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "got"), [((networks(2), [0, 1]), "tuple"), (networks(2), "Weights"), (None, "NoneType")]
)
def test_write_zoo_refuses_entries_of_another_form(tmp_path, entry, got):
    with pytest.raises(TypeError, match=f"split 'train': expected Networks, got {got}; wrap them"):
        write_zoo(tmp_path / "zoo", {"train": entry})
    with pytest.raises(TypeError, match="splits: expected a mapping from names to Networks, got list"):
        write_zoo(tmp_path / "zoo", [entry])  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == []
