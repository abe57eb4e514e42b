"""The network in 8-bit integers: on processors with VNNI half the time that bfloat16 takes.

Each output channel of a convolution has a scale for its weights, and each layer one for its
activations, by the peaks that these reach on training pictures; what lies above is cut off. The
convolution before the regression's head says float32: few of its values are far above all others,
and in 8 bits it alone would cost 0.6 ΔE, where all other layers together cost 0.1.

oneDNN multiplies, by the operators that PyTorch's own compiler calls for quantized models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from colordaemon.errors import ModelError
from colordaemon.network.model import MID_GRAY, ColorNet, Heads, Look, certainty, decode

_TINY = 1e-6  # a layer may say nothing at all
_ONES = [1, 1]
_ORDERS = 3  # of the weights of a layer, that are kept; for all shapes of pictures there are two
_GAP = slice(108, 112)  # of a described order: filling, which may say anything


class Codes(NamedTuple):
    """What codes 0..255 stand for: (code - zero) * scale."""

    scale: float
    zero: int = 0

    def nearest(self, values: Tensor) -> Tensor:
        """Float32 numbers as uint8 codes."""
        return (values / self.scale).add_(self.zero).round_().clamp_(0, 255).to(torch.uint8)


_GRAY = Codes(1 / 255, round(255 * MID_GRAY))  # of gray - MID_GRAY


def peak_names(model: ColorNet) -> set[str]:
    """The modules of which `ColorNet.peaks` says something: of each convolution but the heads its
    greatest output, of the decoder's first climb the greatest magnitude of its input."""
    heads = {"decoder.head", "decoder.classifier"}
    layers = {name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    return (layers - heads) | {"decoder.climbs.0"}


@contextmanager
def watched_peaks(model: ColorNet) -> Iterator[dict[str, float]]:
    """The peaks of all that a network with folded norms is shown meanwhile."""
    peaks = dict.fromkeys(peak_names(model), 0.0)

    def see(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], *output: Tensor) -> None:
        greatest = output[0].amax() if output else inputs[0].abs().amax()
        peaks[name] = max(peaks[name], float(greatest))  # waits for the GPU

    layers = [(name, layer) for name, layer in model.named_modules() if name in peaks]
    hooks = [
        layer.register_forward_hook(partial(see, name))
        if isinstance(layer, nn.Conv2d)
        else layer.register_forward_pre_hook(partial(see, name))
        for name, layer in layers
    ]
    try:
        yield peaks
    finally:
        for hook in hooks:
            hook.remove()


class QuantizedNet:
    """Stands in for a ColorNet with folded norms, on a processor with VNNI.

    features: what the codes mean that are the features of a `Look` here.
    """

    def __init__(self, model: ColorNet) -> None:
        """Raises ModelError for a model without peaks."""
        if (peaks := model.peaks) is None:
            raise ModelError(
                "the model does not say how far its activations reach, which int8 needs, expected"
                " one of a later training; `colordaemon train DIR --fit-axes MODEL` adds it to a"
                " model file"
            )
        codes = {name: Codes(max(peak, _TINY) / 255) for name, peak in peaks.items()}
        at, taps = _GRAY, list[Codes]()
        self._stages: list[list[Convolution]] = []
        for number, stage in enumerate(model.encoder.stages):
            self._stages.append([])
            for name, layer in stage.named_children():
                before, at = at, codes[f"encoder.stages.{number}.{name}"]
                self._stages[-1].append(Convolution(layer, before, at))
            taps.append(at)

        decoder, self._deepest = model.decoder, at
        middle = codes["decoder.bottom.0"]
        first, second = _convolutions(decoder.bottom)
        self._bottom = Convolution(first, at, middle), Convolution(second, middle, None)
        self._content = decoder.content
        at = quarter = self._start = Codes(max(peaks["decoder.climbs.0"], _TINY) / 127, 128)
        self._climbs: list[_Climb] = []
        for number, climb in enumerate(decoder.climbs):
            name = f"decoder.climbs.{number}.mix"
            is_last = number == len(decoder.climbs) - 1
            beside, width = taps[-2 - number], model.spec.encoder[-2 - number][-1]
            quarter, below, at = at, at, codes[f"{name}.3"]
            said = codes[f"{name}.0"], None if is_last else at
            self._climbs.append(_Climb(climb, below, beside, width, said))
        self._classifier = None
        if decoder.classifier is not None:
            self._classifier = Convolution(decoder.classifier, quarter, None, relu=False)
        self._head, self._bins, self._decoding = decoder.head, model.bins, model.decoding
        self.features = (*taps[2:], quarter)

    def look(self, gray: Tensor) -> Look:
        """See `ColorNet.look`. Pictures go through one by one, which takes the least time; so what
        it says of one does not depend on those beside it."""
        looks = [self._look(one[None]) for one in gray]
        ab, sure, features = zip(*looks, strict=True)
        together = (torch.cat(layer) for layer in zip(*features, strict=True))
        return Look(torch.cat(ab), torch.cat(sure), tuple(together))

    def _look(self, gray: Tensor) -> Look:
        x, taps = _GRAY.nearest(gray - MID_GRAY), list[Tensor]()
        for stage in self._stages:
            if taps:
                x = _pooled(x)
            for layer in stage:
                x = layer(x)
            taps.append(x)
        content = self._content(x.float().mean(dim=(2, 3)) * self._deepest.scale)
        for layer in self._bottom:
            x = layer(x)
        x = quarter = self._start.nearest(x + content[:, :, None, None])
        for climb, skip in zip(self._climbs, taps[-2:0:-1], strict=True):
            quarter, x = x, climb(x, skip)
        heads = Heads(self._head(x), self._classifier(quarter) if self._classifier else None)
        sure = certainty(heads)
        return Look(decode(heads, sure, self._bins, self._decoding), sure, (*taps[2:], quarter))


