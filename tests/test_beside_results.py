"""Files beside a result: a picture of it, checksums, and proof that luma is what it was."""

from __future__ import annotations

import hashlib
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from command import once, write_film, write_photo
from conftest import Start
from daemons import Daemon
from films import ARCHIVE, luma_planes, make_film, pictures

from colordaemon.config import Config, FilmSettings, ModelSettings, OutputSettings
from colordaemon.convert.beside import make_beside
from colordaemon.convert.convert import convert, refuse_our_own
from colordaemon.convert.models import Models
from colordaemon.convert.publish import BESIDE, beside, held, publish_beside
from colordaemon.convert.samples import Sample
from colordaemon.errors import MediaError, OwnResult
from colordaemon.media.inventory import Note
from colordaemon.media.stretch import Stretch
from colordaemon.work_context import WorkContext

EVERYTHING = "output: {preview: true, framemd5: true}\nafter: {checksum: md5}\n"


class Stages(WorkContext):
    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def stage(self, name: str, share: float) -> None:
        assert 0 <= share <= 1 and share >= self.told.get(name, 0.0)
        self.told[name] = share


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sums(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def test_once_writes_what_is_asked_for_beside_each_result(tmp_path: Path, model: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(EVERYTHING)
    film, photo = write_film(tmp_path / "film.mp4"), write_photo(tmp_path / "photo.png")
    film.chmod(0o640)
    out = tmp_path / "out"
    done = once(film, photo, "-o", out, "--config", config, "--model", model)
    assert done.returncode == 0, done.stderr
    assert names_in(out) == [
        "film.color.mp4", "film.color.mp4.framemd5", "film.color.mp4.md5",
        "film.color.mp4.preview.jpg", "film.color.mp4.source.framemd5",
        "photo.color.png", "photo.color.png.md5", "photo.color.png.preview.jpg",
    ]  # fmt: skip
    subprocess.run(["md5sum", "-c", "film.color.mp4.md5"], cwd=out, check=True)  # noqa: S607
    assert stat.S_IMODE((out / "film.color.mp4.preview.jpg").stat().st_mode) == 0o640
    assert stat.S_IMODE((out / "film.color.mp4.md5").stat().st_mode) & 0o044
    # Nothing of it is taken for a photo when the folder is colored, whatever is forced.
    before = names_in(out)
    assert once(out, "--model", model, "--force").returncode == 3
    assert names_in(out) == before


def test_a_source_that_no_picture_can_be_taken_from_loses_no_result(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_frame(*asked: object) -> Iterator[Sample]:
        raise MediaError("no frame at 5.0 s")
        yield

    monkeypatch.setattr("colordaemon.convert.beside.samples", no_frame)
    film = write_film(tmp_path / "film.mp4")
    settings = ModelSettings(file=model, device="cpu", precision="fp32")
    config = Config(
        model=settings, output=OutputSettings(folder=tmp_path / "out", preview=True, framemd5=True)
    )
    target, colored = convert(film, config, Models(config).model_for(film), WorkContext(), {})
    assert names_in(tmp_path / "out") == [
        "film.color.mp4", "film.color.mp4.framemd5", "film.color.mp4.source.framemd5",
    ]  # fmt: skip
    said = "no picture of it stands beside the result: no frame at 5.0 s"
    assert target.exists() and said in colored.remarks


def test_the_picture_has_before_on_its_left_and_after_on_its_right(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    config = Config(output=OutputSettings(preview=True))
    target, _ = convert(photo, config, Models(config).model_for(photo), WorkContext(), {})
    sheet = cv2.imread(str(beside(target, ".preview.jpg")))
    assert sheet is not None and sheet.shape == (48, 128, 3)
    gray, color = sheet[:, :64].astype(int), sheet[:, 64:].astype(int)
    assert np.abs(gray - gray.mean(axis=2, keepdims=True)).max() < 8
    assert np.abs(color - color.mean(axis=2, keepdims=True)).max() > 8
    with pytest.raises(OwnResult):
        refuse_our_own(beside(target, ".preview.jpg"))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_checksums_of_luma_are_those_of_ffmpeg_and_say_that_nothing_has_changed(
    tmp_path: Path, pix_fmt: str
) -> None:
    source = make_film(
        tmp_path / "film.mkv", pictures(6, pix_fmt=pix_fmt), codec="ffv1", pix_fmt=pix_fmt
    )
    config = Config(output=OutputSettings(framemd5=True), film=ARCHIVE)
    stages = Stages()
    target, done = convert(source, config, Models(config).model_for(source), stages, {})
    before, after = beside(target, ".source.framemd5"), beside(target, ".framemd5")
    assert sums(before) == sums(after)
    assert sums(after) == [hashlib.md5(luma.tobytes()).hexdigest() for luma in luma_planes(target)]  # noqa: S324
    assert "the luma planes of all 6 frames are those of the source" in done.remarks
    assert stages.told["comparing"] > 0.9
    for film, ours in ((source, before), (target, after)):
        lines = ours.read_text().splitlines(keepends=True)
        # FFmpeg leaves open what a pixel's aspect is if nothing says it.
        assert framemd5_of(film) == "".join(line for line in lines if "#sar" not in line)


def framemd5_of(path: Path) -> str:
    """What FFmpeg's own muxer writes of the luma planes of a film."""
    there = path.with_suffix(".ffmpeg")
    with av.open(str(path)) as container, av.open(str(there), "w", format="framemd5") as made:
        stream = container.streams.video[0]
        depth = 8 if stream.pix_fmt == "yuv420p" else 10
        raw = made.add_stream("rawvideo", rate=25)
        raw.width, raw.height = stream.width, stream.height
        raw.pix_fmt = "gray" if depth == 8 else "gray10le"
        assert stream.time_base is not None
        raw.codec_context.time_base = stream.time_base
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(template=stream), graph.add("extractplanes", "y"),
            graph.add("buffersink"),
        ).configure()  # fmt: skip
        for frame in container.decode(stream):
            graph.push(frame)
            plane = graph.pull()
            assert isinstance(plane, VideoFrame)
            plane.pts, plane.time_base, plane.duration = frame.pts, frame.time_base, frame.duration
            for packet in raw.encode(plane):
                packet.duration = frame.duration
                made.mux(packet)
        made.mux(raw.encode(None))
    lines = there.read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith(("#software", "#sar")))


def test_a_codec_with_loss_is_said_to_change_luma(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 4)
    config = Config(output=OutputSettings(framemd5=True), film=FilmSettings(crf=40))
    target, done = convert(source, config, Models(config).model_for(source), WorkContext(), {})
    assert any("the luma planes of 4 of 4 frames differ" in remark for remark in done.remarks)
    assert len(sums(beside(target, ".framemd5"))) == 4


def test_of_a_stretch_only_its_own_frames_are_compared_and_shown(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 20)
    config = Config(output=OutputSettings(framemd5=True, preview=True), film=ARCHIVE)
    model = Models(config).model_for(source)
    target, done = convert(source, config, model, WorkContext(), {}, stretch=Stretch(0.2, 0.4))
    assert "the luma planes of all 5 frames are those of the source" in done.remarks
    assert beside(target, ".preview.jpg").exists()


def test_files_beside_a_result_are_named_once_and_for_all(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    target = tmp_path / "film.mp4"
    for kind in BESIDE:
        held(work, kind).write_text("new")
        beside(target, kind).write_text("of an earlier result")
    publish_beside(work, target)
    publish_beside(work, target)  # after a crash, again
    assert [beside(target, kind).read_text() for kind in BESIDE] == ["new"] * 3
    assert names_in(work) == []


def test_files_of_an_earlier_attempt_with_other_settings_are_removed(tmp_path: Path) -> None:
    photo, work = write_photo(tmp_path / "photo.png"), tmp_path / "work"
    work.mkdir()
    held(work, ".framemd5").write_text("old")
    config = Config()
    maker = Models(config).model_for(photo).maker()
    make_beside(None, photo, work / "result.partial", config.output, maker, WorkContext())
    assert names_in(work) == []


@pytest.mark.parametrize("kills", [False, True])
def test_the_daemon_writes_them_too_also_after_a_kill(
    start: Start, tmp_path: Path, kills: bool
) -> None:
    daemon = start(f"{EVERYTHING}", frame_seconds=0.01 if kills else 0.0)
    film = make_film(tmp_path / "film.mkv", 300 if kills else 6)
    film.rename(daemon.inbox / "film.mkv")
    daemon.start()
    if kills:
        wait_for_segments(daemon, 2)
        daemon.kill()
        daemon.start()
    daemon.wait_for_ends(1)
    assert daemon.stop() == 0
    assert daemon.results == [
        "film.color.mkv", "film.color.mkv.framemd5", "film.color.mkv.md5",
        "film.color.mkv.preview.jpg", "film.color.mkv.source.framemd5",
    ]  # fmt: skip
    done = daemon.outbox / "film.color.mkv"
    digest = hashlib.md5(done.read_bytes()).hexdigest()  # noqa: S324
    assert beside(done, ".md5").read_text() == f"{digest}  film.color.mkv\n"
    assert sums(beside(done, ".framemd5")) == sums(beside(done, ".source.framemd5"))


def wait_for_segments(daemon: Daemon, count: int) -> None:
    daemon.wait(lambda: len(daemon.segments_begun()) >= count)


def test_luma_that_a_codec_with_loss_has_changed_is_told_and_no_warning(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", pictures(6), codec="ffv1")
    config = Config(output=OutputSettings(framemd5=True), film=FilmSettings(crf=40))
    _, done = convert(source, config, Models(config).model_for(source), Stages(), {})
    (said,) = [remark for remark in done.remarks if "luma planes" in remark]
    assert said.endswith("codecs with loss make them; the codec ffv1 keeps them")
    assert isinstance(said, Note)
