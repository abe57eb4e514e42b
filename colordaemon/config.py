"""Every setting, its unit, bounds and default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A section of the configuration: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Settings):
    """Which network runs, and where."""

    file: Path | None = None  # None: the bundled model
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    quality: Literal["draft", "standard", "best"] = "standard"
    batch_size: int = Field(8, ge=1, le=256)


class FilmSettings(Settings):
    """How films are encoded and how much damage is put up with."""

    codec: Literal["h264", "hevc", "av1", "prores", "dnxhr", "ffv1"] = "h264"
    crf: int | None = Field(None, ge=0, le=63)  # None: the codec's usual value
    preset: str | None = None  # None: the codec's usual one
    encoder_options: dict[str, str] = {}
    segment_seconds: float = Field(10.0, ge=2.0, le=600.0)
    damaged_percent: float = Field(2.0, ge=0.0, le=100.0)  # share of video packets


class PhotoSettings(Settings):
    """How photos are written."""

    format: Literal["keep", "jpeg", "png", "tiff", "webp", "bmp"] = "keep"
    quality: int = Field(95, ge=1, le=100)  # of JPEG and WebP


class OutputSettings(Settings):
    """Where finished files go and what they are called."""

    folder: Path | None = None  # None: beside the source
    name: str = "{stem}.color{suffix}"
    overwrite: bool = False


class TrainSettings(Settings):
    """One training run."""

    encoder: Literal["model", "imagenet", "frozen", "scratch"] = "model"
    vgg: Path | None = None  # None: torchvision's weights
    start: Path | None = None  # None: the bundled model
    subset: str | None = None
    epochs: int = Field(10, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(16, ge=2)
    side: int = Field(128, ge=32, multiple_of=32)
    validation_side: int = Field(128, ge=32, multiple_of=32)
    learning_rate: float = Field(4e-4, gt=0)
    encoder_rate_share: float = Field(0.1, ge=0, le=1)
    held_out: float = Field(0.1, gt=0, lt=1)
    validation_pictures: int = Field(1000, ge=1)
    pictures_per_epoch: int | None = Field(None, ge=1)
    seed: int = 1
    report_seconds: float = Field(30.0, gt=0)


class Config(Settings):
    """The whole configuration."""

    model: ModelSettings = ModelSettings()
    film: FilmSettings = FilmSettings()
    photo: PhotoSettings = PhotoSettings()
    output: OutputSettings = OutputSettings()
    train: TrainSettings = TrainSettings()
