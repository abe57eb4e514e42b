"""Small photos, and a network that colors them, for the tests of photos."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
import torch
from torch import Tensor

from colordaemon.config import PhotoSettings, PhotoTarget
from colordaemon.media.photo import PhotoReport, color_photo

HEIGHT, WIDTH = 48, 64
KEEP = PhotoSettings()


def predict(gray: Tensor) -> Tensor:
    """Warm on top, cold at the bottom, weak enough to stay in gamut in the middle tones."""
    assert gray.ndim == 4 and gray.shape[:2] == (1, 1) and gray.dtype == torch.float32
    warmth = torch.linspace(20, -20, 8)[:, None].expand(8, 10)
    return torch.stack((warmth / 2, warmth))[None]


def ramp(depth: int = 8, low: float = 0.1, high: float = 0.9) -> np.ndarray:
    """Gray (48, 64): brighter to the right, a little darker downwards."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    share = low + (high - low) * (columns / (WIDTH - 1) * 0.9 + (1 - rows / (HEIGHT - 1)) * 0.1)
    dtype = np.uint8 if depth == 8 else np.uint16
    codes: np.ndarray = np.round(share * (2**depth - 1))
    return codes.astype(dtype)


def image(pixels: np.ndarray, **fields: object) -> pyvips.Image:
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    deep = pixels.dtype == np.uint16
    kind = ("grey16" if deep else "b-w") if bands < 3 else ("rgb16" if deep else "srgb")
    made = pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=kind)
    for name, value in fields.items():
        name = name.replace("_", "-")
        if isinstance(value, bytes):
            made.set_type(pyvips.GValue.blob_type, name, value)
        elif isinstance(value, int):
            made.set_type(pyvips.GValue.gint_type, name, value)
        else:
            made.set_type(pyvips.GValue.gstr_type, name, value)
    return made


def save(path: Path, pixels: np.ndarray, **fields: object) -> Path:
    """Write with the loss left out where the format allows."""
    made = image(pixels, **fields)
    match path.suffix:
        case ".jpg":
            made.jpegsave(str(path), Q=98, subsample_mode="off")
        case ".png":
            made.pngsave(str(path))
        case ".tif":
            made.tiffsave(str(path))
        case ".webp":
            made.webpsave(str(path), lossless=True, exact=True)
        case ".bmp":
            cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][:4]])
    return path


def color(source: Path, settings: PhotoSettings = KEEP, **options: Any) -> PhotoReport:
    return color_photo(source, partial_of(source), predict, settings, **options)


def partial_of(source: Path) -> Path:
    return source.with_name("result.partial")


def result(source: Path, page: int = 0) -> pyvips.Image:
    """The written page; libvips tells formats by content, BMP is read by OpenCV."""
    path = partial_of(source)
    if path.read_bytes()[:2] == b"BM":
        pixels: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        return image(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    if path.read_bytes()[:2] == b"II":
        return pyvips.Image.tiffload(str(path), page=page, revalidate=True)
    return pyvips.Image.new_from_file(str(path), revalidate=True)


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def colorful() -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack((rows * 5, columns * 3, 255 - rows * 5), axis=2).astype(np.uint8)


def assert_refused(
    source: Path, error: type[Exception], message: str, target: PhotoTarget = "keep"
) -> None:
    with pytest.raises(error) as caught:
        color(source, PhotoSettings(format=target))
    assert str(source) in str(caught.value) and message in str(caught.value)
    assert not partial_of(source).exists()


def draw(path: Path, side: int) -> Path:
    """A picture like no other."""
    chance = np.random.default_rng(side)
    rough = chance.uniform(0, 255, (6, 8)).astype(np.float32)
    fine = cv2.resize(rough, (side + 13, side), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), fine.clip(0, 255).astype(np.uint8))
    return path
