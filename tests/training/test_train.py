"""The training loop: it learns, repeats, resumes, and keeps its splits apart."""

from __future__ import annotations

import copy
import json
import math
import random
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers import write_small_zoo
from torch import Tensor

import weightspace as ws
from weightspace.models import MLP
from weightspace.training import Classification, TrainConfig
from weightspace.training._config import schedule
from weightspace.training._run import Run, score
from weightspace.training._train import parts_of
from weightspace.transforms import GaussianNoise, MixUp, PositiveScale, RandomApply, Rotate, Transform
from weightspace.zoo import Zoo, write_zoo

SPEC = ws.siren(2, 4, 1)
FAST = TrainConfig(epochs=4, batch_size=16, lr=1e-2)


def synthetic(path: Path, *, views: int = 2, sources: int = 60, seed: int = 0, val: bool = False) -> Zoo:
    """Networks whose mean tells their class; the first scalar is their source, the second their view."""
    generator = torch.Generator().manual_seed(seed)

    def split(first: int, count: int) -> ws.Networks:
        source = torch.arange(first, first + count).repeat_interleave(views)
        view, label = torch.arange(views).repeat(count), source % 3
        flat = 0.8 * (label[:, None] - 1.0) + torch.randn(len(source), SPEC.num_params, generator=generator)
        flat[:, 0], flat[:, 1] = source.float(), view.float()
        return ws.Networks(ws.Weights(flat, SPEC), label, source, view)

    splits = {"train": split(0, sources), "test": split(sources, 20)}
    if val:
        splits["val"] = split(sources + 20, 15)
    return write_zoo(path, splits, classes=("a", "b", "c"))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return synthetic(tmp_path_factory.mktemp("train") / "zoo")


@pytest.fixture(scope="module")
def image_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """SIRENs of trousers, sandals and bags at 7 x 7 pixels."""
    embedded, kept = ws.datasets.embedded(), [1, 5, 8]
    index = np.concatenate(
        [
            embedded.splits[name][np.flatnonzero(embedded.labels[embedded.splits[name]] == label)[:count]]
            for name, count in (("train", 100), ("test", 40))
            for label in kept
        ]
    )
    small = embedded.images[index].astype(np.float32).reshape(-1, 7, 4, 7, 4).mean((2, 4)) / 255
    splits = {"train": np.arange(300), "test": np.arange(300, 420)}
    data = ws.signals.ImageSet(small, np.searchsorted(kept, embedded.labels[index]), splits=splits)
    spec, config = ws.siren(2, 8, 8, 1, omega=10.0), ws.FitConfig(steps=80, lr=1e-2)
    return ws.fit_zoo(tmp_path_factory.mktemp("images") / "zoo", data, spec, config=config)


def mlp(dropout: float = 0.0, seed: int = 0) -> MLP:
    return MLP(SPEC, out_features=3, hidden=16, layers=1, dropout=dropout, seed=seed)


