"""Folders of state dicts into zoos and back, as the released corpora have them; and what is refused."""

import json
import os

import pytest
import torch

import weightspace as ws
from weightspace.zoo import Zoo, export_state_dicts, import_state_dicts, verify, write_zoo

SPEC = ws.siren(2, 8, 8, 1, omega=30.0, output_shift=0.5)
COUNTS = {"train": 5, "val": 2, "test": 3}


def networks(count, seed=0, spec=SPEC):
    generator = torch.Generator().manual_seed(seed)
    return ws.Weights(torch.randn(count, spec.num_params, generator=generator), spec)


def corpus(folder, *, label="splits", prefix="seq.", root=""):
    """A corpus in the released form; ``label``: where the labels are, ``root``: what the listed paths begin with."""
    listing, flats = {}, {}
    for number, (split, count) in enumerate(COUNTS.items()):
        weights = networks(count, seed=number)
        listing[split] = {"path": [], "label": []}
        for index, state in enumerate(weights.state_dicts()):
            state = {prefix + name: value for name, value in state.items()}
            if label == "file":
                state["label"] = index % 2
            path = f"inrs/{split}_{index}/model_final.pth"
            (folder / path).parent.mkdir(parents=True)
            torch.save(state, folder / path)
            listing[split]["path"].append(root + path)
            listing[split]["label"].append(str(index % 2))
        flats[split] = weights.flat
    if label != "splits":
        listing = {split: entry["path"] for split, entry in listing.items()}
    (folder / "splits.json").write_text(json.dumps(listing))
    return flats


@pytest.mark.parametrize("label", ["splits", "file", None])
@pytest.mark.parametrize("root", ["", "/data/someone/", "./data/mnist-inrs/", "../up/"])
def test_import(tmp_path, label, root):
    flats = corpus(tmp_path / "in", label=label, root=root)
    zoo = import_state_dicts(tmp_path / "in", tmp_path / "zoo", shard_size=2)
    assert zoo.splits == tuple(COUNTS)
    assert zoo.spec == SPEC
    assert zoo.init_regime == "unknown"
    assert zoo.provenance["state_dicts"]["keys"]["1.bias"] == "seq.1.bias"
    first = 0
    for split, flat in flats.items():
        assert torch.equal(zoo.weights(split).flat, flat)
        count = len(flat)
        assert torch.equal(zoo.labels(split), torch.full((count,), -1) if label is None else torch.arange(count) % 2)
        assert torch.equal(zoo.sources(split), torch.arange(first, first + count))
        assert zoo.psnr(split).isnan().all()
        first += count
    assert verify(Zoo.open(tmp_path / "zoo")) == []


@pytest.mark.parametrize("label", ["splits", "file", None])
def test_export_is_the_inverse_of_import(tmp_path, label):
    corpus(tmp_path / "in", label=label)
    zoo = import_state_dicts(tmp_path / "in", tmp_path / "zoo", init_regime="shared", classes=["a", "b"])
    export_state_dicts(zoo, tmp_path / "out")
    listing = json.loads((tmp_path / "out" / "splits.json").read_text())
    original = torch.load(tmp_path / "in" / "inrs" / "val_1" / "model_final.pth", weights_only=True)
    exported = torch.load(tmp_path / "out" / listing["val"]["path"][1], weights_only=True)
    assert list(exported) == list(original)
    assert all(torch.equal(torch.as_tensor(exported[key]), torch.as_tensor(original[key])) for key in original)
    again = import_state_dicts(tmp_path / "out", tmp_path / "again", init_regime="shared", classes=["a", "b"])
    for split in zoo.splits:
        for name in ("labels", "sources", "views"):
            assert torch.equal(getattr(zoo, name)(split), getattr(again, name)(split))
        assert torch.equal(zoo.weights(split).flat, again.weights(split).flat)


def test_views_psnr_and_spec_survive_the_round_trip(tmp_path):
    spec = ws.mlp(2, 4, 3, activation="tanh")
    psnr = torch.tensor([30.0, float("nan"), 31.5, 20.0])
    data = ws.Networks(networks(4, spec=spec), [0, 0, 1, 1], [7, 7, 9, 9], [0, 1, 0, 1], psnr)
    zoo = write_zoo(tmp_path / "zoo", train=data)
    export_state_dicts(zoo, tmp_path / "out")
    again = import_state_dicts(tmp_path / "out", tmp_path / "again", spec=spec)
    assert again.spec == spec
    assert again.num_views == 2
    assert again.sources("train").tolist() == [7, 7, 9, 9]
    assert again.views("train").tolist() == [0, 1, 0, 1]
    assert torch.equal(again.psnr("train").nan_to_num(-1), psnr.nan_to_num(-1))
    assert torch.equal(again.weights("train").flat, data.weights.flat)


