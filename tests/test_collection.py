"""What a run trains on: what is left out, by name and reason, and which side the rest is on."""

from __future__ import annotations

import logging
import pickle
import shutil
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import colorful, fill, pack, write

from colordaemon.errors import DataError, Interrupted
from colordaemon.pictures import collection as module
from colordaemon.pictures.cache import CachedPicture
from colordaemon.pictures.collection import REASONS, CollectedPicture, Collection, collect
from colordaemon.pictures.dataset import Picture, is_held_out
from colordaemon.pictures.statistics import Statistics, measure

HELD_OUT = 0.3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "pictures", "animal", 10)
    fill(tmp_path / "pictures", "face", 10, first_seed=10)
    return tmp_path / "pictures"


def gather(folder: Path, cache_folder: Path | None = None, **options: Any) -> Collection:
    options = {"held_out": HELD_OUT, "side": 64} | options
    return collect(folder, cache_folder=cache_folder, **options)


def names(samples: list[CollectedPicture]) -> list[str]:
    return [sample.name for sample in samples]


def named(held_out: bool, label: str = "animal", without: str = "") -> str:
    """The path of a picture that its name puts on this side."""
    candidates = (f"{label}/x{number}{without}.png" for number in range(1000))
    return next(name for name in candidates if is_held_out(name, HELD_OUT) is held_out)


# What is left out


def test_gray_dull_and_unreadable_pictures_are_left_out_with_their_figures(folder: Path) -> None:
    gray = np.repeat(colorful(0)[..., :1], 3, axis=2)
    tinted = np.full((40, 40, 3), (120, 110, 100), np.uint8)
    write(folder / "animal" / "gray.png", gray)
    write(folder / "face" / "tinted.jpg", tinted, quality=95)
    (folder / "face" / "text.jpg").write_text("no picture")
    collection = gather(folder)
    found = {drop.name: (drop.label, drop.reason, drop.detail) for drop in collection.dropped}
    assert found == {
        "animal/gray.png": ("animal", "gray", "mean chroma 0.0"),
        "face/text.jpg": ("face", "unreadable", "it is no picture, or damaged"),
        "face/tinted.jpg": ("face", "dull", found["face/tinted.jpg"][2]),
    }
    assert found["face/tinted.jpg"][2].startswith("colorfulness ")
    assert len(collection.training) + len(collection.validation) == 20


def test_of_exact_copies_the_first_stays(folder: Path) -> None:
    names_ = sorted(named(False, without=letter) for letter in "abc")
    for name in names_:
        write(folder / name, colorful(99))
    collection = gather(folder)
    assert names_[0] in names(collection.training)
    assert [(drop.name, drop.reason, drop.detail) for drop in collection.dropped] == [
        (name, "copy", f"of {names_[0]}") for name in names_[1:]
    ]


def test_a_copy_under_an_earlier_name_does_not_take_a_held_out_pictures_place(
    folder: Path,
) -> None:
    held, earlier = named(True), "animal/a.png"
    assert not is_held_out(earlier, HELD_OUT) and earlier < held
    write(folder / held, colorful(99))
    write(folder / earlier, colorful(99))
    collection = gather(folder)
    assert held in names(collection.validation)
    assert [drop.name for drop in collection.dropped] == [earlier]


def test_counts_tell_each_label_before_and_after(folder: Path) -> None:
    write(folder / "face" / "gray.png", np.full((40, 40, 3), 99, np.uint8))
    shutil.copy(folder / "face" / "00.png", folder / "face" / "copy.png")
    counts = gather(folder).counts()
    assert counts["animal"].found == 10 and counts["face"].found == 12
    assert counts["face"].dropped == {"unreadable": 0, "gray": 1, "dull": 0, "copy": 1}
    for count in counts.values():
        assert tuple(count.dropped) == REASONS
        left = count.found - sum(count.dropped.values())
        assert count.training + count.validation == left == 10


