"""Encodes pictures for people to look at, some with words on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from colordaemon.durable import replace_file
from colordaemon.media.provenance import Maker, packet

_QUALITY = 85  # of JPEG


def write_png(path: Path, pixels: np.ndarray) -> None:
    """(H, W, 3) uint8 sRGB, or (H, W, 4) with alpha, to a file. Raises OSError."""
    order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    # Encoded in memory: cv2.imwrite only returns False when the disk is full.
    _, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, order))
    replace_file(path, encoded.tobytes())


def jpeg_of(pixels: np.ndarray, quality: int = _QUALITY) -> bytes:
    """(H, W, 3) uint8 sRGB as a JPEG file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()


def write_marked(path: Path, pixels: np.ndarray, maker: Maker) -> None:
    """(H, W, 3) uint8 sRGB to a JPEG or PNG file that says who made its colors, so that it is never
    taken for a source. Raises OSError."""
    import pyvips  # training draws pictures too, where there is no libvips

    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels), interpretation="srgb")
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "xmp-data", packet(maker))
    is_png = path.suffix == ".png"
    data = (
        image.pngsave_buffer(keep="xmp")
        if is_png
        else image.jpegsave_buffer(Q=_QUALITY, keep="xmp")
    )
    replace_file(path, data)


def write_text(pixels: np.ndarray, text: str, left: int, bottom: int) -> None:
    """White letters on a black patch, readable on any picture."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    corners = (left - 4, bottom + 5), (left + width + 3, bottom - height - 4)
    cv2.rectangle(pixels, *corners, (0, 0, 0), cv2.FILLED)
    cv2.putText(pixels, text, (left, bottom), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
