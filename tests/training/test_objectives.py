"""Objectives: numbers, edits, and views of the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import weightspace as ws
from weightspace import testing
from weightspace.models import Normalize
from weightspace.models._wrappers import Embedding
from weightspace.training import Contrastive, Editing, Objective, Regression
from weightspace.transforms import Flip, GaussianNoise, MixUp, Permute, Rotate
from weightspace.zoo import write_zoo

SPEC = ws.siren(2, 8, 8, 1)
COORDS = ws.signals.grid(10, 10)
SIZES = {"hidden": 8, "layers": 1}


def networks(batch: int = 6, seed: int = 0) -> ws.Weights:
    return testing.random_weights(SPEC, batch, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def fitted() -> ws.Weights:
    """Networks that are fitted to pictures."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:160])
    return ws.fit(coords, targets, SPEC, steps=100, lr=2e-3).weights


def zoo_of(path: Path, w: ws.Weights, labels: Tensor | None = None) -> ws.Zoo:
    """Two thirds to train, the rest to choose by."""
    labels, part = torch.full((len(w),), -1) if labels is None else labels, 2 * len(w) // 3
    rows = {"train": slice(0, part), "val": slice(part, None)}
    return write_zoo(path, {name: ws.Networks(w[here], labels[here]) for name, here in rows.items()})


