"""Color pictures in labeled folders or zip shards, and a split that never moves.

    DIR/landscape/…  DIR/animal/…     a label per subfolder
    DIR/*.zip                          shards with the same layout inside, read as they are

The split hashes a picture's own name (label/file), so that adding pictures, moving them between
shards or training on a subset leaves every other picture on its side.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.errors import DataError

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Picture:
    """One training picture: `name` is label/file, inside `archive` if there is one."""

    label: str
    name: str
    path: Path
    archive: bool

    def read(self) -> bytes:
        if not self.archive:
            return self.path.read_bytes()
        return _open_shard(self.path, os.getpid()).read(self.name)


@cache
def _open_shard(path: Path, pid: int) -> zipfile.ZipFile:
    """One open shard per process: forked loaders that share a file would share its position."""
    return zipfile.ZipFile(path)


def find_pictures(folder: Path, subset: str | None = None) -> list[Picture]:
    """All pictures of a folder, sorted by name. Raises DataError when there are none.

    subset: one label to keep.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with a subfolder of pictures per label")
    pictures: list[Picture] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            files = (path for path in sorted(entry.rglob("*")) if path.is_file())
            names = ((path, path.relative_to(folder).as_posix()) for path in files)
            pictures += [Picture(entry.name, n, p, False) for p, n in names if _is_picture(n)]
        elif entry.suffix == ".zip":
            pictures += _shard_pictures(entry)
    labels = sorted({picture.label for picture in pictures})
    if not pictures:
        raise DataError(f"{folder}: no pictures found in its subfolders or zip shards")
    if subset is not None:
        pictures = [picture for picture in pictures if picture.label == subset]
        if not pictures:
            raise DataError(f"{folder}: no label {subset!r}, it has {', '.join(labels)}")
    return sorted(pictures, key=lambda picture: picture.name)


def _shard_pictures(path: Path) -> Iterable[Picture]:
    try:
        with zipfile.ZipFile(path) as shard:
            names = [PurePosixPath(name) for name in shard.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: expected a zip of label folders, found {error}") from error
    return [
        Picture(name.parts[0], str(name), path, True)
        for name in names
        if len(name.parts) > 1 and _is_picture(name.name)
    ]


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def split(pictures: Sequence[Picture], held_out: float) -> tuple[list[Picture], list[Picture]]:
    """Training and validation pictures; the latter are a share `held_out` (0..1) of the names."""
    sides: tuple[list[Picture], list[Picture]] = ([], [])
    for picture in pictures:
        digest = hashlib.blake2b(picture.name.encode(), digest_size=8).digest()
        sides[int.from_bytes(digest, "big") < held_out * 2**64].append(picture)
    return sides


def fingerprint(pictures: Sequence[Picture]) -> str:
    """A hash of the pictures' names, to tell later what a model was trained on."""
    names = "\n".join(picture.name for picture in pictures)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def decode_picture(data: bytes) -> np.ndarray | None:
    """An encoded picture to (H, W, 3) uint8 sRGB; None if it cannot be read."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def readable(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Sort out pictures that cannot be read: the good ones, and the names of the others."""
    # One read at a time (shards are not thread-safe), decoding beside it.
    with ThreadPoolExecutor(max_workers=2) as pool:
        checks = pool.map(_can_decode, (picture.read() for picture in pictures))
        verdicts = list(zip(pictures, checks, strict=True))
    return [p for p, good in verdicts if good], [p.name for p, good in verdicts if not good]


def _can_decode(data: bytes) -> bool:
    return decode_picture(data) is not None


class Crops(Dataset[Tensor]):
    """Square crops of readable pictures, (3, side, side) uint8 sRGB.

    train: random crops of 70 to 100 % of the short side, half of them mirrored; otherwise the
    center crop, always the same. Colors are converted on the device, in color.py.
    """

    def __init__(self, pictures: Sequence[Picture], side: int, train: bool) -> None:
        self.pictures, self.side, self.train = pictures, side, train

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        picture = self.pictures[index]
        pixels = decode_picture(picture.read())
        if pixels is None:
            raise DataError(f"{picture.path}: {picture.name} could be read before, now it cannot")
        return torch.from_numpy(self._crop(pixels)).permute(2, 0, 1)

    def _crop(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        if self.train:
            side = max(1, int(side * float(torch.empty(1).uniform_(0.7, 1.0))))
            top = int(torch.randint(height - side + 1, (1,)))
            left = int(torch.randint(width - side + 1, (1,)))
        crop = pixels[top : top + side, left : left + side]
        shrink = side >= self.side
        crop = cv2.resize(
            crop,
            (self.side, self.side),
            interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC,
        )
        if self.train and torch.rand(1) < 0.5:
            crop = crop[:, ::-1]
        return np.ascontiguousarray(crop)


def to_gray_and_ab(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, h, w) uint8 sRGB to what the network sees and what it should say.

    Gray is the gamma-coded gray of equal lightness, (N, 1, h, w) in 0..1; ab is (N, 2, h/2, w/2).
    """
    lab = rgb_to_lab(rgb.float() / 255)
    return lightness_to_gray(lab[:, :1]), nn.functional.avg_pool2d(lab[:, 1:], 2)
