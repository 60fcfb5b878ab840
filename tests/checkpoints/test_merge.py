"""Two checkpoints: aligned, averaged, batch norms measured anew, and the command that does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import run_command
from torch import Tensor, nn

import weightspace as ws
from weightspace import checkpoints
from weightspace.checkpoints._align import clear_statistics
from weightspace.checkpoints._files import read_metadata
from weightspace.checkpoints._keys import find_keys
from weightspace.checkpoints._merge import _aligned, merge_state_dicts

NETWORK = """
from torch import nn

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.middle = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.outer, self.head = nn.Conv2d(5, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.middle(self.inner(x)).relu())
        return self.head(x.mean((2, 3)))

def recurrent():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.LSTM(3, 4))

def number():
    return 3

plain = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
"""

namespace: dict = {}
exec(NETWORK, namespace)
make: Callable[[], nn.Module] = namespace["Residual"]


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        module(torch.randn(64, 1, 8, 8))  # running statistics that are their own
    return module.eval()


def images(count: int = 32) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def sampled(module: nn.Module) -> ws.Symmetry:
    return ws.Symmetry.sample(ws.spec_of(module), batch=1, generator=torch.Generator().manual_seed(3))


def test_a_moved_checkpoint_keeps_its_function_and_counters() -> None:
    module = network(0)
    state = module.state_dict()
    moved = checkpoints.move_state_dict(state, sampled(module))
    assert list(moved) == list(state)
    assert moved["norm.num_batches_tracked"].item() == 1
    assert all(moved[key].dtype == value.dtype for key, value in state.items())
    assert not moved["norm.running_var"].equal(state["norm.running_var"])
    assert moved["norm.running_var"].sort().values.equal(state["norm.running_var"].sort().values)
    other = make().eval()
    other.load_state_dict(moved)
    torch.testing.assert_close(other(images()), module(images()), atol=1e-5, rtol=1e-5)
    other.load_state_dict({**moved, "norm.running_var": state["norm.running_var"]})
    assert float((other(images()) - module(images())).detach().abs().max()) > 1e-3


def test_alignment_undoes_a_symmetry() -> None:
    module = network(0)
    state = module.state_dict()
    found = checkpoints.align_state_dicts(module, state, checkpoints.move_state_dict(state, sampled(module)))
    assert found.before > 1
    assert found.after == 0.0
    assert all(torch.equal(found.state_dict[key], value) for key, value in state.items())


def test_alignment_of_two_networks_keeps_the_second() -> None:
    a, b = network(0), network(1)
    found = checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict())
    assert 0 < found.after < found.before
    moved = make().eval()
    moved.load_state_dict(found.state_dict)
    torch.testing.assert_close(moved(images()), b(images()), atol=1e-5, rtol=1e-5)


def test_running_statistics_do_not_count() -> None:
    a, b = network(0), network(1)
    plain = checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict())
    wide = {k: v * 1000 if k.endswith("running_var") else v for k, v in b.state_dict().items()}
    found = checkpoints.align_state_dicts(a, a.state_dict(), wide)
    assert (found.before, found.after) == (plain.before, plain.after)
    for name, perm in plain.symmetry.perm.items():
        assert found.symmetry.perm[name].equal(perm)


def test_statistics_alone_are_set_to_zero() -> None:
    module = network(0)
    w = ws.Weights.from_state_dicts([module.state_dict()], ws.spec_of(module))
    zeroed = clear_statistics(w.clone())
    assert not zeroed.view("middle.running_mean").any()
    assert zeroed.view("middle.weight").equal(w.view("middle.weight"))


def test_the_ends_of_a_line() -> None:
    a, b = network(0), network(1)
    states = a.state_dict(), b.state_dict()
    for t, end in ((0.0, a), (1.0, b)):
        torch.testing.assert_close(
            checkpoints.merge(make().eval(), *states, shares=(1 - t, t))(images()), end(images())
        )
    moved = checkpoints.align_state_dicts(a, *states).state_dict
    middle = checkpoints.merge(a, states[0], moved).state_dict()
    torch.testing.assert_close(middle["inner.weight"], (states[0]["inner.weight"] + moved["inner.weight"]) / 2)
    assert a.state_dict()["inner.weight"] is not middle["inner.weight"]


def test_repair_measures_what_the_network_computes() -> None:
    """Against a transcription: layer by layer, the mean and variance of what enters each norm."""
    module = checkpoints.merge(network(0), network(0).state_dict(), network(1).state_dict()).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    repaired = checkpoints.repair_batch_norm(module, [images(64)])
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert repaired.training
    assert repaired.get_submodule("norm").momentum == 0.1
    z = module.get_submodule("stem")(images(64))
    state = repaired.state_dict()
    torch.testing.assert_close(state["norm.running_mean"], z.mean((0, 2, 3)))
    torch.testing.assert_close(state["norm.running_var"], z.var((0, 2, 3)))
    scaled = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    norm = module.get_submodule("norm")
    h = torch.relu(scaled * norm.weight[:, None, None] + norm.bias[:, None, None])  # type: ignore[index]
    z = module.get_submodule("inner")(h)
    torch.testing.assert_close(state["middle.running_mean"], z.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state["middle.running_var"], z.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert not state["middle.running_var"].equal(before["middle.running_var"])


class Tracked(nn.Module):
    """Instance norms that keep statistics, and a synchronised batch norm."""

    def __init__(self, reach: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3)
        self.first, self.second = nn.InstanceNorm2d(4, track_running_stats=True), nn.SyncBatchNorm(3)
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.relu(self.first(self.a(x))))
        return self.second(x) if self.reach else x


def test_repair_measures_instance_norms_and_synchronised_norms() -> None:
    module = Tracked()
    batches = [images(64)[:40], images(64)[40:]]
    repaired = checkpoints.repair_batch_norm(module, batches)
    state = repaired.state_dict()
    z = [module.a(batch) for batch in batches]
    mean = sum(x.mean((2, 3)).mean(0) for x in z) / 2
    var = sum(x.var((2, 3)).mean(0) for x in z) / 2
    torch.testing.assert_close(state["first.running_mean"], mean)
    torch.testing.assert_close(state["first.running_var"], var)
    z = [module.b(torch.relu(nn.functional.instance_norm(x))) for x in z]
    torch.testing.assert_close(state["second.running_mean"], sum(x.mean((0, 2, 3)) for x in z) / 2)
    torch.testing.assert_close(state["second.running_var"], sum(x.var((0, 2, 3)) for x in z) / 2)
    assert (repaired.get_submodule("first").momentum, repaired.get_submodule("second").momentum) == (0.1, 0.1)
    repaired(images())  # nothing of the measuring is left behind
    assert repaired.get_submodule("second").momentum == 0.1
    assert not module.get_submodule("first").state_dict()["running_mean"].any()


def test_repair_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(
        ValueError, match=r"expected inputs that reach every norm, got none for \['second'\]; pass batches"
    ):
        checkpoints.repair_batch_norm(Tracked(reach=False), [images()])
    own = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1))
    own[1].register_buffer("running_var", torch.ones(2))
    with pytest.raises(ValueError, match=r"norms of torch\.nn, got running statistics of \[\"Conv2d \('1'\)\"\]"):
        checkpoints.repair_batch_norm(own, [images()])
    with pytest.raises(
        ValueError, match=r"expected finite inputs, got NaN or infinity in the statistics of \['first', "
    ):
        checkpoints.repair_batch_norm(Tracked(), [images(), images() * torch.inf])
    module = network(0)
    with torch.no_grad():
        module.get_parameter("inner.weight")[0] = torch.nan
    with pytest.raises(ValueError, match=r"module: expected finite weights, got NaN or infinity in \['inner.weight'\]"):
        checkpoints.repair_batch_norm(module, [images()])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_state_dicts_that_are_not_finite_are_refused(value: float) -> None:
    a, b = network(0).state_dict(), network(1).state_dict()
    bad = {**b, "norm.running_var": b["norm.running_var"] * value}
    text = r"expected finite weights, got NaN or infinity in \['norm.running_var'\]; leave that network out"
    for place, given in enumerate(((bad, a), (a, bad), (a, b, bad))):
        with pytest.raises(ValueError, match=f"state dict {place}: " + text):
            checkpoints.merge(make(), *given)
    with pytest.raises(TypeError, match="state dict 1: expected a mapping of names to tensors, got Residual; pass"):
        checkpoints.merge(make(), a, network(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"module: expected an nn\.Module, got dict"):
        checkpoints.merge({}, a, b)  # type: ignore[arg-type]


def test_complex_numbers_are_refused() -> None:
    """Their imaginary part would be lost, and the midpoint of two would be the first."""
    a, b = network(0).state_dict(), network(1).state_dict()
    odd = {**b, "inner.weight": b["inner.weight"].to(torch.complex64)}
    g = ws.Symmetry(ws.spec_of(make()), 1)
    complex_module = make()
    complex_module.extra = nn.Parameter(torch.zeros(1, dtype=torch.complex64))
    for name, call in (
        ("state dict 1", lambda: checkpoints.merge(make(), a, odd)),
        ("state dict 0", lambda: checkpoints.merge(make(), odd, a)),
        ("b", lambda: checkpoints.align_state_dicts(make(), a, odd)),
        ("b", lambda: checkpoints.align_state_dicts(make(), a, odd, batches=[images()])),
        ("a", lambda: checkpoints.align_state_dicts(make(), odd, a)),
        ("state_dict", lambda: checkpoints.move_state_dict(odd, g)),
        ("module", lambda: checkpoints.repair_batch_norm(complex_module, [images()])),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: expected real numbers, got complex ones in \["):
            call()


def test_tensors_without_plain_numbers() -> None:
    """Sparse and meta tensors and eight bits a number are refused by name."""
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    a = module.state_dict()
    for bad in ({**a, "0.weight": a["0.weight"].to_sparse()}, {**a, "0.weight": a["0.weight"].to("meta")}):
        with pytest.raises(ValueError, match=r"^b: expected dense tensors .* in \['0.weight'\]; load the numbers, and"):
            checkpoints.align_state_dicts(module, a, bad)
    small = {**a, "0.weight": a["0.weight"].to(torch.float8_e4m3fn)}
    with pytest.raises(TypeError, match=r"^b: expected 16 bits or more a number, got torch\.float8_e4m3fn in \['0.wei"):
        checkpoints.align_state_dicts(module, a, small)


def test_results_print_short() -> None:
    a, b = network(0), network(1)
    text = repr(checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict()))
    assert text.startswith("Aligned(before=")
    assert text.endswith("17 tensors, 2 axes permuted)")
    assert "\n" not in text


# Keys as wrappers leave them, and the comparison before any work.

WRAPPERS: dict[str, Callable[[str], str]] = {
    "parallel": lambda key: "module." + key,
    "compiled": lambda key: "_orig_mod." + key,
    "both": lambda key: "module._orig_mod." + key,
    "lightning": lambda key: "model." + key,
    "part": lambda key: key.replace("inner.", "inner._orig_mod."),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_prefixes_are_passed_over_and_extra_keys_pass_through(name: str) -> None:
    a, b = network(0), network(1).state_dict()
    wrapped = {WRAPPERS[name](key): value for key, value in b.items()} | {"ema.decay": torch.ones(3)}
    plain, found = (checkpoints.align_state_dicts(a, a.state_dict(), state) for state in (b, wrapped))
    assert (found.extra, plain.extra, found.after) == (("ema.decay",), (), plain.after)
    assert list(found.state_dict) == list(wrapped)
    assert all(found.state_dict[WRAPPERS[name](key)].equal(value) for key, value in plain.state_dict.items())
    with pytest.warns(UserWarning, match=r"merge leaves out \['ema.decay'\]"):
        merged = checkpoints.merge(a, a.state_dict(), wrapped).state_dict()
    expected = checkpoints.merge(a, a.state_dict(), b).state_dict()
    assert all(merged[key].equal(value) for key, value in expected.items())


def test_a_wrapped_module_reads_plain_keys() -> None:
    a, b = network(0), network(1)
    wrapped = nn.DataParallel(a)
    found = checkpoints.align_state_dicts(wrapped, a.state_dict(), b.state_dict())
    assert list(found.state_dict) == list(a.state_dict())
    assert found.after == checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict()).after


def test_keys_that_are_missing_or_stand_twice() -> None:
    state = {"0.weight": torch.ones(1), "0.bias": torch.ones(1)}
    with pytest.raises(
        ValueError, match=r"b: expected the keys .*, missing \['1.weight', '1.bias'\], got \['0.weight'"
    ):
        find_keys("b", state, [*state, "1.weight", "1.bias", "2.num_batches_tracked"])
    twice = {"module.w": torch.ones(1), "model.w": torch.ones(1)}
    with pytest.raises(ValueError, match=r"b: expected one entry a key, got \['module.w', 'model.w'\]; leave all but"):
        find_keys("b", twice, ["w"])
    assert find_keys("b", {**twice, "w": torch.ones(1)}, ["w"]).own == {"w": "w"}


def test_all_differences_are_listed_before_any_work() -> None:
    a, b = network(0).state_dict(), network(1).state_dict()
    bad = {**b, "inner.bias": torch.zeros(2), "head.bias": b["head.bias"].half()}
    text = (
        r"got 2 differences: 'inner.bias' \[5\] in state dict 0 and state dict 2, \[2\] in state dict 1; "
        r"'head.bias' torch.float32 in state dict 0 and state dict 2, torch.float16 in state dict 1"
    )
    with pytest.raises(ValueError, match=text):
        checkpoints.merge(make(), a, bad, b)


# Shares, methods and anchors.


def states_of(*values: float) -> list[dict[str, Tensor]]:
    return [{"w": torch.tensor([value, 0.0]), "v": torch.tensor([0.0, value])} for value in values]


def test_shares_of_many_and_by_layer() -> None:
    states = states_of(1.0, 2.0, 6.0)
    assert merge_state_dicts(states)["w"].tolist() == [3.0, 0.0]
    assert merge_state_dicts(states, shares=(2, 1, 1))["v"].tolist() == [0.0, 2.5]
    found = merge_state_dicts(states, shares={"w": (0, 0, 1), "*": (1, 0, 0)})
    assert (found["w"].tolist(), found["v"].tolist()) == ([6.0, 0.0], [0.0, 1.0])
    assert merge_state_dicts(states, shares={"x": (0, 0, 1)})["w"].tolist() == [3.0, 0.0]


def test_spherical_means_lie_on_the_arc() -> None:
    """Against the formula of the arc between two points, and symmetric points around an axis."""
    x, y = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, norms = 0.3, (x.norm(), y.norm())
    angle = torch.acos((x * y).sum() / (norms[0] * norms[1]))
    arc = (torch.sin((1 - t) * angle) * x / norms[0] + torch.sin(t * angle) * y / norms[1]) / torch.sin(angle)
    found = merge_state_dicts([{"w": x}, {"w": y}], shares=(1 - t, t), method="spherical")["w"]
    torch.testing.assert_close(found, ((1 - t) * norms[0] + t * norms[1]) * arc)
    assert not torch.allclose(found, torch.lerp(x, y, t))
    corners = [{"w": row.clone()} for row in torch.eye(3)]
    torch.testing.assert_close(merge_state_dicts(corners, method="spherical")["w"], torch.full((3,), 3**-0.5))
    opposite = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([-1.0])}]
    assert merge_state_dicts(opposite, method="spherical")["w"].item() == 0.0
    assert merge_state_dicts([*states_of(2.0), *states_of(0.0)], method="spherical")["w"].tolist() == [1.0, 0.0]


def test_half_precision_is_averaged_with_one_rounding() -> None:
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).half()
    found = merge_state_dicts([{"w": row} for row in x])["w"]
    assert found.dtype == torch.float16
    assert found.equal(x.float().mean(0).half())


def test_many_networks_are_moved_to_an_anchor_and_merged() -> None:
    module = network(0)
    state = module.state_dict()
    copies = [checkpoints.move_state_dict(state, g) for g in map(sampled, [module] * 3)]
    g = ws.Symmetry.sample(ws.spec_of(module), batch=1, generator=torch.Generator().manual_seed(9))
    copies.append(checkpoints.move_state_dict(state, g))
    for rounds in (1, 3):
        merged = checkpoints.merge(module, state, *copies, group="permutation", rounds=rounds)
        torch.testing.assert_close(merged.eval()(images()), module(images()), atol=1e-5, rtol=1e-5)
    plain = checkpoints.merge(module, state, *copies).eval()
    assert float((plain(images()) - module(images())).detach().abs().max()) > 1e-3


def test_further_rounds_bring_networks_closer_to_their_mean() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = [nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(6)]
    module, states = nets[0], [net.state_dict() for net in nets]
    spread = []
    for rounds in (1, 3):
        moved = _aligned(module, [{**state} for state in states], "permutation", rounds, None)
        whole = clear_statistics(ws.Weights.from_state_dicts(moved, ws.spec_of(module)))
        spread.append(float((whole.flat - whole.flat.mean(0)).square().sum()))
    assert spread[1] < spread[0]


def test_merges_that_make_no_sense() -> None:
    a, b = network(0).state_dict(), network(1).state_dict()
    for options, text in (
        ({"shares": (1,)}, r"shares: expected 2 numbers, one for each state dict, got \(1,\)"),
        ({"shares": {"stem.*": (1, 2, 3)}}, "shares: expected 2 numbers"),
        ({"shares": (0, 0)}, "shares: expected at least one above zero"),
        ({"shares": (-1, 2)}, "shares: expected shares of at least zero"),
        ({"method": "cubic"}, "method: expected 'linear' or 'spherical', got 'cubic'"),
    ):
        with pytest.raises(ValueError, match=text):
            checkpoints.merge(make(), a, b, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected at least two state dicts to merge, got 1"):
        checkpoints.merge(make(), a)
    with pytest.raises(ValueError, match="rounds: expected at least 1, got 0"):
        checkpoints.merge(make(), a, b, rounds=0)


# Files.


def test_files_whose_tensors_claim_more_than_they_hold(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**9)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth, 'w': expected a tensor with all its values, got \[1000000000\]"):
        checkpoints.read_checkpoint(tmp_path / "a.pth")
    checkpoints.write_checkpoint({"w": torch.ones(100)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    for damaged in (content[:-1], content[:20], b"\xff" * 8 + content[8:], content.replace(b"[100]", b"[999]"), b""):
        (tmp_path / "a.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors: expected a file of safetensors, got a damaged or other"):
            checkpoints.read_checkpoint(tmp_path / "a.safetensors")


def test_metadata_of_safetensors(tmp_path: Path) -> None:
    state, path = network(0).state_dict(), tmp_path / "a.safetensors"
    checkpoints.write_checkpoint(state, path)
    assert read_metadata(path) == {"format": "pt"}
    checkpoints.write_checkpoint(state, path, metadata={"epoch": "3"})
    assert read_metadata(path) == {"format": "pt", "epoch": "3"}
    checkpoints.write_checkpoint(state, tmp_path / "a.pth", metadata={"epoch": "3"})
    assert read_metadata(tmp_path / "a.pth") == {}
    for name in ("a.safetensors", "a.pth"):
        read = checkpoints.read_checkpoint(tmp_path / name)
        assert {key: value.dtype for key, value in read.items()} == {key: v.dtype for key, v in state.items()}
        assert all(value.equal(state[key]) for key, value in read.items())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_full_disk_leaves_the_old_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case `checkpoint_enospc`: the error names the file and the reason, and nothing is left behind."""
    old, new = network(0).state_dict(), network(1).state_dict()
    checkpoints.write_checkpoint(old, tmp_path / name)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=rf"could not write .*{name}.*: No space left on device"):
            checkpoints.write_checkpoint(new, tmp_path / name)
    assert checkpoints.read_checkpoint(tmp_path / name)["inner.weight"].equal(old["inner.weight"])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a file that ends in \.safetensors, \.pth, \.pt, got '\.ckpt'"):
        checkpoints.write_checkpoint({"w": torch.ones(1)}, tmp_path / "a.ckpt")
    with pytest.raises(TypeError, match="state_dict: expected a mapping of names to tensors, got Residual"):
        checkpoints.write_checkpoint(network(0), tmp_path / "a.pth")  # type: ignore[arg-type]


