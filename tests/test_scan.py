"""What a look at the inbox finds, and what it passes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colordaemon.inbox.scan import Ignored, is_candidate, is_ignored, rank_of, scan


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    "name",
    [
        ".film.mp4.Xa81bc",
        ".~tmp~",
        "film.mp4.part",
        "film.MP4.PART",
        "film.mkv.crdownload",
        "film.mp4~",
        "~syncthing~film.mp4.tmp",
        "@eaDir",
        "#recycle",
        "System Volume Information",
        ".Trash-1000",
        "film.mp4.!qB",
    ],
)
def test_unfinished_and_private_names_are_ignored(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize("name", ["film.mp4", "Party.mov", "lost.and.found.png", "a~b.jpg"])
def test_ordinary_names_are_not(name: str) -> None:
    assert not is_ignored(name)


def test_photos_and_films_in_subfolders_are_found(tmp_path: Path) -> None:
    wanted = {touch(tmp_path / name) for name in ("a.PNG", "b/c/d.mkv", "ä\n.tiff", "b/e.VOB")}
    for name in ("notes.txt", "b/.hidden/x.png", "b/x.mp4.part", "noext"):
        touch(tmp_path / name)
    assert {path for path, _ in scan(tmp_path)} == wanted
    assert all(signature.size == 1 for _, signature in scan(tmp_path))


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    outside, inbox = tmp_path / "outside", tmp_path / "in"
    inbox.mkdir()
    touch(outside / "x.png")
    (inbox / "folder").symlink_to(outside)
    (inbox / "link.png").symlink_to(outside / "x.png")
    (inbox / "loop").symlink_to(inbox)
    os.mkfifo(inbox / "pipe.png")
    assert [*scan(inbox)] == []


def test_what_is_passed_over_has_a_reason(tmp_path: Path) -> None:
    outside, inbox = touch(tmp_path / "outside.png"), tmp_path / "in"
    touch(inbox / "notes.txt")
    touch(inbox / "sub" / "film.mp4.part")
    touch(inbox / ".hidden")
    touch(inbox / "a.png")
    (inbox / "link.png").symlink_to(outside)
    (inbox / "links").symlink_to(tmp_path)
    os.mkfifo(inbox / "pipe.png")
    told: dict[str, str] = {}
    found = [path.name for path, _ in scan(inbox, told.__setitem__)]
    names = {Path(path).name: reason for path, reason in told.items()}
    assert found == ["a.png"]
    assert names.keys() == {"notes.txt", "film.mp4.part", "link.png", "links", "pipe.png"}
    assert "suffix .txt" in names["notes.txt"] and "unfinished" in names["film.mp4.part"]
    assert "symbolic link" in names["link.png"] and "symbolic link" in names["links"]
    assert "pipe" in names["pipe.png"]


def test_what_is_not_taken_is_said_once_and_not_without_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ignored = Ignored(tmp_path)
    for _ in range(2):
        for number in range(300):
            ignored.notice(f"{tmp_path}/{number}.txt", "its suffix .txt is not one of photos")
    assert len(caplog.messages) == 101 and "status --ignored" in caplog.messages[-1]


def test_a_missing_inbox_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(scan(tmp_path / "gone"))


def test_a_folder_on_the_way_decides_as_well(tmp_path: Path) -> None:
    assert is_candidate(tmp_path / "a" / "b.png", tmp_path)
    assert not is_candidate(tmp_path / ".a" / "b.png", tmp_path)
    assert not is_candidate(tmp_path / "a" / "b.txt", tmp_path)


def test_photos_rank_before_films() -> None:
    assert rank_of(Path("a.JPG")) < rank_of(Path("a.mp4"))
