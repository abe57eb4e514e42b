"""What a film takes of the memory, known from its header: frames in flight, each so many bytes."""

from __future__ import annotations

import os

from colordaemon.errors import MediaError
from colordaemon.film.pipeline import HELD_BYTES, frames_ahead, held_bytes
from colordaemon.film.shots import StrideSetting
from colordaemon.media.decode import decoder_threads
from colordaemon.media.order import REORDER_FRAMES
from colordaemon.media.probe import FilmInfo

_GROUND_BYTES = 800 << 20  # libraries, the network at work, small pictures of the frames that wait
# Pictures that a decoder refers to, and that come late: as many as H.264 and HEVC have in their
# largest sizes. Those of the others are whole in themselves.
_REFERRED = {"h264": 6, "hevc": 7, "av1": 9, "vp9": 9, "mpeg2video": 3, "mpeg4": 3, "vc1": 3}
# Pictures on their way take this much more than their own bytes: planes that are being painted, and
# what the heaps of many threads keep (1.7 to 2.9 times at 1080p to 8K, benchmarks/memory.py).
_KEPT = 2.9
_PASSING = 3  # in the hands of somebody, at each of two places


def reading_bytes(info: FilmInfo, stride: StrideSetting) -> int:
    """About what it takes to read and color a film; encoding comes in addition."""
    layout, size = info.layout, (info.width, info.height)
    picture = layout.bytes_of(*size)
    threads = decoder_threads(info) or min(16, (os.cpu_count() or 1) + 1)
    decoding = (threads + _REFERRED.get(info.codec, 1) + REORDER_FRAMES + _PASSING) * picture
    colored = 2 * picture if layout.is_gray else picture
    waiting = (frames_ahead(info) + _PASSING) * colored
    held = held_bytes(info, stride)
    if held <= HELD_BYTES:
        return _GROUND_BYTES + int(_KEPT * (decoding + waiting)) + held
    return _GROUND_BYTES + int(_KEPT * (2 * decoding + waiting))


def check_memory(info: FilmInfo, wanted: int, allowed: int) -> None:
    """Raises MediaError for a film that takes more than it may."""
    if wanted > allowed:
        raise MediaError(
            f"{info.path}: {info.width} x {info.height} pixels of {info.layout.depth} bits take "
            f"about {wanted >> 20} MiB of memory, {allowed >> 20} MiB is the limit "
            "(jobs.memory_mib)"
        )
