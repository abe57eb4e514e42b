"""Choices that settings and options share; apart, since options need nothing else of settings."""

from typing import Literal

Codec = Literal["h264", "hevc", "av1", "prores", "dnxhr", "ffv1"]
PhotoTarget = Literal["keep", "jpeg", "png", "tiff", "webp", "bmp", "avif", "heic"]
Smoothing = Literal["off", "ema", "motion"]
Place = Literal["cpu", "gpu"]
Algorithm = Literal["sha256", "md5"]  # of checksums
