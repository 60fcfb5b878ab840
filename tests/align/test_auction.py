"""The auction against SciPy's assignments: totals, ties, the same answer in every batch, and where it is used."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment

import weightspace as ws
from weightspace.align import distance
from weightspace.align.solver import _assignment, _descent, _lap
from weightspace.align.solver._assignment import auction
from weightspace.align.solver._problem import matching_problem


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(kind: str, batch: int, size: int) -> torch.Tensor:
    """Matrices as of matching, and some that are hard for an auction."""
    neurons, others = random(batch, size, size + 3), random(batch, size, size + 3, seed=1)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(2))
    rank = torch.arange(size, dtype=torch.float64)
    kinds = {
        "random": lambda: random(batch, size, size),
        "same neurons": lambda: neurons @ (neurons[:, order] + 0.5 * others).mT,
        "related neurons": lambda: neurons @ (neurons[:, order] + 3 * others).mT,
        "correlated": lambda: (0.3 * neurons + neurons[:, :1]) @ (0.3 * others + neurons[:, :1]).mT,
        "low rank": lambda: neurons[:, :, :2] @ others[:, :, :2].mT,
        "product": lambda: (rank[:, None] * rank).repeat(batch, 1, 1),
        "integers": lambda: random(batch, size, size).round(),
        "constant": lambda: torch.full((batch, size, size), -7.5, dtype=torch.float64),
        "far from zero": lambda: 1e6 * random(batch, size, 1) + random(batch, size, size, seed=1),
        "ill-scaled": lambda: random(batch, size, size) * 10 ** (3 * random(batch, size, 1, seed=1)),
        "tiny": lambda: 1e-300 * random(batch, size, size),
    }
    return kinds[kind]()


KINDS = [
    "random", "same neurons", "related neurons", "correlated", "low rank", "product", "integers", "constant",
    "far from zero", "ill-scaled", "tiny",
]  # fmt: skip


def totals(score: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return score.double().gather(2, columns[:, :, None])[:, :, 0].sum(1)


def best_totals(score: torch.Tensor) -> torch.Tensor:
    found = [torch.from_numpy(linear_sum_assignment(x.double().numpy(), maximize=True)[1]) for x in score]
    return totals(score, torch.stack(found))


def rounding(score: torch.Tensor) -> torch.Tensor:
    """Return what the largest total may lose: half a step an entry, for both assignments, and what sums round."""
    size = score.shape[1]
    spread = (score.amax(2) - score.amin(2)).amax(1).double()
    sums = 4 * torch.finfo(torch.float64).eps * size * score.double().abs().amax((1, 2))
    return size * spread / _assignment._steps(size) + sums


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 8, 17, 32])
def test_totals_are_those_of_scipy(kind: str, size: int, dtype: torch.dtype, device: torch.device) -> None:
    score = scores(kind, 6, size).to(dtype)
    columns = auction(score.to(device))
    assert columns.device.type == device.type
    columns = columns.cpu()
    assert columns.dtype == torch.int64
    assert columns.sort(1).values.equal(torch.arange(size).expand(6, -1))
    assert (totals(score, columns) >= best_totals(score) - rounding(score)).all()


@pytest.mark.parametrize("size", [64, 100])
def test_many_rows(size: int) -> None:
    score = torch.cat([scores(kind, 1, size) for kind in ("random", "correlated", "low rank", "integers", "constant")])
    assert (totals(score, auction(score)) >= best_totals(score) - rounding(score)).all()


def test_totals_of_integers_are_exact() -> None:
    score = torch.randint(-3, 4, (40, 12, 12), generator=torch.Generator().manual_seed(0))
    assert totals(score, auction(score)).equal(best_totals(score))


@pytest.mark.parametrize("most", [1, 2, 6])
def test_the_last_step_counts(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of few steps: what staying in place is worth, and where the auction stops, must not cost one."""
    monkeypatch.setattr(_assignment, "STEPS", most)
    score = torch.randint(0, most + 1, (200, 10, 10), generator=torch.Generator().manual_seed(most))
    score[:, 0, 0], score[:, :, 9] = most, 0
    assert totals(score, auction(score)).equal(best_totals(score))


