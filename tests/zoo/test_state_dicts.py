"""Folders of state dicts into zoos and back, as the released corpora have them; and what is refused."""

import json
import os
import warnings

import pytest
import torch

import weightspace as ws
from weightspace.zoo import Zoo, export_state_dicts, import_state_dicts, verify, write_zoo
from weightspace.zoo._layer_order import in_layer_order

SPEC = ws.siren(2, 8, 8, 1, omega=30.0, output_shift=0.5)
KNOWN = {"activation": "sine", "omega": 30.0, "output_shift": 0.5}
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
    with pytest.warns(UserWarning, match="nothing says what these networks compute"):
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
        (lambda body: [body], "expected format 'weightspace-state-dicts', version 1, .*got 'list'; pass spec="),
        (lambda body: {**body, "version": 2}, r"got .\('weightspace-state-dicts', 2\).; pass spec="),
        (lambda body: {"name": "a project"}, r"got '\(None, None\)'; pass spec="),
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
        with pytest.raises(
            ValueError, match=r"spec.json: .*" + ("in JSON, got something else.*; pass spec=" if text == "{" else match)
        ):
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
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=SPEC)
    assert torch.equal(zoo.weights("train").flat, networks(1).flat)


@pytest.mark.parametrize("splits", [[1], 1, None])
def test_splits_of_another_type(tmp_path, splits):
    with pytest.raises(TypeError, match=r"splits: expected a mapping, or the path of a JSON file, got \w+"):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits=splits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_was(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in networks(1).state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=SPEC)
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
        spec=SPEC,
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
            spec=SPEC,
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
    torch.save({key: state[name] for key, name in reversed(named.items())}, tmp_path / "c.pth")
    by_order = import_state_dicts(tmp_path, tmp_path / "x", splits={"train": ["a.pth"]}, **KNOWN)
    assert by_order.provenance["state_dicts"]["keys"] == {name: key for key, name in named.items()}
    by_name = import_state_dicts(tmp_path, tmp_path / "y", splits={"train": ["b.pth"]}, spec=SPEC)
    inferred = import_state_dicts(tmp_path, tmp_path / "i", splits={"train": ["b.pth"]}, **KNOWN)
    for zoo, how in ((by_order, "in the order of the file"), (by_name, "by name"), (inferred, "by name")):
        assert zoo.spec == SPEC
        assert torch.equal(zoo.weights("train").flat, networks(1).flat)
        assert zoo.summary()["imported"]["matched"] == how
    with pytest.raises(ValueError, match=r"c.pth: expected the layers of a SIREN in order.*pass spec="):
        import_state_dicts(tmp_path, tmp_path / "z", splits={"train": ["c.pth"]}, **KNOWN)
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
        ({"train": {"path": ["a.pth"], "label": ["boot"]}}, r"a.pth: expected a number as label, got 'boot'"),
        ({"train": {"path": ["a.pth"], "label": [float("nan")]}}, r"a.pth: expected a number as label, got nan"),
        ({"train": {"path": ["a.pth"], "label": ["inf"]}}, r"a.pth: expected a number as label, got 'inf'"),
        ({"train": {"path": ["a.pth"], "label": [[1]]}}, r"a.pth: expected a number as label, got \[1\]"),
        ({"train": {"path": ["a.pth"], "label": [1e39]}}, r"a.pth: expected a number as label, got 1e\+39"),
        ({"train": {"path": ["a.pth"], "label": [2**70]}}, r"a.pth: expected a number as label, got 1180"),
        ({"train": {"path": ["a.pth"], "labels": [3]}}, "further columns, got 'labels'; call it 'label'"),
        ({"train": {"path": ["a.pth"], "labels": None}}, "expected the lists 'path', 'label', .*, got 'labels'"),
        ({"train": {"path": ["a.pth"], "a/b": [1]}}, "split 'train': columns: expected names of letters, .* got 'a/b'"),
        ({"train": {"path": ["a.pth"], "lr": [[1]]}}, "column 'lr': expected one value for each of 1 networks"),
        ({"train": {"path": ["a.pth"], "lr": [1, 2]}}, "expected a 'lr' for each of 1 paths, got 2"),
        ({"train": {"path": ["a.pth"], "psnr": ["x"]}}, "'psnr' of 'a.pth': expected a number of dB, .*got 'x'"),
        ({"train": {"path": ["a.pth"], "psnr": ["30"]}}, "'psnr' of 'a.pth': expected a number of dB, .*got '30'"),
        ({"train": {"path": ["a.pth"], "source": ["x"]}}, "'source' of 'a.pth': expected an integer, got 'x'"),
        ({"train": {"path": ["a.pth"], "source": [None]}}, "'source' of 'a.pth': expected an integer, got None"),
        ({"train": {"path": ["a.pth"], "source": [0.5]}}, "'source' of 'a.pth': expected an integer, got 0.5"),
        ({"train": {"path": ["a.pth"], "source": [0], "view": [-1]}}, "expected an integer of zero or more, got -1"),
        ({"train": ["b.pth"]}, "b.pth: no such file, nor any end of that path"),
        ({"train": ["a.pth"], "test": ["/elsewhere/a.pth"]}, "expected each file once, got .*a.pth"),
        ("lists.json", r"lists.json: expected a splits.json, got none \(No such file"),
        ("a.pth", "a.pth: expected a listing of splits in JSON, got something else"),
    ],
)
def test_splits_refused(tmp_path, splits, match):
    torch.save(networks(1).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=match):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits=splits, spec=SPEC)
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


