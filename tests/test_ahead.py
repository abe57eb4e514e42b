"""Photos of one call are colored at the same time, and come out as if each were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import write_film, write_photo
from photos import draw

from colordaemon.config import Config, ModelSettings, OutputSettings
from colordaemon.convert import ahead
from colordaemon.convert.ahead import Ahead
from colordaemon.convert.convert import Colored, Prepared
from colordaemon.convert.once import Once, Tally
from colordaemon.convert.report import Report
from colordaemon.convert.sources import Source
from colordaemon.work_context import WorkContext


@pytest.fixture
def config(tmp_path: Path, model: Path) -> Config:
    """For a network that is a miniature, on a processor."""
    return Config(
        model=ModelSettings(file=model, device="cpu", precision="fp32"),
        output=OutputSettings(folder=tmp_path / "out"),
    )


def color(config: Config, *sources: Path, report: Report | None = None) -> Tally:
    return Once(sources, config, report).color(WorkContext())


def results(config: Config) -> dict[str, bytes]:
    assert config.output.folder is not None
    return {path.name: path.read_bytes() for path in config.output.folder.iterdir()}


def test_a_photo_is_the_same_whatever_is_colored_beside_it(tmp_path: Path, config: Config) -> None:
    photos = [draw(tmp_path / f"{side}.png", side) for side in range(40, 160, 11)]
    for photo in photos:
        color(config, photo)
    alone = results(config)
    for name in alone:
        (tmp_path / "out" / name).unlink()
    assert color(config, *photos).done == photos
    assert results(config) == alone and len(alone) == len(photos)


def test_a_bad_photo_spoils_no_other_and_all_are_told_of_in_order(
    tmp_path: Path, config: Config
) -> None:
    told: list[str] = []

    class Told(Report):
        def done(self, source: Path, target: Path, colored: Colored) -> None:
            told.append(source.name)

        def failed(self, source: Path, error: Exception) -> None:
            told.append(f"failed: {source.name}")

        def skipped(self, source: Path, reason: object, *, is_expected: bool = False) -> None:
            told.append(f"skipped: {source.name}")

    for number in (1, 3, 5, 7, 9):
        draw(tmp_path / f"{number}.png", 40 + number)
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    write_photo(tmp_path / "4.png", color=True)
    write_film(tmp_path / "6.mp4")
    (tmp_path / "8.png").symlink_to("none")
    color(config, *sorted(tmp_path.glob("[1-9].*")), report=Told())
    assert told == [
        "1.png", "failed: 2.png", "3.png", "skipped: 4.png", "5.png", "6.mp4", "7.png",
        "failed: 8.png", "9.png",
    ]  # fmt: skip
    assert sorted(results(config)) == [
        *(f"{number}.color.png" for number in (1, 3, 5)), "6.color.mp4",
        *(f"{number}.color.png" for number in (7, 9)),
    ]  # fmt: skip


@pytest.mark.logs_errors
def test_two_photos_of_one_name_do_not_take_each_others_result(
    tmp_path: Path, config: Config
) -> None:
    both = [tmp_path / name / "a.png" for name in ("one", "other")]
    for number, photo in enumerate(both):
        photo.parent.mkdir()
        draw(photo, 50 + number)
    tally = color(config, *both)
    assert (tally.done, tally.failed) == ([both[0]], [both[1]])
    first = results(config)
    color(config, both[0])
    assert results(config) == first


@pytest.mark.logs_errors
def test_a_pattern_that_makes_one_name_of_two_photos_loses_neither(
    tmp_path: Path, config: Config
) -> None:
    output = config.output.model_copy(update={"name": "{stem}{folder}{suffix}", "overwrite": True})
    both = [tmp_path / "c" / "ab.png", tmp_path / "bc" / "a.png"]  # begun at the same time
    for number, photo in enumerate(both):
        photo.parent.mkdir()
        draw(photo, 50 + number)
    tally = color(config.model_copy(update={"output": output}), *both)
    assert (tally.done, tally.failed) == ([both[0]], [both[1]])
    (alone,) = results(config).values()
    color(config.model_copy(update={"output": output}), both[0])
    assert [*results(config).values()] == [alone]


def test_large_photos_are_colored_alone(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "MOST_PIXELS", 3000)  # of two small ones
    sides = (35, 120, 36, 37, 130, 38)
    photos = [draw(tmp_path / f"{side}.png", side) for side in sides]
    assert color(config, *photos).done == photos


def test_after_a_stop_nothing_is_left_of_photos_that_were_begun(
    tmp_path: Path, config: Config
) -> None:
    photos = [draw(tmp_path / f"{side}.png", side) for side in range(40, 60, 2)]
    done: list[Path] = []

    class Told(Report):
        def done(self, source: Path, target: Path, colored: Colored) -> None:
            done.append(target)

    once = Once(photos, config, Told(), should_stop=lambda: len(done) == 2)
    assert once.color(WorkContext()).interrupted
    assert sorted(results(config)) == sorted(path.name for path in done)


def test_several_photos_are_under_way_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=100.0)

    @contextmanager
    def convert(
        source: Source, check: Callable[[Prepared], None]
    ) -> Iterator[Callable[[], tuple[Path, Colored]]]:
        together.wait()
        yield lambda: (source.path, Colored("", ()))

    sources = [Source(Path(f"{number}.png")) for number in range(4)]
    with Ahead(sources, convert) as photos:
        for source in sources:
            assert photos.publish(source) == (source.path, Colored("", ()))