class Watched(MLP):
    """Notes which networks it sees, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__(SPEC, 3, hidden=8, layers=1)
        self.seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def forward(self, weights: ws.Weights) -> Tensor:
        self.seen[self.training].append(weights.flat[:, :2].clone())
        out = super().forward(weights)
        assert isinstance(out, Tensor)
        return out

    def sources(self, training: bool) -> list[int]:
        return torch.cat(self.seen[training])[:, 0].long().tolist()


def without_time(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in history]


# --- learning


def test_learns_real_images(image_zoo: Zoo) -> None:
    model = ws.models.DWSNet(image_zoo.spec, out_features=3, hidden=8, layers=2, seed=0)
    result = ws.train(model, image_zoo, epochs=15, batch_size=32, lr=5e-3)
    assert result.test is not None
    assert result.test > 0.5, "chance is 0.33 with a standard error of 0.04"
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize(
    ("height", "rotation"), [(16, "Rotate(degrees=15.0, size=(16, 48))"), (48, "Rotate(degrees=15.0)")]
)
def test_named_rotations_know_the_size_of_the_pictures(tmp_path: Path, height: int, rotation: str) -> None:
    zoo = write_small_zoo(tmp_path / "zoo", ws.siren(2, 4, 1), provenance={"height": height, "width": 48})
    for name, end in (("rotate", ""), ("noise+rotate", "])")):
        ws.train(MLP(zoo.spec, 3, hidden=4, seed=0), zoo, epochs=1, transform=name, run_dir=tmp_path / name)
        assert json.loads((tmp_path / name / "result.json").read_text())["transform"].endswith(rotation + end)


def test_rotations_that_shear_are_warned_of(tmp_path: Path) -> None:
    zoo = write_small_zoo(tmp_path / "zoo", ws.siren(2, 4, 1), provenance={"height": 16, "width": 48})
    model = MLP(zoo.spec, 3, hidden=4, seed=0)
    for transform in (Rotate(15.0), RandomApply(Rotate(15.0))):
        with pytest.warns(UserWarning, match="expected rotations of pictures of 16x48, got .* which shears them"):
            ws.train(model, zoo, epochs=1, transform=transform)
    ws.train(model, zoo, epochs=1, transform=Rotate(15.0, size=(16, 48)))


def test_learns_nothing_from_shuffled_labels(zoo: Zoo, tmp_path: Path) -> None:
    shuffled = {}
    for split in zoo.splits:
        order = torch.randperm(zoo.count(split), generator=torch.Generator().manual_seed(1))
        shuffled[split] = zoo[split].replace(label=zoo.labels(split)[order])
    other = write_zoo(tmp_path / "zoo", shuffled)
    true, false = (ws.train(mlp(), data, config=FAST, epochs=10).test for data in (zoo, other))
    assert true is not None
    assert false is not None
    assert true > 0.8
    assert false < 0.6


def test_mixed_labels_train(zoo: Zoo) -> None:
    targets: list[Tensor] = []

    class Noting(Classification):
        def __call__(self, model, networks, targets_, *, generator):
            if model.training:
                targets.append(targets_)
            return super().__call__(model, networks, targets_, generator=generator)

    result = ws.train(mlp(), zoo, transform=MixUp("permutation"), objective=Noting(3), config=FAST, epochs=10)
    mixed = torch.cat(targets)
    assert torch.allclose(mixed.sum(1), torch.ones(len(mixed)), atol=1e-5)
    assert ((mixed > 0).sum(1) == 2).float().mean() > 0.3
    assert result.test is not None
    assert result.test > 0.6


# --- randomness


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_seed_same_result(zoo: Zoo, dropout: float) -> None:
    runs = []
    for seed in (0, 0, 1):
        model = mlp(dropout)
        result = ws.train(model, zoo, transform=GaussianNoise(0.1), config=FAST, seed=seed)
        runs.append((without_time(result.history), result.test, model.state_dict()))
    assert runs[0][:2] == runs[1][:2]
    assert all(torch.equal(value, runs[1][2][name]) for name, value in runs[0][2].items())
    assert runs[0][0] != runs[2][0]


def test_dropout_masks_differ_between_epochs_and_seeds(zoo: Zoo) -> None:
    masks: dict[int, list[Tensor]] = {0: [], 1: []}
    for seed, noted in masks.items():
        model = mlp(0.5)
        dropout = next(module for module in model.modules() if isinstance(module, torch.nn.Dropout))
        dropout.register_forward_hook(
            lambda module, given, out, noted=noted: noted.append(out[0] == 0) if module.training else None
        )
        ws.train(model, zoo, config=FAST, epochs=2, lr=1e-9, batch_size=200, seed=seed)
    assert len(masks[0]) == 2
    assert not torch.equal(masks[0][0], masks[0][1])
    assert not torch.equal(masks[0][0], masks[1][0])


def test_global_generators_are_left_alone(zoo: Zoo) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    ws.train(mlp(0.3), zoo, transform=MixUp("random"), config=FAST, epochs=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


# --- splits


def test_validation_is_held_out_by_source(zoo: Zoo) -> None:
    model = Watched()
    ws.train(model, zoo, epochs=6, batch_size=8, val_fraction=0.3)
    trained, evaluated = set(model.sources(True)), model.sources(False)
    test = set(zoo.sources("test").tolist())
    held = [source for source in evaluated if source not in test]
    assert set(held).isdisjoint(trained), "a view of a source in both splits"
    assert set(held) | trained == set(zoo.sources("train").tolist())
    assert all(held.count(source) == 2 * 6 for source in set(held)), "both views, every epoch"
    assert 8 <= len(set(held)) <= 28


def test_given_validation_split_is_used(tmp_path: Path) -> None:
    data, model = synthetic(tmp_path / "zoo", val=True), Watched()
    ws.train(model, data, epochs=1, batch_size=8)
    assert set(model.sources(True)) <= set(data.sources("train").tolist())
    assert set(model.sources(False)) == {*data.sources("val").tolist(), *data.sources("test").tolist()}


def test_test_split_is_read_once_and_last(zoo: Zoo) -> None:
    model = Watched()
    ws.train(model, zoo, epochs=5, batch_size=16)
    test = zoo.sources("test").tolist()
    evaluated = model.sources(False)
    assert sorted(evaluated[-len(test) :]) == sorted(test)
    assert set(evaluated[: -len(test)]).isdisjoint(test)


def test_validation_of_a_data_set_split_by_the_library(tmp_path: Path) -> None:
    """The hash that drew the test split must not draw the validation split again: nothing would be left of it."""
    sources = np.arange(400)
    images = ws.signals.ImageSet(np.zeros((400, 2, 2), np.uint8), sources % 2).with_split(0.2)
    train = torch.as_tensor(images.split("train").sources)

    weights = ws.Weights(torch.zeros(len(train), SPEC.num_params), SPEC)
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(weights, label=train % 2, source=train))
    parts = parts_of(zoo, TrainConfig(), torch.device("cpu"), 0)
    assert 0.05 < len(parts["val"]) / len(train) < 0.16


def test_best_epoch_is_restored(zoo: Zoo) -> None:
    class Peaked(Classification):
        """Best in the second validation, whatever the model does."""

        validations = 0

        def __call__(self, model, networks, targets, *, generator):
            loss, score = super().__call__(model, networks, targets, generator=generator)
            if model.training:
                return loss, score
            self.validations += 1
            return loss, torch.full((len(networks),), 0.9 if self.validations == 2 else 0.1 / self.validations)

    model, states = mlp(), []
    result = ws.train(
        model,
        zoo,
        objective=Peaked(3),
        config=FAST,
        on_epoch=lambda line: states.append({n: v.clone() for n, v in model.state_dict().items()}),
    )
    assert (result.best_epoch, len(states)) == (2, 4)
    assert result.val == pytest.approx(0.9)
    assert all(torch.equal(value, states[1][name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, states[3][name]) for name, value in model.state_dict().items())
    assert not model.training


def test_scores_are_those_of_the_restored_model(zoo: Zoo) -> None:
    model, config = mlp(), FAST
    result = ws.train(model, zoo, config=config)
    parts = parts_of(zoo, config, torch.device("cpu"), 0)
    assert score(model, parts["val"], Classification(3)) == result.val == max(line["val"] for line in result.history)
    assert score(model, parts["test"], Classification(3)) == result.test


def test_normalisation_is_of_the_training_part_alone(zoo: Zoo) -> None:
    model = mlp()
    ws.train(model, zoo, config=FAST, epochs=1)
    flat = zoo.weights("train").flat[parts_of(zoo, FAST, torch.device("cpu"), 0)["train"].rows]
    assert torch.allclose(model.normalize.mean, flat.mean(0), atol=1e-5)
    assert not torch.allclose(model.normalize.mean, zoo.weights("train").flat.mean(0), atol=1e-5)


def test_a_running_mean_is_validated_and_kept(zoo: Zoo) -> None:
    steps: list[dict[str, Tensor]] = []

    class Noting(Classification):
        """Keeps the state after every forward pass in training, and the one that was validated."""

        def __call__(self, model, networks, targets, *, generator):
            out = super().__call__(model, networks, targets, generator=generator)
            state = {name: value.detach().clone() for name, value in model.state_dict().items()}
            (steps if model.training else validated).append(state)
            return out

    sizes = {"hidden": 8, "channels": 6, "functions": 5, "rbfs": 0}
    model, validated = ws.models.build("forward-messages", zoo.spec, 3, **sizes), []
    plain = copy.deepcopy(model)
    result = ws.train(model, zoo, objective=Noting(3), config=FAST, ema=0.8)
    before = {**steps[0], **{n: v.clone() for n, v in plain.state_dict().items() if "running" in n}}
    again = ws.train(plain, zoo, config=FAST)
    assert [line["loss"] for line in result.history] == [line["loss"] for line in again.history]  # the same steps
    per_epoch, statistics = len(steps) // 4, {name for name in before if "running" in name}
    assert statistics
    mean = {name: value for name, value in before.items() if value.is_floating_point()}
    for i in range(len(steps) - 1):
        # Statistics have moved when a loss is asked for, parameters move after it.
        after = {name: steps[i if name in statistics else i + 1][name] for name in mean}
        decay = min(0.8, (1 + i) / (10 + i))
        mean = {name: decay * mean[name] + (1 - decay) * after[name] for name in mean}
        if (i + 1) % per_epoch == 0:
            found = validated[(i + 1) // per_epoch - 1]
            assert not [name for name in mean if not torch.allclose(mean[name], found[name], atol=1e-5)]
            assert not any(torch.equal(found[name], after[name]) for name in statistics)
    best = validated[result.best_epoch - 1]
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, steps[-1][name]) for name, value in model.state_dict().items())


# --- on disk


def interrupted(zoo: Zoo, folder: Path, after: int, **options: object) -> None:
    def stop(line: dict[str, float]) -> None:
        if line["epoch"] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ws.train(mlp(0.2), zoo, transform=MixUp("random"), config=FAST, run_dir=folder, on_epoch=stop, **options)


@pytest.mark.parametrize(
    ("after", "options"), [(1, {}), (3, {}), (2, {"ema": 0.9}), (2, {"epoch_steps": 11, "share": 0.5})]
)
def test_resumed_run_equals_an_uninterrupted_one(zoo: Zoo, tmp_path: Path, after: int, options: dict) -> None:
    interrupted(zoo, tmp_path / "run", after, **options)
    epochs, resumed, whole = [], mlp(0.2, seed=9), mlp(0.2)  # a resumed model starts from anything
    second = ws.train(
        resumed,
        zoo,
        transform=MixUp("random"),
        config=FAST,
        run_dir=tmp_path / "run",
        on_epoch=lambda line: epochs.append(line["epoch"]),
        **options,
    )
    first = ws.train(whole, zoo, transform=MixUp("random"), config=FAST, **options)
    assert epochs == list(range(after + 1, 5))
    assert without_time(second.history) == without_time(first.history)
    assert (second.best_epoch, second.val, second.test) == (first.best_epoch, first.val, first.test)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_a_run_folder_of_version_0_1_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match=r"expected a run of format 2, got one of version 0\.1\.0; finish it with that"
    ):
        ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 3}))
    with pytest.raises(ValueError, match=r"run.json: expected a run of format 2, got 3; use another folder"):
        ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path)
    for bad in ("{", "[" * 100_000):
        (tmp_path / "run.json").write_text(bad)
        with pytest.raises(ValueError, match=r"run.json: expected a run's description in JSON"):
            ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path)


def test_finished_run_is_read_back(zoo: Zoo, tmp_path: Path) -> None:
    first = ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path)
    again = ws.train(mlp(seed=5), zoo, config=FAST, run_dir=tmp_path, on_epoch=lambda line: pytest.fail("trained"))
    assert asdict(again) == asdict(first)


def test_result_file_is_complete(zoo: Zoo, tmp_path: Path) -> None:
    model = mlp()
    result = ws.train(model, zoo, transform=GaussianNoise(0.1), config=FAST, run_dir=tmp_path / "a" / "run")
    written = json.loads((tmp_path / "a" / "run" / "result.json").read_text())
    assert {name: written[name] for name in asdict(result)} == asdict(result)
    assert written["config"] == asdict(FAST)
    assert written["model"] == "MLP"
    assert written["transform"] == "GaussianNoise(std=0.1)"
    assert written["parameters"] == model.num_parameters
    assert ws.NetSpec.from_json(written["spec"]) == zoo.spec
    assert [set(line) for line in written["history"]] == [{"epoch", "loss", "lr", "train", "val", "seconds"}] * 4
    assert str(tmp_path) not in json.dumps(written)
    names = {path.name for path in (tmp_path / "a" / "run").iterdir()}
    assert names == {"run.json", "last.ckpt", "logs", "model.json", "model.safetensors", "result.json"}


def test_the_folder_of_a_run_opens_as_a_model(zoo: Zoo, tmp_path: Path) -> None:
    model = mlp()
    ws.train(model, zoo, config=FAST, run_dir=tmp_path)
    weights = zoo.weights("test")
    assert torch.equal(ws.models.load_model(tmp_path).eval()(weights), model(weights))


def test_a_model_without_a_name_leaves_its_weights(zoo: Zoo, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    class Local(MLP):
        """A class that no import path leads to."""

    model = Local(SPEC, 3, hidden=8, layers=1, seed=0)
    ws.train(model, zoo, config=FAST, epochs=1, run_dir=tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())


def test_training_without_tensorboard_writes_no_logs(zoo: Zoo, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    ws.train(mlp(), zoo, config=FAST, epochs=1, run_dir=tmp_path)
    assert (tmp_path / "result.json").exists()
    assert not (tmp_path / "logs").exists()


def test_tensorboard_logs_every_epoch_once(zoo: Zoo, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(zoo, tmp_path, 2)
    time.sleep(1.1)  # TensorBoard orders its files by the second they were begun in
    result = ws.train(mlp(0.2), zoo, transform=MixUp("random"), config=FAST, run_dir=tmp_path)
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "train", "val"}
    assert [event.step for event in events.Scalars("val")] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([line["loss"] for line in result.history])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lr": 0.5}, r"expected config \{'lr': 0.5\}, got \{'lr': 0.01\}"),
        ({"epochs": 9}, r"expected config \{'epochs': 9\}, got \{'epochs': 4\}"),
        ({"transform": GaussianNoise(0.2)}, "expected transform GaussianNoise"),
        ({"model": "wide"}, "expected options"),
        ({"zoo": "other"}, "expected zoo"),
    ],
)
def test_folder_of_another_run_is_refused(zoo: Zoo, tmp_path: Path, change: dict, text: str) -> None:
    interrupted(zoo, tmp_path / "run", 1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    options = {"transform": MixUp("random"), **change}
    model = MLP(SPEC, 3, hidden=17, layers=1) if options.pop("model", None) else mlp(0.2)
    data = synthetic(tmp_path / "zoo", seed=1) if options.pop("zoo", None) else zoo
    with pytest.raises(ValueError, match=f"holds another run: {text}.*; use another folder or remove it"):
        ws.train(model, data, config=FAST, run_dir=tmp_path / "run", **options)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_options_that_change_no_shape_are_another_run_too(zoo: Zoo, tmp_path: Path) -> None:
    def attention(heads: int) -> ws.models.Model:
        return ws.models.build("dwsnet", zoo.spec, 3, hidden=4, layers=1, attention=heads)

    assert attention(2).num_parameters == attention(4).num_parameters
    ws.train(attention(2), zoo, config=FAST, epochs=1, run_dir=tmp_path)
    with pytest.raises(ValueError, match=r"expected options \{'attention': '4'\}, got \{'attention': '2'\}"):
        ws.train(attention(4), zoo, config=FAST, epochs=1, run_dir=tmp_path)


def test_every_member_of_an_ensemble_is_normalised(zoo: Zoo) -> None:
    members = [ws.models.build("dwsnet", zoo.spec, 3, hidden=4, layers=1) for _ in range(2)]
    ws.train(ws.models.Ensemble(members), zoo, config=FAST, epochs=1)
    assert torch.equal(members[0].normalize.mean, members[1].normalize.mean)
    assert members[1].normalize.fitted


def test_damaged_checkpoints_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    interrupted(zoo, tmp_path, 2)
    whole = (tmp_path / "last.ckpt").read_bytes()
    middle = len(whole) // 2
    damaged = [
        b"not a checkpoint",
        whole[:middle],
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        whole + b"x",
        b"",
    ]
    for content in damaged:
        (tmp_path / "last.ckpt").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"last.ckpt: expected a whole checkpoint of this library, got a damaged one"
        ):
            ws.train(mlp(0.2), zoo, transform=MixUp("random"), config=FAST, run_dir=tmp_path)


def test_a_folder_that_cannot_be_written_is_found_before_the_training(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"could not write|Not a directory|File exists"):
        ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path / "file", on_epoch=lambda line: pytest.fail("trained"))


def test_full_disk_leaves_the_last_checkpoint(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weightspace import _files

    interrupted(zoo, tmp_path, 2)
    before = (tmp_path / "last.ckpt").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", full)
        with pytest.raises(OSError, match=r"could not write .*last.ckpt .*: No space left on device"):
            ws.train(mlp(0.2), zoo, transform=MixUp("random"), config=FAST, run_dir=tmp_path)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "last.ckpt", "logs"}
    assert ws.train(mlp(0.2), zoo, transform=MixUp("random"), config=FAST, run_dir=tmp_path).best_epoch


# --- bad input


class Untouchable(Zoo):
    """A zoo whose networks nobody reads."""

    def batches(self, *arguments, **options):
        raise AssertionError("read the weights")


def test_transform_that_does_not_fit_is_refused_before_any_work(zoo: Zoo, tmp_path: Path) -> None:
    guarded = Untouchable(zoo.path, zoo._manifest, zoo._columns)
    with pytest.raises(ValueError, match=r"PositiveScale.*expected activations that commute with positive factors"):
        ws.train(mlp(), guarded, transform=PositiveScale(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(AssertionError, match="read the weights"):  # the guard is no dead letter
        ws.train(mlp(), guarded)


def test_composition_that_does_not_fit_is_refused(zoo: Zoo) -> None:
    stages: list[Transform] = [GaussianNoise(0.1), PositiveScale()]
    with pytest.raises(ValueError, match="positive factors"):
        ws.train(mlp(), zoo, transform=ws.transforms.Compose(stages))


@pytest.mark.parametrize("missing", [1, 12])
def test_unlabelled_networks_are_refused(tmp_path: Path, missing: int) -> None:
    labels = torch.zeros(12, dtype=torch.int64)
    labels[:missing] = -1
    weights = ws.Weights(torch.randn(12, SPEC.num_params), SPEC)
    data = write_zoo(tmp_path / "zoo", {"train": ws.Networks(weights, label=labels)})
    with pytest.raises(ValueError, match=f"expected a zoo with labels, got {missing} of 12 networks without"):
        ws.train(mlp(), data, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_model_of_another_spec_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="the model is built for"):
        ws.train(MLP(ws.siren(2, 5, 1), 3), zoo)


def test_model_with_other_outputs_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match=r"expected outputs \[16, 3\].*got \[16, 7\].*out_features=3"):
        ws.train(MLP(SPEC, 7), zoo, config=FAST)


def test_equivariant_head_is_refused(zoo: Zoo) -> None:
    model = ws.models.DWSNet(SPEC, out_features=1, hidden=4, layers=1, head="equivariant")
    with pytest.raises(TypeError, match=r"expected a model with an invariant head, .* got Weights"):
        ws.train(model, zoo, config=FAST)


def test_zoo_without_training_split_is_refused(tmp_path: Path) -> None:
    weights = ws.Weights(torch.randn(12, SPEC.num_params), SPEC)
    data = write_zoo(tmp_path / "zoo", {"test": ws.Networks(weights, torch.arange(12) % 3)})
    with pytest.raises(ValueError, match=r"expected a zoo with a 'train' split, got \['test'\]"):
        ws.train(mlp(), data)


def test_empty_validation_is_refused(tmp_path: Path) -> None:
    weights = ws.Weights(torch.randn(12, SPEC.num_params), SPEC)
    data = write_zoo(tmp_path / "zoo", {"train": ws.Networks(weights, torch.arange(12) % 3)})
    with pytest.raises(ValueError, match="expected networks in the 'val' split, got none of 12; change val_fraction"):
        ws.train(mlp(), data, val_fraction=1e-9)


def trained_on(zoo: Zoo, **options: Any) -> ws.Networks:
    return zoo["train"][parts_of(zoo, replace(FAST, **options), torch.device("cpu"), 2**30)["train"].rows]


def test_a_share_of_the_sources_holds_smaller_ones_with_all_their_views(tmp_path: Path) -> None:
    zoo = synthetic(tmp_path / "zoo", val=True, sources=200)
    shares = [{*trained_on(zoo, share=share).source.tolist()} for share in (0.1, 0.3, 1.0)]
    assert shares[0] < shares[1] < shares[2] == {*range(200)}
    assert 8 <= len(shares[0]) <= 34
    found = trained_on(zoo, share=0.3)
    assert sorted(found.source.tolist()) == sorted(2 * [*shares[1]])
    held = synthetic(tmp_path / "held")  # its validation split is drawn from what trains
    parts = parts_of(held, replace(FAST, share=0.5), torch.device("cpu"), 2**30)
    val = held["train"][parts["val"].rows].source
    assert not {*val.tolist()} & {*held["train"][parts["train"].rows].source.tolist()}
    whole = parts_of(held, FAST, torch.device("cpu"), 2**30)
    assert val.equal(held["train"][whole["val"].rows].source)


def test_the_first_views_train(tmp_path: Path) -> None:
    zoo = synthetic(tmp_path / "zoo", val=True, views=3)
    assert [trained_on(zoo, views=n).view.unique().tolist() for n in (1, 2, 3)] == [[0], [0, 1], [0, 1, 2]]
    with pytest.raises(ValueError, match="views: expected at most the 3 of the split 'train', got 4; add views, or"):
        trained_on(zoo, views=4)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_an_epoch_of_so_many_steps(tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven steps: many passes over a tenth of the networks, or a half of one over all."""
    zoo, seen, own = synthetic(tmp_path / "zoo", val=True, sources=120), [], Run._batches
    monkeypatch.setattr(Run, "_batches", lambda run: (seen.append(b.source) or b for b in own(run)))
    result = ws.train(mlp(), zoo, config=replace(FAST, epochs=3), share=share, epoch_steps=7)
    assert len(seen) == 3 * 7
    chosen = {*trained_on(zoo, share=share).source.tolist()}
    each = [torch.cat(seen[7 * epoch : 7 * epoch + 7]).tolist() for epoch in range(3)]
    assert ({*each[0]} == chosen) == (share < 1)
    assert {*each[0]} <= chosen
    assert each[0] != each[1]
    assert [line["lr"] for line in result.history] == pytest.approx(
        [FAST.lr * schedule(7 * epoch, 21, FAST.warmup) for epoch in range(3)]
    )


