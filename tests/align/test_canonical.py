"""Canonical forms, anchors, aligned zoos, paths and barriers."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import weightspace as ws
from weightspace.align import align_to, anchor, barrier, canonicalize, distance, interpolate, match
from weightspace.align._path import Barrier
from weightspace.align._phases import fold_phases

SIREN = ws.siren(2, 7, 5, 1, omega=3.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(spec: ws.NetSpec, batch: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> ws.Weights:
    return ws.testing.random_weights(spec, batch, generator=generator(seed), dtype=dtype)


def spoiled(w: ws.Weights, index: int, value: float) -> ws.Weights:
    """The same networks, the first bias of one of them another number."""
    out = w.clone()
    out.view("0.bias")[index, 0] = value
    return out


# --- canonical forms


@pytest.mark.parametrize("seed", range(12))
def test_every_member_of_an_orbit_has_one_form(seed: int) -> None:
    gen = generator(seed)
    spec = ws.testing.random_spec(generator=gen)
    w = ws.testing.random_weights(spec, 6, generator=gen, dtype=torch.float64)
    form, element = canonicalize(w)
    ws.testing.assert_same_function(w, form)
    torch.testing.assert_close(element.act(w).flat, form.flat)
    moved = ws.Symmetry.sample(spec, batch=6, generator=gen, dtype=torch.float64, max_shift=4).act(w)
    torch.testing.assert_close(canonicalize(moved)[0].flat, form.flat, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(canonicalize(form)[0].flat, form.flat, rtol=1e-6, atol=1e-7)
    if spec.hidden[0].size > 2:
        assert not torch.allclose(moved.flat, w.flat)


def test_no_networks_have_no_forms() -> None:
    for spec in (SIREN, ws.mlp(3, 4, 2)):
        form, element = canonicalize(networks(spec, 3)[:0])
        assert (len(form), len(element)) == (0, 0)


def test_other_functions_have_other_forms() -> None:
    w = networks(SIREN, 6)
    form = canonicalize(w)[0].flat
    assert float(torch.cdist(form, form)[~torch.eye(6, dtype=torch.bool)].min()) > 0.1
    moved = canonicalize(w.replace(w.flat * 1.01))[0].flat
    assert not torch.allclose(moved, form, rtol=1e-6)


def test_the_rules_hold() -> None:
    form = canonicalize(networks(SIREN, 20))[0]
    for i in (0, 1):
        bias, weight = form.view(f"{i}.bias"), form.view(f"{i}.weight")
        assert float(bias.abs().max()) <= torch.pi / 3 / 2 + 1e-9
        norm = weight.norm(dim=2)
        assert bool((norm.diff(dim=1) >= 0).all())
        largest = weight.gather(2, weight.abs().argmax(2, keepdim=True))
        assert bool((largest > 0).all())
    relu = canonicalize(networks(ws.mlp(2, 6, 5, 1), 20))[0]
    incoming = torch.cat([relu.view("0.weight"), relu.view("0.bias")[:, :, None]], 2)
    torch.testing.assert_close(incoming.norm(dim=2), torch.ones(20, 6, dtype=torch.float64))
    assert bool((incoming[:, :, 0].diff(dim=1) >= 0).all())


def test_smaller_groups_and_other_graphs(conv_spec: ws.NetSpec) -> None:
    w = networks(SIREN, 5)
    for group in ("permutation", "signed"):
        g = ws.Symmetry.sample(SIREN, batch=5, generator=generator(), dtype=torch.float64, group=group)
        one, two = (canonicalize(v, group=group)[0].flat for v in (w, g.act(w)))
        torch.testing.assert_close(one, two)
        full = ws.Symmetry.sample(SIREN, batch=5, generator=generator(), dtype=torch.float64)
        assert not torch.allclose(canonicalize(full.act(w), group=group)[0].flat, one)  # negative control
    w = networks(conv_spec, 5)
    g = ws.Symmetry.sample(conv_spec, batch=5, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(canonicalize(g.act(w))[0].flat, canonicalize(w)[0].flat)


def test_half_precision_keeps_the_function() -> None:
    """A neuron of tiny weights would be scaled out of float16's range; a norm of one beyond float32's."""
    w = networks(ws.mlp(2, 6, 5, 1), 4)
    w.view("0.weight")[:, 0] *= 1e-6
    w.view("0.bias")[:, 0] *= 1e-6
    x = torch.rand(9, 2, generator=generator(), dtype=torch.float64)
    for dtype, tolerance in ((torch.float16, 2e-2), (torch.bfloat16, 1e-1)):
        half = w.to(dtype)
        form, g = canonicalize(half)
        assert form.dtype == dtype
        assert all(bool(s.isfinite().all()) for s in g.scale.values())
        expected = ws.evaluate(half.to(torch.float64), x)
        torch.testing.assert_close(ws.evaluate(form.to(torch.float64), x), expected, rtol=tolerance, atol=tolerance)
    tiny = networks(ws.mlp(2, 6, 5, 1), 4, dtype=torch.float32)
    tiny.view("0.weight")[:, 0] = 1e-39
    tiny.view("0.bias")[:, 0] = 1e-39
    assert bool(canonicalize(tiny)[0].flat.isfinite().all())


def test_aligning_to_a_reference_is_weight_matching() -> None:
    w = networks(SIREN, 9)
    moved, g = align_to(w, w[2], group="full")
    assert moved.flat.equal(match(w[2], w, group="full").act(w).flat)
    torch.testing.assert_close(g.act(w).flat, moved.flat)
    torch.testing.assert_close(moved.flat[2], w.flat[2])


def test_anchors_come_closer_every_round() -> None:
    w = networks(SIREN, 60)
    far = distance(w[0], match(w[0], w, group="full").act(w)).mean()
    for rounds in (1, 2, 4):
        r = anchor(w, rounds=rounds)
        assert len(r) == 1
        here = distance(r, align_to(w, r)[0]).mean()
        assert float(here) < float(far)
        far = here * 1.05  # fresh starts may end a little higher than the alignment that the mean was made of
    assert anchor(w, rounds=2).flat.equal(anchor(w, rounds=2, start=w[:1]).flat)
    assert not anchor(w, rounds=2, start=w[1]).flat.equal(anchor(w, rounds=2).flat)


def test_both_steps_of_an_anchor_lower_the_mean_distance() -> None:
    """The slow loop: match, average, and measure after each."""
    w, costs = networks(SIREN, 30), []
    r, aligned = w[0], w
    for _ in range(4):
        costs.append(float(distance(r, aligned).mean()))
        aligned = match(r, aligned, group="full").act(aligned)
        costs.append(float(distance(r, aligned).mean()))
        r = w.replace(aligned.flat.mean(0, keepdim=True))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(costs))
    assert costs[-1] < costs[1] < costs[0]
    torch.testing.assert_close(anchor(w, rounds=4).flat, r.flat)


def test_an_iterated_mean_is_the_same_to_the_bit_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow loop again, in float32: align what was aligned, and average in float64."""
    w = networks(SIREN, 30, dtype=torch.float32)
    for group in ("full", "permutation"):
        r, aligned = w[4], w
        for _ in range(3):
            aligned = match(r, aligned, group=group).act(aligned)
            r = w.replace((aligned.flat.sum(0, dtype=torch.float64) / 30).float()[None])
        assert anchor(w, group=group, start=w[4]).flat.equal(r.flat)
        with monkeypatch.context() as patched:
            patched.setattr("weightspace.align._anchor.CHUNK", 7 * SIREN.num_params)
            torch.testing.assert_close(anchor(w, group=group, start=w[4]).flat, r.flat)


