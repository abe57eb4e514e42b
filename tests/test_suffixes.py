"""One list of suffixes, and what the documents make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from colordaemon import suffixes
from colordaemon.inbox.scan import is_candidate
from colordaemon.media.stills import PhotoFormat

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"


def table() -> str:
    """The lists as the page has them."""
    photos = {kind.name: " ".join(f"`{suffix}`" for suffix in kind.value) for kind in PhotoFormat}
    films = " ".join(f"`{suffix}`" for suffix in sorted(suffixes.FILM_SUFFIXES))
    rows = [f"| {name} | {listed} |" for name, listed in photos.items()]
    return "\n".join(("| photos | suffixes |", "|---|---|", *rows, "", f"Films: {films}", ""))


def test_the_page_lists_all_suffixes() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), f"expected in {PAGE}:\n{table()}"


@pytest.mark.parametrize(
    "name", ["a.jfif", "b.DIB", "c.qt", "MOV001.MOD", "e.divx", "f.f4v", "g.mpe", "h.vro", "i.HEIC"]
)
def test_rarer_names_are_taken_from_an_inbox(tmp_path: Path, name: str) -> None:
    assert is_candidate(tmp_path / name, tmp_path)


def test_every_format_of_photos_is_taken() -> None:
    for kind in PhotoFormat:
        assert suffixes.PHOTO_SUFFIXES.issuperset(kind.value)
    assert not suffixes.PHOTO_SUFFIXES & suffixes.FILM_SUFFIXES