SETTINGS = {"init_regime": "independent", "classes": ("cat", "dog"), "recipe": {"steps": 7, "lr": 1e-3}, "seed": 11}


def assert_same(zoo, other):
    assert (other.spec, other.splits) == (zoo.spec, zoo.splits)
    assert all(getattr(other, name) == getattr(zoo, name) for name in SETTINGS)
    for split in zoo.splits:
        assert torch.equal(other.weights(split).flat, zoo.weights(split).flat)
        assert torch.equal(other.labels(split), zoo.labels(split))


@pytest.mark.parametrize("spec", [ws.mlp(2, 6, 5, 1), ws.siren(2, 6, 1, omega=10, output_shift=0)])
def test_spec_json_makes_import_the_inverse_of_export(tmp_path, spec):
    data = {"train": ws.Networks(networks(3, spec=spec), [0, 1, 1]), "test": ws.Networks(networks(1, 1, spec))}
    zoo = write_zoo(tmp_path / "zoo", data, **SETTINGS)
    export_state_dicts(zoo, tmp_path / "out")
    again = import_state_dicts(tmp_path / "out", tmp_path / "again")
    assert_same(zoo, again)
    coords = ws.signals.grid(3, 3)
    assert torch.equal(ws.evaluate(again.weights("train"), coords), ws.evaluate(zoo.weights("train"), coords))
    listing = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert_same(zoo, import_state_dicts(tmp_path / "out", tmp_path / "by_mapping", splits=listing))
    (tmp_path / "out" / "spec.json").unlink()
    before = import_state_dicts(tmp_path / "out", tmp_path / "before")  # as without the file
    assert before.spec == ws.siren(*(a.size for a in spec.axes), omega=30.0, output_shift=0.5) != spec
    assert (before.init_regime, before.classes, before.recipe, before.seed) == ("unknown", (), {}, None)


def test_arguments_win_over_spec_json(tmp_path):
    zoo = write_zoo(tmp_path / "zoo", {"train": ws.Networks(networks(2), [0, 1])}, **SETTINGS)
    export_state_dicts(zoo, tmp_path / "out")
    mixed = import_state_dicts(
        tmp_path / "out", tmp_path / "mixed", init_regime="shared", seed=None, classes=["a", "b"]
    )
    assert (mixed.init_regime, mixed.seed, mixed.classes) == ("shared", None, ("a", "b"))
    assert (mixed.recipe, mixed.spec) == (SETTINGS["recipe"], SPEC)
    other = ws.siren(2, 8, 8, 1, omega=5.0)
    own = import_state_dicts(tmp_path / "out", tmp_path / "own", spec=other)
    assert (own.spec, own.init_regime, own.recipe) == (other, "unknown", {})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda body: [body], "expected format 'weightspace-state-dicts', version 1, .*got list; pass spec="),
        (lambda body: {**body, "version": 2}, r"got \('weightspace-state-dicts', 2\); pass spec="),
        (lambda body: {"name": "a project"}, r"got \(None, None\); pass spec="),
        (lambda body: {**body, "spec": None}, "malformed: expected a NetSpec as JSON"),
        (lambda body: {**body, "spec": {**body["spec"], "axes": 3}}, "malformed: .*; export again, or pass spec="),
        (lambda body: {**body, "classes": "abc"}, "malformed: classes: expected a sequence of names, got 'abc'"),
        (lambda body: {**body, "recipe": None}, "malformed: recipe: expected a mapping, got None"),
        (lambda body: {**body, "seed": "q"}, "malformed: seed: expected an integer or None, got 'q'"),
    ],
)
def test_spec_json_refused(tmp_path, change, match):
    zoo = write_zoo(tmp_path / "zoo", {"train": ws.Networks(networks(1))})
    export_state_dicts(zoo, tmp_path / "out")
    file = tmp_path / "out" / "spec.json"
    for text in (json.dumps(change(json.loads(file.read_text()))), "{"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"spec.json: .*" + ("expected JSON" if text == "{" else match)):
            import_state_dicts(tmp_path / "out", tmp_path / "again")
    assert import_state_dicts(tmp_path / "out", tmp_path / "again", spec=SPEC).count("train") == 1


