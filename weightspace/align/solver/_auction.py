"""Linear assignment on any device: an auction in which all matrices of a batch bid together."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 2**44  # of the largest spread within a row; fewer from 102 neurons on, see `_steps`
START = 64  # the first epsilon is the largest spread of values over this
FACTOR = 8  # from one epsilon to the next, or more
TRIES = 8  # rounds spent on proving a first assignment optimal, twice as many with each further epsilon
ROUNDS = 16  # between two looks at which matrices are left: only these wait for the device
ENTRIES = 2**24  # of the matrices solved at a time: 16 bytes each at the peak, and about 150 for each row


def auction(score: Tensor) -> Tensor:
    r"""The assignment with the largest total for each matrix, in operations on tensors alone.

    .. math:: \max_\pi \sum_i S_{i, \pi(i)}

    Columns have prices. A row without a column bids for the one of the largest value :math:`S_{ij} - p_j`, and raises
    its price by the lead over the second largest and :math:`\epsilon`; the highest bid gets the column, whose row of
    before is free again. Once every row has a column, the total is within ``size`` :math:`\epsilon` of the largest.
    Prices are then lowered for some rounds, until no row prefers another column: that proves the assignment optimal,
    whatever :math:`\epsilon` was. Where it does not come to that, the rows that prefer another column by more than
    a smaller :math:`\epsilon` are free again, and the auction goes on with that.

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
            state.keep(left)
        state.centre()


def _steps(size: int) -> int:
    """As many as int64 has room for.

    With benefits of 0 to C and epsilon below C, prices start less than 2 C apart. A bid sets one at most C + epsilon
    above the lowest of the others; lowering takes at most epsilon a round from the lowest, less than C in all. So they
    stay less than 3 C apart, and move by less than 2 C a round between two looks, when the lowest is set to zero again.
    A bid raises a price by less than 5 C, and is shifted to make room for the row's number.
    """
    benefit = 4 * size + 2  # of one step, see `_benefit`
    largest = benefit * max(5 << (size - 1).bit_length(), 2 * ROUNDS + 5)
    return min(STEPS, 2**62 // largest)


def _benefit(score: Tensor) -> Tensor:
    """Integers from 0. A step is 4 size + 1, and staying in place is worth 1 more: equal rows then bid apart.

    A total within 3 size of the largest then belongs to the largest number of steps.
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
    """Prices to start from: two thirds of the mean of each column and a third of its largest relative benefit."""
    size = benefit.shape[1]
    most = (benefit - benefit.sum(2, keepdim=True) // size).amax(1)
    return (2 * (benefit.sum(1) // size) + most) // 3


class _Auction:
    """The state of the auctions of a batch. A solved one changes no more.

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

    def keep(self, index: Tensor) -> None:
        """Go on with some of the matrices."""
        self.benefit, self.price, self.epsilon = self.benefit[index], self.price[index], self.epsilon[index]
        self.owner, self.mine = self.owner[index], self.mine[index]
        self.tries, self.limit, self.open = self.tries[index], self.limit[index], self.open[index]

    def centre(self) -> None:
        """Only differences of prices matter."""
        self.price -= self.price.amin(1, keepdim=True)

    def advance(self) -> None:
        """One round: free rows bid, and where no row is free the assignment is examined."""
        value = self.benefit - self.price[:, None]
        first, best = value.max(2)  # of equal values the first
        held = self.owner.gather(1, self.mine) == self.row
        slack = first - value.gather(2, self.mine[:, :, None])[:, :, 0]
        second = value.scatter_(2, best[:, :, None], torch.iinfo(value.dtype).min).amax(2)
        self._bid(first - second, best, held)
        self._examine(slack, held.all(1, keepdim=True))

    def _bid(self, lead: Tensor, best: Tensor, held: Tensor) -> None:
        """Bids are compared as keys with the row's number in the lowest bits, smaller numbers first."""
        last = len(self.row) - 1
        key = ((lead + self.epsilon) << self.bits) + (last - self.row)
        top = torch.full_like(key, -1).scatter_reduce_(1, best, key.masked_fill_(held, -1), "amax")
        sold = top >= 0
        self.owner = torch.where(sold, last - (top & ((1 << self.bits) - 1)), self.owner)
        self.mine = torch.where(held, self.mine, best)
        self.price += (top >> self.bits).mul_(sold)

    def _examine(self, slack: Tensor, complete: Tensor) -> None:
        """Where each row has a column: stop, or lower prices by what the rows miss, or go on with less epsilon."""
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
