"""Keeps a network's output for many pictures in a temporary file instead of memory.

Float16, at the network's own size: 65 kB for a square picture at 256 px, so 3 GB for 50,000. Its
rounding, 0.03 ab units at the most, is far below what any score shows.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.evaluation.scores import VIEW_SIDE, shrunk
from colordaemon.network.colorizer import Colorizer


class SavedPredictions:
    """One colorizer's ab of picture after picture; a context manager, for its file."""

    def __init__(self, colorizer: Colorizer) -> None:
        self.colorizer = colorizer
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._places: list[tuple[int, tuple[int, ...]]] = []

    def __enter__(self) -> SavedPredictions:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def extend(self, grays: Sequence[Tensor]) -> None:
        """Color pictures (1, 1, H, W) in 0..1 and remember them as the next ones."""
        for ab in predict_each(self.colorizer, grays):
            self._places.append((self._file.seek(0, 2), tuple(ab.shape)))
            self._file.write(ab.half().cpu().numpy().tobytes())  # waits for the GPU

    def at_size(self, number: int, size: tuple[int, int]) -> Tensor:
        """The ab of a picture, enlarged as for a result: (1, 2, *size) float32."""
        place, shape = self._places[number]
        self._file.seek(place)
        values = np.frombuffer(self._file.read(2 * int(np.prod(shape))), np.float16)
        ab = torch.from_numpy(values.reshape(shape).astype(np.float32)).to(self.colorizer.device)
        return functional.interpolate(ab, size, mode="bicubic", align_corners=False)


def predict_each(colorizer: Colorizer, grays: Sequence[Tensor]) -> list[Tensor]:
    """The ab (1, 2, h, w) of pictures (1, 1, H, W) in 0..1, those of equal size in one batch."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, gray in enumerate(grays):
        alike[tuple(gray.shape)].append(number)
    found: dict[int, Tensor] = {}
    for numbers in alike.values():
        batch = colorizer.predict_ab(torch.cat([grays[number] for number in numbers]))
        found.update(zip(numbers, batch.unsqueeze(1), strict=True))
    return [found[number] for number in range(len(grays))]


def gray_view(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 sRGB to the gray of equal lightness that a network is given.

    (1, 1, h, w) in 0..1, the whole picture. Large photos are shrunk first, as they are for results.
    """
    return lightness_to_gray(rgb_to_lab(shrunk(pixels, VIEW_SIDE))[:, :1])
