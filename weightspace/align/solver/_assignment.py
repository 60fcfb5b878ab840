"""Linear assignment for a batch of matrices: in compiled code on the host, by an auction elsewhere.

In the auction all matrices of a batch bid together, in operations on tensors alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weightspace.align.solver._threads import in_slices

STEPS = 2**44  # the auction rounds a row's spread to so many steps; fewer from 102 neurons on, see `_steps`
START = 64  # the first epsilon is the largest spread of values divided by this
FACTOR = 8  # each epsilon is the last one divided by at least this
TRIES = 8  # rounds are spent on proving a first assignment optimal, twice as many with each further epsilon
ROUNDS = 16  # rounds pass between two looks at which matrices are left, because only a look waits for the device
ENTRIES = 2**24  # entries are solved at a time: 16 bytes each at the peak, and about 150 for each row


class Prices:
    """The prices of columns that earlier assignments ended with: the next one starts from them, and is there sooner.

    Args:
        batch: number of matrices.
        size: number of columns of each.
    """

    def __init__(self, batch: int, size: int) -> None:
        self.value = torch.zeros(batch, size, dtype=torch.float64)
        self.known = torch.zeros(batch, dtype=torch.bool)

    def move(self, rows: Tensor, perm: Tensor) -> None:
        """Permute the prices of some matrices with their columns."""
        self.value[rows] = self.value[rows].gather(1, perm.cpu())


def assign(score: Tensor, prices: Prices | None = None, rows: Tensor | None = None) -> Tensor:
    r"""Find the assignment with the largest total for each matrix.

    .. math:: \max_\pi \sum_i S_{i, \pi(i)}

    On a CPU this is done by shortest augmenting paths in compiled code, elsewhere by an auction on the device. Each
    method breaks ties alike on every run, but not always as the other one does. Scores are distinguished to 2**-48 of
    the range of their matrix (2**-42 for 512 columns, 2**-36 for 4,096; in the auction to 2**-44, 2**-39 and 2**-33),
    so that one outlier of 1e13 among scores near 1 blurs all others. Forbid a pair by a few hundred times the others'
    range, not by a huge number.

    Args:
        score: ``[batch, size, size]``, finite.
        prices: what to start from and to keep the final prices in, for the compiled code.
        rows: the numbers of these matrices among those of ``prices``; all of them by default.

    Returns:
        int64 ``[batch, size]``: the column of each row, on the device of ``score``.
    """
    if not solved_on_host(score.device):
        return auction(score)
    prices = Prices(*score.shape[:2]) if prices is None else prices
    rows = torch.arange(len(score)) if rows is None else rows
    from weightspace.align.solver import _lap  # Numba takes a while to load

    wide = torch.float32 if score.dtype == torch.float32 else torch.float64
    cost = (-score.detach()).to("cpu", wide).contiguous().numpy()
    columns = np.empty(cost.shape[:2], dtype=np.int64)
    guess, known = prices.value[rows].numpy(), prices.known[rows].numpy()
    if cost.size:
        in_slices(lambda start, stop: _lap.solve_many(cost, columns, guess, known, start, stop), len(cost))
    prices.value[rows], prices.known[rows] = torch.from_numpy(guess), True
    return torch.from_numpy(columns).to(score.device)


def solved_on_host(device: torch.device) -> bool:
    """Return whether scores go to the compiled code, as they must from MPS, which has no doubles for the auction."""
    return device.type in ("cpu", "mps")


def auction(score: Tensor) -> Tensor:
    r"""Find the assignment with the largest total for each matrix, in operations on tensors alone.

    .. math:: \max_\pi \sum_i S_{i, \pi(i)}

    Columns have prices. A row without a column bids for the one of the largest value :math:`S_{ij} - p_j`, and raises
    its price by the lead over the second largest and :math:`\epsilon`; the highest bid gets the column, whose
    former row is free again. Once every row has a column, the total is within ``size`` :math:`\epsilon` of the largest.
    Prices are then lowered for some rounds, until no row prefers another column: that proves the assignment optimal,
    whatever :math:`\epsilon` was. Where some row still does, the rows that prefer another column by more than a
    smaller :math:`\epsilon` are free again, and the auction continues with that one.

    The scores are rounded to integers, 2**44 steps (fewer from 102 rows on, 2**39 for 500) for the largest spread
    within a row. The total is the largest of the rounded scores. All arithmetic on them is exact, and equal bids go to
    the first row: the answer is the same on every run and device, and in every batch. Where all scores are equal, rows
    stay in place.

    Args:
        score: ``[batch, size, size]``, finite.

    Returns:
        int64 ``[batch, size]``: the column of each row, on the device of ``score``.

    Reference:
        Bertsekas, *The auction algorithm: a distributed relaxation method for the assignment problem*, 1988.
    """
    score = score.detach()
    size = score.shape[1]
    columns = torch.zeros(score.shape[:2], dtype=torch.int64, device=score.device)
    if size > 1:
        chunk = max(1, ENTRIES // size**2)
        for part, out in zip(score.split(chunk), columns.split(chunk), strict=True):
            _solve(part, out)
    return columns


def _solve(score: Tensor, out: Tensor) -> None:
    state, index = _Auction(score), torch.arange(len(score), device=score.device)
    while len(index):
        for _ in range(ROUNDS):
            state.advance()
        left = state.open[:, 0].nonzero()[:, 0]  # waits for the device
        if 4 * len(left) <= 3 * len(index):
            out[index] = state.mine
            index = index[left]
            state.select(left)
        state.centre()


def _steps(size: int) -> int:
    """Return as many steps as int64 has room for.

    With benefits of 0 to C and epsilon below C, prices start less than 2 C apart. A bid sets one at most C + epsilon
    above the lowest of the others; lowering takes at most epsilon a round from the lowest, less than C in all. So they
    stay less than 3 C apart, and move by less than 2 C a round between two looks, when the lowest is set to zero again.
    A bid raises a price by less than 5 C, and is shifted to make room for the row's number.
    """
    benefit = 4 * size + 2  # of one step, see `_benefit`
    largest = benefit * max(5 << (size - 1).bit_length(), 2 * ROUNDS + 5)
    return min(STEPS, 2**62 // largest)


def _benefit(score: Tensor) -> Tensor:
    """Return the scores as integers from 0.

    A step is 4 size + 1, and staying in place is worth 1 more, so that equal rows bid for different columns. A total
    within 3 size of the largest then belongs to the largest number of steps.
    """
    size, steps = score.shape[1], _steps(score.shape[1])
    value = score.double()
    value = value - value.amin(2, keepdim=True)
    value /= value.amax((1, 2), keepdim=True)
    value = value.mul_(steps).round_().nan_to_num_(0.0).clamp_(0, steps)  # equal scores are 0 / 0
    benefit = value.long().mul_(4 * size + 1)
    benefit.diagonal(dim1=1, dim2=2).add_(1)
    return benefit


def _guess(benefit: Tensor) -> Tensor:
    """Guess prices: two thirds of the mean of each column and a third of its largest relative benefit."""
    size = benefit.shape[1]
    most = (benefit - benefit.sum(2, keepdim=True) // size).amax(1)
    return (2 * (benefit.sum(1) // size) + most) // 3


class _Auction:
    """The state of the auctions of a batch. A solved one no longer changes.

    Args:
        score: ``[batch, size, size]``, of two rows or more.
    """

    def __init__(self, score: Tensor) -> None:
        size = score.shape[1]
        self.row = torch.arange(size, device=score.device)
        self.bits = (size - 1).bit_length()  # of a row's number
        self.benefit = _benefit(score)
        self.price = _guess(self.benefit)
        value = self.benefit - self.price[:, None]
        spread = (value.amax(2) - value.amin(2)).amax(1, keepdim=True)
        self.epsilon = (spread // START).clamp_(min=1)
        self.owner = torch.full_like(self.price, -1)  # the row of each column
        self.mine = torch.zeros_like(self.price)  # the column that each row has, or bid for last
        self.tries = torch.zeros_like(self.epsilon)  # rounds of lowering for this epsilon
        self.limit = torch.full_like(self.epsilon, TRIES)
        self.open = torch.ones_like(self.epsilon, dtype=torch.bool)

    def select(self, index: Tensor) -> None:
        """Drop all but some of the matrices."""
        self.benefit, self.price, self.epsilon = self.benefit[index], self.price[index], self.epsilon[index]
        self.owner, self.mine = self.owner[index], self.mine[index]
        self.tries, self.limit, self.open = self.tries[index], self.limit[index], self.open[index]

    def centre(self) -> None:
        """Set the lowest price to zero, as only differences matter."""
        self.price -= self.price.amin(1, keepdim=True)

    def advance(self) -> None:
        """Play one round: free rows bid, and where no row is free the assignment is examined."""
        value = self.benefit - self.price[:, None]
        first, best = value.max(2)  # of equal values the first
        held = self.owner.gather(1, self.mine) == self.row
        slack = first - value.gather(2, self.mine[:, :, None])[:, :, 0]
        second = value.scatter_(2, best[:, :, None], torch.iinfo(value.dtype).min).amax(2)
        self._bid(first - second, best, held)
        self._examine(slack, held.all(1, keepdim=True))

    def _bid(self, lead: Tensor, best: Tensor, held: Tensor) -> None:
        """Sell each column to its highest bid, and of equal bids to the first row.

        Bids are compared as keys with the row's number in the lowest bits, smaller numbers first.
        """
        last = len(self.row) - 1
        key = ((lead + self.epsilon) << self.bits) + (last - self.row)
        top = torch.full_like(key, -1).scatter_reduce_(1, best, key.masked_fill_(held, -1), "amax")
        sold = top >= 0
        self.owner = torch.where(sold, last - (top & ((1 << self.bits) - 1)), self.owner)
        self.mine = torch.where(held, self.mine, best)
        self.price += (top >> self.bits).mul_(sold)

    def _examine(self, slack: Tensor, complete: Tensor) -> None:
        """Where each row has a column, stop, or lower prices by the losses of the rows, or take a smaller epsilon."""
        loose = slack.sum(1, keepdim=True) > 3 * len(self.row)
        self.open = loose | ~complete
        loose &= complete
        lower = loose & (self.tries < self.limit)
        shrink = loose ^ lower
        missed = slack.gather(1, self.owner.clamp(min=0))  # by the row of each column
        self.price -= missed * lower
        less = torch.minimum(self.epsilon, slack.amax(1, keepdim=True)) // FACTOR
        self.epsilon = torch.where(shrink, less.clamp_(min=1), self.epsilon)
        self.owner = self.owner.masked_fill(shrink & (missed > self.epsilon), -1)
        self.tries = (self.tries + lower).mul_(~shrink)
        self.limit = (self.limit << shrink).clamp_(max=max(TRIES, len(self.row)))
