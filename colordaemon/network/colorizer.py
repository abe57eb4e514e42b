"""The network at work: device, half precision, fixed size and batches around a model.

The network always sees a picture at the same short side, so the same picture gets the same colors
at any resolution. Only the network runs in half precision; ab comes out in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import AB_LIMIT
from colordaemon.errors import ModelError
from colordaemon.network.checkpoint import BUILT_IN, load_model
from colordaemon.network.cuda import USUAL, fuse_on, graphs_for
from colordaemon.network.device import DTYPES, choose_device, choose_dtype
from colordaemon.network.model import ColorNet, Look, fold_norms
from colordaemon.network.quantized import QuantizedNet

log = logging.getLogger(__name__)

T = TypeVar("T")

# Short side, in thirty-seconds of the model's own: 128, 192 and 256 px for the default model, whose
# error is the same at all three within 1 % (benchmarks/training.md); finer ones have finer edges.
_QUALITY = {"draft": 16, "standard": 24, "best": 32}
_USUAL_SHAPES = (3, 4), (9, 16)  # of films, height and width
LONGEST_ASPECT = 4.0  # a panorama longer than this is shown smaller, or it would fill the memory


class Colorizer:
    """Predicts ab for gray pictures of any size."""

    def __init__(
        self,
        model: ColorNet,
        device: torch.device,
        dtype: torch.dtype,
        *,
        quality: Literal["draft", "standard", "best"] = "standard",
        batch_size: int = 8,
        saturation: float = 1.0,
    ) -> None:
        self.saturation = saturation  # a factor on ab
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self.short_side = model.spec.short_side * _QUALITY[quality] // 32
        self._multiple = model.spec.multiple
        fold_norms(model)
        self._model: ColorNet | QuantizedNet = model
        self._input, axes = dtype, model.axes
        if dtype == torch.int8:
            self._model = QuantizedNet(model)
            self._input, axes = torch.float32, axes and axes.of_codes(self._model.features)
        else:
            model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
            fuse_on(model, device, dtype)
        self._graphs = graphs_for(device)
        self._axes = axes and axes.to(device, self._input)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        precision = {dtype: name for name, dtype in DTYPES.items()}[self.dtype]
        stronger = "" if self.saturation == 1 else f", saturation {self.saturation:g}"
        return f"{name}, {precision}, {self.short_side} px{stronger}"

    def network_size(self, height: float, width: float) -> tuple[int, int]:
        """(h, w) at which the network sees a picture of this shape (any unit, square pixels).

        Both are even, so that ab at half size covers the picture exactly.
        """
        scale = self.short_side / min(height, width)
        scale *= min(1.0, LONGEST_ASPECT * min(height, width) / max(height, width))
        return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))

    def predict_ab(self, gray: Tensor) -> Tensor:
        """Guess the color of upright pictures.

        gray: (N, 1, H, W) uint8 codes of full range or float32 0..1, gamma-coded, square pixels.
        Returns (N, 2, h, w) float32 Lab ab at the network's own size, on the network's device.
        Halves its batch for good when memory runs out.
        """
        return self.guess(gray)[0]

    @torch.inference_mode()
    def guess(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """As `predict_ab`, and how sure the network is, (N, 1, h, w) float32 in 0..1.

        Raises ModelError for colors that are no finite numbers.
        """
        ab, sure = self.begin(gray)
        self.check(ab)  # waits for the GPU, as all callers do next
        return ab, sure

    @torch.inference_mode()
    def begin(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """As `guess`, without waiting for a GPU; ab is still to be checked."""
        said = list(self._in_batches(gray, self._colors))
        ab, sure = (torch.cat(parts) for parts in zip(*said, strict=True))
        return ab, sure

    def warm_up(self) -> None:
        """Color a first picture, which takes long: kernels are chosen and memory is allocated. On a
        GPU also frames of the usual shapes, often enough to be recorded."""
        self.predict_ab(torch.zeros(1, 1, self.short_side, self.short_side))
        if self._graphs is not None:
            for shape in _USUAL_SHAPES:
                frames = torch.zeros(self.batch_size, 1, *self.network_size(*shape))
                for _ in range(USUAL):
                    self.predict_ab(frames)

    def check(self, ab: Tensor) -> None:
        """Raises ModelError for colors that are no finite numbers."""
        if not ab.isfinite().all():
            raise ModelError(f"the model says colors that are no finite numbers, on {self}")

    def looks(self, gray: Tensor) -> Iterator[Look]:
        """As `guess`, batch by batch and unchecked, with the features behind it; those are not
        cropped: below and to the right they cover the padding too."""
        return self._in_batches(gray, lambda batch: self._look(self._prepared(batch)))

    def _in_batches(self, gray: Tensor, function: Callable[[Tensor], T]) -> Iterator[T]:
        count = 0
        while count < len(gray):
            batch = gray[count : count + self.batch_size]
            try:
                said = function(batch)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, self.batch_size // 2)
                if self._graphs is not None:
                    self._graphs.drop()
                torch.cuda.empty_cache()
                log.warning("out of GPU memory: going on with batches of %d", self.batch_size)
                continue
            count += len(batch)
            yield said

    @property
    def compares(self) -> bool:
        """Whether the model can compare pictures: old ones cannot."""
        return self._axes is not None

    def describe(self, features: Sequence[Tensor], height: int, width: int) -> Tensor:
        """See `Axes.describe`. Raises ModelError for a model without axes."""
        if self._axes is None:
            raise ModelError(
                "the model has no axes, which references and hints need, expected one of a later"
                " training; `colordaemon train DIR --fit-axes MODEL` adds them to a model file"
            )
        return self._axes.describe(features, height, width)

    def _colors(self, gray: Tensor) -> tuple[Tensor, ...]:
        """What `guess` returns, of one batch."""
        prepared = self._prepared(gray)
        if self._graphs is None:
            return self._say(prepared)
        return self._graphs(self._say, prepared, self.batch_size)

    def _say(self, gray: Tensor) -> tuple[Tensor, ...]:
        look = self._look(gray)
        return look.ab, look.sure

    @torch.inference_mode()
    def _prepared(self, gray: Tensor) -> Tensor:
        """(N, 1, h, w) float32 at the network's size, on its device."""
        gray = gray.to(self.device, non_blocking=True)
        gray = gray.float() / 255 if gray.dtype == torch.uint8 else gray.float()
        height, width = self.network_size(*gray.shape[-2:])
        if (height, width) != gray.shape[-2:]:
            gray = functional.interpolate(
                gray, (height, width), mode="bilinear", antialias=True, align_corners=False
            )
        return gray

    @torch.inference_mode()
    def _look(self, gray: Tensor) -> Look:
        height, width = gray.shape[-2:]
        down, right = -height % self._multiple, -width % self._multiple
        # Reflection keeps texture going; it cannot reach further than the picture itself.
        mode = "reflect" if down < height and right < width else "replicate"
        padded = functional.pad(gray, (0, right, 0, down), mode=mode).to(self._input)
        said = self._model.look(padded.contiguous(memory_format=torch.channels_last))
        ab, sure = (part[..., : height // 2, : width // 2] for part in said[:2])
        return Look((ab * self.saturation).clamp(-AB_LIMIT, AB_LIMIT), sure, said.features)


def open_colorizer(
    model: Path | None,
    device: Literal["auto", "cpu", "cuda"],
    precision: Literal["auto", "fp16", "bf16", "fp32", "int8"],
    quality: Literal["draft", "standard", "best"],
    batch_size: int,
    saturation: float = 1.0,
) -> Colorizer:
    """Load a model (None: the built-in one) onto a device. Raises ModelError."""
    chosen, network = choose_device(device), load_model(model or BUILT_IN)
    return Colorizer(
        network,
        chosen,
        choose_dtype(precision, chosen, integers=network.peaks is not None),
        quality=quality,
        batch_size=batch_size,
        saturation=saturation,
    )
