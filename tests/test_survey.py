"""The look at every picture: once, whatever is killed, cut short or full in between."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy as np
import pytest
from pictures import colorful, encode, fill, hearing, pack, write
from processes import FORKS

from colordaemon.errors import DataError, Interrupted
from colordaemon.pictures import cache as cache_module
from colordaemon.pictures import survey as survey_module
from colordaemon.pictures.cache import Cache, CachedPicture
from colordaemon.pictures.dataset import Picture, decode_picture, find_pictures
from colordaemon.pictures.survey import survey

COUNT = 12
SIDE = 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "pictures", "animal", COUNT)
    return tmp_path / "pictures"


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been decoded since the test began."""
    seen: list[bytes] = []
    decode = decode_picture

    def counting(data: bytes, side: int | None = None) -> np.ndarray | None:
        seen.append(data)
        return decode(data, side)

    monkeypatch.setattr(survey_module, "decode_picture", counting)
    return seen


def look(
    folder: Path,
    cache_folder: Path | None,
    stop: Event | None = None,
) -> dict[str, CachedPicture]:
    """Entries by name."""
    pictures = find_pictures(folder)
    entries = survey(pictures, SIDE, cache_folder, stop or Event())
    assert len(entries) == len(pictures)
    return {picture.name: entry for picture, entry in zip(pictures, entries, strict=True)}


def assert_sound(folder: Path, entries: dict[str, CachedPicture]) -> None:
    """Every picture has an entry, and what the cache holds of it are its own pixels."""
    pictures = {picture.name: picture for picture in find_pictures(folder)}
    assert set(entries) == set(pictures)
    for name, entry in entries.items():
        assert entry.place is not None
        assert np.array_equal(entry.place.read(), pictures[name].pixels(SIDE))


def test_the_cache_holds_the_pixels_that_decoding_gives(folder: Path, cache_folder: Path) -> None:
    write(folder / "animal" / "wide.jpg", colorful(50, 100, 333))
    write(folder / "animal" / "small.png", colorful(51, 9, 7))
    assert_sound(folder, look(folder, cache_folder))
    assert_sound(folder, look(folder, cache_folder))


def test_a_second_look_decodes_nothing_and_tells_the_same(
    folder: Path, cache_folder: Path, decoded: list[bytes]
) -> None:
    first = look(folder, cache_folder)
    assert len(decoded) == COUNT
    assert look(folder, cache_folder) == first
    assert len(decoded) == COUNT