def save(folder, flat, spec, name="a.pth", change=lambda state: state):
    folder.mkdir(exist_ok=True)
    torch.save(change(ws.Weights(flat, spec).state_dict()), folder / name)


def test_layers_come_in_the_order_of_their_numbers(tmp_path):
    """Sorted keys, as safetensors and trees of JAX have them: hidden.10 before hidden.2."""
    spec = ws.siren(2, *[8] * 12, 1)
    flat = networks(1, spec=spec).flat
    names = [name for i in range(12) for name in (f"hidden.{i}.weight", f"hidden.{i}.bias")] + [
        "out.weight",
        "out.bias",
    ]
    own = [param.name for param in spec.params]

    def renamed(state, order):
        return {names[own.index(key)]: state[key] for key in order(own)}

    def by_name(keys):
        return sorted(keys, key=lambda key: names[own.index(key)])

    save(tmp_path, flat, spec, "a.pth", lambda state: renamed(state, by_name))
    save(tmp_path, flat, spec, "b.pth", lambda state: renamed(state, list))
    stored = list(torch.load(tmp_path / "a.pth", weights_only=True))
    assert stored == sorted(stored)
    assert stored.index("hidden.10.weight") < stored.index("hidden.2.weight")
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=spec)
    assert torch.equal(zoo.weights("train").flat, flat)
    imported = zoo.summary()["imported"]
    assert imported["matched"] == "by the numbers in the keys, which the file holds in another order"
    assert imported["keys"] == dict(zip(own, names, strict=True))
    again = import_state_dicts(tmp_path, tmp_path / "again", splits={"train": ["b.pth"]}, spec=spec)
    assert torch.equal(again.weights("train").flat, flat)
    assert again.summary()["imported"] == {**imported, "matched": "in the order of the file"}
    inferred = import_state_dicts(tmp_path, tmp_path / "i", splits={"train": ["a.pth"]}, **KNOWN)
    assert torch.equal(inferred.weights("train").flat, flat)