def measured(
    objective: Objective, output: Any, w: ws.Weights, labels: Tensor | None = None, targets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss and score of a model that returns ``output`` for these networks."""
    networks = ws.Networks(w, labels)
    model = output if callable(output) else (lambda weights: output)
    targets = objective.targets(networks) if targets is None else targets
    return objective(model, networks, targets, generator=torch.Generator().manual_seed(0))


def fit_normalization(model: torch.nn.Module, w: ws.Weights) -> None:
    for module in model.modules():
        if isinstance(module, Normalize):
            module.fit(w)


def targets_of(objective: Objective, labels: Tensor) -> Tensor:
    return objective.targets(ws.Networks(networks(len(labels)), labels))


def brighter(values: Tensor) -> Tensor:
    return values + 0.2


# Regression


def test_regression_is_in_units_of_the_spread_and_scores_in_the_numbers_own() -> None:
    values = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]])
    objective, labels, w = Regression(values), torch.tensor([2, 0]), networks(2)
    targets = targets_of(objective, labels)
    assert torch.equal(targets, values[labels])
    assert measured(objective, targets, w, labels)[0] == 0
    loss, score = measured(objective, targets + torch.tensor([2.0, 5.0]), w, labels)
    torch.testing.assert_close(loss, torch.tensor((1.0 + 0.25) / 2))  # std 2 and 10
    torch.testing.assert_close(score, torch.tensor([-3.5, -3.5]))
    mixed = 0.5 * targets + 0.5 * targets.flip(0)  # as MixUp mixes them
    torch.testing.assert_close(measured(objective, mixed, w, labels, mixed)[0], torch.tensor(0.0))
    one = Regression(torch.tensor([1, 2, 4]))
    assert targets_of(one, labels).tolist() == [[4.0], [1.0]]


def test_real_labels_are_the_numbers_themselves() -> None:
    objective, labels = Regression(std=2.0), torch.tensor([1.5, -0.5])
    assert targets_of(objective, labels).tolist() == [[1.5], [-0.5]]
    loss, score = measured(objective, torch.tensor([[3.5], [-0.5]]), networks(2), labels)
    torch.testing.assert_close(loss, torch.tensor(0.5))  # one standard deviation, squared, of two networks
    assert score.tolist() == [-2.0, 0.0]
    with pytest.raises(ValueError, match="expected labelled networks"):
        objective.targets(ws.Networks(networks(2)))


def test_a_model_learns_how_bright_pictures_are(fitted: ws.Weights, tmp_path: Path) -> None:
    values = ws.evaluate(fitted, COORDS).mean((1, 2))
    zoo, objective = zoo_of(tmp_path, fitted, torch.arange(len(fitted))), Regression(values)
    model = ws.models.build("probe-gen", SPEC, 1, hidden=32, probes=16, seed=0)
    result = ws.train(model, zoo, objective=objective, epochs=30, batch_size=16, lr=5e-3)
    middle = values[zoo.labels("train")].mean()
    plain = (values[zoo.labels("val")] - middle).abs().mean().item()
    assert -result.val < 0.5 * plain
    found = model(zoo.weights("val"))
    assert (found[:, 0] - values[zoo.labels("val")]).abs().mean().item() == pytest.approx(-result.val, rel=1e-4)


def test_a_regression_holds_values_of_its_own() -> None:
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    objective = Regression(values)
    before = repr(objective)
    with torch.no_grad():
        values.mul_(10)
    assert repr(objective) == before
    assert targets_of(objective, torch.tensor([2])).tolist() == [[4.0]]
    assert not targets_of(objective, torch.tensor([2])).requires_grad
    near = Regression(torch.tensor([1e9, 1e9 + 1, 1e9 + 2], dtype=torch.float64))
    assert near.std.tolist() == [1.0]


def test_labels_without_a_value_are_found_before_the_training(tmp_path: Path) -> None:
    w, epochs = networks(9), []
    rows = {"train": (w, torch.arange(9) % 3), "val": (w, torch.arange(9) % 3), "test": (w, torch.arange(9))}
    zoo = write_zoo(tmp_path, {name: ws.Networks(*row) for name, row in rows.items()})
    objective = Regression(torch.arange(3))
    with pytest.raises(ValueError, match="expected labels from 0 to 2, one a row of values, got 0 to 8"):
        ws.train(ws.models.MLP(SPEC, 1), zoo, objective=objective, epochs=1, on_epoch=epochs.append)
    assert not epochs


def test_bad_regressions_are_refused() -> None:
    with pytest.raises(TypeError, match="values: expected a tensor, got list"):
        Regression([0.0, 1.0])  # pyright: ignore
    for bad in (torch.tensor([1.0]), torch.tensor([1.0, float("nan")]), torch.zeros(2, 2, 2)):
        with pytest.raises(ValueError, match=r"values: expected finite numbers \[label\]"):
            Regression(bad)
    for same in (torch.tensor([[1.0, 2.0], [1.0, 3.0]]), torch.full((10,), 0.1)):
        with pytest.raises(ValueError, match="values: expected numbers to learn, got one that is the same for all"):
            Regression(same)
    for bad in (torch.zeros(5, 0), torch.zeros(5, dtype=torch.complex64)):
        with pytest.raises(ValueError, match="values: expected finite numbers"):
            Regression(bad)
    objective = Regression(torch.tensor([1.0, 2.0]))
    for label in (-1, 2):
        with pytest.raises(ValueError, match=r"expected labels from 0 to 1, one a row of values, got .*" + str(label)):
            targets_of(objective, torch.tensor([label, 0]))
    with pytest.raises(ValueError, match=r"expected outputs \[2, 1\], one a number, got \[2, 3\].*out_features=1"):
        measured(objective, torch.zeros(2, 3), networks(2), torch.tensor([0, 1]))


# Editing


def test_an_edit_is_compared_with_the_network_as_the_model_saw_it() -> None:
    w, other, objective = networks(), networks(seed=1), Editing(SPEC, COORDS, brighter)
    wanted = ws.evaluate(w, COORDS) + 0.2
    errors = (ws.evaluate(other, COORDS) - wanted).square().mean((1, 2))
    loss, score = measured(objective, other, w)
    torch.testing.assert_close(loss, errors.mean())
    torch.testing.assert_close(score, -errors)
    exact = w.clone()
    exact.view("2.bias").add_(0.2)
    assert measured(objective, exact, w)[0] < 1e-10


@pytest.mark.parametrize("name", ["dwsnet", "scale-gmn"])
def test_a_model_learns_to_edit(name: str, fitted: ws.Weights, tmp_path: Path) -> None:
    zoo, objective = zoo_of(tmp_path, fitted), Editing(SPEC, COORDS, brighter)
    model = ws.models.build(name, SPEC, 1, head="editing", seed=0, **SIZES)
    fit_normalization(model, zoo.weights("train"))
    untouched = measured(objective, zoo.weights("val"), zoo.weights("val"))[1].mean().item()
    assert untouched == pytest.approx(-0.04, rel=1e-4)
    result = ws.train(model, zoo, objective=objective, epochs=40, batch_size=16, lr=1e-2)
    assert result.val > 0.1 * untouched
    edited = model(zoo.weights("val"))
    assert isinstance(edited, ws.Weights)
    gained = ws.evaluate(edited, COORDS) - ws.evaluate(zoo.weights("val"), COORDS)
    assert gained.mean().item() == pytest.approx(0.2, abs=0.05)


def test_transforms_move_what_is_edited(tmp_path: Path) -> None:
    class Noting(Editing):
        def __call__(self, model, networks, targets, *, generator):
            if model.training:
                seen.append(networks.weights)
            return super().__call__(model, networks, targets, generator=generator)

    seen: list[ws.Weights] = []
    w, model = networks(9), ws.models.build("dwsnet", SPEC, 1, head="editing", **SIZES)
    objective = Noting(SPEC, COORDS, brighter)
    ws.train(model, zoo_of(tmp_path, w), objective=objective, transform=Flip(1.0, axes=(1,)), epochs=1, batch_size=3)
    mirrored = Flip(1.0, axes=(1,))(w, generator=torch.Generator()).flat
    assert len(seen) == 2
    assert all((mirrored == row).all(1).any() for weights in seen for row in weights.flat)


def test_a_kept_run_is_known_by_its_edit(tmp_path: Path) -> None:
    zoo, run = zoo_of(tmp_path / "zoo", networks(9)), tmp_path / "run"

    def trained(edit: Any, coords: Tensor = COORDS) -> Any:
        model = ws.models.build("dwsnet", SPEC, 1, head="editing", seed=0, **SIZES)
        return ws.train(model, zoo, objective=Editing(SPEC, coords, edit), epochs=2, batch_size=3, run_dir=run)

    first = trained(lambda values: 1 - values)
    assert trained(lambda values: 1 - values).history == first.history
    others = [lambda v: 1.01 - v, lambda v: (1 - v).clamp(0, 1), lambda v: (1 - v).abs(), lambda v: (1 - v).relu()]
    for other in (*((edit,) for edit in others), (lambda v: 1 - v, COORDS[1:])):
        with pytest.raises(ValueError, match="expected objective"):
            trained(*other)


def test_bad_edits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="edit: expected a function of values, got 3"):
        Editing(SPEC, COORDS, 3)  # pyright: ignore
    with pytest.raises(ValueError, match=r"edit: expected values of the shape given, \[3, 100, 1\], got .*\[3, 1\]"):
        Editing(SPEC, COORDS, lambda values: values.mean(1))
    with pytest.raises(ValueError, match=r"coords: expected \[point, 2\], got \[4, 3\]"):
        Editing(SPEC, torch.zeros(4, 3), brighter)
    with pytest.raises(ValueError, match="edit: expected finite values of finite ones"):
        Editing(SPEC, COORDS, lambda values: values.sqrt())
    for bad in (torch.zeros(4, 2, dtype=torch.int64), torch.full((4, 2), float("nan"))):
        with pytest.raises(ValueError, match="coords: expected finite numbers of a floating type"):
            Editing(SPEC, bad, brighter)
    other = ws.siren(2, 4, 1)
    with pytest.raises(ValueError, match=r"is built for .*, got networks of"):
        measured(Editing(other, COORDS, brighter), networks(), networks())
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 2))
    with pytest.raises(ValueError, match="expected a chain of linear layers"):
        Editing(ws.spec_of(net, torch.zeros(2, 1, 5, 5)), COORDS, brighter)
    with pytest.raises(TypeError, match="NetSpec"):
        Editing("siren", COORDS, brighter)  # pyright: ignore
    with pytest.raises(
        TypeError, match=r"expected a model with an equivariant head, which returns Weights, got Tensor"
    ):
        ws.train(ws.models.MLP(SPEC, 1), zoo_of(tmp_path, networks(9)), objective=Editing(SPEC, COORDS, brighter))


# Contrastive


def embedding(**options: Any) -> ws.models.Model:
    return ws.models.build("dwsnet", SPEC, 16, head="embedding", seed=0, **(SIZES | options))


def test_the_contrast_is_of_every_view_with_every_network() -> None:
    w, model = networks(), embedding().eval()
    move = Rotate(30.0)
    objective = Contrastive(move, temperature=0.5)
    loss, score = measured(objective, model, w)
    z, view = model(w), model(move(w, generator=torch.Generator().manual_seed(0)))
    s, total = (z @ view.T / 0.5).double(), torch.tensor(0.0, dtype=torch.float64)
    for i in range(6):
        total -= (s[i, i] - s[i].logsumexp(0) + s[i, i] - s[:, i].logsumexp(0)) / 12
    torch.testing.assert_close(loss, total.float())
    assert torch.equal(score, ((z @ view.T).argmax(1) == torch.arange(6)).float())
    assert measured(Contrastive(Permute()), model, w)[1].tolist() == [1.0] * 6  # a view that the model cannot tell
    order, calls = torch.tensor([1, 0, 2, 3, 4, 5]), []

    def mixed_up(weights: ws.Weights) -> Tensor:
        calls.append(len(weights))
        return model(weights)[order] if len(calls) == 1 else model(weights)

    assert measured(Contrastive(Permute()), mixed_up, w)[1].tolist() == [0.0] * 2 + [1.0] * 4
    assert calls == [6, 6]  # the networks and their views, once each


def test_a_score_takes_no_gradient() -> None:
    loss, score = measured(Contrastive(GaussianNoise(0.5)), model := embedding(), networks())
    assert loss.requires_grad
    assert not score.requires_grad
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_views_of_a_network_become_alike_without_labels(fitted: ws.Weights, tmp_path: Path) -> None:
    zoo, move = zoo_of(tmp_path, fitted), Rotate(15.0)
    model = ws.models.build("probe-gen", SPEC, 16, hidden=32, probes=32, head="embedding", seed=0)
    objective = Contrastive(move, temperature=0.2)
    fit_normalization(model, zoo.weights("train"))
    val = zoo.weights("val")
    before = measured(objective, model.eval(), val)[1].mean().item()
    result = ws.train(model, zoo, objective=objective, epochs=40, batch_size=32, lr=5e-3)
    assert result.val > before + 0.1
    assert result.test is None


class Still(GaussianNoise):
    """A transform that changes nothing, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.given: list[Tensor] = []

    def apply(self, weights: ws.Weights, draw: Any) -> ws.Weights:
        self.given.append(weights.flat)
        return weights


def test_another_fit_of_the_signal_is_the_second_view() -> None:
    """Of four fits of five signals, the first number tells the signal and the second one the fit."""
    source, view = torch.arange(5).repeat_interleave(4), torch.arange(4).repeat(5)
    flat = torch.zeros(20, SPEC.num_params)
    flat[:, 0], flat[:, 1] = source.float(), view.float()
    fits = ws.Networks(ws.Weights(flat, SPEC), None, source, view)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    move = Still()
    objective = Contrastive(move, fits=fits[order])
    generator, model = torch.Generator().manual_seed(0), embedding().eval()
    batch = fits[torch.arange(0, 20, 3)]
    seen = [set[int]() for _ in range(len(batch))]
    for _ in range(60):
        objective(model, batch, torch.empty(len(batch), 0), generator=generator)
        drawn = move.given.pop()
        assert drawn[:, 0].tolist() == batch.source.float().tolist()
        for found, row in zip(seen, drawn, strict=True):
            found.add(int(row[1]))
    assert seen == [{0, 1, 2, 3} - {int(v)} for v in batch.view]
    # signals that are not among the fits, and a fit that is alone, stay
    alone = Contrastive(move, fits=fits[:1])
    other = fits[torch.tensor([0, 4, 19])].replace(source=torch.tensor([0, 9, 0]), view=torch.tensor([0, 0, 3]))
    alone(model, other, torch.empty(3, 0), generator=generator)
    assert move.given.pop()[:, :2].tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def test_fits_of_one_signal_are_not_told_apart() -> None:
    w, model = networks(), embedding().eval()
    source, view = torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([0, 1, 0, 1, 0, 0])
    batch = ws.Networks(w, None, source, view)
    objective = Contrastive(Still(), temperature=0.5, fits=batch)
    loss, _ = objective(model, batch, torch.empty(6, 0), generator=torch.Generator().manual_seed(0))
    z, v = model(w), model(w[torch.tensor([1, 0, 3, 2, 4, 5])])
    s = (z @ v.T / 0.5).double()
    for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
        s[i, j] = -torch.inf
    expected = sum(s[i].logsumexp(0) + s[:, i].logsumexp(0) - 2 * s[i, i] for i in range(6)) / 12
    torch.testing.assert_close(loss.double(), expected)
    with pytest.raises(ValueError, match="fits: expected networks whose sources and views are known"):
        Contrastive(Still(), fits=ws.Networks(w))


def test_bad_contrasts_are_refused(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path, networks(9))
    with pytest.raises(
        ValueError, match="expected outputs of length one, got others; build the model with head='embed"
    ):
        ws.train(ws.models.MLP(SPEC, 4), zoo, objective=Contrastive(Permute()))
    with pytest.raises(TypeError, match="transform: expected a transform, got 'rotate'"):
        Contrastive("rotate")  # pyright: ignore
    with pytest.raises(ValueError, match="transform: expected one that makes a view of a network, got one that mixes"):
        Contrastive(MixUp())
    with pytest.raises(ValueError, match="temperature"):
        Contrastive(Permute(), temperature=0.0)
    with pytest.raises(ValueError, match="Flip"):
        ws.train(embedding(), zoo, objective=Contrastive(Flip(1.0, axes=(2,))))
    assert isinstance(embedding(), Embedding)


def test_networks_and_numbers_are_mixed_together(fitted: ws.Weights, tmp_path: Path) -> None:
    class Noting(Regression):
        def __call__(self, model, networks, targets, *, generator):
            if model.training:
                seen.append((networks.weights, targets))
            return super().__call__(model, networks, targets, generator=generator)

    seen: list[tuple[ws.Weights, Tensor]] = []
    w = fitted[:30]
    values = w.view("2.bias")[:, 0]  # a number that mixes as its network does
    zoo = zoo_of(tmp_path, w, torch.arange(30))
    ws.train(ws.models.MLP(SPEC, 1), zoo, objective=Noting(values), transform=MixUp(), epochs=1, batch_size=10)
    assert len(seen) == 2
    for weights, targets in seen:
        torch.testing.assert_close(targets[:, 0], weights.view("2.bias")[:, 0])
        assert not (targets == values[:20]).any(1).all()


def test_what_needs_no_labels_takes_transforms_that_mix_them(fitted: ws.Weights, tmp_path: Path) -> None:
    zoo, model = zoo_of(tmp_path, fitted[:30]), embedding()
    editor = ws.models.build("dwsnet", SPEC, 1, head="editing", **SIZES)
    for trained, objective in ((editor, Editing(SPEC, COORDS, brighter)), (model, Contrastive(Rotate(5.0)))):
        before = [p.detach().clone() for p in trained.parameters()]
        ws.train(trained, zoo, objective=objective, transform=MixUp(), epochs=2, batch_size=10)
        assert not any(torch.equal(p, was) for p, was in zip(trained.parameters(), before, strict=True))
