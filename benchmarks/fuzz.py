"""What becomes of damaged files: small valid ones of every kind, changed at random, and judged.

    python benchmarks/fuzz.py [--count 2000] [--seed 1] [--only KIND] [--keep DIR]

Each is colored as `once` would, with a stand-in for the network, in a child process with limits on
memory and time. Allowed are a result, and a refusal that is foreseen. Found fault with are a child
that dies (by which library, its last traceback tells), anything unforeseen, what hangs, and a
result that is not whole: it is opened again and every picture of it decoded. The same seed makes
the same files. Every other file is colored with --accept-damaged and --accept-loss.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np

SECONDS, GIBIBYTES = 60, 6  # limits for one file
_SIZE, _FRAMES, _RATE = (64, 48), 12, 25
# Container, codec of the film, its pixels, codec of the sound, or none.
_FILMS: dict[str, tuple[str, str, str, str]] = {
    "mp4 h264": ("mp4", "libx264", "yuv420p", "aac"),
    "mp4 hevc": ("mp4", "libx265", "yuv420p", "aac"),
    "mp4 av1": ("mp4", "libsvtav1", "yuv420p", ""),
    "mov prores": ("mov", "prores_ks", "yuv422p10le", "pcm_s16le"),
    "mov mjpeg": ("mov", "mjpeg", "yuvj420p", ""),
    "3gp h263": ("3gp", "h263", "yuv420p", ""),
    "mkv ffv1": ("matroska", "ffv1", "yuv420p", "flac"),
    "mkv h264": ("matroska", "libx264", "yuv420p", "aac"),
    "webm vp9": ("webm", "libvpx-vp9", "yuv420p", "libopus"),
    "webm vp8": ("webm", "libvpx", "yuv420p", ""),
    "avi mpeg4": ("avi", "mpeg4", "yuv420p", "libmp3lame"),
    "avi huffyuv": ("avi", "huffyuv", "yuv422p", ""),
    "avi raw": ("avi", "rawvideo", "yuv420p", "pcm_s16le"),
    "avi utvideo": ("avi", "utvideo", "yuv422p", ""),
    "mpg mpeg1": ("mpeg", "mpeg1video", "yuv420p", "mp2"),
    "mpg mpeg2": ("mpeg", "mpeg2video", "yuv420p", "mp2"),
    "ts h264": ("mpegts", "libx264", "yuv420p", "aac"),
    "ts mpeg2": ("mpegts", "mpeg2video", "yuv420p", "mp2"),
    "mxf mpeg2": ("mxf", "mpeg2video", "yuv422p", "pcm_s16le"),
    "asf wmv2": ("asf", "wmv2", "yuv420p", "wmav2"),
    "flv h263": ("flv", "flv", "yuv420p", ""),
    "nut ffv1": ("nut", "ffv1", "gray", ""),
    "dv": ("dv", "dvvideo", "yuv411p", ""),
    "y4m": ("yuv4mpegpipe", "rawvideo", "yuv420p", ""),
    "ivf vp8": ("ivf", "libvpx", "yuv420p", ""),
    "raw h264": ("h264", "libx264", "yuv420p", ""),
    "raw hevc": ("hevc", "libx265", "yuv420p", ""),
    "ogg vp8": ("ogg", "libvpx", "yuv420p", ""),
    "rm": ("rm", "rv20", "yuv420p", ""),
    "avi cinepak": ("avi", "cinepak", "rgb24", ""),
    "mov j2k": ("mov", "jpeg2000", "yuv420p", ""),
}
_ODD_SIZES = {"dvvideo": (720, 480), "h263": (176, 144), "flv": (176, 144), "rv20": (176, 144)}
_LENGTHS = (0, 1, 7, 8, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


# Small valid files of every kind.


def samples() -> dict[str, bytes]:
    """By kind. One that this FFmpeg or libvips cannot write is left out aloud."""
    made: dict[str, bytes] = {}
    av.logging.set_level(av.logging.PANIC)
    for kind, film in _FILMS.items():
        _add(made, kind, partial(_film, *film))
    for kind, make in _photos().items():
        _add(made, kind, make)
    return made


def _add(made: dict[str, bytes], kind: str, make: Callable[[], bytes]) -> None:
    try:
        made[kind] = make()
    except Exception as error:
        print(f"no sample of {kind}: {error}", file=sys.stderr)


def _gray(number: int, size: tuple[int, int] = _SIZE) -> np.ndarray:
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    waves: np.ndarray = 128 + 80 * np.sin((columns + 3 * number) / 9) * np.cos(rows / 7)
    return waves.astype(np.uint8)


def _film(container: str, codec: str, pixels: str, sound: str) -> bytes:
    size = _ODD_SIZES.get(codec, _SIZE)
    rate = Fraction(30000, 1001) if codec == "dvvideo" else _RATE
    with tempfile.NamedTemporaryFile() as file:  # not in memory: some muxers search backwards
        with av.open(file.name, "w", format=container) as out:
            film: Any = out.add_stream(codec, rate=rate)
            film.width, film.height, film.pix_fmt = *size, pixels
            film.codec_context.thread_count = 1
            noise: Any = out.add_stream(sound, rate=48000) if sound else None
            if sound == "wmav2":
                noise.bit_rate = 64000
            for number in range(3 if codec == "dvvideo" else _FRAMES):
                gray = av.VideoFrame.from_ndarray(_gray(number, size), "gray")
                gray.pts, gray.time_base = number, 1 / Fraction(rate)
                out.mux(film.encode(gray.reformat(format=pixels)))
            out.mux(film.encode(None))
            if noise is not None:
                _add_sound(out, noise)
        return Path(file.name).read_bytes()


def _add_sound(out: Any, stream: Any) -> None:
    context = stream.codec_context
    count = context.frame_size or 1024
    plane = "p" in context.format.name[-1:]
    channels = len(context.layout.channels)
    for number in range(24000 // count):
        wave = np.sin(np.arange(count * channels) / 20)
        shape = (channels, count) if plane else (1, count * channels)
        kind = {"f": np.float32, "s": np.int16, "i": np.int16}.get(context.format.name[0])
        kind = np.int32 if context.format.name.startswith("s32") else kind
        scale = 0.5 if kind is np.float32 else 8000
        samples = (wave * scale).astype(kind).reshape(shape)
        frame = av.AudioFrame.from_ndarray(samples, context.format.name, context.layout.name)
        frame.rate, frame.pts = 48000, number * count
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _photos() -> dict[str, Callable[[], bytes]]:
    import pillow_heif
    import pyvips

    gray = pyvips.Image.new_from_array(_gray(0)).copy(interpretation="b-w")
    color = gray.bandjoin([gray, gray]).copy(interpretation="srgb")
    deep = (gray.cast("ushort") * 257).cast("ushort").copy(interpretation="grey16")
    alpha = color.bandjoin(200)
    two = pyvips.Image.arrayjoin([gray, gray], across=1).copy()
    two.set_type(pyvips.GValue.gint_type, "page-height", _SIZE[1])
    pixels = np.repeat(_gray(0)[..., None], 3, axis=2)

    def heic() -> bytes:
        out = io.BytesIO()
        pillow_heif.from_bytes("RGB", _SIZE, pixels.tobytes()).save(out, quality=80)
        return out.getvalue()

    def bmp() -> bytes:
        import cv2

        return cv2.imencode(".bmp", pixels)[1].tobytes()

    return {
        "jpeg": lambda: gray.jpegsave_buffer(),
        "jpeg progressive": lambda: color.jpegsave_buffer(interlace=True),
        "png": lambda: gray.pngsave_buffer(),
        "png 16 bit": lambda: deep.pngsave_buffer(),
        "png alpha interlaced": lambda: alpha.pngsave_buffer(interlace=True),
        "tiff": lambda: gray.tiffsave_buffer(),
        "tiff lzw tiles": lambda: color.tiffsave_buffer(compression="lzw", tile=True),
        "tiff jpeg": lambda: color.tiffsave_buffer(compression="jpeg"),
        "tiff deflate 16 bit": lambda: deep.tiffsave_buffer(compression="deflate", bigtiff=True),
        "tiff two pages": lambda: two.tiffsave_buffer(),
        "tiff fax": lambda: gray.tiffsave_buffer(compression="ccittfax4", bitdepth=1),
        "webp": lambda: color.webpsave_buffer(),
        "webp lossless alpha": lambda: alpha.webpsave_buffer(lossless=True),
        "avif": lambda: gray.heifsave_buffer(compression="av1", effort=0),
        "heic": heic,
        "gif": lambda: gray.gifsave_buffer(),
        "bmp": bmp,
    }


# Changes at random.


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three changes: bits, lengths, blocks put in, taken out, doubled, swapped, the end."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(_CHANGES)(changed, chance)
    return bytes(changed)


def _flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 4, 16, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _flip_in_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 8))):
        data[chance.randrange(min(len(data), 512))] ^= 1 << chance.randrange(8)


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[max(16, chance.randrange(len(data))) :]


def _edit_length(data: bytearray, chance: random.Random) -> None:
    """Where a length may stand: in the header, or ahead of four letters that name a part."""
    places = [p for p in range(len(data) - 8) if data[p + 4 : p + 8].isalnum()]
    here = chance.choice(places) if places and chance.random() < 0.6 else -1
    place = here if here >= 0 else chance.randrange(max(1, min(len(data), 2048) - 4))
    value = chance.choice((*_LENGTHS, chance.randrange(1 << 32), chance.randrange(1 << 12)))
    code = chance.choice(("<I", ">I", "<H", ">H"))
    struct.pack_into(code, data, place, value & (0xFFFF if code[1] == "H" else 0xFFFFFFFF))


def _block(data: bytearray, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data))
    return start, min(len(data), start + chance.choice((1, 4, 16, 188, 512, 2048)))


def _insert(data: bytearray, chance: random.Random) -> None:
    start, end = _block(data, chance)
    data[start:start] = chance.choice((bytes(end - start), chance.randbytes(end - start)))


def _delete(data: bytearray, chance: random.Random) -> None:
    start, end = _block(data, chance)
    if len(data) - (end - start) > 16:
        del data[start:end]


def _double(data: bytearray, chance: random.Random) -> None:
    start, end = _block(data, chance)
    data[end:end] = data[start:end]


def _swap(data: bytearray, chance: random.Random) -> None:
    one, other = sorted(chance.randrange(len(data)) for _ in range(2))
    size = min(other - one, len(data) - other, chance.choice((4, 64, 512)))
    data[one : one + size], data[other : other + size] = (
        data[other : other + size],
        data[one : one + size],
    )


def _overwrite(data: bytearray, chance: random.Random) -> None:
    start, end = _block(data, chance)
    data[start:end] = chance.choice((bytes(end - start), b"\xff" * (end - start)))


_CHANGES = (_flip_bits, _flip_in_header, _truncate, _edit_length, _edit_length, _insert, _delete,
            _double, _swap, _overwrite)  # fmt: skip


# The child: colors what it is told to, and says what came of it.


class _Painter:
    """Stands in for the colorizer."""

    batch_size, short_side = 4, 32

    def __init__(self) -> None:
        import torch

        self.device = torch.device("cpu")

    def network_size(self, height: float, width: float) -> tuple[int, int]:
        from colordaemon.network.colorizer import LONGEST_ASPECT

        scale = self.short_side / min(height, width)
        scale *= min(1.0, LONGEST_ASPECT * min(height, width) / max(height, width))
        return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))

    def predict_ab(self, gray: Any) -> Any:
        return self.guess(gray)[0]

    def guess(self, gray: Any) -> tuple[Any, Any]:
        import torch

        height, width = (side // 2 for side in self.network_size(*gray.shape[-2:]))
        ab = torch.linspace(-30, 30, width).expand(len(gray), 2, height, width).contiguous()
        return ab, torch.ones_like(ab[:, :1])


def child() -> None:
    """A line of JSON in for each file, a line out."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES << 30,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        path, damaged = json.loads(line)
        print(json.dumps(_judged(Path(path), damaged)), file=answers, flush=True)


