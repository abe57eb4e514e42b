"""Decides which picture comes at which place of which epoch.

Every source of pictures is a deck of cards: it is shuffled, dealt to the last card, and shuffled
anew, so that each of its pictures is seen as often as any other, however long an epoch is. How many
cards of each deck go into an epoch is its share, rounded up or down as chance has it: also a source
of one picture is shown now and then. The order within the epoch is shuffled. All of it depends only
on the seed and the epoch, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.errors import DataError


class Schedule:
    """The order of every epoch, for `world` processes that train together.

    sources: the name of each picture's source. No source gives more than `most_per_source` of the
    pictures of an epoch, unless there are too few sources for that; below it, each gives in
    proportion to its size. Raises DataError where an epoch would not fill a batch.
    """

    def __init__(self, sources: Sequence[str], settings: TrainSettings, world: int = 1) -> None:
        self._seed = settings.seed
        self._together = settings.batch_size * world
        wanted = settings.pictures_per_epoch or len(sources)
        self.batches = wanted // self._together
        """How many batches an epoch has for each process. The last pictures, short of a batch for
        all of them, wait for the next epoch."""
        if not sources or not self.batches:
            shared = f" for each of {world} processes" if world > 1 else ""
            what = "pictures_per_epoch of" if wanted < len(sources) else "training pictures:"
            raise DataError(
                f"{what} {wanted if sources else 0}, which do not fill a batch of "
                f"{settings.batch_size}{shared}"
            )
        decks: dict[str, list[int]] = defaultdict(list)
        for index, source in enumerate(sources):
            decks[source].append(index)
        self._decks = [torch.tensor(decks[source]) for source in sorted(decks)]
        sizes = [len(deck) for deck in self._decks]
        self._shares = shares(sizes, self.pictures, settings.most_per_source)

    @property
    def pictures(self) -> int:
        """How many pictures an epoch shows to all processes together."""
        return self.batches * self._together

    def order(self, epoch: int) -> list[int]:
        """The pictures of an epoch, by their index; all processes together take them in turn."""
        chance = torch.Generator().manual_seed(self._seed + epoch)
        counts = rounded(self._shares, self.pictures, float(torch.rand(1, generator=chance)))
        dealt = [
            deck[self._deal(len(deck), int(epoch * share), count, number)]
            for number, (deck, share, count) in enumerate(
                zip(self._decks, self._shares, counts, strict=True)
            )
            if count
        ]
        shuffled = torch.cat(dealt)[torch.randperm(self.pictures, generator=chance)]
        order: list[int] = shuffled.tolist()
        return order

    def of_batch(self, epoch: int, batch: int, rank: int = 0, world: int = 1) -> list[int]:
        """The pictures of one batch, counted from 0, of one process."""
        first = batch * self._together
        return self.order(epoch)[first + rank : first + self._together : world]

    def _deal(self, size: int, first: int, count: int, number: int) -> Tensor:
        """Cards `first`, first + 1, … of a deck that is shuffled anew whenever it is used up."""
        rounds = range(first // size, (first + count - 1) // size + 1)
        cards = [torch.randperm(size, generator=self._shuffler(number, n)) for n in rounds]
        skipped = first - rounds.start * size
        return torch.cat(cards)[skipped : skipped + count]

    def _shuffler(self, number: int, round_number: int) -> torch.Generator:
        mixed = (self._seed * 1_000_003 + number) * 1_000_003 + round_number
        return torch.Generator().manual_seed(mixed % 2**62)


def shares(sizes: Sequence[int], total: int, most: float) -> list[float]:
    """How many of `total` pictures each source gives: in proportion to `sizes`, and at most a share
    of `most` (0..1) of all, or an equal share if that is larger; they add up to `total`."""
    cap = max(most, 1 / len(sizes)) * total
    given = [0.0] * len(sizes)
    free = set(range(len(sizes)))
    while free:
        left = total - sum(given[i] for i in range(len(sizes)) if i not in free)
        scale = left / sum(sizes[i] for i in free)
        over = {i for i in free if sizes[i] * scale > cap}
        for i in over or free:
            given[i] = min(cap, sizes[i] * scale)
        free -= over or free
    return given


def rounded(shares: Sequence[float], total: int, offset: float) -> list[int]:
    """Shares as whole numbers that add up to `total`, each its share rounded up or down.

    offset: 0 <= x < 1, drawn anew each time, so that in the long run each gets its share. This is
    systematic sampling: the ends of the shares, laid in a row, are counted against a moved ruler.
    """
    ends = list(accumulate(shares))
    ends[-1] = total  # whatever was lost in adding up
    marks = [0, *(math.floor(end + offset) for end in ends)]
    return [after - before for before, after in pairwise(marks)]