def test_a_run_begun_before_a_setting_existed_goes_on(zoo: Zoo, tmp_path: Path) -> None:
    ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path)
    before = json.loads((tmp_path / "run.json").read_text())
    for name in ("share", "views", "epoch_steps"):
        del before["config"][name]
    (tmp_path / "run.json").write_text(json.dumps(before))
    assert ws.train(mlp(), zoo, config=FAST, run_dir=tmp_path).best_epoch > 0
    with pytest.raises(ValueError, match="holds another run"):
        ws.train(mlp(), zoo, config=replace(FAST, views=1), run_dir=tmp_path)


def test_loss_that_is_not_finite_ends_the_run(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"expected a finite loss, got nan in epoch 1; lower lr"):
        ws.train(mlp(), zoo, config=FAST, lr=1e30, clip=None, warmup=0.0, run_dir=tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"lr": math.nan}, "lr: expected a positive number"),
        ({"lr": -1.0}, "lr: expected a positive number"),
        ({"warmup": 1.0}, r"warmup in \[0, 1\)"),
        ({"val_fraction": 0.0}, r"val_fraction in \(0, 1\)"),
        ({"clip": 0.0}, "clip > 0"),
        ({"weight_decay": -1.0}, "weight_decay >= 0"),
        ({"seed": -1}, "seed >= 0"),
    ],
)
def test_configuration_out_of_range(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TrainConfig(**options)


def test_unknown_option_is_refused(zoo: Zoo) -> None:
    with pytest.raises(TypeError, match="epoch"):
        ws.train(mlp(), zoo, epoch=3)


# --- pieces


def test_schedule_rises_then_falls_to_zero() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(101)]
    assert factors[9] == factors[10] == max(factors) == 1.0
    assert all(a < b for a, b in pairwise(factors[:10]))
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.0, abs=1e-12)
    assert schedule(0, 1, 0.0) == 1.0