ORDERS = {
    "numbers": (["l.0.weight", "l.10.weight", "l.2.weight"], ["l.0.weight", "l.2.weight", "l.10.weight"]),
    "two levels": (
        ["net.0.linear.weight", "net.10.linear.weight", "net.11.weight", "net.2.linear.weight"],
        ["net.0.linear.weight", "net.2.linear.weight", "net.10.linear.weight", "net.11.weight"],
    ),
    "within the name": (["fc1.weight", "fc10.weight", "fc2.weight"], ["fc1.weight", "fc2.weight", "fc10.weight"]),
    "texts as met": (
        ["z.weight", "a.1.weight", "a.0.weight", "m.weight"],
        ["z.weight", "a.0.weight", "a.1.weight", "m.weight"],
    ),
    "zeros in front": (["l.010.weight", "l.009.weight"], ["l.009.weight", "l.010.weight"]),
    "numbers without end": ([f"l.{'9' * 6000}.weight", "l.2.weight"], ["l.2.weight", f"l.{'9' * 6000}.weight"]),
    "no layer": (["weight", "bias"], ["weight", "bias"]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_orders_of_layers(name, tmp_path):
    stored, expected = ORDERS[name]
    widths = {key: (place + 2, place + 3) for place, key in enumerate(expected)}
    state = {
        key: torch.zeros(widths[key][1]) if key.endswith("bias") else torch.zeros(*widths[key][::-1]) for key in stored
    }
    ordered, how = in_layer_order(state, tmp_path)
    assert ordered == expected
    assert (how == "in the order of the file") == (stored == expected)


@pytest.mark.parametrize(
    ("stored", "shapes", "match"),
    [
        (
            ["a.bias", "a.weight", "b.bias", "b.weight"],
            {"a": (4, 4), "b": (4, 4)},
            "'a' and 'b' might stand for one an",
        ),
        (["a.bias", "a.weight", "b.bias", "b.weight"], {"a": (4, 2), "b": (1, 4)}, None),
        (["a.weight", "a.bias", "b.weight", "b.bias"], {"a": (4, 4), "b": (4, 4)}, None),  # not the alphabet's order
        (
            ["f.0.x.weight", "f.0.y.weight", "f.1.x.weight", "f.1.y.weight"],
            {"f.0.x": (4, 4), "f.0.y": (4, 4), "f.1.x": (4, 4), "f.1.y": (4, 4)},
            r"'\.x' and '\.y' might stand",
        ),
        (["f.0.weight", "f.1.weight", "f.2.weight"], {"f.0": (4, 4), "f.1": (4, 4), "f.2": (4, 4)}, None),
    ],
)
def test_alphabetical_order_that_may_not_be_the_layers(tmp_path, stored, shapes, match):
    state = {key: torch.zeros(*shapes[key.rpartition(".")[0]][: 1 if key.endswith("bias") else 2]) for key in stored}
    if match is None:
        in_layer_order(state, tmp_path / "a.pth")
        return
    with pytest.raises(ValueError, match="a.pth: expected keys in the order of the layers, got them in alph.*" + match):
        in_layer_order(state, tmp_path / "a.pth")


def test_batch_norms_and_folded_layers_are_matched_by_their_keys(tmp_path):
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 2)),
    )
    spec = ws.spec_of(net, torch.zeros(1, 1, 8, 8))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=spec)
    assert torch.equal(zoo.weights("train").flat, ws.Weights.from_state_dicts([net.state_dict()], spec).flat)
    export_state_dicts(zoo, tmp_path / "out")
    exported = torch.load(tmp_path / "out" / "train" / "000000.pth", weights_only=True)
    expected = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    assert set(exported) == set(expected)
    assert all(torch.equal(exported[key], expected[key]) for key in expected)