def test_a_first_complete_assignment_is_not_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the proof and the smaller epsilons totals fall short."""

    def stop(self: _assignment._Auction, slack: torch.Tensor, complete: torch.Tensor) -> None:
        self.open = ~complete

    score = scores("random", 20, 32)
    monkeypatch.setattr(_assignment._Auction, "_examine", stop)
    assert (totals(score, auction(score)) < best_totals(score) - rounding(score)).any()


def test_equal_scores_leave_the_rows_in_place_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_assignment, "ROUNDS", 2)
    rounds: list[int] = []
    advance = _assignment._Auction.advance
    monkeypatch.setattr(_assignment._Auction, "advance", lambda self: (rounds.append(1), advance(self)))
    assert auction(torch.full((3, 9, 9), 2.0)).equal(torch.arange(9).expand(3, -1))
    assert len(rounds) == 2


def test_no_matrices_no_rows_and_half_precision() -> None:
    assert auction(torch.zeros(0, 4, 4)).shape == (0, 4)
    assert auction(torch.zeros(3, 0, 0)).shape == (3, 0)
    assert auction(torch.zeros(3, 1, 1)).equal(torch.zeros(3, 1, dtype=torch.int64))
    half = random(2, 5, 5).to(torch.bfloat16)
    assert totals(half, auction(half)).allclose(best_totals(half), rtol=1e-12)


def test_scores_are_not_written_and_have_no_gradient() -> None:
    score = random(2, 5, 5).requires_grad_()
    before = score.detach().clone()
    assert not auction(score).requires_grad
    assert score.detach().equal(before)


@pytest.fixture
def mixed() -> torch.Tensor:
    """Easy and hard matrices, side by side."""
    return torch.cat([scores(kind, 3, 12) for kind in KINDS])


def test_the_answer_is_the_same_in_every_batch(mixed: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, alone, in chunks, with looks at other times; ties too."""
    columns = auction(mixed)
    order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(0))
    assert auction(mixed[order]).equal(columns[order])
    assert torch.cat([auction(one[None]) for one in mixed]).equal(columns)
    monkeypatch.setattr(_assignment, "ENTRIES", 5 * 12**2)
    assert auction(mixed).equal(columns)
    monkeypatch.setattr(_assignment, "ENTRIES", 1)
    assert auction(mixed).equal(columns)


def test_solved_matrices_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    advance = _assignment._Auction.advance

    def counted(self: _assignment._Auction) -> None:
        sizes.append(len(self.benefit))
        advance(self)

    monkeypatch.setattr(_assignment._Auction, "advance", counted)
    score = torch.cat([torch.zeros(15, 40, 40, dtype=torch.float64), scores("ill-scaled", 1, 40)])
    assert (totals(score, auction(score)) >= best_totals(score) - rounding(score)).all()
    assert sizes[0] == 16
    assert sizes[_assignment.ROUNDS] == 1
    assert len(sizes) > 2 * _assignment.ROUNDS


@pytest.mark.parametrize("kind", ["ill-scaled", "product", "low rank", "integers"])
def test_prices_stay_within_their_bounds(kind: str) -> None:
    """Those of `_steps`, in units of the largest benefit."""
    state = _assignment._Auction(scores(kind, 4, 20))
    largest, lowered = state.benefit.amax(), False
    for count in range(400):
        before = state.price.clone()
        state.advance()
        lowered |= bool((state.price < before).any())
        assert (state.price - before).abs().amax() < 5 * largest
        assert (state.price.amax(1) - state.price.amin(1)).amax() < 3 * largest
        if count % _assignment.ROUNDS == 0:
            state.centre()
            assert state.price.amin(1).eq(0).all()
    assert lowered


@pytest.mark.parametrize("size", [2, 64, 101, 102, 512, 4096])
def test_integers_have_room(size: int) -> None:
    steps = _assignment._steps(size)
    largest = steps * (4 * size + 1) + 1
    assert 5 * largest * 2 ** (size - 1).bit_length() < 2**63
    assert (2 * _assignment.ROUNDS + 5) * largest < 2**63
    assert steps == 2**44 if size < 102 else steps < 2**44
    assert steps > 2**39 if size <= 512 else steps > 2**33


def test_bad_numbers_end() -> None:
    """Scores are checked at the public doors; here nothing may run for ever."""
    score = random(4, 6, 6)
    score[0, 1, 2], score[1, 3], score[2, 0, 0] = float("nan"), float("inf"), -float("inf")
    assert auction(score).sort(1).values.equal(torch.arange(6).expand(4, -1))


def refuse(*_: object) -> None:
    raise AssertionError("the other method was asked")


def test_scores_on_the_host_stay_with_the_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [_assignment.solved_on_host(torch.device(x)) for x in ("cpu", "mps", "cuda")] == [True, True, False]
    score = random(5, 9, 9)
    monkeypatch.setattr(_assignment, "auction", refuse)
    assert totals(score, _assignment.assign(score)).allclose(best_totals(score), rtol=1e-12)


def test_scores_elsewhere_are_auctioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor descent then reaches what it reaches with the compiled code."""
    spec = ws.siren(2, 9, 8, 1, omega=2.0)
    a, b = (ws.Weights(random(6, spec.num_params, seed=seed), spec) for seed in (1, 2))
    problem, orders = matching_problem(spec, "full"), torch.arange(2).repeat(20, 1)
    expected = distance(a, _descent.descend_tensors(a, b, problem, orders).act(b))
    monkeypatch.setattr(_assignment, "solved_on_host", lambda device: False)
    monkeypatch.setattr(_lap, "solve_many", refuse)
    found = distance(a, _descent.descend_tensors(a, b, problem, orders).act(b))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert (found < distance(a, b)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_bits_of_the_host(mixed: torch.Tensor) -> None:
    found = _assignment.assign(mixed.cuda())
    assert found.is_cuda
    assert found.cpu().equal(auction(mixed))
    expected = totals(mixed, _assignment.assign(mixed))
    assert ((totals(mixed, found.cpu()) - expected).abs() <= rounding(mixed)).all()
