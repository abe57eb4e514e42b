"""The network: gray in, Lab ab out. A VGG16 encoder, a U-Net decoder, and nothing else.

The encoder is configuration D of Simonyan & Zisserman 2014 in torchvision's layout, its first
convolution folded to one luma channel. The decoder climbs back with bilinear enlargement and
convolution (transposed convolutions leave checkerboards), takes in the encoder's last activation of
each scale on the way, and is told the whole picture's content by a pooled vector. It stops at half
size: ab at half of 256 px is 37.5 dB accurate with perfect colors, and the scale of relu1_2 would
cost more than all others together.

Two heads: one says ab outright at half size, the other (where the spec has bins) how likely each ab
bin is at a quarter of the size. The first is accurate but pale where it is in doubt, the second
vivid but coarse; `Decoding` says how they become one color.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from colordaemon.color import AB_LIMIT
from colordaemon.network.places import Axes

# Subtracted from the input, so that zero padding looks like mid gray, as VGG learned.
MID_GRAY = 0.45
# Bounds of what a file may ask for: far above every network that could be meant.
MOST_STAGES, MOST_LAYERS, MOST_WIDTH, MOST_BINS = 8, 16, 4096, 4096
SHORT_SIDES = range(32, 2049)  # pixels
CERTAINTY_RAMP = 0.6  # from no share of the bins to all of theirs, in certainty
TYPICAL_CHROMA = 20.0  # ab units, about the mean of color photos: an exponent leaves it as it is


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to rebuild a network.

    encoder: widths of the convolutions of each stage; each stage after the first halves the size.
    decoder: widths at each scale from the deepest stage up to half size, so one fewer than stages.
    short_side: pixels of the shorter picture side that the network is meant to see.
    bins: (a, b) centers of the colors that the second head tells apart; none, and there is no such
    head.
    Raises ValueError for numbers out of bounds.
    """

    encoder: tuple[tuple[int, ...], ...] = (
        (64, 64),
        (128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (512, 512, 512),
    )
    decoder: tuple[int, ...] = (384, 256, 192, 96)
    short_side: int = 256
    bins: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        stages = len(self.encoder)
        if not 3 <= stages <= MOST_STAGES or len(self.decoder) != stages - 1:
            raise ValueError(
                f"decoder needs {stages - 1} widths for {stages} encoder stages (3 to "
                f"{MOST_STAGES}), got {len(self.decoder)}"
            )
        if not all(1 <= len(stage) <= MOST_LAYERS for stage in self.encoder):
            raise ValueError(f"each encoder stage needs 1 to {MOST_LAYERS} widths")
        widths = [*self.decoder, *(width for stage in self.encoder for width in stage)]
        if strange := [width for width in widths if not _is_count(width, MOST_WIDTH)]:
            raise ValueError(f"widths are integers in 1..{MOST_WIDTH}, got {strange[0]!r}")
        if not _is_count(self.short_side, SHORT_SIDES[-1]) or self.short_side not in SHORT_SIDES:
            raise ValueError(
                f"short_side is an integer in {SHORT_SIDES[0]}..{SHORT_SIDES[-1]}, "
                f"got {self.short_side!r}"
            )
        if len(self.bins) > MOST_BINS or not all(
            abs(value) <= AB_LIMIT for center in self.bins for value in center
        ):
            raise ValueError(f"bins are up to {MOST_BINS} colors within ±{AB_LIMIT:g}")

    @property
    def multiple(self) -> int:
        """Input sides have to be multiples of this many pixels."""
        return int(2 ** len(self.encoder))

    @property
    def compared_widths(self) -> tuple[int, ...]:
        """Channels of each of the features in a `Look`."""
        return (*(stage[-1] for stage in self.encoder[2:]), self.decoder[-2])


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


@dataclass(frozen=True)
class Decoding:
    """How what the heads say becomes one color; tuned on validation pictures after training.

    temperature: of the annealed mean over bins (Zhang et al. 2016, equation 5): 1 is the mean
    itself, toward 0 it becomes the likeliest bin. bin_share: weight 0..1 of that annealed mean, the
    rest is the regression's; without bins it is of no account. certainty_from: where the network is
    no surer than this (0..1) the bins have no share, and from there their share climbs to the whole
    within CERTAINTY_RAMP; None: it is the same everywhere. chroma_exponent: above 1 it makes strong
    colors stronger and weak ones weaker, around TYPICAL_CHROMA. chroma_gain: factor on the result.
    """

    temperature: float = 0.38
    bin_share: float = 0.5
    chroma_gain: float = 1.0
    certainty_from: float | None = None
    chroma_exponent: float = 1.0

    def __post_init__(self) -> None:
        positive = self.temperature > 0 and self.chroma_gain > 0 and self.chroma_exponent > 0
        shares = self.bin_share, self.certainty_from or 0.0
        if not (positive and all(0 <= share <= 1 for share in shares)):
            raise ValueError(
                f"temperature, gain and exponent above 0, share and certainty in 0..1, got {self}"
            )

    def share_of_bins(self, sure: Tensor) -> Tensor:
        """The bins' share where the network is so sure, any shape in 0..1."""
        if self.certainty_from is None:
            return torch.full_like(sure, self.bin_share)
        return self.bin_share * ((sure - self.certainty_from) / CERTAINTY_RAMP).clamp(0, 1)

    def strengthen(self, ab: Tensor) -> Tensor:
        """Exponent and gain on ab (N, 2, h, w) in Lab units; returns it within ±110."""
        factor: Tensor | float = self.chroma_gain
        if self.chroma_exponent != 1:
            chroma = torch.linalg.vector_norm(ab, dim=1, keepdim=True).clamp(min=1e-3)
            factor = factor * (chroma / TYPICAL_CHROMA) ** (self.chroma_exponent - 1)
        return (ab * factor).clamp(-AB_LIMIT, AB_LIMIT)


class Heads(NamedTuple):
    """What the network says. ab: (N, 2, h/2, w/2) in ab / 110, unbounded. scores: (N, bins, h/4,
    w/4) logits, None without bins."""

    ab: Tensor
    scores: Tensor | None


class Look(NamedTuple):
    """What the network says and what it saw.

    ab: (N, 2, h/2, w/2) float32 Lab units within ±110. sure: (N, 1, h/2, w/2) float32 in 0..1, how
    sure it is. features: activations (N, C, ...) of any range at a quarter of the size and below,
    the encoder's in order and then the decoder's at a quarter.
    """

    ab: Tensor
    sure: Tensor
    features: tuple[Tensor, ...]


class ColorNet(nn.Module):
    """Guess Lab ab from gray: (N, 1, h, w) gamma-coded in 0..1, h and w multiples of
    `spec.multiple`, to `Heads`.

    axes: what its features are compared along; None for a model that cannot compare pictures.
    peaks: how far its activations reach, as `quantized` needs it; None for a model that does not
    know.
    """

    bins: Tensor

    def __init__(
        self, spec: ModelSpec, decoding: Decoding | None = None, axes: Axes | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.decoding = decoding or Decoding()
        self.axes = axes
        self.peaks: dict[str, float] | None = None
        self.encoder = Encoder(spec.encoder)
        taps = [stage[-1] for stage in spec.encoder]
        self.decoder = Decoder(taps, spec.decoder, len(spec.bins))
        centers = torch.tensor(spec.bins, dtype=torch.float32, device="cpu").reshape(-1, 2)
        self.register_buffer("bins", centers, persistent=False)  # the spec holds them

    def forward(self, gray: Tensor) -> Heads:
        heads: Heads = self.decoder(self.encoder(gray - MID_GRAY))[0]
        return heads

    def predict(self, gray: Tensor) -> Tensor:
        """(N, 1, h, w) gray to (N, 2, h/2, w/2) ab in Lab units and float32, within ±110."""
        return self.look(gray).ab

    def look(self, gray: Tensor) -> Look:
        """As `predict`, with how sure that is and the features behind it."""
        taps: list[Tensor] = self.encoder(gray - MID_GRAY)
        heads, quarter = self.decoder(taps)
        sure = certainty(heads)
        ab = decode(heads, sure, self.bins, self.decoding)
        return Look(ab, sure, (*taps[2:], quarter))


def decode(heads: Heads, sure: Tensor, bins: Tensor, decoding: Decoding) -> Tensor:
    """What the heads say, as one (N, 2, h/2, w/2) float32 ab in Lab units, within ±110.

    sure: their `certainty`. bins: (Q, 2) centers in Lab units.
    """
    ab = heads.ab.float() * AB_LIMIT
    if heads.scores is not None and decoding.bin_share > 0:
        with torch.autocast(ab.device.type, enabled=False):  # half precision would tint grays
            annealed = annealed_mean(heads.scores, bins, decoding.temperature)
        annealed = functional.interpolate(
            annealed, ab.shape[-2:], mode="bilinear", align_corners=False
        )
        ab = torch.lerp(ab, annealed, decoding.share_of_bins(sure))
    return decoding.strengthen(ab)


def certainty(heads: Heads) -> Tensor:
    """How sure the network is, (N, 1, h/2, w/2) float32: 1 where one bin has all the likelihood, 0
    where all have the same; the entropy of the bins says so. Without bins it is always 1."""
    if heads.scores is None:
        return torch.ones_like(heads.ab[:, :1], dtype=torch.float32)
    logs = torch.log_softmax(heads.scores.float(), dim=1)
    entropy = -(logs.exp() * logs).sum(dim=1, keepdim=True)
    sure = 1 - entropy / math.log(max(2, heads.scores.shape[1]))
    return functional.interpolate(
        sure, heads.ab.shape[-2:], mode="bilinear", align_corners=False
    ).clamp(0, 1)


def annealed_mean(scores: Tensor, bins: Tensor, temperature: float) -> Tensor:
    """Logits (N, Q, h, w) over bins (Q, 2) to the (N, 2, h, w) float32 mean ab of the sharpened
    distribution softmax(logits / T), which is equation 5 of Zhang et al. 2016."""
    likely = torch.softmax(scores.float() / temperature, dim=1)
    return torch.einsum("nqhw,qc->nchw", likely, bins.float())


class Encoder(nn.Module):
    """VGG convolutions; returns the last activation of every stage, largest first."""

    def __init__(self, stages: tuple[tuple[int, ...], ...], channels: int = 1) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.activation: nn.Module = nn.ReLU()
        for widths in stages:
            stage = nn.ModuleList()
            for width in widths:
                stage.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                channels = width
            self.stages.append(stage)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """All convolutions, in order."""
        return [layer for layer in self.stages.modules() if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor) -> list[Tensor]:
        taps: list[Tensor] = []
        for stage in self.stages:
            if taps:
                x = functional.max_pool2d(x, 2)
            for conv in stage.children():
                x = self.activation(conv(x))
            taps.append(x)
        return taps


class Decoder(nn.Module):
    """From the encoder's activations to the heads, and its own activation at a quarter of the
    size."""

    def __init__(self, taps: list[int], widths: tuple[int, ...], bins: int) -> None:
        super().__init__()
        deepest = taps[-1]
        self.bottom = nn.Sequential(
            *_conv_norm_relu(deepest, widths[0]), *_conv_norm_relu(widths[0], widths[0])
        )
        self.content = nn.Linear(deepest, widths[0])
        self.climbs = nn.ModuleList(
            Climb(below, skip, width)
            for below, skip, width in zip(widths, reversed(taps[1:-1]), widths[1:], strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 2, kernel_size=3, padding=1)
        nn.init.zeros_(self.head.weight)  # an untrained network says gray, not noise or a tint
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self.classifier = nn.Conv2d(widths[-2], bins, kernel_size=1) if bins else None

    def forward(self, taps: list[Tensor]) -> tuple[Heads, Tensor]:
        content = self.content(taps[-1].mean(dim=(2, 3)))
        x = quarter = self.bottom(taps[-1]) + content[:, :, None, None]
        for climb, skip in zip(self.climbs, reversed(taps[1:-1]), strict=True):
            quarter, x = x, climb(x, skip)
        scores = self.classifier(quarter) if self.classifier else None
        return Heads(self.head(x), scores), quarter


class Climb(nn.Module):
    """One scale up: enlarge, take in the encoder's activation, mix."""

    def __init__(self, below: int, skip: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            *_conv_norm_relu(below + skip, width), *_conv_norm_relu(width, width)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if not self.training or skip.requires_grad:
            return cast(Tensor, self.mix(torch.cat((x, skip), dim=1)))
        # The same sum in two parts: toward a frozen encoder no gradient has to be computed, which
        # takes 12 % off a training step on a CPU.
        conv, rest = self.mix[0], self.mix[1:]
        assert isinstance(conv, nn.Conv2d)
        below, beside = torch.split(conv.weight, [x.shape[1], skip.shape[1]], dim=1)
        x = functional.conv2d(x, below, padding=1) + functional.conv2d(skip, beside, padding=1)
        return cast(Tensor, rest(x))


def _conv_norm_relu(channels: int, width: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def fold_norms(model: ColorNet) -> ColorNet:
    """Fold every batch norm into the convolution before it: same output, a third fewer passes."""
    model.eval()
    blocks = [block for block in model.decoder.modules() if isinstance(block, nn.Sequential)]
    for block in blocks:
        for i, layer in enumerate(block):
            if isinstance(layer, nn.BatchNorm2d):
                conv = block[i - 1]
                assert isinstance(conv, nn.Conv2d)
                block[i - 1] = fuse_conv_bn_eval(conv, layer)
                block[i] = nn.Identity()
    return model
