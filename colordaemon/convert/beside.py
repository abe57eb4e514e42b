"""Files that stand beside a result, if the settings ask for them: a picture to look at, and proof
that luma is what it was.

    film.color.mkv.preview.jpg         before | after
    film.color.mkv.framemd5            the MD5 of the luma plane of every frame of the result
    film.color.mkv.source.framemd5     the same of the source

They are made in the folder of unfinished work, before the result gets its name, and get theirs with
it: whoever is killed in between finds them there, or where they belong. The format is that of
FFmpeg's muxer framemd5 (ffmpeg.org/ffmpeg-formats.html#framemd5), so that others can make the same:

    ffmpeg -i FILM -map 0:v:0 -fps_mode passthrough -enc_time_base demux \\
        -vf extractplanes=y -f framemd5 -
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from colordaemon.config import OutputSettings
from colordaemon.convert.publish import BESIDE, PREVIEW, RESULT_MD5, SOURCE_MD5, held
from colordaemon.convert.samples import Sample, samples
from colordaemon.durable import flush_file
from colordaemon.errors import MediaError
from colordaemon.logs import counted
from colordaemon.media.decode import FilmReader
from colordaemon.media.drawing import write_marked
from colordaemon.media.inventory import Note
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.media.provenance import Maker
from colordaemon.work_context import WorkContext

_PLACES = 6  # of a film in the picture


def make_beside(
    film: FilmInfo | None,
    source: Path,
    result: Path,
    settings: OutputSettings,
    maker: Maker,
    context: WorkContext,
) -> tuple[str, ...]:
    """Make the files that the settings ask for in the folder of a finished file that has no name
    yet. film: None for a photo. Returns remarks. Raises MediaError and OSError."""
    folder, told = result.parent, list[str]()
    for kind in BESIDE:  # of an earlier attempt with other settings
        held(folder, kind).unlink(missing_ok=True)
    if settings.preview:
        pairs = samples(source, result, _PLACES, film.stretch if film else None)
        try:
            write_marked(held(folder, PREVIEW), _sheet(pairs, context), maker)
        except MediaError as error:  # where the source is damaged; no reason to lose the result
            told.append(f"no picture of it stands beside the result: {error}")
    if settings.framemd5 and film:
        told.append(_compare(film, result, folder, context))
    for kind in BESIDE:
        if (path := held(folder, kind)).exists():
            path.chmod(source.stat().st_mode & 0o666)
            flush_file(path)
    return tuple(told)


def _sheet(pairs: Iterable[Sample], context: WorkContext) -> np.ndarray:
    """Pairs below each other, before on the left and after on the right."""
    lines = []
    for before, after in pairs:
        height = min(before.shape[0], after.shape[0])
        width = min(before.shape[1], after.shape[1])
        lines.append(np.hstack([before[:height, :width], after[:height, :width]]))
        context.heartbeat()
    width = min(line.shape[1] for line in lines)
    return np.vstack([line[:, :width] for line in lines])


def _compare(source: FilmInfo, result: Path, folder: Path, context: WorkContext) -> str:
    """Write the checksums of both films; returns whether they are the same."""
    found = probe_film(result)
    before = _write_sums(source, held(folder, SOURCE_MD5), 0.0, context)
    after = _write_sums(found, held(folder, RESULT_MD5), 0.5, context)
    differ = sum(one != other for one, other in zip(before, after, strict=False))
    differ += abs(len(before) - len(after))
    if not differ:
        return Note(
            f"the luma planes of all {counted(len(before), 'frame')} are those of the source"
        )
    said = (
        f"the luma planes of {differ} of {counted(len(before), 'frame')} differ from those of the"
        " source"
    )
    if found.codec == "ffv1" or len(before) != len(after):
        return said
    return Note(f"{said}, as codecs with loss make them; the codec ffv1 keeps them")


def _write_sums(info: FilmInfo, path: Path, share: float, context: WorkContext) -> list[str]:
    """share: of the comparison that is done before it."""
    sums = []
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in _header(info))
        for pts, duration, luma in _luma(info):
            sums.append(hashlib.md5(luma, usedforsecurity=False).hexdigest())
            file.write(f"0, {pts:10}, {pts:10}, {duration:8}, {len(luma):8}, {sums[-1]}\n")
            seconds = info.seconds_at(pts) - info.start_seconds
            part = seconds / info.wanted_seconds if info.wanted_seconds else 0.0
            context.stage("comparing", min(1.0, share + part / 2))
    return sums


def _header(info: FilmInfo) -> Iterator[str]:
    yield "#format: frame checksums"
    yield "#version: 2"
    yield "#hash: MD5"
    yield f"#tb 0: {info.time_base}"
    yield "#media_type 0: video"
    yield "#codec_id 0: rawvideo"
    yield f"#dimensions 0: {info.width}x{info.height}"
    yield "#sar 0: {}/{}".format(*info.sample_aspect.as_integer_ratio())
    yield "#stream#, dts,        pts, duration,     size, hash"


def _luma(info: FilmInfo) -> Iterator[tuple[int, int, bytes]]:
    """pts, duration and luma codes of all frames; codes of more than 8 bits in two bytes, the lower
    one first."""
    with FilmReader(info, damaged_percent=100.0) as reader:
        for frame in reader:
            codes = frame.luma
            yield (
                frame.pts,
                max(1, frame.duration),
                codes.astype(codes.dtype.newbyteorder("<")).tobytes(),
            )
