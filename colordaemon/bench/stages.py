"""The stages of a film by themselves, and together: each function is run in a process of its own.

The network is loaded and warmed up before the clock starts. The whole pipeline is everything that
happens to a film then, from the first look at it to the check of the result; of a stage by itself,
opening the film does not count.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colordaemon.bench.timing import Timed, timed
from colordaemon.config import Config, FilmSettings, ModelSettings
from colordaemon.convert.models import Model, ModelCache, helpers_for
from colordaemon.errors import ConfigError, MediaError
from colordaemon.film.analysis import analyzed_frames, gray_of
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.film.gpu_chroma import ChromaPainter
from colordaemon.film.gpu_smoothing import SmoothingMath
from colordaemon.film.pipeline import frames_ahead
from colordaemon.film.prefetch import prefetch
from colordaemon.film.shots import Stride
from colordaemon.film.smoothing import LOOK_AHEAD, TOGETHER, Sample
from colordaemon.media.decode import FilmReader
from colordaemon.media.encode import own_chroma, segment_writer
from colordaemon.media.probe import probe_film
from colordaemon.network.cuda import Traffic
from colordaemon.network.device import choose_device
from colordaemon.work_context import WorkContext

REPEATS = 3  # of what takes a moment
_SEEN = 16  # frames that the network sees for smoothing and chroma
_HELD_BYTES = 256 << 20  # full frames that chroma is made for, at most
_PAINTED = 24  # frames that chroma is made for, at least
WARM = LOOK_AHEAD + TOGETHER  # frames before smoothing counts; from here on TOGETHER finish at once
_SMOOTHED = 3 * TOGETHER


def color(clip: Path, config: Config, result: Path) -> Timed:
    """The whole pipeline. result: gets the colored film."""
    with helpers_for(config.jobs, config.model) as helpers:
        model = Model(config.model, ModelCache(helpers))
        colorizer = model.load()
        colorizer.warm_up()

        def work() -> int:
            job = plan_film(clip, config.film, force=True)
            hands = model.helpers(job.most_workers - 1)
            return color_film(job, result, colorizer, helpers=lambda: hands).frames

        if helpers:
            work()  # they load the network with their first task
        return timed(work)


def keep_chroma(clip: Path, film: FilmSettings, colored: Path, kept: Path) -> None:
    """Write the chroma planes of a colored film one after the other, as its encoder took them.

    Raises ConfigError where there is no room for that.
    """
    encoder = plan_film(clip, film, force=True).encoder
    with FilmReader(probe_film(colored)) as reader, kept.open("wb") as file:
        for frame in reader:
            planes = own_chroma(frame, encoder)
            if shutil.disk_usage(kept.parent).free < 4 * planes.nbytes:
                raise ConfigError(
                    f"{kept.parent}: the chroma of {clip.name} does not fit, expected room for "
                    f"{planes.nbytes / 2**20:.1f} MiB a frame; TMPDIR names another folder, "
                    "--seconds shorter clips"
                )
            planes.tofile(file)


def transcode(clip: Path, film: FilmSettings, kept: Path, result: Path) -> Timed:
    """The null transcode: decode, and encode with chroma that is there already."""
    job = plan_film(clip, film, force=True)
    code = job.encoder.code
    dtype = np.uint8 if code.depth == 8 else np.uint16
    shape = (2, *code.chroma_size(job.source.height, job.source.width))

    def work() -> int:
        frames = 0
        with (
            FilmReader(job.source) as reader,
            kept.open("rb") as file,
            segment_writer(result, job.encoder) as writer,
            closing(_ahead(reader)) as decoded,
        ):
            for frame in decoded:
                planes = np.fromfile(file, dtype, int(np.prod(shape)))
                writer.write(frame, planes.reshape(shape))
                frames += 1
        return frames

    return timed(work)


def _ahead(reader: FilmReader) -> Any:
    """Its frames, decoded in a thread of its own, as the pipeline does."""
    return prefetch(reader, frames_ahead(reader.info), "decode")


def decode(clip: Path) -> Timed:
    info = probe_film(clip)

    def work() -> int:
        with FilmReader(info) as reader:
            return sum(1 for _ in reader)

    return timed(work, REPEATS)


def guess(clip: Path, model: ModelSettings, kept: Path) -> None:
    """Write what the network says of the first frames, so that the stages after it need none."""
    colorizer = Model(model, ModelCache()).load()
    with FilmReader(probe_film(clip)) as reader:
        frames = analyzed_frames(reader, colorizer, Stride(1), holds=False)
        seen = list(islice(frames, _SEEN))
    ab, sure = (part.cpu().numpy() for part in colorizer.guess(torch.from_numpy(gray_of(seen))))
    with kept.open("wb") as file:
        np.savez(file, luma=np.stack([one.luma for one in seen]), ab=ab, sure=sure[:, 0])


def smooth(config: Config, kept: Path) -> Timed:
    """Smoothing of samples in the middle of a shot, where as many are finished as are fed.

    The first frames are played forward and back, so that the way back is walked as often as in a
    long shot. kept: what `guess` wrote.
    """
    found = np.load(kept)
    samples = list(map(Sample, found["luma"], found["ab"], found["sure"]))
    around = cycle(samples + samples[-2:0:-1])
    math, film = SmoothingMath(choose_device(config.model.device)), config.film
    smoother = math.smoother(film.smoothing, film.smooth_on)
    for number, sample in enumerate(islice(around, WARM)):
        smoother.feed(sample, cut=number == 0)

    def work() -> int:
        return sum(len(smoother.feed(sample, cut=False)) for sample in islice(around, _SMOOTHED))

    return timed(work, REPEATS)


def paint(clip: Path, config: Config, kept: Path) -> Timed:
    """Chroma planes for decoded frames. kept: what `guess` wrote."""
    job, colors = plan_film(clip, config.film, force=True), np.load(kept)["ab"]
    traffic = Traffic(choose_device(config.model.device))
    fitting = max(1, _HELD_BYTES // job.source.layout.bytes_of(job.source.width, job.source.height))
    with FilmReader(job.source) as reader:
        frames = list(islice(reader, min(len(colors), fitting)))
    turned = [job.source.orientation.as_stored(ab).copy() for ab in colors[: len(frames)]]
    count = max(_PAINTED, len(frames))

    def work() -> int:
        painter = ChromaPainter[None](traffic)
        for frame, ab in islice(cycle(zip(frames, turned, strict=True)), count):
            painter.feed(None, frame, ab, job.encoder.code_of(frame.fields))
        painter.finish()
        return count

    work()  # tables are made once
    return timed(work, REPEATS)


def color_photos(photos: Sequence[Path], config: Config) -> Timed:
    """Photos as `once` colors them; loading the model counts."""
    from colordaemon.convert.once import Once  # with libraries that films do without

    def work() -> int:
        tally = Once(photos, config).color(WorkContext())
        if len(tally.done) < len(photos):
            raise MediaError(f"{len(photos) - len(tally.done)} of {len(photos)} photos failed")
        return len(photos)

    return timed(work)