def test_shards_are_decoded_once_too(
    folder: Path, cache_folder: Path, tmp_path: Path, decoded: list[bytes]
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    pack(folder, packed / "shard.zip")
    first = look(packed, cache_folder)
    assert look(packed, cache_folder) == first
    assert len(decoded) == COUNT
    assert_sound(packed, first)


def test_only_new_and_changed_pictures_are_decoded(
    folder: Path, cache_folder: Path, decoded: list[bytes]
) -> None:
    look(folder, cache_folder)
    decoded.clear()
    write(folder / "animal" / "00.png", colorful(100))
    write(folder / "animal" / "new.png", colorful(101))
    (folder / "animal" / "01.png").unlink()
    entries = look(folder, cache_folder)
    assert sorted(decoded) == sorted([encode(colorful(100)), encode(colorful(101))])
    assert_sound(folder, entries)


def test_a_subset_leaves_the_rest_of_the_cache_alone(
    folder: Path, cache_folder: Path, decoded: list[bytes]
) -> None:
    fill(folder, "face", 3, first_seed=60)
    for subset, expected in (("face", 3), ("animal", COUNT), ("face", 0), (None, 0)):
        decoded.clear()
        survey(find_pictures(folder, subset), SIDE, cache_folder, Event())
        assert len(decoded) == expected


def test_a_cache_of_which_most_has_changed_is_made_anew(folder: Path, cache_folder: Path) -> None:
    sizes = []
    for seed in range(0, 400, 100):
        fill(folder, "animal", COUNT, first_seed=seed)
        assert_sound(folder, look(folder, cache_folder))
        (pixels,) = cache_folder.glob("pixels.*")
        sizes.append(pixels.stat().st_size)
    assert max(sizes) <= 3 * sizes[0]


def test_pictures_in_use_outlive_a_cache_that_is_made_anew(
    folder: Path, cache_folder: Path
) -> None:
    before = look(folder, cache_folder)
    expected = {name: p.pixels(SIDE) for p in find_pictures(folder) if (name := p.name)}
    (cache_folder / "index").write_bytes(b"flipped")
    look(folder, cache_folder)
    for name, entry in before.items():
        assert entry.place is not None
        assert not entry.place.path.exists()
        assert np.array_equal(entry.place.read(), expected[name])


# Pictures that cannot be read


def test_what_cannot_be_read_has_a_problem_and_the_others_are_looked_at(
    folder: Path, cache_folder: Path
) -> None:
    (folder / "animal" / "text.jpg").write_text("no picture")
    (folder / "animal" / "empty.png").write_bytes(b"")
    for _ in range(2):
        entries = look(folder, cache_folder)
        assert entries["animal/text.jpg"].statistics.problem == "it is no picture, or damaged"
        assert entries["animal/empty.png"].statistics.problem == "it is empty"
        assert sum(not entry.statistics.problem for entry in entries.values()) == COUNT


def test_a_picture_that_vanished_has_a_problem(folder: Path, cache_folder: Path) -> None:
    pictures = find_pictures(folder)
    (folder / "animal" / "03.png").unlink()
    entries = survey(pictures, SIDE, cache_folder, Event())
    assert "it cannot be read: [Errno 2]" in entries[3].statistics.problem


def test_a_picture_is_looked_at_again_once_it_can_be_read(folder: Path, cache_folder: Path) -> None:
    good = (folder / "animal" / "00.png").read_bytes()
    (folder / "animal" / "00.png").write_bytes(bytes(len(good)))
    os.utime(folder / "animal" / "00.png", ns=(0, 0))
    assert look(folder, cache_folder)["animal/00.png"].statistics.problem
    (folder / "animal" / "00.png").write_bytes(good)
    os.utime(folder / "animal" / "00.png", ns=(0, 0))
    assert_sound(folder, look(folder, cache_folder))


# Caches that are damaged, closed or full


def truncate_pixels(cache_folder: Path) -> None:
    (pixels,) = cache_folder.glob("pixels.*")
    os.truncate(pixels, pixels.stat().st_size - 1)


def delete_pixels(cache_folder: Path) -> None:
    (pixels,) = cache_folder.glob("pixels.*")
    pixels.unlink()


def flip_index(cache_folder: Path) -> None:
    data = bytearray((cache_folder / "index").read_bytes())
    data[len(data) // 2] ^= 1
    (cache_folder / "index").write_bytes(data)


def truncate_index(cache_folder: Path) -> None:
    os.truncate(cache_folder / "index", 100)


def empty_index(cache_folder: Path) -> None:
    os.truncate(cache_folder / "index", 0)


def age_index(cache_folder: Path) -> None:
    body = json.dumps({"version": 0}).encode()
    (cache_folder / "index").write_bytes(cache_module._checksum(body) + b"\n" + body)


@pytest.mark.parametrize(
    "damage",
    [truncate_pixels, delete_pixels, flip_index, truncate_index, empty_index, age_index],
)
def test_a_cache_that_is_not_sound_is_made_anew_aloud(
    folder: Path,
    cache_folder: Path,
    decoded: list[bytes],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    look(folder, cache_folder)
    damage(cache_folder)
    assert_sound(folder, look(folder, cache_folder))
    assert f"{cache_folder}: rebuilding the cache" in caplog.text
    assert len(decoded) == 2 * COUNT
    assert_sound(folder, look(folder, cache_folder))
    assert len(decoded) == 2 * COUNT
    assert len(list(cache_folder.glob("pixels.*"))) == 1


def test_pixels_cut_short_while_in_use_are_an_error_not_a_crash(
    folder: Path, cache_folder: Path
) -> None:
    entries = look(folder, cache_folder)
    truncate_pixels(cache_folder)
    place = entries[f"animal/{COUNT - 1:02}.png"].place
    assert place is not None
    with pytest.raises(DataError, match="cut short while it was in use"):
        place.read()


def test_without_a_place_for_the_cache_pictures_are_looked_at_all_the_same(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    entries = look(folder, tmp_path / "file" / "cache")
    assert all(entry.place is None and not entry.statistics.problem for entry in entries.values())
    assert "no cache, pictures are decoded each time" in caplog.text


def test_figures_do_not_depend_on_the_cache(folder: Path, cache_folder: Path) -> None:
    cached, fresh, without = (look(folder, x) for x in (cache_folder, cache_folder, None))
    for name, entry in without.items():
        assert entry.place is None
        assert cached[name].statistics == fresh[name].statistics == entry.statistics


def test_a_disk_that_fills_up_ends_the_cache_and_not_the_look(
    folder: Path,
    cache_folder: Path,
    decoded: list[bytes],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures_left = iter(range(5))

    def shrinking(path: Path) -> tuple[int, int, int]:
        return shutil._ntuple_diskusage(
            0, 0, 10**12 if next(pictures_left, None) is not None else 0
        )

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", shrinking)
        entries = look(folder, cache_folder)
    assert "the cache is not complete, other pictures are decoded each time" in caplog.text
    assert "GB are free" in caplog.text
    assert [entry.place is not None for entry in entries.values()] == [True] * 5 + [False] * 7
    assert len(decoded) == COUNT
    assert_sound(folder, look(folder, cache_folder))
    assert len(decoded) == COUNT + 7


def test_pixels_that_no_index_names_are_not_relied_on(
    folder: Path,
    cache_folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next process to write would put others in their place."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module, "replace_file", full)
    entries = look(folder, cache_folder)
    assert all(entry.place is None and not entry.statistics.problem for entry in entries.values())
    assert "No space left" in caplog.text


# Stopping, killing, sharing


def test_a_stopped_look_goes_on_where_it_was(
    folder: Path, cache_folder: Path, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Event()
    add = Cache.add

    def stop_at_five(self: Cache, *values: object) -> CachedPicture:
        entry = add(self, *values)  # type: ignore[arg-type]
        if len(self.entries) == 5:
            stop.set()
        return entry

    monkeypatch.setattr(Cache, "add", stop_at_five)
    with pytest.raises(Interrupted, match=f"stopped after a look at 5 of {COUNT} pictures"):
        look(folder, cache_folder, stop=stop)
    decoded.clear()
    assert_sound(folder, look(folder, cache_folder))
    assert len(decoded) == COUNT - 5


def _look_until_killed(folder: Path, cache_folder: Path, place: str, left: int) -> None:
    """Look, saving after every picture, and die before step number `left` of a kind."""
    survey_module.SAVE_SECONDS = 0.0
    owner, name = {
        "add": (Cache, "add"),
        "save": (Cache, "save"),
        "index": (cache_module, "replace_file"),
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
    }[place]
    function = getattr(owner, name)

    def killing(*values: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*values)

    setattr(owner, name, killing)
    look(folder, cache_folder)


@pytest.mark.parametrize("place", ["add", "save", "index", "fsync", "replace"])
def test_a_killed_look_leaves_a_sound_cache_or_none(
    folder: Path,
    cache_folder: Path,
    decoded: list[bytes],
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    for number in range(COUNT):  # so small that they linger in the file's buffer
        write(folder / "animal" / f"{number:02}.png", colorful(number, 20, 24))
    for count, kept in ((0, 0), (4, 1)):  # in its first step; then in a later one
        process = FORKS.Process(
            target=_look_until_killed, args=(folder, cache_folder, place, count)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert kept == 0 or (cache_folder / "index").exists()
    assert_sound(folder, look(folder, cache_folder))
    assert len(decoded) < COUNT
    assert "rebuilding the cache" not in caplog.text


def test_two_processes_at_once_decode_each_picture_once(folder: Path, cache_folder: Path) -> None:
    queue = FORKS.SimpleQueue()
    arguments = (folder, cache_folder, queue)
    processes = [FORKS.Process(target=_look_and_count, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(queue.get() for _ in processes) == [0, COUNT]
    queue.close()
    assert_sound(folder, look(folder, cache_folder))


def _look_and_count(folder: Path, cache_folder: Path, queue: object) -> None:
    lines: list[str] = []
    with hearing(lines.append):
        look(folder, cache_folder)
    said = [line for line in lines if line.startswith("looked at") and line.endswith(" s")]
    queue.put(COUNT if said else 0)  # type: ignore[attr-defined]


def test_waiting_for_another_process_is_said_and_can_be_stopped(
    folder: Path, cache_folder: Path
) -> None:
    lines: list[str] = []
    stop = Event()
    with cache_module.locked(cache_folder, Event()):
        thread = Timer(0.3, stop.set)
        thread.start()
        with pytest.raises(Interrupted), hearing(lines.append):
            look(folder, cache_folder, stop)
        thread.join()
    assert len(lines) == 1 and "waiting for another process" in lines[0]


def test_progress_tells_speed_and_time_left(
    folder: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(survey_module, "REPORT_SECONDS", 0.0)
    lines: list[str] = []
    with caplog.at_level(logging.INFO), hearing(lines.append):
        look(folder, cache_folder)
    assert f"looked at 3 of {COUNT} pictures, " in lines[2]
    assert "pictures/s" in lines[2] and "s left" in lines[2]
    assert f"GB in {cache_folder}" in caplog.text


def test_memory_does_not_grow_with_the_collection(
    folder: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than so many pictures are read ahead of the one that is being kept."""
    fill(folder, "face", 60, first_seed=200)
    read, kept, ahead = 0, 0, 0
    read_one, add = Picture.read, Cache.add

    def reading(picture: Picture) -> bytes:
        nonlocal read
        read += 1
        return read_one(picture)

    def keeping(cache: Cache, *values: Any) -> CachedPicture:
        nonlocal ahead, kept
        ahead = max(ahead, read - kept)
        kept += 1
        return add(cache, *values)

    monkeypatch.setattr(Picture, "read", reading)
    monkeypatch.setattr(Cache, "add", keeping)
    look(folder, cache_folder)
    assert read == kept == COUNT + 60
    assert ahead <= survey_module._AHEAD