def _judged(source: Path, damaged: bool) -> tuple[str, str, int]:
    """Outcome, a word on it, and the most memory so far in MiB."""
    from colordaemon.config import Config, ModelSettings
    from colordaemon.convert.convert import convert
    from colordaemon.convert.models import Model, ModelCache
    from colordaemon.errors import AlreadyColor, ColordaemonError
    from colordaemon.work_context import WorkContext

    class Paints(Model):
        def load(self) -> Any:
            return _Painter()

    out = source.parent / "out"
    config = Config.model_validate(
        {
            "output": {"folder": str(out)},
            "film": {
                "encoder_options": {"preset": "ultrafast", "threads": "1"},
                "damaged_percent": 100.0 if damaged else 2.0,
                "accept_loss": damaged,
                "segment_seconds": 2.0,
            },
            "photo": {"accept_damaged": damaged},
        }
    )
    model = Paints(ModelSettings(), ModelCache())
    outcome, words = "done", ""
    try:
        target, _ = convert(source, config, model, WorkContext(), {})
        words = _not_whole(target)
        outcome = "not whole" if words else "done"
    except AlreadyColor as reason:
        outcome, words = "skipped", str(reason)
    except ColordaemonError as reason:
        outcome, words = "refused", str(reason)
        if str(source) not in words or "expected" in type(reason).__name__:
            outcome = "refused without its name"
    except MemoryError:
        outcome, words = "memory", traceback.format_exc()
    except Exception:
        outcome, words = "unforeseen", traceback.format_exc()
    left = [p.name for p in out.iterdir()] if out.exists() else []
    if outcome != "done" and outcome != "not whole" and left:
        outcome, words = "left behind", f"{left} ({outcome}: {words})"
    shutil.rmtree(out, ignore_errors=True)
    return outcome, words, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _not_whole(target: Path) -> str:
    """Why a result is not whole, by others' readers; empty if it is."""
    from colordaemon.media.photo_file import PhotoFile, photo_format

    try:
        if photo_format(target):
            file = PhotoFile(target)
            for page in range(file.pages):
                file.open_image(page).write_to_memory()
            return ""
        with av.open(str(target)) as container:
            pictures = 0
            for packet in container.demux():
                if packet.stream.type == "video":
                    pictures += len(packet.decode())
            return "" if pictures else "no picture decodes"
    except Exception as error:
        return repr(error)