def test_what_nobody_says_is_assumed_with_a_warning_and_recorded(tmp_path):
    save(tmp_path, networks(1).flat, SPEC, change=lambda state: {f"net.{key}": value for key, value in state.items()})
    match = (
        r"nothing says what these networks compute, so activation sine, omega 30.0, output_shift 0.5 is assumed; pass"
    )
    with pytest.warns(UserWarning, match=match):
        zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]})
    assert zoo.spec == SPEC
    assumed = {"activation": "sine", "omega": 30.0, "output_shift": 0.5, "by": "default"}
    assert zoo.provenance["assumed"] == zoo.summary()["imported"]["assumed"] == assumed
    with pytest.warns(UserWarning, match=r"so output_shift 0\.0 is assumed"):
        relu = import_state_dicts(tmp_path, tmp_path / "relu", splits={"train": ["a.pth"]}, activation="relu")
    assert relu.spec == ws.mlp(2, 8, 8, 1)
    assert relu.provenance["assumed"] == {"output_shift": 0.0, "by": "default"}
    said = {"activation": "tanh", "output_shift": 0.25}
    told = import_state_dicts(tmp_path, tmp_path / "said", splits={"train": ["a.pth"]}, **said)
    assert told.spec == ws.mlp(2, 8, 8, 1, activation="tanh", output_shift=0.25)
    assert "assumed" not in told.provenance
    assert told.summary()["imported"]["assumed"] == {}


def test_the_released_corpora_are_known_by_their_keys(tmp_path):
    corpus(tmp_path / "in")
    zoo = import_state_dicts(tmp_path / "in", tmp_path / "zoo")  # no warning
    assert zoo.spec == SPEC
    assert zoo.provenance["assumed"]["by"] == "keys as in the released corpora"


def test_a_spec_and_a_convention_together_are_refused(tmp_path):
    save(tmp_path, networks(1).flat, SPEC)
    with pytest.raises(
        ValueError, match="spec: expected either a spec or activation, omega and output_shift, got both"
    ):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, spec=SPEC, omega=30.0)
    with pytest.raises(ValueError, match=r"omega: expected none for activation 'relu', got 30\.0; leave it out"):
        import_state_dicts(tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, activation="relu", omega=30.0)
    with pytest.raises(ValueError, match="unknown activation: expected one of"):
        import_state_dicts(
            tmp_path, tmp_path / "zoo", splits={"train": ["a.pth"]}, activation="swish", output_shift=0.0
        )
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("place", ["splits", "file", "function"])
def test_real_labels(tmp_path, place):
    values = [0.5, 2, -1.25, 3.0]
    for number, value in enumerate(values):
        inside = {"label": torch.tensor(float(value))} if place == "file" else {}
        save(tmp_path, networks(1, number).flat, SPEC, f"{number}.pth", lambda state, own=inside: {**state, **own})
    paths = [f"{number}.pth" for number in range(4)]
    listing = {"train": {"path": paths[:3]}, "test": {"path": paths[3:]}}
    if place == "splits":
        listing["train"]["label"], listing["test"]["label"] = [0.5, "2", -1.25], [3]
    options = {"label_from": lambda path: values[int(path[0])]} if place == "function" else {}
    zoo = import_state_dicts(tmp_path, tmp_path / "zoo", splits=listing, spec=SPEC, **options)
    assert zoo.labels("train").dtype == zoo.labels("test").dtype == torch.float32
    assert zoo.labels("train").tolist() == [0.5, 2.0, -1.25]
    assert zoo.labels("test").tolist() == [3.0]
    assert verify(zoo) == []
    export_state_dicts(zoo, tmp_path / "out")
    again = import_state_dicts(tmp_path / "out", tmp_path / "again")
    assert all(torch.equal(again.labels(split), zoo.labels(split)) for split in zoo.splits)
    whole = write_zoo(tmp_path / "whole", train=ws.Networks(networks(2), label=[1.0, 2.0]))
    export_state_dicts(whole, tmp_path / "wholes")
    again = import_state_dicts(tmp_path / "wholes", tmp_path / "back")
    assert again.labels("train").dtype == torch.float32  # though no label has a fraction
    assert again.labels("train").tolist() == [1.0, 2.0]


