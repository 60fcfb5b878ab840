"""Trained models at work: what a run keeps, predictions, scores on labels, and runs that are made longer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import labelled, networks, write_small_zoo

import weightspace as ws
from weightspace.models import build, load_model, save_model
from weightspace.training import evaluate_model, predict
from weightspace.training._config import schedule

SPEC = ws.siren(2, 4, 1)
FAST = {"batch_size": 16, "lr": 1e-2}


class Fixed(ws.models.WeightModel):
    """Says what it is asked to: the outputs are the first weights of each network."""

    def __init__(self, out_features: int) -> None:
        super().__init__(SPEC, out_features, output="tensor", equivariance="none", track="weights-only")

    @property
    def config(self) -> dict:
        return {"out_features": self.out_features}

    def forward(self, weights: ws.Weights) -> torch.Tensor:
        assert not self.training
        return weights.flat[:, : self.out_features]


def saying(outputs: torch.Tensor, label: list | torch.Tensor) -> ws.Networks:
    """Networks for which :class:`Fixed` says these outputs."""
    flat = torch.zeros(len(outputs), SPEC.num_params)
    flat[:, : outputs.shape[1]] = outputs
    return ws.Networks(ws.Weights(flat, SPEC), label)


def mlp(seed: int = 0) -> ws.models.MLP:
    return ws.models.MLP(SPEC, out_features=3, hidden=8, layers=1, dropout=0.3, seed=seed)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> ws.Zoo:
    settings = {"classes": ("a", "b", "c"), "recipe": {"steps": 3, "lr": 0.1, "seed": 0}, "init_regime": "shared"}
    return write_small_zoo(tmp_path_factory.mktemp("predict") / "zoo", SPEC, **settings)


def test_a_run_opens_ready_to_predict(zoo: ws.Zoo, tmp_path: Path) -> None:
    model = mlp()
    ws.train(model, zoo, transform="noise", epochs=2, run_dir=tmp_path, **FAST)
    again = load_model(tmp_path)
    assert not any(module.training for module in again.modules())
    assert (again.spec, again.classes, again.transform) == (zoo.spec, ("a", "b", "c"), "noise")
    assert again.recipe == zoo.recipe
    assert (again.about["objective"], again.about["init_regime"]) == ("Classification", "shared")
    w = zoo.weights("test")
    assert torch.equal(again(w), model(w))
    assert torch.allclose(predict(again, zoo["test"], batch_size=7), model(w), atol=1e-5)
    kept = load_model(save_model(ws.models.Ensemble([again, model]), tmp_path / "ensemble"))
    assert kept.classes == ("a", "b", "c")


def test_a_model_that_was_not_trained_here_knows_nothing(tmp_path: Path) -> None:
    model = load_model(save_model(mlp(), tmp_path))
    assert (model.classes, model.recipe, model.transform, dict(model.about)) == ((), {}, None, {})


@pytest.mark.parametrize("bad", [[], {"classes": "abc"}, {"classes": [1]}, {"recipe": 3}, {"transform": {}}])
def test_a_damaged_record_of_the_training_is_refused(tmp_path: Path, bad: object) -> None:
    file = save_model(mlp(), tmp_path) / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "about": bad}))
    with pytest.raises(ValueError, match=r"expected a model as ws\.models\.save_model writes it, got"):
        load_model(tmp_path)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"expected a finished run.*train again with the same arguments"):
        load_model(tmp_path)


def test_prediction_leaves_the_mode_and_takes_any_batch() -> None:
    model, w = mlp(), networks(SPEC, 5, dtype=torch.float32)
    out = predict(model, w, batch_size=2)
    assert model.training
    assert out.shape == (5, 3)
    assert not out.requires_grad
    assert predict(model, w[:0]).shape == (0, 3)
    with pytest.raises(TypeError, match=r"networks: expected Weights, Networks or signals, got str; open a zoo"):
        predict(model, "zoo")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"model: expected a model of ws\.models, got Linear; open one with"):
        predict(torch.nn.Linear(1, 1), w)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="expected a model with an invariant head"):
        predict(ws.models.DWSNet(SPEC, 1, hidden=4, layers=1, head="equivariant", seed=0), w)
    assert torch.allclose(predict(build("mlp", SPEC, 3, head="embedding"), w).norm(dim=1), torch.ones(5))


def test_classes_are_scored_as_by_hand(tmp_path: Path) -> None:
    found = torch.tensor([0, 0, 1, 1, 1, 0])
    test = saying(torch.nn.functional.one_hot(found, 3).float(), [0, 1, 1, 1, 0, -1])
    zoo = ws.zoo.write_zoo(tmp_path, test=test, classes=("x", "y", "z"))
    got = evaluate_model(Fixed(3), zoo, batch_size=4)
    assert (got["networks"], got["unlabelled"], got["accuracy"]) == (5, 1, 3 / 5)
    assert got["confusion"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert got["classes"][1] == {"name": "y", "networks": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    assert got["classes"][2] == {"name": "z", "networks": 0, "precision": None, "recall": None, "f1": None}
    json.dumps(got, allow_nan=False)
    with pytest.raises(ValueError, match="expected labels below the model's 1 outputs, got 1"):
        evaluate_model(Fixed(1), zoo)


def test_numbers_are_scored_as_by_hand(tmp_path: Path) -> None:
    said, label = torch.tensor([[1.0], [2.0], [3.0], [5.0]]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    got = evaluate_model(Fixed(1), ws.zoo.write_zoo(tmp_path / "a", test=saying(said, label)))
    assert got["r2"] == pytest.approx(1 - 3 / 5)
    assert got["kendall"] == pytest.approx((5 - 1) / 6)
    assert got["mae"] == pytest.approx(3 / 4)
    same = ws.zoo.write_zoo(tmp_path / "b", test=saying(said, torch.ones(4)))
    got = evaluate_model(Fixed(1), same)
    assert (got["r2"], got["kendall"]) == (None, None)
    with pytest.raises(ValueError, match="expected one output for real-valued labels, got 2"):
        evaluate_model(Fixed(2), same)


def test_what_cannot_be_scored_is_refused(zoo: ws.Zoo, tmp_path: Path) -> None:
    model = mlp()
    ws.train(model, zoo, epochs=1, **FAST)
    other = ws.zoo.write_zoo(tmp_path / "other", test=labelled(SPEC, 6), classes=("c", "b", "a"))
    with pytest.raises(ValueError, match=r"expected the model's classes \['a', 'b', 'c'\], got \['c', 'b', 'a'\]"):
        evaluate_model(model, other)
    bare = ws.zoo.write_zoo(tmp_path / "bare", test=labelled(SPEC, 6, known=False))
    with pytest.raises(ValueError, match="expected labels in the split 'test', got none"):
        evaluate_model(model, bare)
    with pytest.raises(ValueError, match=r"split: expected one of \['train', 'test'\], got 'val'"):
        evaluate_model(model, zoo, "val")


@pytest.fixture(scope="module")
def pictures() -> ws.signals.ImageSet:
    images = np.random.default_rng(0).integers(0, 255, (12, 5, 6), dtype=np.uint8)
    return ws.signals.ImageSet(images, np.arange(12) % 2, splits={"train": np.arange(9), "test": [9, 10, 11]})


def test_signals_are_fitted_as_the_zoo_was(pictures: ws.signals.ImageSet, tmp_path: Path) -> None:
    config = ws.FitConfig(steps=4, lr=1e-2, views=2, seed=3)
    zoo = ws.fit_zoo(tmp_path / "zoo", pictures, SPEC, config=config, workers=1)
    model = ws.models.MLP(SPEC, out_features=2, hidden=8, layers=1, seed=0)
    ws.train(model, zoo, epochs=1, batch_size=8, val_fraction=0.4)
    first = zoo.take("test", zoo.views("test") == 0)
    new = pictures.split("test")
    assert torch.equal(predict(model, new, workers=1), predict(model, first))
    shown = np.repeat(new.images[..., None], 3, 3)
    colour = ws.signals.ImageSet(shown, sources=new.sources)
    assert torch.equal(predict(model, colour, workers=1), predict(model, first))
    with pytest.raises(ValueError, match=r"expected images of 5x6, .* got 6x5; read them with size=\(5, 6\)"):
        predict(model, ws.signals.ImageSet(new.images.transpose(0, 2, 1)))
    waves = ws.signals.PointSet(*ws.signals.series(torch.rand(2, 9)))
    with pytest.raises(ValueError, match=r"expected 2 coordinates and 1 values a point, .* got 1 and 1"):
        predict(model, waves)
    model.about = {**model.about, "recipe": {**zoo.recipe, "start": "0" * 64}}
    with pytest.raises(ValueError, match="got ones with a learned start; fit them with weightspace fit"):
        predict(model, new)
    model.about = {}
    with pytest.raises(ValueError, match="expected one that knows the recipe of its networks, got none"):
        predict(model, new)


def test_a_finished_run_is_made_longer(zoo: ws.Zoo, tmp_path: Path) -> None:
    ws.train(mlp(), zoo, epochs=3, run_dir=tmp_path, **FAST)
    first, lines = json.loads((tmp_path / "result.json").read_text()), []
    longer = ws.train(mlp(1), zoo, epochs=5, run_dir=tmp_path, on_epoch=lines.append, **FAST)
    assert [line["epoch"] for line in lines] == [4, 5]
    assert longer.history[:3] == first["history"]
    steps = _steps(zoo)
    assert lines[0]["lr"] == pytest.approx(0.01 * schedule(3 * steps, 5 * steps, 0.05))
    described = json.loads((tmp_path / "run.json").read_text())
    assert (described["config"]["epochs"], described["extended"]) == (5, [3])
    assert json.loads((tmp_path / "result.json").read_text())["config"]["epochs"] == 5
    with pytest.raises(ValueError, match=r"expected config \{'epochs': 4\}, got \{'epochs': 5\}"):
        ws.train(mlp(), zoo, epochs=4, run_dir=tmp_path, **FAST)
    with pytest.raises(ValueError, match="holds another run: expected config"):
        ws.train(mlp(), zoo, epochs=9, run_dir=tmp_path, batch_size=16, lr=0.5)


def _steps(zoo: ws.Zoo) -> int:
    from weightspace.training._run import Run
    from weightspace.training._train import TrainConfig, parts_of

    config = TrainConfig(epochs=1, **FAST)
    parts = parts_of(zoo, config, torch.device("cpu"), 1 << 30)
    return Run(mlp(), parts, ws.training.Classification(3), None, config).steps
