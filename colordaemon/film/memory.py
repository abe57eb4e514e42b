"""Estimates from a film's header how much memory it needs: frames in memory times their size."""

from __future__ import annotations

import os

from colordaemon.color import WHOLE_PIXELS
from colordaemon.errors import MediaError
from colordaemon.film.pipeline import HELD_BYTES, frames_ahead, held_bytes
from colordaemon.film.shots import StrideSetting
from colordaemon.media.decode import REORDER_FRAMES, decoder_threads
from colordaemon.media.probe import FilmInfo

_GROUND_BYTES = 760 << 20  # libraries, the network at work, small pictures of the frames that wait
# Pictures that a decoder refers to, and that come late: as many as the levels of H.264 and HEVC
# allow in 4K and 8K. Those of codecs that are not listed are whole in themselves.
_REFERRED = {"h264": 5, "hevc": 6, "av1": 9, "vp9": 9, "mpeg2video": 3, "mpeg4": 3, "vc1": 3}
_LEAST_BYTES = 1100 << 20  # with small pictures, whose gaps in the heap the network cannot use
_KEPT = 1.06  # gaps in the heap, for each byte of pictures (benchmarks/memory.py, at 8K)
# Of float planes and the gaps that they leave, for each pixel of a picture that is painted whole.
_PAINTING_BYTES = 80
_DECODED = 2  # pictures that are held between decoder and queue
_PASSING = 3  # and on both sides of the queue of colored ones


def reading_bytes(info: FilmInfo, stride: StrideSetting) -> int:
    """About how much memory it takes to read and color a film, without encoding it."""
    layout, size = info.layout, (info.width, info.height)
    picture = layout.bytes_of(*size)
    threads = decoder_threads(info) or min(16, (os.cpu_count() or 1) + 1)
    decoding = (threads + _REFERRED.get(info.codec, 1) + REORDER_FRAMES + _DECODED) * picture
    colored = 2 * picture if layout.is_gray else picture
    waiting = (frames_ahead(info) + _PASSING) * colored
    pixels = info.width * info.height
    painting = _PAINTING_BYTES * pixels if pixels <= WHOLE_PIXELS else 0
    held = held_bytes(info, stride)
    if held > HELD_BYTES:  # read twice instead
        held, decoding = 0, 2 * decoding
    taken = _GROUND_BYTES + painting + int(_KEPT * (decoding + waiting)) + held
    return max(_LEAST_BYTES, taken)


def check_memory(info: FilmInfo, wanted: int, allowed: int) -> None:
    """Raises MediaError for a film that needs more memory than allowed."""
    if wanted > allowed:
        raise MediaError(
            f"{info.path}: {info.width} x {info.height} pixels of {info.layout.depth} bits take "
            f"about {wanted >> 20} MiB of memory, {allowed >> 20} MiB is the limit "
            "(jobs.memory_mib)"
        )
