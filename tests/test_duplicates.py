"""Near-duplicates find each other; strangers, however flat, do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import colorful, encode

from colordaemon.pictures import statistics
from colordaemon.pictures.dataset import decode_picture
from colordaemon.pictures.statistics import Statistics, duplicate_groups, measure


def look(pixels: np.ndarray) -> Statistics:
    return measure(pixels, pixels.tobytes())


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    decoded = decode_picture(encode(pixels, ".jpg", quality))
    assert decoded is not None
    return decoded


def test_altered_copies_belong_together() -> None:
    original = colorful(0, 96, 128)
    copies = [
        jpeg(original, 50),
        cv2.resize(original, (90, 68), interpolation=cv2.INTER_AREA),
        (255 * (original / 255) ** 1.3).astype(np.uint8),
    ]
    strangers = [colorful(seed, 96, 128) for seed in range(1, 30)]
    assert duplicate_groups([look(x) for x in (original, *strangers, *copies)]) == [[0, 30, 31, 32]]


def test_a_chain_of_neighbors_is_one_group() -> None:
    start, end = colorful(0).astype(float), colorful(1).astype(float)
    chain = [look((start + (end - start) * k / 20).astype(np.uint8)) for k in range(21)]
    assert duplicate_groups([chain[0], chain[20]]) == []
    assert duplicate_groups(chain) == [list(range(21))]


def test_exact_copies_belong_together_however_flat() -> None:
    flat = look(np.full((20, 20, 3), 90, np.uint8))
    assert duplicate_groups([flat, look(colorful(0)), flat]) == [[0, 2]]


def skies(count: int) -> list[np.ndarray]:
    """Clear skies: a slope from above to below and a little noise."""
    chance = np.random.default_rng(5)
    slope = np.linspace(0, 1, 96)[:, None, None]
    return [
        (
            chance.uniform(80, 120, 3)
            + slope * chance.uniform(40, 120, 3)
            + chance.normal(0, 2, (96, 128, 1))
        ).astype(np.uint8)
        for _ in range(count)
    ]


def test_clear_skies_do_not_merge() -> None:
    assert duplicate_groups([look(sky) for sky in skies(100)]) == []


def test_flat_pictures_do_not_merge() -> None:
    flat = [np.full((20, 20, 3), level, np.uint8) for level in range(100, 160)]
    assert duplicate_groups([look(x) for x in flat]) == []


def test_equal_hashes_alone_are_not_enough() -> None:
    one, other = look(colorful(0)), look(colorful(1))
    pretender = Statistics("", 0, 0, one.difference_hash, other.thumbnail, "another")
    assert duplicate_groups([one, pretender]) == []


def test_no_pair_within_the_bound_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against comparing each with each."""
    monkeypatch.setattr(statistics, "_ROWS", 7)
    chance = np.random.default_rng(1)
    thumbnail = look(colorful(0)).thumbnail
    hashes = [int(x) for x in chance.integers(0, 2**63, 40)]
    for number in range(160):  # each has relatives at 0 to 12 bits
        flips = chance.choice(64, chance.integers(0, 13), replace=False)
        hashes.append(hashes[number] ^ sum(1 << int(bit) for bit in flips))
    looks = [Statistics("", 0, 0, value, thumbnail, str(i)) for i, value in enumerate(hashes)]
    together = {i: {i} for i in range(len(hashes))}
    for i, one in enumerate(hashes):
        for j, other in enumerate(hashes[:i]):
            if (one ^ other).bit_count() <= statistics.MAX_BITS:
                together[i] |= together[j]
                for member in together[i]:
                    together[member] = together[i]
    expected = {tuple(sorted(group)) for group in together.values() if len(group) > 1}
    assert {tuple(group) for group in duplicate_groups(looks)} == expected


def test_nothing_has_no_groups() -> None:
    assert duplicate_groups([]) == []
    assert duplicate_groups([look(colorful(0))]) == []