def test_the_report_names_everything_that_is_left_out(folder: Path) -> None:
    write(folder / "animal" / "gray.png", np.full((40, 40, 3), 99, np.uint8))
    near = colorful(0)
    near[:4] += 1
    write(folder / named(True), near)
    collection = gather(folder)
    lines = collection.report().splitlines()
    assert lines[0] == str(folder)
    assert lines[2].split() == ["label", "found", "training", "validation", "unseen", *REASONS]
    assert "animal/gray.png: gray, mean chroma 0.0" in lines
    assert "animal/00.png: near-duplicate of a held-out picture" in lines
    training, validation = len(collection.training), len(collection.validation)
    total = next(line for line in lines if line.startswith("all "))
    assert total.split() == ["all", "22", str(training), str(validation), "0", "0", "1", "0", "0"]


def test_the_log_counts_and_names_a_few(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        write(folder / "face" / f"gray{number:02}.png", np.full((9, 9, 3), number, np.uint8))
    (folder / "face" / "text.png").write_text("no picture")
    with caplog.at_level(logging.INFO):
        gather(folder)
    assert "20 left out, gray: face/gray00.png, " in caplog.text
    assert "face/gray07.png, …" in caplog.text and "gray08" not in caplog.text
    assert "1 left out, unreadable: face/text.png" in caplog.text


# Which side


def test_without_duplicates_names_alone_decide(folder: Path) -> None:
    collection = gather(folder)
    assert collection.groups == 0 and collection.moved == []
    for samples, side in ((collection.training, False), (collection.validation, True)):
        assert samples and all(is_held_out(sample.name, HELD_OUT) is side for sample in samples)
        assert names(samples) == sorted(names(samples))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_near_duplicates_of_a_held_out_picture_are_held_out(folder: Path, suffix: str) -> None:
    original = colorful(99, 96, 128)
    smaller = cv2.resize(original, (110, 83), interpolation=cv2.INTER_AREA)
    held, free = named(True), str(Path(named(False, without="z")).with_suffix(suffix))
    free = free if not is_held_out(free, HELD_OUT) else free.replace("/x", "/y")
    assert not is_held_out(free, HELD_OUT)
    write(folder / held, original)
    write(folder / free, smaller, quality=60 if suffix == ".jpg" else None)
    collection = gather(folder)
    assert {held, free} <= set(names(collection.validation))
    assert collection.moved == [free]
    assert collection.groups == 1


def test_near_duplicates_in_training_stay_there(folder: Path) -> None:
    for letter in "ab":
        write(folder / named(False, without=letter), colorful(99) + np.uint8(letter == "b"))
    collection = gather(folder)
    assert collection.groups == 1 and collection.moved == []


@given(data=st.data())
def test_adding_pictures_never_moves_a_held_out_one(data: st.DataObject) -> None:
    """Whatever resembles whatever: seeds stand for pictures, equal seeds for near-duplicates."""
    numbers = st.dictionaries(st.integers(0, 60), st.tuples(st.integers(0, 9), st.booleans()))
    before = data.draw(numbers)
    after = before | {n + 100: look for n, look in data.draw(numbers).items()}
    few, many = _split(before), _split(after)
    for name, content in few[1].items():
        if is_held_out(name, HELD_OUT):
            assert content in many[1].values(), "a held-out picture left validation"
        assert content not in many[0].values(), "a held-out picture came into training"
    for name in few[0]:
        assert name in many[0] or name in many[1] or few[0][name] in {**many[0], **many[1]}.values()
    shown = [{content[0] for content in side.values()} for side in many]
    assert not shown[0] & shown[1], "near-duplicates on both sides"


@cache
def _look(seed: int) -> Statistics:
    return measure(colorful(seed), b"")


def _split(numbers: dict[int, tuple[int, bool]]) -> list[dict[str, tuple[int, bool]]]:
    """Collections of imaginary pictures: number → (what it shows, which of two files of it)."""
    pictures, entries, contents = [], [], {}
    for number, (seed, second) in sorted(numbers.items()):
        name = f"animal/{number:03}.png"
        look = _look(seed)
        contents[name] = (seed, second)
        pictures.append(Picture("animal", name, Path(name), False))
        entries.append(
            CachedPicture(
                "",
                Statistics("", 50, 50, look.difference_hash, look.thumbnail, f"{seed}-{second}"),
                None,
            )
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_pictures", lambda *_: pictures)
        patch.setattr(module, "survey", lambda *_: entries)
        patch.setattr(module, "_check", lambda _: None)
        collection = gather(Path("imaginary"))
    return [
        {sample.name: contents[sample.name] for sample in side}
        for side in (collection.training, collection.validation)
    ]


# What cannot be trained on


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "animal" / f"{number}.png", np.full((9, 9, 3), number, np.uint8))
    (tmp_path / "animal" / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"0 usable pictures give .*left out: 1 unreadable, 3 gray"):
        gather(tmp_path)


def test_one_picture_cannot_be_split(tmp_path: Path) -> None:
    fill(tmp_path, "animal", 1)
    with pytest.raises(DataError, match="1 usable pictures give"):
        gather(tmp_path)


def test_a_label_with_one_picture_is_taken_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / named(False, "rare"), colorful(99))
    collection = gather(folder)
    assert collection.labels == ["animal", "face", "rare"]
    assert "rare: 1 of 1 pictures left, none to validate" in caplog.text


