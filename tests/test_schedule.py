"""Which pictures an epoch shows: all as often, none of one source too often."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colordaemon.config import TrainSettings
from colordaemon.errors import DataError
from colordaemon.pictures.loader import Schedule, rounded, shares


def make_schedule(sources: list[str], world: int = 1, **changes: Any) -> Schedule:
    return Schedule(sources, TrainSettings(**({"batch_size": 3} | changes)), world)


ONE_SOURCE = [""] * 40


def test_an_epoch_shows_pictures_once_in_an_order_of_its_own() -> None:
    schedule = make_schedule(ONE_SOURCE)
    first, second = schedule.order(0), schedule.order(1)
    assert len(first) == len(set(first)) == schedule.pictures == 39
    assert first != second
    assert first == make_schedule(ONE_SOURCE).order(0)
    assert first != make_schedule(ONE_SOURCE, seed=2).order(0)


def test_after_many_epochs_all_pictures_have_been_seen_as_often() -> None:
    schedule = make_schedule(ONE_SOURCE, pictures_per_epoch=12)
    seen = Counter(index for epoch in range(10) for index in schedule.order(epoch))
    assert set(seen.values()) == {3}  # 120 pictures of 40


def test_an_epoch_may_be_a_part_of_the_pictures_or_more_than_all() -> None:
    assert make_schedule(ONE_SOURCE, pictures_per_epoch=10).batches == 3
    longer = make_schedule(ONE_SOURCE, pictures_per_epoch=120)
    assert set(Counter(longer.order(5)).values()) == {3}


@pytest.mark.parametrize("world", [1, 2, 5])
def test_processes_see_different_pictures_and_a_batch_can_be_named(world: int) -> None:
    schedule = make_schedule(ONE_SOURCE, world)
    seen = [
        index
        for batch in range(schedule.batches)
        for rank in range(world)
        for index in schedule.of_batch(2, batch, rank, world)
    ]
    assert sorted(seen) == sorted(schedule.order(2))
    assert len(schedule.of_batch(2, 0, 0, world)) == 3


def test_no_source_gives_more_than_its_share() -> None:
    sources = ["large"] * 300 + [f"small {n % 30}" for n in range(300)]
    schedule = make_schedule(sources, most_per_source=0.1)
    seen = Counter(sources[index] for index in schedule.order(0))
    assert seen["large"] in (59, 60, 61)
    assert {seen[f"small {n}"] for n in range(30)} <= {17, 18, 19}


def test_a_large_source_is_seen_whole_in_time() -> None:
    sources = ["large"] * 50 + ["small"] * 10
    schedule = make_schedule(sources, most_per_source=0.5)
    seen = {index for epoch in range(2) for index in schedule.order(epoch)}
    assert len(seen) >= 59


def test_a_source_of_one_picture_is_shown_as_often_as_others() -> None:
    sources = ["large"] * 30 + [f"one {n}" for n in range(30)]
    schedule = make_schedule(sources, pictures_per_epoch=12, most_per_source=0.5)
    seen = Counter(index for epoch in range(500) for index in schedule.order(epoch))
    assert len(seen) == 60
    assert min(seen.values()) > 60 and max(seen.values()) < 140  # 100 each on average


def test_too_few_pictures_for_all_processes_are_an_error() -> None:
    assert make_schedule(ONE_SOURCE[:6], world=2).batches == 1
    with pytest.raises(DataError, match="training pictures: 5, which do not fill a batch of 3 for"):
        make_schedule(ONE_SOURCE[:5], world=2)
    with pytest.raises(DataError, match="training pictures: 0"):
        make_schedule([], pictures_per_epoch=100)
    with pytest.raises(DataError, match="pictures_per_epoch of 2, which do not fill"):
        make_schedule(ONE_SOURCE, pictures_per_epoch=2)


@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=60),
    total=st.integers(1, 500_000),
    most=st.floats(0.01, 1),
    offset=st.floats(0, 0.999),
)
def test_shares_add_up_stay_below_the_most_and_follow_the_sizes(
    sizes: list[int], total: int, most: float, offset: float
) -> None:
    given = shares(sizes, total, most)
    assert sum(given) == pytest.approx(total)
    assert max(given) <= max(most, 1 / len(sizes)) * total + 1e-6
    by_size = sorted(zip(sizes, given, strict=True))
    assert all(share <= larger + 1e-6 for (_, share), (_, larger) in pairwise(by_size))
    whole = rounded(given, total, offset)
    assert sum(whole) == total and min(whole) >= 0
    assert all(abs(count - share) < 1.001 for count, share in zip(whole, given, strict=True))