def test_a_network_without_a_label_among_real_ones(tmp_path):
    for name in ("a.pth", "b.pth"):
        save(tmp_path, networks(1).flat, SPEC, name)
    match = "b.pth: expected a label, as the others are real-valued, got none; leave the file out"
    for listing in (
        {"train": {"path": ["a.pth", "b.pth"], "label": [0.5, None]}},
        {"train": {"path": ["a.pth"], "label": [0.5]}, "test": ["b.pth"]},
    ):
        with pytest.raises(ValueError, match=match):
            import_state_dicts(tmp_path, tmp_path / "zoo", splits=listing, spec=SPEC)


ALIKE = {
    "views": (["a_v0.pth", "b_v0.pth", "a_v1.pth"], None, ("a_v0.pth", "a_v1.pth")),
    "seeds in folders": (["seed0/a.pth", "seed0/b.pth", "seed1/a.pth"], None, ("seed0/a.pth", "seed1/a.pth")),
    "folders, one label": (["x/1.pth", "x/2.pth", "y/1.pth"], [0, 1, 0], ("x/1.pth", "y/1.pth")),
    "folders are classes": (["cat/1.pth", "cat/2.pth", "dog/1.pth"], [0, 0, 1], None),
    "all called alike": (["x/model_final.pth", "y/model_final.pth", "z/model_final.pth"], None, None),
    "numbers of networks": (["v0.pth", "v1.pth", "v2.pth"], None, None),
    "words with a v": (["v0lt.pth", "dev1ce.pth", "a.pth"], None, None),
}


@pytest.mark.parametrize("name", ALIKE)
def test_names_that_look_like_fits_of_one_signal(tmp_path, name):
    paths, labels, alike = ALIKE[name]
    for number, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        save(tmp_path, networks(1, number).flat, SPEC, path)
    entry = {"path": paths, **({} if labels is None else {"label": labels})}
    options = {"splits": {"train": entry}, "spec": SPEC}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        zoo = import_state_dicts(tmp_path, tmp_path / "zoo", **options)
    assert [str(own.message) for own in caught if "look like fits of one; pass source_of=" in str(own.message)] == [
        str(own.message) for own in caught
    ]
    assert bool(caught) == (alike is not None)
    if alike is not None:
        assert all(repr(path) in str(caught[0].message) for path in alike)
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match=r"two files that look like fits of one signal.*source_of="):
            ws.zoo.split(zoo, tmp_path / "split", {"train": 1.0})
    known = import_state_dicts(tmp_path, tmp_path / "known", **options, source_of=r"(\w+?)(?:_v\d)?\.pth$")
    ws.zoo.split(known, tmp_path / "again", {"train": 1.0})  # no warning


def test_sources_by_a_regular_expression(tmp_path):
    paths = ["img3_v0.pth", "img5_v0.pth", "img3_v1.pth"]
    for number, path in enumerate(paths):
        save(tmp_path, networks(1, number).flat, SPEC, path)
    options = {"splits": {"train": paths}, "spec": SPEC}
    for number, pattern in enumerate((r"img(\d+)", r"img\d+", r"(img)(\d+)")):
        zoo = import_state_dicts(tmp_path, tmp_path / f"zoo{number}", **options, source_of=pattern)
        assert zoo.sources("train").tolist() == [0, 1, 0]
        assert zoo.views("train").tolist() == [0, 0, 1]
    for pattern, match in {
        "dog": "expected 'dog' to match every path, got 'img3_v0.pth', which it does not",
        "(": r"source_of: expected a regular expression, got '\('",
    }.items():
        with pytest.raises(ValueError, match=match):
            import_state_dicts(tmp_path, tmp_path / "zoo", **options, source_of=pattern)
    with pytest.raises(TypeError, match="source_of: expected a function or a regular expression, got int"):
        import_state_dicts(tmp_path, tmp_path / "zoo", **options, source_of=3)