# The parent: hands out files and watches.


class _Child:
    def __init__(self) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, __file__, "--child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, env=os.environ | {"OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1"},
        )  # fmt: skip

    def ask(self, path: Path, damaged: bool) -> tuple[str, str, int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), damaged]).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], SECONDS)[0]:
            self._process.send_signal(signal.SIGABRT)  # with a traceback of where it hangs
            self._process.wait(10)
            return "hang", self._last_words(), 0
        line = self._process.stdout.readline()
        if line:
            outcome, words, memory = json.loads(line)
            return outcome, words, memory
        code = self._process.wait()
        return "crash", f"status {code}\n{self._last_words()}", 0

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _last_words(self) -> str:
        self.log.seek(0)
        return self.log.read()[-4000:].decode(errors="replace")

    def close(self) -> None:
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self.log.close()


_FINE = ("done", "refused", "skipped")


def fuzz(count: int, seed: int, only: str, keep: Path | None) -> int:
    """Returns how many were found fault with."""
    kinds = {kind: data for kind, data in samples().items() if only in kind}
    if not kinds:
        raise SystemExit(f"no kind has {only!r} in its name")
    tally: dict[str, collections.Counter[str]] = {k: collections.Counter() for k in kinds}
    faults, most, began = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        worker = _Child()
        for number in range(-len(kinds), count):  # first of all, those that are whole
            kind = [*kinds][number % len(kinds)]
            chance = random.Random(f"{seed} {number}")  # noqa: S311  (the same files each time)
            data = mutated(kinds[kind], chance) if number >= 0 else kinds[kind]
            path = Path(folder) / "file"
            path.write_bytes(data)
            if not worker.is_alive:
                worker.close()
                worker = _Child()
            outcome, words, memory = worker.ask(path, damaged=bool(number % 2))
            shutil.rmtree(Path(folder) / "out", ignore_errors=True)
            if number >= 0:
                tally[kind][outcome] += 1
                most = max(most, memory)
            if outcome not in _FINE or (number < 0 and outcome != "done"):
                faults += 1
                print(f"\n{number} ({kind}): {outcome}: {words}", flush=True)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{number}-{kind.replace(' ', '-')}").write_bytes(data)
        worker.close()
    _show(tally, most, time.monotonic() - began)
    return faults


def _show(tally: dict[str, collections.Counter[str]], most: int, seconds: float) -> None:
    outcomes = [*dict.fromkeys((*_FINE, *(o for counts in tally.values() for o in counts)))]
    print(f"\n{'kind':<22}" + "".join(f"{outcome:>14}" for outcome in outcomes))
    for kind, counts in tally.items():
        print(f"{kind:<22}" + "".join(f"{counts[outcome]:>14}" for outcome in outcomes))
    sums = [sum(counts[outcome] for counts in tally.values()) for outcome in outcomes]
    print(f"{'all':<22}" + "".join(f"{number:>14}" for number in sums))
    print(f"{sum(sums)} files, {seconds:.0f} s, at most {most} MiB in the child")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child()
    elif fuzz(chosen.count, chosen.seed, chosen.only, chosen.keep):
        sys.exit(1)


if __name__ == "__main__":
    main()