def test_the_first_step_has_the_size_of_the_warm_up(zoo: Zoo) -> None:
    result = ws.train(mlp(), zoo, config=FAST, epochs=8, warmup=0.5)
    rates = [line["lr"] for line in result.history]
    assert rates[0] < rates[3] <= 1e-2
    assert rates[-1] < rates[5]


def test_classification_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        Classification(1)


# --- one epoch, wherever the zoo is


@pytest.mark.parametrize("transform", [None, MixUp("random")])
def test_a_zoo_read_from_files_trains_as_one_in_memory(tmp_path: Path, transform: Transform | None) -> None:
    synthetic(tmp_path / "whole")
    cut = write_zoo(
        tmp_path / "cut", {name: Zoo.open(tmp_path / "whole")[name] for name in ("train", "test")}, shard_size=17
    )
    results = []
    for resident_bytes in (0, 10**9):
        model = mlp(0.2)
        zoo = Zoo.open(cut.path)
        result = ws.train(model, zoo, transform=transform, config=FAST, resident_bytes=resident_bytes)
        results.append((without_time(result.history), result.test, model.state_dict()))
    assert results[0][:2] == results[1][:2]
    assert all(torch.equal(value, results[1][2][name]) for name, value in results[0][2].items())


# --- names and types


def test_names_stand_for_transforms_and_objectives(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = ws.train(mlp(), zoo, transform="noise", objective="classification", config=FAST)
    given = ws.train(mlp(), zoo, transform=ws.transforms.augmentation("noise"), config=FAST)
    assert without_time(named.history) == without_time(given.history)
    with pytest.raises(ValueError, match=r"unknown objective: expected one of .*classification.*got 'clasification'"):
        ws.train(mlp(), zoo, objective="clasification", config=FAST)
    (tmp_path / "their_objectives.py").write_text(
        "from weightspace.training import Classification\n"
        "class Doubled(Classification):\n"
        "    def __call__(self, model, networks, targets, *, generator):\n"
        "        loss, score = super().__call__(model, networks, targets, generator=generator)\n"
        "        return 2 * loss, score\n"
    )
    monkeypatch.chdir(tmp_path)
    plain, doubled = (
        ws.train(mlp(), zoo, objective=name, config=FAST, epochs=1, lr=1e-9).history[0]["loss"]
        for name in (None, "their_objectives:Doubled")
    )
    assert doubled == pytest.approx(2 * plain, rel=1e-5)
    sys.modules.pop("their_objectives")


def test_arguments_in_another_order_are_named(zoo: Zoo) -> None:
    with pytest.raises(
        TypeError, match=r"model: expected a model on weights, got Zoo; the order is ws.train\(model, zoo"
    ):
        ws.train(zoo, mlp())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"zoo: expected a Zoo, got str; open one with ws.Zoo.open"):
        ws.train(mlp(), "zoo")  # type: ignore[arg-type]


def test_real_labels_are_learned_by_regression(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(300, SPEC.num_params, generator=generator)
    label = 10 + 3 * flat[:, :4].sum(1)
    zoo = write_zoo(tmp_path / "zoo", train=ws.Networks(ws.Weights(flat, SPEC), label=label))
    assert zoo.labels("train").dtype == torch.float32
    result = ws.train(MLP(SPEC, 1, hidden=32, layers=1, seed=0), zoo, objective="regression", epochs=60, batch_size=16)
    spread = float((label - label.mean()).abs().mean())
    assert -result.val < 0.5 * spread
    with pytest.raises(ValueError, match="got real-valued labels; train with objective='regression'"):
        ws.train(mlp(), zoo)


def test_the_text_of_a_result_is_one_line(zoo: Zoo) -> None:
    text = repr(ws.train(mlp(), zoo, config=FAST, epochs=2))
    assert text.startswith("TrainResult(best_epoch=")
    assert len(text) < 120