def test_a_label_with_nothing_left_is_counted_and_warned_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "old" / "00.png", np.full((9, 9, 3), 80, np.uint8))
    collection = gather(folder)
    assert collection.labels == ["animal", "face"]
    assert collection.counts()["old"].dropped["gray"] == 1
    assert "old: 0 of 1 pictures left" in caplog.text


def test_a_stop_is_heard(folder: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted, match="stopped after a look at"):
        gather(folder, stop=stop)


# What travels


def test_samples_have_the_same_pixels_with_and_without_a_cache(
    folder: Path, tmp_path: Path
) -> None:
    write(folder / "face" / "large.jpg", colorful(99, 400, 500))
    without, cached = gather(folder), gather(folder, tmp_path / "cache")
    assert cached.fingerprint == without.fingerprint
    assert cached.report() == without.report()
    for one, other in zip(cached.training, without.training, strict=True):
        assert one.place is not None and other.place is None
        assert np.array_equal(one.pixels(), other.pixels())
        assert min(one.pixels().shape[:2]) <= 64


def test_samples_can_be_sent_to_another_process(folder: Path, tmp_path: Path) -> None:
    sample = gather(folder, tmp_path / "cache").training[0]
    again = pickle.loads(pickle.dumps(sample))  # noqa: S301  (our own)
    assert again == sample
    assert np.array_equal(again.pixels(), sample.pixels())


def test_folders_and_sizes_have_caches_of_their_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "pictures"
    shutil.copytree(folder, other)
    caches = tmp_path / "caches"
    for which, side in ((folder, 32), (folder, 48), (other, 32)):
        for sample in gather(which, caches, side=side).training:
            assert min(sample.pixels().shape[:2]) == side
    assert len(list(caches.iterdir())) == 3


def test_zip_and_folder_give_the_same_collection(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    pack(folder, packed / "shard.zip")
    loose, zipped = gather(folder), gather(packed, tmp_path / "cache")
    assert zipped.fingerprint == loose.fingerprint
    assert names(zipped.validation) == names(loose.validation)


def test_the_fingerprint_tells_other_contents_and_other_sides(folder: Path) -> None:
    first = gather(folder).fingerprint
    assert gather(folder, held_out=0.5).fingerprint != first
    write(folder / "face" / "00.png", colorful(99))
    assert gather(folder).fingerprint != first


def test_a_subset_is_one_label(folder: Path) -> None:
    collection = gather(folder, subset="animal")
    assert collection.labels == ["animal"]
    whole = gather(folder)
    assert set(names(collection.validation)) <= set(names(whole.validation))