class Convolution:
    """A convolution of codes, and what is below zero cut off.

    target: what the codes mean that it says; None: it says float32. factors: on the weights of each
    input channel, whose codes mean so much more than `source` says.
    """

    def __init__(
        self,
        layer: nn.Module,
        source: Codes,
        target: Codes | None,
        factors: Tensor | None = None,
        *,
        relu: bool = True,
    ) -> None:
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        weight = layer.weight.detach()
        if factors is not None:
            weight = weight * factors[:, None, None]
        self._scales = weight.abs().amax(dim=(1, 2, 3)).clamp(min=_TINY) / 127
        self._weight = (weight / self._scales[:, None, None, None]).round().to(torch.int8)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias, self._source = layer.bias.detach(), source
        self._padding = [*layer.padding]
        self._target = target or Codes(1.0)
        self._said = torch.float32 if target is None else torch.uint8
        self._after = "relu" if relu else "none"
        self._packed: dict[torch.Size, Tensor] = {}  # by shape of the input
        self._orders: dict[bytes, Tensor] = {}

    def __call__(self, codes: Tensor) -> Tensor:
        """(1, C, h, w) uint8 to (1, C', h, w)."""
        said: Tensor = torch.ops.onednn.qconv_pointwise(
            codes,
            *self._source,
            self._packed_for(codes.shape),
            self._scales,
            self._zeros,
            self._bias,
            _ONES,
            self._padding,
            _ONES,
            1,
            *self._target,
            self._said,
            self._after,
            [],
            "",
        )
        return said

    def _packed_for(self, shape: torch.Size) -> Tensor:
        """The weights in the order that is the fastest for this shape. With those of another, each
        call may put them in order anew, which takes up to 60 ms. Most shapes want the same order,
        and share it; to find that out takes all layers 50 ms for each new one."""
        if shape not in self._packed:
            packed: Tensor = torch.ops.onednn.qconv_prepack(
                self._weight, self._scales, *self._source, _ONES, self._padding, _ONES, 1, [*shape]
            )
            described = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).clone()
            described[_GAP] = 0
            order = described.numpy().tobytes()
            if order not in self._orders and len(self._orders) == _ORDERS:
                self._orders.clear()
                self._packed.clear()
            self._packed[shape] = self._orders.setdefault(order, packed)
        return self._packed[shape]


class _Climb:
    """See `Climb`. below, beside: what the codes mean that it takes; width: channels of the latter.
    said: what those mean that its convolutions say."""

    def __init__(
        self,
        climb: nn.Module,
        below: Codes,
        beside: Codes,
        width: int,
        said: tuple[Codes, Codes | None],
    ) -> None:
        self._zero = below.zero
        if below.zero:
            beside = Codes(2 * beside.scale, below.zero)  # there is one zero for both
        first, second = _convolutions(climb.get_submodule("mix"))
        factors = torch.ones(first.in_channels)
        factors[-width:] = beside.scale / below.scale
        middle, target = said
        self._first = Convolution(first, below, middle, factors)
        self._second = Convolution(second, middle, target)

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        if self._zero:
            skip = Codes(2.0, self._zero).nearest(skip.float())
        return self._second(self._first(torch.cat((_enlarged(x), skip), dim=1)))


def convolved(picture: Tensor, kernel: Tensor) -> Tensor:
    """A convolution in codes, for a check of the processor: (1, C, h, w) 0..1 with (C', C, y, x),
    both float32, to float32."""
    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[-1])
    layer.load_state_dict({"weight": kernel, "bias": torch.zeros(len(kernel))})
    source = Codes(1 / 255)
    return Convolution(layer, source, None, relu=False)(source.nearest(picture))


def _convolutions(block: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]


def _pooled(codes: Tensor) -> Tensor:
    """The maximum of 2 x 2; `max_pool2d` takes no bytes."""
    rows = torch.maximum(codes[:, :, ::2], codes[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _enlarged(codes: Tensor) -> Tensor:
    """Twice the size; of bytes, `interpolate` is slow and rounds up."""
    x = functional.interpolate(
        codes.float(), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    return x.add_(0.5).to(torch.uint8)
