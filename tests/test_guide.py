"""What guides the colors of a file: names, places, and pictures that do not fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import given, strategies
from photos import HEIGHT, WIDTH, image, ramp, save

from colordaemon.config import Config, PhotoSettings
from colordaemon.convert.convert import guide_for
from colordaemon.errors import ConfigError, GuideChanged, MediaError
from colordaemon.guide import photo as guided_photo
from colordaemon.guide.guide import Guide, GuidePicture
from colordaemon.guide.pictures import check_unchanged, read_hints, read_reference
from colordaemon.guide.references import open_references
from colordaemon.guide.sidecars import find_guide, find_sidecars, named_picture, own_sidecars
from colordaemon.inbox.safe_open import opened
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.match import Reference
from colordaemon.network.model import ColorNet
from colordaemon.sidecar_names import (
    Role,
    parse_range,
    parse_time,
    range_in,
    sidecar_file,
    sidecar_folder,
    time_text,
)

SUNSET = np.array([[[90, 120, 210]], [[210, 120, 60]]])


def meadow(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture in color (H, W, 3): the same tones in blue above and in orange below."""
    light = np.linspace(0.4, 1.0, width)[None, :, None]
    halves = np.repeat(SUNSET, (height // 2, height - height // 2), axis=0)
    return np.round(halves * light).astype(np.uint8)


def dabs(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A red dab on transparent ground (H, W, 4)."""
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 200, 30, 40, 255
    return pixels


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(source: Path, **options: object) -> list[str]:
    """The pictures that guide a file, relative to its folder."""
    guide = find_guide(source, **options)  # type: ignore[arg-type]
    return [os.path.relpath(each.path, source.parent) for each in guide.pictures]


def picture(path: Path, role: Role = "reference") -> GuidePicture:
    (only,) = find_guide(
        path.with_name("none.mp4"), named=[named_picture(str(path), role)]
    ).pictures
    return only


@pytest.mark.parametrize(
    ("name", "base", "role", "when"),
    [
        ("film.reference.jpg", "film", "reference", None),
        ("film.reference.2.png", "film", "reference", None),
        ("film.mp4.Reference.JPG", "film.mp4", "reference", None),
        ("a.b.reference@00-10-00..00-12-30.jpg", "a.b", "reference", "00-10-00..00-12-30"),
        ("film.reference.2@..7.5.heic", "film", "reference", "..7.5"),
        ("film.hints.png", "film", "hints", None),
        ("film.hints@00-01-23.400.webp", "film", "hints", "00-01-23.400"),
        ("film.hints.jpg", "film", "hints", None),
        ("film.reference@soon.jpg", "film", "reference", "soon"),
    ],
)
def test_names_of_sidecars_are_understood(
    name: str, base: str, role: Role, when: str | None
) -> None:
    said = sidecar_file(name)
    assert said is not None and (said.base, said.role, said.when) == (base, role, when)


@pytest.mark.parametrize(
    "name",
    ["reference.jpg", ".reference.jpg", "film.reference.mp4", "film.references.jpg",
     "my reference.jpg", "film.reference.x.jpg", "film.hints"],
)  # fmt: skip
def test_other_names_are_not_taken_for_sidecars(name: str) -> None:
    assert sidecar_file(name) is None


def test_folders_of_references_are_known_by_their_names() -> None:
    names = {name: sidecar_folder(name) for name in ("references", "film.References", "reference")}
    assert {name: said and said.base for name, said in names.items()} == {
        "references": "", "film.References": "film", "reference": None,
    }  # fmt: skip


def test_times_are_read_and_written() -> None:
    assert parse_time("00-01-23.400") == parse_time("1:23.4") == parse_time("83.4") == 83.4
    assert parse_time("01-00-00") == 3600
    assert parse_range("00-10-00..00-12-30") == (600, 750)
    assert parse_range("..90") == (None, 90) and parse_range("90..") == (90, None)
    assert time_text(83.4) == "00-01-23.400" and time_text(36000.0004) == "10-00-00.000"
    assert parse_time(time_text(59.9996)) == 60


@given(strategies.text(max_size=40))
def test_no_name_or_time_is_too_strange_to_be_looked_at(text: str) -> None:
    for name in (text, f"film.reference{text}.jpg", f"film.hints@{text}.png", f"{text}.references"):
        sidecar_file(name)
        sidecar_folder(name)
        range_in(name)
    for parse in (parse_time, parse_range):
        with suppress(ValueError):
            assert parse(text) is not None


@pytest.mark.parametrize(
    "text", ["9" * 400, "", "..", "1-2-3-4..", "0-75..2-00", "00-12-30..00-10-00", "5..5"]
)
def test_ranges_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_range(text)


def test_own_pictures_come_before_own_folder_shared_folder_and_setting(tmp_path: Path) -> None:
    film = tmp_path / "a" / "film.mp4"
    coat = tmp_path / "coat.jpg"
    touch(tmp_path, "coat.jpg", "a/other.references/x.png", "a/sub/film.reference.png")
    assert found(film) == []
    assert found(film, configured=coat) == ["../coat.jpg"]
    touch(film.parent, "references/2.png", "references/1.jpg", "references/notes.txt")
    assert found(film, configured=coat) == ["references/1.jpg", "references/2.png"]
    touch(film.parent, "film.references/3.tif")
    assert found(film, configured=coat) == ["film.references/3.tif"]
    touch(film.parent, "film.reference.jpg", "film.reference.2.png")
    assert found(film, configured=coat) == ["film.reference.2.png", "film.reference.jpg"]


def test_the_setting_may_name_a_folder(tmp_path: Path) -> None:
    touch(
        tmp_path, "in/film.mp4", "coats/red@1-00..2-00.jpg", "coats/blue.png", "coats/.hidden.png"
    )
    guide = find_guide(tmp_path / "in" / "film.mp4", configured=tmp_path / "coats")
    assert [(each.path.name, each.start, each.end) for each in guide.references] == [
        ("blue.png", None, None), ("red@1-00..2-00.jpg", 60, 120),
    ]  # fmt: skip


def test_full_names_come_before_those_that_two_files_share(tmp_path: Path) -> None:
    touch(tmp_path, "film.mp4", "film.avi", "film.reference.jpg", "film.mp4.reference.png")
    assert found(tmp_path / "film.mp4") == ["film.mp4.reference.png"]
    assert found(tmp_path / "film.avi") == ["film.reference.jpg"]


def test_hints_and_references_are_found_each_with_its_times(tmp_path: Path) -> None:
    touch(tmp_path, "film.reference@00-10-00..00-12-30.jpg", "film.hints.png")
    touch(tmp_path, "film.hints@00-01-23.400.webp")
    guide = find_guide(tmp_path / "film.mp4")
    assert [(each.start, each.end) for each in guide.references] == [(600, 750)]
    assert {each.start for each in guide.hints} == {None, 83.4}


def test_photos_have_sidecars_as_films_have(tmp_path: Path) -> None:
    touch(tmp_path, "photo.jpg", "photo.reference.png", "photo.hints.png")
    assert found(tmp_path / "photo.jpg") == ["photo.reference.png", "photo.hints.png"]


def test_named_pictures_take_the_place_of_those_of_their_role(tmp_path: Path) -> None:
    touch(tmp_path, "film.reference.jpg", "film.hints.png", "coat.png")
    named = [named_picture(f"{tmp_path}/coat.png@00:10:00..00:12:30", "reference")]
    guide = find_guide(tmp_path / "film.mp4", named=named)
    assert [each.path.name for each in guide.pictures] == ["coat.png", "film.hints.png"]
    assert (guide.references[0].start, guide.references[0].end) == (600, 750)


def test_the_time_of_a_named_picture_may_be_in_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "film.hints@00-00-02.png", "coat@1..2.jpg", "me@home.png")
    assert picture(tmp_path / "film.hints@00-00-02.png", "hints").start == 2
    assert picture(tmp_path / "coat@1..2.jpg").end == 2
    assert picture(tmp_path / "me@home.png").start is None
    with_own = named_picture(f"{tmp_path}/coat@1..2.jpg@3..4", "reference")
    assert with_own.path.name == "coat@1..2.jpg" and with_own.when == "3..4"


@pytest.mark.parametrize(
    ("text", "role", "told"),
    [
        ("nothing.png", "reference", "no such file"),
        ("coat.png@9..3", "reference", "comes after the start"),
        ("coat.png@9", "reference", "expected START..END"),
        ("coat.png@1..2", "hints", "expected a time"),
    ],
)
def test_options_that_name_no_picture_or_time_are_refused(
    tmp_path: Path, text: str, role: Role, told: str
) -> None:
    touch(tmp_path, "coat.png")
    with pytest.raises(ConfigError, match=told) as error:
        named_picture(f"{tmp_path}/{text}", role)
    assert text in str(error.value) or "coat.png" in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("film.reference@soon.jpg", "expected START..END"),
        ("film.reference@00-12-30..00-10-00.jpg", "comes after the start"),
        ("film.reference@5.jpg", "expected START..END"),
        ("film.hints@5..6.png", "expected a time"),
    ],
)
def test_names_with_times_that_are_none_are_refused(tmp_path: Path, name: str, told: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(MediaError, match=told) as error:
        find_guide(tmp_path / "film.mp4")
    assert name in str(error.value)


def test_two_hints_for_one_frame_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "film.hints.png", "film.hints.webp")
    with pytest.raises(MediaError, match=r"film\.hints\.webp: found hints for the frame that film"):
        find_guide(tmp_path / "film.mp4")


def test_a_folder_with_thousands_of_references_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colordaemon.guide.sidecars.MOST_PICTURES", 2)
    touch(tmp_path, *(f"references/{number}.png" for number in range(3)))
    with pytest.raises(MediaError, match="references: found 3 pictures, expected 2 at most"):
        find_guide(tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("name", "what"), [("film.reference.{}.png", "references"), ("film.hints@{}.png", "hints")]
)
def test_a_file_with_thousands_of_pictures_beside_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setattr("colordaemon.guide.sidecars.MOST_PICTURES", 2)
    touch(tmp_path, *(name.format(number) for number in range(3)))
    with pytest.raises(MediaError, match=rf"film.mp4: found 3 {what}, expected 2 at most"):
        find_guide(tmp_path / "film.mp4")
    (tmp_path / name.format(0)).unlink()
    assert len(find_guide(tmp_path / "film.mp4").pictures) == 2


@pytest.mark.parametrize("name", ["film.hint.png", "film_reference.jpg", "film.refs.2.tif"])
def test_a_name_that_is_nearly_right_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    touch(tmp_path, "film.mp4", name, "other_reference.jpg", "film.preference.png")
    assert found(tmp_path / "film.mp4") == []
    assert f"{name}: guides nothing; expected a name as film.reference.png" in caplog.text
    assert "other" not in caplog.text and "preference" not in caplog.text


def test_an_empty_folder_of_references_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "references").mkdir()
    assert found(tmp_path / "a.mp4") == found(tmp_path / "b.mp4") == []
    assert caplog.text.count("references: found no picture in it") == 1


def test_links_in_an_inbox_are_refused_and_elsewhere_followed(tmp_path: Path) -> None:
    inbox, outside = tmp_path / "in", tmp_path / "outside"
    touch(outside, "secret.png", "folder/secret.png")
    inbox.mkdir()
    (inbox / "film.reference.png").symlink_to(outside / "secret.png")
    (inbox / "photo.references").symlink_to(outside / "folder")
    for name, told in (("film.mp4", "film.reference.png"), ("photo.jpg", "photo.references")):
        with pytest.raises(MediaError, match="symbolic link") as error:
            find_guide(inbox / name, top=inbox)
        assert told in str(error.value)
        assert len(found(inbox / name)) == 1


def test_a_pipe_in_place_of_a_reference_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.reference.png")
    for top in (None, tmp_path):
        with pytest.raises(MediaError, match=r"film\.reference\.png: found a pipe"):
            find_guide(tmp_path / "film.mp4", top=top)


def test_what_belongs_to_one_file_alone_is_known(tmp_path: Path) -> None:
    touch(tmp_path, "film.mp4", "film.srt", "film.reference.jpg", "film.references/1.png")
    touch(tmp_path, "references/1.png", "other.hints.png")
    own = {path.name for path in own_sidecars(tmp_path / "film.mp4", top=tmp_path)}
    assert own == {"film.reference.jpg", "film.references"}
    touch(tmp_path, "film.avi", "film.mp4.hints.png")
    own = {path.name for path in own_sidecars(tmp_path / "film.mp4", top=tmp_path)}
    assert own == {"film.mp4.hints.png"}


def test_the_identity_knows_contents_and_times_and_no_paths(tmp_path: Path) -> None:
    touch(tmp_path, "film.reference.png")
    first = find_guide(tmp_path / "film.mp4")
    (tmp_path / "film.reference.png").rename(tmp_path / "movie.reference.png")
    assert find_guide(tmp_path / "movie.mp4").identity == first.identity != ""
    (tmp_path / "movie.reference.png").rename(tmp_path / "movie.reference@1..2.png")
    timed = find_guide(tmp_path / "movie.mp4")
    assert timed.identity != first.identity
    (tmp_path / "movie.reference@1..2.png").write_bytes(b"another")
    assert find_guide(tmp_path / "movie.mp4").identity != timed.identity
    assert Guide().identity == "" and not Guide()


def test_times_beyond_the_film_are_refused_and_any_time_of_a_photo(tmp_path: Path) -> None:
    touch(tmp_path, "film.reference@8..20.jpg", "film.hints@9.5.png")
    film = tmp_path / "film.mp4"
    guide = find_guide(film)
    guide.check_times(film, 10.0)
    with pytest.raises(MediaError, match=r"film\.hints@9\.5\.png: .* 00-00-09\.000"):
        guide.check_times(film, 9.0)
    with pytest.raises(MediaError, match=r"film\.reference@8"):
        guide.check_times(film, 8.0)
    with pytest.raises(MediaError, match="is a photo"):
        guide.check_times(tmp_path / "film.jpg", None)


def test_a_reference_is_read_with_its_transparency(tmp_path: Path) -> None:
    pixels = np.dstack((meadow(), np.full((HEIGHT, WIDTH), 255, np.uint8)))
    pixels[:10, :, 3] = 0
    rgb, opaque = read_reference(picture(save(tmp_path / "film.reference.png", pixels)))
    assert np.array_equal(rgb[10:], pixels[10:, :, :3]) and rgb.dtype == np.uint8
    assert not opaque[:10].any() and opaque[10:].all()


def test_a_deep_reference_that_lies_on_its_side_is_read_upright(tmp_path: Path) -> None:
    deep = meadow().astype(np.uint16) * 257
    path = save(tmp_path / "film.reference.tif", np.rot90(deep), orientation=6)
    rgb, opaque = read_reference(picture(path))
    assert opaque.all() and rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(rgb.astype(int) - meadow()).max() <= 1


def test_a_huge_reference_is_shrunk(tmp_path: Path) -> None:
    path = save(tmp_path / "film.reference.jpg", meadow(2100, 2500))
    rgb, _ = read_reference(picture(path))
    assert rgb.shape == (1050, 1250, 3)


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (ramp(), "found gray"),
        (np.dstack([ramp()] * 3), "found gray"),
        (np.round(ramp()[..., None] * (1.0, 0.85, 0.6)).astype(np.uint8), "found a single tint"),
        (np.full((HEIGHT, WIDTH, 3), (180, 20, 30), np.uint8), "found a single tint"),
        (np.dstack((meadow(), np.zeros((HEIGHT, WIDTH), np.uint8))), "found no opaque pixel"),
    ],
)
def test_references_without_colors_are_refused(
    tmp_path: Path, pixels: np.ndarray, told: str
) -> None:
    path = save(tmp_path / "film.reference.png", pixels)
    with pytest.raises(
        MediaError, match=f"film.reference.png: {told}, expected a picture in color"
    ):
        read_reference(picture(path))


def test_references_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", meadow()).read_bytes()
    for contents in (b"", b"hello", whole[: len(whole) // 2]):
        path = tmp_path / "film.reference.png"
        path.write_bytes(contents)
        with pytest.raises(MediaError, match=r"film\.reference\.png: .*expected") as error:
            read_reference(picture(path))
        assert "--accept-damaged" not in str(error.value)  # which is for what is colored


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "film.reference.png", meadow())
    monkeypatch.setattr("colordaemon.media.photo_file.MOST_PIXELS", 1000)
    with pytest.raises(
        MediaError, match=r"film\.reference\.png: 64 x 48 pixels, expected 1000 at most"
    ):
        read_reference(picture(path))
    monkeypatch.setattr("colordaemon.guide.sidecars.MOST_BYTES", 100)
    with pytest.raises(MediaError, match=r"bytes, expected 100 at most"):
        picture(path)


def test_hints_keep_their_own_size(tmp_path: Path) -> None:
    path = save(tmp_path / "film.hints.png", dabs())
    hints = read_hints(picture(path, "hints"), 2 * HEIGHT, 2 * WIDTH)
    assert np.array_equal(hints[..., 3], dabs()[..., 3])
    assert np.array_equal(hints[hints[..., 3] > 0], dabs()[dabs()[..., 3] > 0])


def test_large_hints_shrink_without_taking_color_from_the_ground(tmp_path: Path) -> None:
    path = save(tmp_path / "film.hints.webp", dabs(2104, 2504))
    hints = read_hints(picture(path, "hints"), 2104, 2504)
    assert hints.shape == (1052, 1252, 4)
    seen = hints[hints[..., 3] >= 128]
    assert len(seen) and np.abs(seen[:, :3].astype(int) - (200, 30, 40)).max() <= 1


@pytest.mark.parametrize(
    ("name", "pixels", "told"),
    [
        ("film.hints.png", dabs()[..., :3], "a picture without transparency"),
        ("film.hints.jpg", dabs()[..., :3], "a picture without transparency"),
        ("film.hints.png", dabs() | np.array([0, 0, 0, 255], np.uint8), "an opaque picture"),
        ("film.hints.png", dabs() * np.array([1, 1, 1, 0], np.uint8), "no dabs"),
        ("film.hints.png", dabs(HEIGHT, WIDTH + 1), "65 x 48 pixels, expected the shape"),
    ],
)
def test_hints_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, pixels: np.ndarray, told: str
) -> None:
    path = save(tmp_path / name, pixels)
    with pytest.raises(MediaError, match=f"{name}: found {told}"):
        read_hints(picture(path, "hints"), HEIGHT, WIDTH)


def test_a_picture_that_changes_or_goes_is_never_read_as_the_one_before(tmp_path: Path) -> None:
    path = save(tmp_path / "film.reference.png", meadow())
    guide = find_guide(tmp_path / "film.mp4")
    check_unchanged(guide)
    save(path, meadow()[::-1])
    for read in (lambda: read_reference(guide.references[0]), lambda: check_unchanged(guide)):
        with pytest.raises(GuideChanged, match="was changed"):
            read()
    path.write_bytes(b"half a picture")  # an error of the new one says nothing of the old one
    with pytest.raises(GuideChanged, match="was changed"):
        read_reference(guide.references[0])
    path.unlink()
    with pytest.raises(GuideChanged, match="was removed"):
        check_unchanged(guide)


def test_photos_compare_their_shared_references_once_and_changed_ones_anew(
    tmp_path: Path, tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    colorizer = Colorizer(tiny_model, torch.device("cpu"), torch.float32)
    opened_ones: list[str] = []

    def counted(pictures: Sequence[GuidePicture], colorizer: Colorizer) -> list[Reference]:
        opened_ones.extend(each.path.name for each in pictures)
        return open_references(pictures, colorizer)

    monkeypatch.setattr(guided_photo, "open_references", counted)
    path = tmp_path / "references" / "coat.png"
    path.parent.mkdir()
    for pixels, wanted in ((meadow(), 1), (meadow(), 1), (meadow()[::-1], 2)):
        save(path, pixels)
        for name in ("1.jpg", "2.jpg"):
            guide = find_guide(tmp_path / name)
            guided_photo.PhotoPainter(guide, tmp_path / name, colorizer)
        assert opened_ones == ["coat.png"] * wanted


def test_a_picture_that_goes_before_it_is_opened_is_looked_for_anew_unless_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "film.hints.png", "coat.png")
    named = named_picture(str(tmp_path / "coat.png"), "reference")
    (tmp_path / "coat.png").unlink()
    with pytest.raises(MediaError, match=r"coat\.png: cannot be read: No such file"):
        find_guide(tmp_path / "film.mp4", named=[named])
    found_before = find_sidecars(tmp_path / "film.mp4")
    (tmp_path / "film.hints.png").unlink()
    monkeypatch.setattr("colordaemon.guide.sidecars.find_sidecars", lambda *_, **__: found_before)
    with pytest.raises(GuideChanged, match=r"film\.hints\.png: was removed just now"):
        find_guide(tmp_path / "film.mp4")


def test_a_folder_that_may_not_be_listed_guides_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    touch(tmp_path, "film.hints.png")
    monkeypatch.setattr(os, "listdir", refuse)
    assert found(tmp_path / "film.mp4") == []
    assert f"{tmp_path}: cannot be listed" in caplog.text


@pytest.mark.parametrize("suffix", [".avif", ".heic", ".webp", ".gif", ".bmp", ".tif", ".jpg"])
def test_references_may_be_of_any_format_of_photos(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.reference{suffix}"
    match suffix:
        case ".avif":
            image(meadow()).heifsave(str(path), compression="av1", Q=95)
        case ".heic":
            pillow_heif.from_bytes("RGB", (WIDTH, HEIGHT), meadow().tobytes()).save(path)
        case ".gif":
            image(meadow()).gifsave(str(path))
        case ".bmp":
            cv2.imwrite(str(path), meadow()[..., ::-1])
        case _:
            save(path, meadow())
    rgb, opaque = read_reference(picture(path))
    assert np.abs(rgb.astype(int) - meadow()).mean() < 4 and opaque.all()


def test_deep_hints_and_hints_that_are_multiplied_by_their_alpha_are_read(tmp_path: Path) -> None:
    deep = save(tmp_path / "film.hints.png", dabs().astype(np.uint16) * 257)
    assert np.array_equal(read_hints(picture(deep, "hints"), HEIGHT, WIDTH), dabs())
    soft = dabs()
    soft[..., 3] = soft[..., 3] // 255 * 200
    associated = tmp_path / "film.hints.tif"
    image(soft).tiffsave(str(associated), premultiply=True)
    read = read_hints(picture(associated, "hints"), HEIGHT, WIDTH)
    seen = read[..., 3] > 0
    assert np.array_equal(read[..., 3], soft[..., 3])
    assert np.abs(read[seen].astype(int) - soft[seen]).max() <= 2  # libvips rounds down, twice


def test_settings_choose_references_by_folder_and_candidates_for_films_alone(
    tmp_path: Path,
) -> None:
    photo, film = tmp_path / "faces" / "photo.png", tmp_path / "faces" / "film.mp4"
    touch(tmp_path, "faces/film.mp4", "coat.jpg", "album/1.png", "album/2.png")
    save(photo, ramp())
    references, candidates = {"faces": tmp_path / "coat.jpg"}, {"faces": tmp_path / "album"}

    def roles(source: Path, candidates_of_photos: bool = False) -> list[str]:
        of_photos = PhotoSettings(candidates=candidates_of_photos)
        config = Config(references=references, candidates=candidates, photo=of_photos)
        with opened(source) as file:
            return [each.role for each in guide_for(file, config).pictures]

    assert roles(photo) == ["reference"]
    assert roles(photo, candidates_of_photos=True) == ["reference", "candidate", "candidate"]
    assert roles(film) == ["reference", "candidate", "candidate"]
    references = {"hands": tmp_path / "coat.jpg"}
    assert roles(photo) == []