def test_networks_that_are_not_finite_are_refused_with_the_file(tmp_path):
    corpus(tmp_path / "in")
    for number in (1, 3):
        bad = tmp_path / "in" / "inrs" / f"train_{number}" / "model_final.pth"
        state = torch.load(bad, weights_only=True)
        state["seq.1.bias"][2] = float("nan")
        torch.save(state, bad)
    match = r"NaN or infinity in networks \[.*train_1/model_final.pth.*train_3/model_final.pth.*\] \(2 of 5\); leave"
    with pytest.raises(ValueError, match=match):
        import_state_dicts(tmp_path / "in", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("convert", "kind"), [(torch.Tensor.to_sparse, "sparse_coo"), (lambda value: value.to("meta"), "meta")]
)
def test_tensors_without_values_are_refused(tmp_path, convert, kind):
    state = networks(1).state_dict()
    torch.save({**state, "1.weight": convert(state["1.weight"])}, tmp_path / "a.pth")
    match = rf"a.pth, '1.weight': expected a dense tensor with its values, got a {kind} one; save dense"
    for spec in (None, SPEC):
        with pytest.raises(ValueError, match=match):
            import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=spec)


@pytest.mark.parametrize("text", ["not a network\n", "0.1 0.2\n", "X", ""])
def test_a_text_file_is_refused(tmp_path, text):
    (tmp_path / "a.pth").write_text(text)
    with pytest.raises(ValueError, match=r"a.pth: expected a file of torch.save, got one that begins with b'.*; save"):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]})


def test_files_of_the_earlier_torch_save_are_read(tmp_path):
    torch.save(networks(1).state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]})
    assert torch.equal(zoo.weights("train").flat, networks(1).flat)


@pytest.mark.parametrize("splits", [[1], 1, None])
def test_splits_of_another_type(tmp_path, splits):
    with pytest.raises(TypeError, match=r"splits: expected a mapping, or the path of a JSON file, got \w+"):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits=splits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_was(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in networks(1).state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]})
    export_state_dicts(zoo, tmp_path / "out")
    exported = torch.load(tmp_path / "out" / "train" / "000000.pth", weights_only=True)
    assert all(torch.equal(exported[name], state[name]) and exported[name].dtype == dtype for name in state)


def test_source_of_and_label_from_functions(tmp_path):
    for name in ("3_a_v0", "3_a_v1", "5_b_v0"):
        torch.save(networks(1).state_dict(), tmp_path / f"{name}.pth")
    zoo = import_state_dicts(
        tmp_path,
        tmp_path / "zoo",
        splits={"train": ["3_a_v0.pth", "5_b_v0.pth", "3_a_v1.pth"]},
        source_of=lambda path: path.split("_")[1],
        label_from=lambda path: int(path[0]),
    )
    assert zoo.sources("train").tolist() == [0, 1, 0]
    assert zoo.views("train").tolist() == [0, 0, 1]
    assert zoo.labels("train").tolist() == [3, 5, 3]
    assert zoo.num_views == 2
    with pytest.raises(ValueError, match="expected no source in two splits"):
        import_state_dicts(
            tmp_path,
            tmp_path / "leak",
            splits={"train": ["3_a_v0.pth"], "test": ["3_a_v1.pth"]},
            source_of=lambda path: path.split("_")[1],
        )
    assert not (tmp_path / "leak").exists()


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_file_that_holds_code_is_not_run(tmp_path):
    corpus(tmp_path / "in")
    bad, target = tmp_path / "in" / "inrs" / "val_1" / "model_final.pth", tmp_path / "hacked"
    torch.save({**networks(1).state_dict(), "extra": Payload(str(target))}, bad)
    with pytest.raises(ValueError, match=r"val_1/model_final.pth: expected a state dict of plain tensors, got .* code"):
        import_state_dicts(tmp_path / "in", tmp_path / "zoo")
    assert not target.exists()
    assert not (tmp_path / "zoo").exists()
    torch.load(bad, weights_only=False)  # the file would do harm: the test can fail
    assert target.exists()


def rename(state):
    return {"other" + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "seq.1.bias"}, r"missing \['seq.1.bias'\], extra \[\]"),
        (lambda state: {**state, "epoch": 3}, r"missing \[\], extra \['epoch'\]"),
        (rename, r"missing \['seq.0.weight', "),
        (lambda state: {**state, "seq.0.bias": torch.zeros(9)}, r"'seq.0.bias': expected shape \[8\], got \[9\]"),
        (lambda state: {**state, "seq.0.bias": 1.0}, r"'seq.0.bias': expected shape \[8\], got float"),
        (lambda state: {k: v.double() for k, v in state.items()}, "expected torch.float32 as zoos hold"),
        (lambda state: [state], "expected a state dict, names to tensors, got list"),
    ],
)
def test_other_keys_and_shapes_are_refused_with_the_file(tmp_path, change, match):
    corpus(tmp_path / "in")
    bad = tmp_path / "in" / "inrs" / "val_1" / "model_final.pth"
    torch.save(change(torch.load(bad, weights_only=True)), bad)
    with pytest.raises(ValueError, match=r"val_1/model_final.pth.*" + match):
        import_state_dicts(tmp_path / "in", tmp_path / "zoo")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("keep", [0, 40, -30])