def test_a_file_in_the_working_directory_hides_no_installed_module(tmp_path: Path) -> None:
    """Case `cwd_first`: a ``numba.py`` among downloaded checkpoints must not run."""
    package, folder = tmp_path / "packages", tmp_path / "downloads"
    package.mkdir()
    folder.mkdir()
    (package / "my_net.py").write_text(NETWORK)
    (folder / "numba.py").write_text("open('ran', 'w').close(); raise ImportError('the wrong numba')")
    (folder / "beside.py").write_text(NETWORK)
    code = (
        "from weightspace.checkpoints._files import load_module\n"
        "from weightspace.checkpoints import align_state_dicts\n"
        "for name in ('my_net:Residual', 'beside:Residual'):\n"
        "    net = load_module(name)\n"
        "    print(align_state_dicts(net, net.state_dict(), net.state_dict()).after)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert (done.stdout.split(), done.returncode) == (["0.0", "0.0"], 0), done.stderr
    assert not (folder / "ran").exists()


# Batch norms.


def test_repair_averages_over_batches() -> None:
    module = nn.BatchNorm1d(1)
    repaired = checkpoints.repair_batch_norm(module, [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [4.0]])])
    assert repaired.state_dict()["running_mean"].item() == 2.5
    assert repaired.state_dict()["running_var"].item() == 1.0


