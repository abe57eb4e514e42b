"""Which pictures are found, on which side of the split they stay, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from conftest import LABELS

from colordaemon.errors import DataError
from colordaemon.pictures.dataset import (
    MOST_BYTES,
    Picture,
    find_pictures,
    fingerprint,
    readable,
    split,
)


@pytest.fixture
def folder(pictures_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(pictures_folder, tmp_path / "pictures"))


@pytest.fixture
def zipped(pictures_folder: Path, tmp_path: Path) -> Path:
    """The same pictures in two shards."""
    target = tmp_path / "zipped"
    target.mkdir()
    files = sorted(pictures_folder.rglob("*.png"))
    for number in range(2):
        with zipfile.ZipFile(target / f"part-{number}.zip", "w") as shard:
            shard.mkdir("animal")
            for path in files[number::2]:
                shard.write(path, path.relative_to(pictures_folder))
    return target


def names(pictures: list[Picture]) -> list[str]:
    return [picture.name for picture in pictures]


def imaginary(count: int, label: str = "animal") -> list[Picture]:
    return [Picture(label, f"{label}/{i}.jpg", Path(f"{i}.jpg"), False) for i in range(count)]


def test_a_subfolder_is_a_label(pictures_folder: Path) -> None:
    pictures = find_pictures(pictures_folder)
    assert {picture.label for picture in pictures} == set(LABELS)
    assert names(pictures) == sorted(
        path.relative_to(pictures_folder).as_posix() for path in pictures_folder.rglob("*.png")
    )


def test_deeper_folders_belong_to_the_label_above_them(folder: Path) -> None:
    (folder / "animal" / "cats").mkdir()
    (folder / "animal" / "00.png").rename(folder / "animal" / "cats" / "00.png")
    labels = {picture.name: picture.label for picture in find_pictures(folder)}
    assert labels["animal/cats/00.png"] == "animal"


def test_zip_and_folder_give_the_same_pictures_and_the_same_split(
    pictures_folder: Path, zipped: Path
) -> None:
    loose, packed = find_pictures(pictures_folder), find_pictures(zipped)
    assert names(packed) == names(loose)
    assert [p.read() for p in packed] == [p.read() for p in loose]
    assert fingerprint(packed) == fingerprint(loose)
    for mine, theirs in zip(split(packed, 0.3), split(loose, 0.3), strict=True):
        assert names(mine) == names(theirs)


def test_no_picture_changes_sides_when_others_are_added() -> None:
    few, many = imaginary(100), imaginary(1000) + imaginary(500, "face")
    for small, large in zip(split(few, 0.1), split(many, 0.1), strict=True):
        assert set(small) <= set(large)


def test_every_picture_is_on_one_side_and_about_the_wanted_share_is_held_out() -> None:
    pictures = imaginary(5000)
    training, validation = split(pictures, 0.1)
    assert sorted(names(training + validation)) == sorted(names(pictures))
    assert 0.08 < len(validation) / len(pictures) < 0.12


def test_a_greater_share_holds_out_the_same_pictures_and_more() -> None:
    assert set(split(imaginary(500), 0.1)[1]) < set(split(imaginary(500), 0.2)[1])


def test_a_subset_is_one_label(pictures_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = find_pictures(pictures_folder)
    face = find_pictures(pictures_folder, "face")
    assert not caplog.records  # that the other labels are left out needs no warning
    assert names(face) == [picture.name for picture in whole if picture.label == "face"]
    assert set(split(face, 0.3)[1]) <= set(split(whole, 0.3)[1])


def test_an_unknown_subset_is_told_the_labels_there_are(pictures_folder: Path) -> None:
    with pytest.raises(DataError, match=r"no label 'plane', it has animal, face, landscape"):
        find_pictures(pictures_folder, "plane")


def test_a_label_with_one_picture_is_a_label(folder: Path, tmp_path: Path) -> None:
    (folder / "rare").mkdir()
    shutil.copy(folder / "animal" / "00.png", folder / "rare" / "only.png")
    assert names(find_pictures(folder, "rare")) == ["rare/only.png"]


def test_a_video_among_the_pictures_is_ignored_aloud(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "animal" / "zoo.mp4").write_bytes(b"film")
    pictures = find_pictures(folder)
    assert "animal/zoo.mp4" not in names(pictures)
    assert "1 ignored, not a picture: animal/zoo.mp4" in caplog.text


def test_an_empty_label_is_ignored_aloud(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "empty").mkdir()
    assert {picture.label for picture in find_pictures(folder)} == set(LABELS)
    assert f"{folder / 'empty'}: no picture in this folder" in caplog.text


def test_pictures_beside_the_labels_are_ignored_aloud(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(folder / "animal" / "00.png", folder / "loose.png")
    assert "loose.png" not in names(find_pictures(folder))
    assert "1 ignored, not in a label's folder: loose.png" in caplog.text


def test_what_systems_leave_behind_is_ignored_in_silence(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = names(find_pictures(folder))
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "00.png").write_bytes(b"")
    (folder / "animal" / "._00.png").write_bytes(b"")
    with zipfile.ZipFile(folder / "mac.zip", "w") as shard:
        shard.writestr("__MACOSX/animal/00.png", b"")
    assert names(find_pictures(folder)) == before
    assert not caplog.records


def test_many_strangers_are_counted_and_some_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(50):
        (folder / "face" / f"{number:02}.txt").write_text("")
    find_pictures(folder)
    assert "50 ignored" in caplog.text
    assert "face/07.txt, …" in caplog.text and "face/08.txt" not in caplog.text


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "animal").mkdir()
    with pytest.raises(DataError, match="no pictures found"):
        find_pictures(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: expected a folder"):
        find_pictures(tmp_path / "nowhere")


def test_a_damaged_shard_is_named(folder: Path) -> None:
    (folder / "shard.zip").write_bytes(b"no zip at all")
    with pytest.raises(DataError, match=r"shard\.zip: expected a zip of label folders"):
        find_pictures(folder)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_unreadable_pictures_are_named_and_left_out(folder: Path, content: bytes) -> None:
    (folder / "face" / "03.png").write_bytes(content)
    pictures = find_pictures(folder)
    good, bad = readable(pictures)
    assert bad == ["face/03.png"]
    assert names(good) == [name for name in names(pictures) if name != "face/03.png"]


def test_a_picture_that_vanished_or_cannot_be_opened_is_named(folder: Path) -> None:
    pictures = find_pictures(folder)
    (folder / "face" / "03.png").unlink()
    assert readable(pictures)[1] == ["face/03.png"]


def test_a_damaged_place_in_a_shard_costs_one_picture(zipped: Path) -> None:
    pictures = find_pictures(zipped)
    shard = zipped / "part-0.zip"
    with zipfile.ZipFile(shard) as opened:
        entry = next(e for e in opened.infolist() if e.filename.endswith(".png"))
    content = bytearray(shard.read_bytes())
    middle = entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2
    content[middle] ^= 0xFF  # the checksum tells
    shard.write_bytes(content)
    assert readable(pictures)[1] == [entry.filename]


def test_a_picture_that_unpacks_to_gigabytes_costs_no_memory(zipped: Path, folder: Path) -> None:
    with (
        zipfile.ZipFile(zipped / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as shard,
        shard.open("animal/bomb.png", "w") as member,
    ):
        for _ in range((MOST_BYTES >> 20) + 1):
            member.write(bytes(1 << 20))
    with (folder / "animal" / "sparse.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    tracemalloc.start()
    try:
        assert readable(find_pictures(zipped))[1] == ["animal/bomb.png"]
        assert readable(find_pictures(folder))[1] == ["animal/sparse.png"]
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES // 4
    finally:
        tracemalloc.stop()


def test_a_name_that_is_no_utf8_can_be_split_and_hashed(folder: Path) -> None:
    odd = os.fsencode(folder / "animal") + b"/caf\xe9.png"
    shutil.copy(os.fsencode(folder / "animal" / "00.png"), odd)
    pictures = find_pictures(folder)
    assert len(pictures) == 49
    assert sum(map(len, split(pictures, 0.1))) == 49
    assert len(fingerprint(pictures)) == 16


def test_the_fingerprint_tells_other_pictures() -> None:
    assert fingerprint(imaginary(10)) != fingerprint(imaginary(11))


def test_a_picture_that_broke_since_it_was_checked_is_named(folder: Path) -> None:
    picture = find_pictures(folder, "face")[0]
    (folder / "face" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"face/00\.png could be read before"):
        picture.pixels()


def test_a_stamp_tells_whether_a_file_has_changed(folder: Path) -> None:
    path = folder / "face" / "00.png"
    before = find_pictures(folder, "face")[0].stamp()
    assert find_pictures(folder, "face")[0].stamp() == before
    os.utime(path, ns=(0, 0))
    touched = find_pictures(folder, "face")[0].stamp()
    path.write_bytes(path.read_bytes() + b"!")
    os.utime(path, ns=(0, 0))
    assert len({before, touched, find_pictures(folder, "face")[0].stamp()}) == 3


def test_equal_names_in_two_shards_have_two_addresses(zipped: Path) -> None:
    shutil.copy(zipped / "part-0.zip", zipped / "part-2.zip")
    pictures = find_pictures(zipped)
    assert len({picture.address for picture in pictures}) == len(pictures) == 72
    assert len({picture.name for picture in pictures}) == 48