def test_damaged_files_are_refused_with_the_file(tmp_path, keep):
    corpus(tmp_path / "in")
    bad = tmp_path / "in" / "inrs" / "val_1" / "model_final.pth"
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"val_1/model_final.pth: expected"):
        import_state_dicts(tmp_path / "in", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_spec_by_order_and_by_name(tmp_path):
    state = networks(1).state_dict()
    named = {"net.a.bias": "0.bias", "net.a.weight": "0.weight", "b.weight": "1.weight", "b.bias": "1.bias"}
    named |= {"head.weight": "2.weight", "head.bias": "2.bias"}
    torch.save({key: state[name] for key, name in named.items()}, tmp_path / "a.pth")
    torch.save(dict(reversed(list(state.items()))), tmp_path / "b.pth")
    by_order = import_state_dicts(tmp_path, tmp_path / "x", splits={"train": ["a.pth"]})
    assert by_order.provenance["state_dicts"]["keys"] == {name: key for key, name in named.items()}
    by_name = import_state_dicts(tmp_path, tmp_path / "y", splits={"train": ["b.pth"]}, spec=SPEC)
    for zoo in (by_order, by_name):
        assert torch.equal(zoo.weights("train").flat, networks(1).flat)
    with pytest.raises(ValueError, match=r"b.pth: expected the layers of a SIREN in order.*pass spec="):
        import_state_dicts(tmp_path, tmp_path / "z", splits={"train": ["b.pth"]})
    with pytest.raises(ValueError, match=r"a.pth: expected 4 parameters .*pass the spec of these networks"):
        import_state_dicts(tmp_path, tmp_path / "z", splits={"train": ["a.pth"]}, spec=ws.siren(2, 8, 1))


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        ({}, "expected at least one file in some split"),
        ({"train": []}, "expected at least one file in some split"),
        ({"train": "a.pth"}, "split 'train': expected a list of paths"),
        ({"train": {"label": [1]}}, "split 'train': expected a list of paths"),
        ({"train": {"path": ["a.pth"], "label": [1, 2]}}, "expected a 'label' for each of 1 paths, got 2"),
        ({"train": {"path": ["a.pth"], "label": ["boot"]}}, r"a.pth: expected an integer label, got 'boot'"),
        ({"train": {"path": ["a.pth"], "label": [0.5]}}, r"a.pth: expected an integer label, got 0.5"),
        ({"train": {"path": ["a.pth"], "label": [2**70]}}, r"a.pth: expected an integer label, got 1180"),
        ({"train": {"path": ["a.pth"], "psnr": ["x"]}}, "'psnr' of 'a.pth': expected a number of dB, .*got 'x'"),
        ({"train": {"path": ["a.pth"], "psnr": ["30"]}}, "'psnr' of 'a.pth': expected a number of dB, .*got '30'"),
        ({"train": {"path": ["a.pth"], "source": ["x"]}}, "'source' of 'a.pth': expected an integer, got 'x'"),
        ({"train": {"path": ["a.pth"], "source": [None]}}, "'source' of 'a.pth': expected an integer, got None"),
        ({"train": {"path": ["a.pth"], "source": [0.5]}}, "'source' of 'a.pth': expected an integer, got 0.5"),
        ({"train": {"path": ["a.pth"], "source": [0], "view": [-1]}}, "expected an integer of zero or more, got -1"),
        ({"train": ["b.pth"]}, "b.pth: no such file, nor any end of that path"),
        ({"train": ["a.pth"], "test": ["/elsewhere/a.pth"]}, "expected each file once, got .*a.pth"),
        ("lists.json", r"lists.json: expected a splits.json, got none \(No such file"),
        ("a.pth", "a.pth: expected JSON, got something else"),
    ],
)
def test_splits_refused(tmp_path, splits, match):
    torch.save(networks(1).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=match):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits=splits)
    assert not (tmp_path / "zoo").exists()


def test_label_from_refused(tmp_path):
    torch.save(networks(1).state_dict(), tmp_path / "a.pth")
    for label_from, match in {
        "file": r"a.pth: expected the key 'label' beside the parameters",
        "splits": "split 'train': expected a list 'label' beside 'path'",
        "name": "label_from: expected 'auto', 'splits', 'file' or a function, got 'name'",
    }.items():
        with pytest.raises(ValueError, match=match):
            import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, label_from=label_from)


def test_export_refuses_a_folder_in_use_and_leaves_nothing_when_it_fails(tmp_path, monkeypatch):
    zoo = write_zoo(tmp_path / "zoo", {"train": ws.Networks(networks(2))})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"got one that holds 'notes.txt'"):
        export_state_dicts(zoo, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            export_state_dicts(zoo, tmp_path / "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "zoo"]