# --- learned anchors


def slow_learned(w: ws.Weights, r: ws.Weights, group: str, rounds: int, size: int, seed: int, **options) -> ws.Weights:
    """Gradient steps with one match a network."""
    gen, per_round, step = generator(seed), math.ceil(len(w) / size), 0
    for _ in range(rounds):
        order = torch.randperm(len(w), generator=gen).tolist()
        for k in range(per_round):
            more = len(w) % per_round
            first = k * (len(w) // per_round) + min(k, more)
            batch = order[first : first + len(w) // per_round + (k < more)]
            gradient = r.flat.clone()
            for i in batch:
                gradient -= match(r, w[i], group=group, **options).act(w[i]).flat / len(batch)
            rate = 0.5 * (1 + math.cos(math.pi * step / (rounds * per_round)))
            r, step = r.replace(r.flat - rate * gradient), step + 1
    return r


@pytest.mark.parametrize("spec", [SIREN, ws.mlp(2, 6, 5, 1)], ids=["sine", "relu"])
@pytest.mark.parametrize(("group", "size"), [("full", 7), ("permutation", 10), ("full", 1)])
def test_a_learned_anchor_is_that_of_the_slow_loop(spec: ws.NetSpec, group: str, size: int) -> None:
    w, costs = networks(spec, 25), {"0.bias": 5.0}
    for options, start in (({}, w[0]), ({"costs": costs}, w[3])):
        found = anchor(w, group=group, rounds=2, start=start, batch_size=size, generator=generator(5), **options)
        slow = slow_learned(w, start, group, 2, size, 5, **options)
        torch.testing.assert_close(found.flat, slow.flat)
    assert not torch.allclose(slow.flat, slow_learned(w, w[3], group, 2, size, 6, costs=costs).flat, rtol=1e-3)


def test_the_step_is_down_the_gradient() -> None:
    w = networks(SIREN, 20)
    r = w.replace(networks(SIREN, 1, seed=3).flat)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        at = r.replace(flat)
        return 0.5 * distance(at, match(at, w, group="full").act(w)).mean()

    gradient = r.flat - match(r, w, group="full").act(w).flat.mean(0, keepdim=True)
    for seed in range(5):
        along = torch.randn(r.flat.shape, generator=generator(seed), dtype=torch.float64)
        slope = (objective(r.flat + 1e-6 * along) - objective(r.flat - 1e-6 * along)) / 2e-6
        torch.testing.assert_close(slope, (gradient * along).sum(), rtol=1e-5, atol=1e-7)


def test_a_learned_anchor_comes_closer() -> None:
    w = networks(SIREN, 200)
    before = w.flat.clone()

    def far(r: ws.Weights) -> float:
        return float(distance(r, align_to(w, r)[0]).mean())

    for start in (w[0], w[1]):
        r = anchor(w, start=start, batch_size=16, generator=generator())
        assert r.flat.shape == (1, SIREN.num_params)
        assert far(r) < 0.8 * far(start)
        assert far(r) < far(anchor(w, start=start, rounds=1))
    assert w.flat.equal(before)


def test_a_learned_anchor_is_drawn_by_its_generator_alone() -> None:
    w = networks(SIREN, 40)
    one, two, other = (anchor(w, rounds=1, batch_size=8, generator=generator(s)).flat for s in (0, 0, 1))
    assert one.equal(two)
    assert not torch.allclose(one, other)
    # all networks in one batch: the first round of the iterated mean, whatever is drawn
    whole = [anchor(w, rounds=1, batch_size=size, generator=generator(size)).flat for size in (40, 1000)]
    for flat in whole:
        torch.testing.assert_close(flat, anchor(w, rounds=1).flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_learned_anchor_keeps_the_precision(dtype: torch.dtype) -> None:
    w = networks(SIREN, 20).to(dtype)
    w.flat.requires_grad_()
    r = anchor(w, batch_size=6, generator=generator())
    assert r.dtype == dtype
    assert bool(r.flat.isfinite().all())
    assert not r.flat.requires_grad
    w = w.replace(w.flat.detach()).to(torch.float64)
    wide = anchor(w, batch_size=6, generator=generator())
    assert float(distance(wide, r.to(torch.float64))) < 0.2 * float(distance(wide, w[0]))


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that an operation made, views of the networks aside."""

    def __init__(self, networks: torch.Tensor) -> None:
        super().__init__()
        self.known, self.numbers = networks.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() != self.known:
                self.numbers = max(self.numbers, x.numel())
        return out


def test_a_learned_anchor_holds_one_batch() -> None:
    w = networks(SIREN, 1000)
    with Largest(w.flat) as learned:
        anchor(w, rounds=1, batch_size=20, generator=generator())
    assert learned.numbers == 20 * SIREN.num_params
    with Largest(w.flat) as iterated:
        anchor(w, rounds=1)
    assert iterated.numbers == 1000 * SIREN.num_params  # negative control


def test_learned_anchors_that_make_no_sense_are_refused() -> None:
    w, gen = networks(SIREN, 8), generator()
    other = networks(ws.siren(2, 7, 4, 1), 1)
    for options, error, text in (
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"batch_size": -3}, ValueError, "batch_size: expected at least 1, got -3"),
        ({"batch_size": 4.0}, TypeError, "batch_size: expected a whole number, got 4.0"),
        ({"batch_size": True}, TypeError, "batch_size: expected a whole number, got True"),
        ({"batch_size": 4, "generator": None}, ValueError, "batch_size: expected a generator .* pass generator="),
        ({"batch_size": None}, ValueError, "generator: expected a batch_size .* pass batch_size= or drop it"),
        ({"batch_size": 4, "generator": 0}, TypeError, "generator: expected a torch.Generator, got int"),
        ({"batch_size": 4, "rounds": 0}, ValueError, "rounds: expected at least 1"),
        ({"batch_size": 4, "group": "other"}, ValueError, "group: expected one of"),
        ({"batch_size": 4, "costs": {"h9": 1.0}}, ValueError, "costs: expected parameters"),
        ({"batch_size": 4, "start": w}, ValueError, "start: expected one network, got 8"),
        ({"batch_size": 4, "start": w[0].replace(w[0].flat * math.nan)}, ValueError, "start: expected finite"),
        ({"batch_size": 4, "start": w[0].replace(w[0].flat[..., None])}, ValueError, "start: expected .batch, par"),
        ({"batch_size": 4, "start": w.flat}, TypeError, "start: expected Weights"),
        ({"batch_size": 4, "start": other}, ValueError, "spec"),
    ):
        with pytest.raises(error, match=text):
            anchor(w, **{"generator": gen, **options})
    with pytest.raises(ValueError, match="start: expected one network, got 8"):
        anchor(w, start=w)
    with pytest.raises(ValueError, match=r"weights: expected finite weights, .* networks \[6\]"):
        anchor(spoiled(w, 6, torch.nan))
    with pytest.raises(ValueError, match=r"weights: expected finite weights, .* networks \[6\]"):
        anchor(spoiled(w, 6, torch.nan), batch_size=2, generator=gen)
    with pytest.raises(ValueError, match="expected at least one network, got none"):
        anchor(w[:0], batch_size=2, generator=gen)


def test_bad_input_is_refused() -> None:
    w = networks(SIREN, 4)
    loop = ws.NetSpec(
        (ws.Axis("in", 1), ws.Axis("a", 2, "relu"), ws.Axis("b", 2, "relu"), ws.Axis("out", 1)),
        (ws.Param("ab", ("b", "a")), ws.Param("ba", ("a", "b")), ws.Param("io", ("out", "in"))),
    )
    for call, error, text in (
        (lambda: align_to(w, w), ValueError, "reference: expected one network, got 4"),
        (lambda: align_to(w, "rules"), TypeError, "reference: expected Weights, got str"),
        (lambda: canonicalize(w.flat), TypeError, "weights: expected Weights"),
        (lambda: canonicalize(w.replace(w.flat[:, :, None])), ValueError, "features of shape"),
        (lambda: canonicalize(w, group="other"), ValueError, "group: expected one of"),
        (lambda: canonicalize(spoiled(w, 2, torch.nan)), ValueError, r"weights: expected finite .* networks \[2\]"),
        (lambda: canonicalize(spoiled(w, 1, torch.inf)), ValueError, r"weights: expected finite .* networks \[1\]"),
        (lambda: canonicalize(w.replace(w.flat.float() * 1e19)), ValueError, "weights: expected weights below"),
        (lambda: canonicalize(networks(loop, 2)), ValueError, r"join each hidden axis to the input, got none"),
        (lambda: anchor(w[:0]), ValueError, "expected at least one network, got none"),
        (lambda: anchor(w, rounds=0), ValueError, "rounds: expected at least 1"),
        (lambda: ws.align.align_zoo(w, "x"), TypeError, "zoo: expected a Zoo, got Weights"),
        (lambda: ws.align.alignment(w, "train"), TypeError, "zoo: expected a Zoo, got Weights"),
    ):
        with pytest.raises(error, match=text):
            call()


# --- zoos


def test_a_zoo_of_aligned_networks(tmp_path: Path) -> None:
    w = networks(SIREN, 30, dtype=torch.float32)
    labels = torch.arange(20) % 3
    zoo = ws.zoo.write_zoo(
        tmp_path / "zoo",
        {"train": ws.Networks(w[:20], label=labels), "test": ws.Networks(w[20:])},
        classes=("a", "b", "c"),
        seed=7,
    )
    r = anchor(zoo.weights("train"), rounds=2)
    ws.align.align_zoo(zoo, tmp_path / "aligned", r)
    made = ws.Zoo.open(tmp_path / "aligned", verify=True)
    assert (made.classes, made.seed, made.splits) == (zoo.classes, zoo.seed, zoo.splits)
    assert made.labels("train").equal(labels)
    assert made.sources("test").equal(zoo.sources("test"))
    assert made.provenance["alignment"]["from"] == "zoo"
    for split in zoo.splits:
        before, after = zoo.weights(split), made.weights(split)
        assert after.flat.equal(align_to(before, r)[0].flat)
        g = ws.align.alignment(made, split)
        assert g.act(before).flat.equal(after.flat)
        torch.testing.assert_close(g.inverse().act(after).flat, before.flat, atol=1e-5, rtol=1e-5)
    ws.align.align_zoo(zoo, tmp_path / "rules")
    assert ws.Zoo.open(tmp_path / "rules").weights("test").flat.equal(canonicalize(zoo.weights("test"))[0].flat)
    with pytest.raises(ValueError, match="expected an aligned zoo"):
        ws.align.alignment(zoo, "train")
    file = tmp_path / "aligned" / "alignment.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="expected the digest that the manifest names"):
        ws.align.alignment(made, "train")


def test_an_aligned_zoo_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case `align_not_atomic`: the disk is full at any of the renames, the last included."""
    w = networks(SIREN, 6, dtype=torch.float32)
    zoo = ws.zoo.write_zoo(tmp_path / "zoo", train=ws.Networks(w))
    replace, calls = os.replace, []

    def full_at(number: int | None):
        calls.clear()

        def call(source, target) -> None:
            calls.append(str(target))
            if len(calls) - 1 == number:
                raise OSError(28, "No space left on device")
            replace(source, target)

        return call

    monkeypatch.setattr(os, "replace", full_at(None))
    ws.align.align_zoo(zoo, tmp_path / "counted", w[0])
    total = len(calls)
    assert any(name.endswith("alignment.safetensors") for name in calls)
    for number in range(total):
        monkeypatch.setattr(os, "replace", full_at(number))
        with pytest.raises(OSError, match="No space left"):
            ws.align.align_zoo(zoo, tmp_path / "aligned", w[0])
        assert [path.name for path in tmp_path.iterdir() if "aligned" in path.name] == []
    monkeypatch.setattr(os, "replace", replace)
    made = ws.align.align_zoo(zoo, tmp_path / "aligned", w[0])
    assert ws.align.alignment(made, "train").act(w).flat.equal(made.weights("train").flat)


def test_costs_of_an_aligned_zoo_are_recorded(tmp_path: Path) -> None:
    w = networks(SIREN, 4, dtype=torch.float32)
    zoo = ws.zoo.write_zoo(tmp_path / "zoo", train=ws.Networks(w))
    for number, costs in enumerate(("period", {"h1": 2.0}, None)):
        made = ws.align.align_zoo(zoo, tmp_path / str(number), w[0], costs=costs)
        assert made.provenance["alignment"]["costs"] == costs
    for call, error, text in (
        (lambda: ws.align.align_zoo(zoo, tmp_path / "x", costs="period"), ValueError, "costs: expected a reference"),
        (lambda: ws.align.align_zoo(zoo, tmp_path / "x", w), ValueError, "reference: expected one network, got 4"),
        (lambda: ws.align.align_zoo(zoo, tmp_path / "x", w.flat), TypeError, "reference: expected Weights"),
        (lambda: ws.align.align_zoo(w, tmp_path / "x"), TypeError, "zoo: expected a Zoo, got Weights"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert not (tmp_path / "x").exists()


# --- phases


@pytest.mark.parametrize("activation", ["sine", "cosine"])
def test_folded_phases_are_one_for_all_phases(activation: str) -> None:
    spec = ws.mlp(2, 6, 5, 1, activation=[activation, "sine"])
    w = networks(spec, 5)
    folded = fold_phases(w)
    ws.testing.assert_same_function(w, folded)
    for name in ("h1", "h2"):
        assert float(folded.view(str(spec.bias_of(name))).abs().max()) <= spec.axis(name).phase_step / 2 + 1e-9
    far = ws.Symmetry.sample(spec, batch=5, generator=generator(), parts=("shift",), max_shift=6, dtype=torch.float64)
    assert not torch.allclose(far.act(w).flat, w.flat)
    torch.testing.assert_close(fold_phases(far.act(w)).flat, folded.flat)
    signs = ws.Symmetry.sample(spec, batch=5, generator=generator(), group="signed", dtype=torch.float64)
    assert not torch.allclose(fold_phases(signs.act(w)).flat, folded.flat)  # negative control
    several = ws.mlp(2, 6, 1, activation="sine", bias=False)
    assert fold_phases(networks(several, 2)).flat.equal(networks(several, 2).flat)


# --- paths


def test_lines() -> None:
    a, b = networks(SIREN, 3, 1), networks(SIREN, 3, 2)
    assert interpolate(a, b, 0).flat.equal(a.flat)
    assert interpolate(a, b, 1.0).flat.equal(b.flat)
    torch.testing.assert_close(interpolate(a, b, 0.25).flat, 0.75 * a.flat + 0.25 * b.flat)
    each = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(interpolate(a, b, each).flat, torch.lerp(a.flat, b.flat, each.double()[:, None]))
    layers = interpolate(a[0], b, {"h1": 0.0, "h2": 1.0, "out": 0.5})
    assert layers.view("0.bias").equal(a.view("0.bias")[:1].expand(3, -1))
    assert layers.view("1.weight").equal(b.view("1.weight"))
    torch.testing.assert_close(layers.view("2.bias"), (a.view("2.bias")[:1] + b.view("2.bias")) / 2)


def test_phase_is_an_angle() -> None:
    a, b = networks(SIREN, 3, 1), networks(SIREN, 3, 2)
    period = 2 * torch.pi / 3
    far = b.clone()
    far.view("0.bias")[:] += 5 * period * torch.arange(-3, 4, dtype=torch.float64)
    x = 2 * torch.rand(9, 2, generator=generator(), dtype=torch.float64) - 1
    end = interpolate(a, far, 1.0, angle=True)
    torch.testing.assert_close(ws.evaluate(end, x), ws.evaluate(b, x))
    assert float((end.view("0.bias") - a.view("0.bias")).abs().max()) <= period / 2 + 1e-9
    for t in (0.3, 0.8):  # the way does not depend on how many whole periods lie between
        torch.testing.assert_close(interpolate(a, far, t, angle=True).flat, interpolate(a, b, t, angle=True).flat)
        assert not torch.allclose(interpolate(a, far, t).flat, interpolate(a, b, t).flat)  # negative control
    relu = networks(ws.mlp(2, 4, 1), 2)
    assert interpolate(relu[0], relu, 0.5, angle=True).flat.equal(interpolate(relu[0], relu, 0.5).flat)


def test_barrier_by_hand() -> None:
    """One linear layer, whose loss along the line is a known parabola."""
    spec = ws.mlp(1, 1, bias=False)
    a, b = (ws.Weights(torch.tensor([[value]], dtype=torch.float64), spec) for value in (-1.0, 1.0))
    x, y = torch.ones(4, 1).double(), torch.zeros(4, 1).double()
    found = barrier(a, b, x=x, targets=y + 3.0, points=5)
    torch.testing.assert_close(found.loss[0], torch.tensor([16.0, 12.25, 9.0, 6.25, 4.0]).double())
    assert float(found.height) == 0.0  # a parabola lies below its chord
    up = barrier(a, b, x=x, targets=y, points=5, loss=lambda out, goal: -(out - goal).square().flatten(1).mean(1))
    torch.testing.assert_close(up.loss[0], -torch.tensor([1.0, 0.25, 0.0, 0.25, 1.0]).double())
    assert float(up.height) == 1.0
    assert float(barrier(a, b, x=x).height) == 0.0  # the function itself moves along a line
    assert isinstance(up, Barrier)
    assert up.t.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_picture_halfway() -> None:
    a, b = networks(SIREN, 3, 1), networks(SIREN, 3, 2)
    g = match(a, b, group="full")
    x = 2 * torch.rand(9, 2, generator=generator(), dtype=torch.float64) - 1
    for points in (3, 4):  # with an even number of points the middle is none of them
        for angle in (False, True):
            found = barrier(a, b, g, x=x, points=points, angle=angle)
            between = interpolate(a, g.act(b), 0.5, angle=angle)
            torch.testing.assert_close(found.middle, ws.evaluate(between, x))
            assert found.x is x
    assert not torch.allclose(barrier(a, b, x=x).middle, barrier(a, b, g, x=x).middle)
    own = x.expand(3, -1, -1) + torch.arange(3.0)[:, None, None].double()  # points of each network's own
    one = barrier(a[0], b, x=own)
    torch.testing.assert_close(one.loss, barrier(a[torch.tensor([0, 0, 0])], b, x=own).loss)


def test_points_are_a_regular_grid_by_default() -> None:
    for inputs, side in ((1, 32), (2, 32), (3, 12)):
        spec = ws.siren(inputs, 4, 2)
        a, b = networks(spec, 2, 1), networks(spec, 2, 2)
        axis = torch.linspace(-1, 1, side, dtype=torch.float64).tolist()
        x = torch.tensor(list(itertools.product(*[axis] * inputs)), dtype=torch.float64)
        found = barrier(a, b)
        torch.testing.assert_close(found.x, x)
        assert found.middle.shape == (2, side**inputs, 2)
        assert found.height.equal(barrier(a, b, x=found.x).height)
    wide = networks(ws.siren(4, 4, 1), 2)
    with pytest.raises(ValueError, match=r"x: expected points for networks of 4 inputs, got none; pass x="):
        barrier(wide, wide)


def test_targets_have_the_shape_of_the_outputs() -> None:
    a, b = networks(SIREN, 3, 1), networks(SIREN, 3, 2)
    x = 2 * torch.rand(20, 2, generator=generator(), dtype=torch.float64) - 1
    y = torch.rand(20, 1, generator=generator(), dtype=torch.float64)
    found = barrier(a, b, x=x, targets=y)
    torch.testing.assert_close(found.loss[:, 0], (ws.evaluate(a, x) - y).square().mean((1, 2)))
    assert barrier(a, b, x=x, targets=y.expand(3, -1, -1)).loss.equal(found.loss)
    for shape in ((20,), (20, 5), (1, 20, 1), (1, 1), (3, 20), (2, 20, 1)):
        with pytest.raises(ValueError, match=r"targets: expected \[20, 1\] or \[3, 20, 1\], as the outputs are, got"):
            barrier(a, b, x=x, targets=torch.zeros(shape))
    with pytest.raises(TypeError, match="targets: expected a tensor, got list"):
        barrier(a, b, x=x, targets=[0.0] * 20)  # type: ignore[arg-type]


def test_matching_lowers_the_barrier() -> None:
    a = networks(SIREN, 12)
    b = ws.Symmetry.sample(SIREN, batch=12, generator=generator(), dtype=torch.float64).act(a)
    x = 2 * torch.rand(60, 2, generator=generator(), dtype=torch.float64) - 1
    heights = [float(barrier(a, b, x=x).height.mean())]
    for group in ("permutation", "signed", "full"):
        g = match(a, b, group=group, restarts=3, generator=generator())
        heights.append(float(barrier(a, b, g, x=x, targets=ws.evaluate(a, x)).height.mean()))
    assert heights[3] < 0.3 * heights[0]
    assert heights[3] < heights[2]
    assert bool((barrier(a, a, x=x).height < 1e-20).all())


def test_paths_that_make_no_sense_are_refused() -> None:
    a, x = networks(SIREN, 3), torch.zeros(4, 2).double()
    for call, error, text in (
        (lambda: interpolate(a, a, torch.zeros(2)), ValueError, r"t: expected one number, .* got \[2\]"),
        (lambda: interpolate(a, a, {"h1": 0.5}), ValueError, r"t: expected a number for each of the axes"),
        (lambda: interpolate(a, a, "half"), TypeError, "t: expected a finite number"),
        (lambda: interpolate(a, networks(SIREN, 2), 0.5), ValueError, "expected pairs"),
        (lambda: barrier(a, a, x=x, points=2), ValueError, "points: expected at least 3"),
        (lambda: barrier(a, a, x=x, loss=lambda y, z: y), ValueError, "loss: expected targets"),
        (lambda: barrier(a, a, x=x, targets=x, loss=lambda y, z: y), ValueError, r"shape \[3\], got \[3, 4, 1\]"),
        (lambda: barrier(a, a, x=[0.0]), TypeError, "x: expected a tensor"),
        (lambda: barrier(a, a, x=x[:0]), ValueError, r"x: expected at least one point, got shape \[0, 2\]"),
        (lambda: barrier(a, a, x=x * torch.nan), ValueError, "x: expected finite numbers, got NaN"),
        (lambda: barrier(a, a, x=x, targets=x[:, :1] * torch.nan), ValueError, "targets: expected finite numbers"),
        (
            lambda: barrier(a, a, "g", x=x),
            TypeError,
            r"g: expected a Symmetry, got str; make one with ws\.align\.match",
        ),
        (lambda: barrier(a, spoiled(a, 2, torch.nan)), ValueError, r"b: expected finite weights, .* networks \[2\]"),
        (lambda: barrier(spoiled(a, 0, torch.inf), a), ValueError, r"a: expected finite weights, .* networks \[0\]"),
        (lambda: barrier(a, a.replace(a.flat * 1e200)), ValueError, "loss: expected finite losses along the path"),
        (lambda: interpolate(a, spoiled(a, 1, torch.nan), 0.5), ValueError, r"b: expected finite .* networks \[1\]"),
        (
            lambda: interpolate(a, a, torch.tensor([0.5, torch.nan, torch.inf])),
            ValueError,
            r"t: expected finite numbers, got NaN or infinity for networks \[1, 2\]",
        ),
    ):
        with pytest.raises(error, match=text):
            call()
