"""Decodes films on an NVIDIA GPU where that gives the same pictures, else on the processor.

The standards of these codecs say every bit of a picture, so NVDEC and FFmpeg agree; its pictures
come in another packing. Only of damaged ones both make what they can.
"""

from __future__ import annotations

import logging

from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from colordaemon.errors import MediaError
from colordaemon.media.demux import open_film
from colordaemon.media.probe import FilmInfo

log = logging.getLogger(__name__)

_CODECS = frozenset(("h264", "hevc", "vp9"))
# How its pictures are packed, and the planar format with the same samples.
UNPACKED = {"nv12": "yuv420p", "p010le": "yuv420p10le"}


def opened_on_gpu(info: FilmInfo) -> InputContainer | None:
    """The film, to be decoded by a GPU as far as it can; None if that is not wished, or in vain."""
    fitting = info.codec in _CODECS and info.pix_fmt in UNPACKED.values()
    if not info.on_gpu or not fitting or info.field_order != "progressive":
        return None
    try:
        return open_film(info.path, HWAccel("cuda", allow_software_fallback=True))
    except (MediaError, OSError, RuntimeError, NotImplementedError) as error:
        log.warning("%s: the GPU does not decode it (%s), the processor does", info.path, error)
        return None