def test_bad_input() -> None:
    a, b = network(0).state_dict(), network(1).state_dict()
    two = ws.Symmetry.sample(ws.spec_of(make()), batch=2, generator=torch.Generator())
    with pytest.raises(ValueError, match="expected one group element for one state dict, got 2"):
        checkpoints.move_state_dict(a, two)
    with pytest.raises(TypeError, match="g: expected a Symmetry, got dict"):
        checkpoints.move_state_dict(a, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a: expected the keys of the network, .*missing \['stem.weight'\], got "):
        checkpoints.align_state_dicts(make(), {k: v for k, v in a.items() if k != "stem.weight"}, b)
    with pytest.raises(ValueError, match=r"a: expected finite weights"):
        checkpoints.align_state_dicts(make(), {**a, "stem.weight": a["stem.weight"] * torch.nan}, b)
    with pytest.raises(ValueError, match=r"got 1 difference: 'stem.weight' \[6, 1, 3, 3\] in a, \[1\] in b"):
        checkpoints.align_state_dicts(make(), a, {**b, "stem.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="expected batch norms with running statistics, got none"):
        checkpoints.repair_batch_norm(nn.Linear(2, 1), [torch.zeros(1, 2)])
    with pytest.raises(ValueError, match="batches: expected at least one batch of inputs, got none"):
        checkpoints.repair_batch_norm(make(), [])
    with pytest.raises(TypeError, match=r"module: expected an nn\.Module, got dict"):
        checkpoints.repair_batch_norm({}, [])  # type: ignore[arg-type]


# The command.

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run ``align`` beside a file with the network: exit code, stdout, stderr."""
    (tmp_path / "merge_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        return run_command(capsys, "align", *arguments)

    return call


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_the_command(run: Run, suffix: str) -> None:
    a = network(0)
    checkpoints.write_checkpoint(a.state_dict(), f"a.{suffix}")
    checkpoints.write_checkpoint(checkpoints.move_state_dict(a.state_dict(), sampled(a)), f"b.{suffix}")
    files = (f"a.{suffix}", f"b.{suffix}", "--module", "merge_net:Residual")
    code, out, err = run(*files, "--input", "1,8,8", "--out", f"out.{suffix}", "--merge", f"m.{suffix}")
    assert (code, err) == (0, "")
    assert ", 0 after" in out
    assert "repair_batch_norm" in out
    for name in (f"out.{suffix}", f"m.{suffix}"):
        read = checkpoints.read_checkpoint(name)
        assert all(torch.equal(read[key], value) for key, value in a.state_dict().items())
    assert not [path.name for path in Path().iterdir() if path.name.startswith(".")]
    if suffix == "safetensors":
        checkpoints.write_checkpoint(a.state_dict(), "a.safetensors", metadata={"epoch": "3"})
        assert run(*files[:2], *files[2:], "--merge", "m.safetensors")[0] == 0
        assert read_metadata("m.safetensors") == {"format": "pt", "epoch": "3"}
    code, out, _ = run(*files)
    assert (code, out.count("\n")) == (0, 1)


def test_the_command_pairs_by_responses(run: Run) -> None:
    a, x = network(0), images()
    checkpoints.write_checkpoint(a.state_dict(), "a.pth")
    checkpoints.write_checkpoint(checkpoints.move_state_dict(a.state_dict(), sampled(a)), "b.pth")
    np.save("x.npy", x.numpy())
    files = ("a.pth", "b.pth", "--module", "merge_net:Residual", "--responses")
    code, out, err = run(*files, "x.npy", "--out", "out.pth")
    assert (code, err) == (0, "")
    assert ", 0 after" in out
    assert all(torch.equal(checkpoints.read_checkpoint("out.pth")[key], value) for key, value in a.state_dict().items())
    np.savez("x.npz", x=x.numpy())
    for name, text in (("none.npy", "got no such file"), ("x.npz", "in an .npy file"), ("a.pth", "in an .npy file")):
        code, _, err = run(*files, name)
        assert code == 1
        assert text in err
        assert err.count("\n") == 1


NESTED = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer_states": [{"lr": 0.1}]},
    "model": lambda state: {"model": state, "step": torch.tensor(3)},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "twice": lambda state: {"model": {"state_dict": state, "name": "net"}, "epoch": 1},
}


@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("name", NESTED)
def test_state_dicts_beside_other_things(name: str, ending: str, tmp_path: Path) -> None:
    state = network(0).state_dict()
    torch.save(NESTED[name](state), tmp_path / f"a{ending}")
    found = checkpoints.read_checkpoint(tmp_path / f"a{ending}")
    assert list(found) == list(state)
    assert all(found[key].equal(value) for key, value in state.items())


def _sharded(folder: Path, state: dict[str, Tensor], **more: str) -> Path:
    keys = list(state)
    parts = {"a-00001-of-00002.safetensors": keys[:5], "a-00002-of-00002.safetensors": keys[5:]}
    for file, own in parts.items():
        checkpoints.write_checkpoint({key: state[key] for key in own}, folder / file)
    places = {key: file for file, own in parts.items() for key in own} | more
    (folder / "a.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / "a.safetensors.index.json"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sharded_checkpoints(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: value.to(dtype) for key, value in network(0).state_dict().items()}
    index = _sharded(tmp_path, state)
    for path in (tmp_path, index):
        found = checkpoints.read_checkpoint(path)
        assert list(found) == list(state)
        assert all(found[key].equal(value) and found[key].dtype == dtype for key, value in state.items())


def test_an_index_reads_nothing_elsewhere_and_misses_nothing(tmp_path: Path) -> None:
    state = network(0).state_dict()
    with pytest.raises(FileNotFoundError, match=r"expected one file \*\.index\.json of shards, got"):
        checkpoints.read_checkpoint(tmp_path)
    for place in ("../a.safetensors", "/etc/passwd", "a.safetensors.index.json", ".."):
        with pytest.raises(ValueError, match="expected the names of files beside it, got"):
            checkpoints.read_checkpoint(_sharded(tmp_path, state, extra=place))
    with pytest.raises(ValueError, match=r"expected tensors in the files that it names, .*extra.* not there"):
        checkpoints.read_checkpoint(_sharded(tmp_path, state, extra="a-00001-of-00002.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"none\.pth: expected a state dict, got no such file"):
        checkpoints.read_checkpoint(_sharded(tmp_path, state, extra="none.pth"))
    (tmp_path / "a.safetensors.index.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected a weight_map of tensors to files"):
        checkpoints.read_checkpoint(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_moved_with_one_rounding(dtype: torch.dtype) -> None:
    """In float32, and written back in its own dtype."""
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    state = {key: value.to(dtype) for key, value in module.state_dict().items()}
    g = sampled(module)
    assert g.scale
    found = checkpoints.move_state_dict(state, g)
    exact = g.act(ws.Weights.from_state_dicts([{k: v.float() for k, v in state.items()}], g.spec)).state_dict(0)
    assert all(value.dtype == dtype and value.equal(exact[key].to(dtype)) for key, value in found.items())
    back = checkpoints.align_state_dicts(module, state, found, group="full")
    assert all(value.dtype == dtype for value in back.state_dict.values())
    assert back.after < 1e-3


def test_restarts_on_the_command_line(run: Run) -> None:
    module = network(0)
    checkpoints.write_checkpoint(module.state_dict(), "a.pth")
    checkpoints.write_checkpoint(network(1).state_dict(), "b.pth")
    files = ("a.pth", "b.pth", "--module", "merge_net:Residual", "--out", "out.pth")
    assert run(*files, "--restarts", "3", "--seed", "5")[::2] == (0, "")
    options = {"restarts": 3, "generator": torch.Generator().manual_seed(5)}
    states = [checkpoints.read_checkpoint(name) for name in ("a.pth", "b.pth")]
    best, plain = (checkpoints.align_state_dicts(module, *states, **more) for more in (options, {}))
    assert best.after <= plain.after
    found = checkpoints.read_checkpoint("out.pth")
    assert all(found[key].equal(value) for key, value in best.state_dict.items())
    code, _, err = run(*files, "--restarts", "-1")
    assert code == 2
    assert err.count("\n") == 1
    np.save("x.npy", images().numpy())
    code, _, err = run(*files, "--restarts", "2", "--responses", "x.npy")
    assert code == 1
    assert "leave batches out" in err


ERRORS = {
    "no file": (("a.pth", "none.pth", "--module", "merge_net:Residual"), "none.pth: expected a state dict, got no"),
    "no form": (
        ("a.pth", "a.onnx", "--module", "merge_net:Residual"),
        "a.onnx: expected a file that ends in .safetensors",
    ),
    "damaged": (
        ("a.pth", "bad.pth", "--module", "merge_net:Residual"),
        "bad.pth: expected a file of torch.save",
    ),
    "nested": (
        ("a.pth", "nested.pth", "--module", "merge_net:Residual"),
        "b: expected the keys",
    ),
    "no colon": (("a.pth", "a.pth", "--module", "merge_net"), "module: expected package.module:function"),
    "no module": (
        ("a.pth", "a.pth", "--module", "nowhere_at_all:f"),
        "modules: expected a module that can be imported, got 'nowhere_at_all'",
    ),
    "no attribute": (
        ("a.pth", "a.pth", "--module", "merge_net:f"),
        "expected an object named 'f' in the module merge_net, got none",
    ),
    "no network": (("a.pth", "a.pth", "--module", "merge_net:number"), "to be or to make an nn.Module, got int"),
    "refused": (("r.pth", "r.pth", "--module", "merge_net:recurrent"), "without a hidden axis: aten.lstm in '2'"),
    "another network": (("a.pth", "a.pth", "--module", "merge_net:plain"), "a: expected the keys"),
    "input": (("a.pth", "a.pth", "--module", "merge_net:Residual", "--input", "2,8,8"), "fails on the example input"),
    "group": (("a.pth", "a.pth", "--module", "merge_net:Residual", "--group", "signed"), "group='signed'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line(run: Run, name: str) -> None:
    arguments, text = ERRORS[name]
    checkpoints.write_checkpoint(network(0).state_dict(), "a.pth")
    checkpoints.write_checkpoint(namespace["recurrent"]().state_dict(), "r.pth")
    Path("bad.pth").write_bytes(b"not a file of torch")
    torch.save({"state_dict": {"w": torch.zeros(1)}}, "nested.pth")
    code, out, err = run(*arguments)
    wrong_module = name in ("no colon", "no module", "no attribute", "no network")
    assert (code, out) == (2 if wrong_module else 1, "")
    assert text in err
    assert err.count("\n") == 1


def test_usage_is_checked(run: Run) -> None:
    both = ("--out", "x.pth", "--merge", "./x.pth")
    code, _, err = run("none.pth", "none.pth", "--module", "merge_net:Residual", *both)
    assert (code, "expected two files for --out and --merge, got x.pth for both" in err) == (2, True)
    Path("file").touch()
    code, _, err = run("none.pth", "none.pth", "--module", "merge_net:Residual", "--out", "file/x.pth")
    assert (code, "file/x.pth: expected a place in a folder, got the file" in err) == (1, True)
    for option in ("--out", "--merge"):  # before anything is read
        code, _, err = run("none.pth", "none.pth", "--module", "merge_net:Residual", option, "x.ckpt")
        assert code == 2
        assert "x.ckpt: expected a file that ends in .safetensors, .pth, .pt, got '.ckpt'" in err
    for arguments in (("a.pth",), ("a.pth", "b.pth"), ("a.pth", "b.pth", "--module", "x:y", "--input", "1,a")):
        code, _, err = run(*arguments)
        assert code == 2
        assert err.count("\n") == 1
