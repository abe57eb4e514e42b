"""The encoders: FFmpeg's name of each, how it is run, and how much memory it takes.

Above 4K encoders look fewer pictures ahead than they would by themselves, or a film in 8K would
take 6 to 13 GB in the encoder alone. That costs some bytes at the same quality, which crf holds.
Measured with benchmarks/memory.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from colordaemon.config import Codec

WIDE_PIXELS = 4096 * 2304  # larger pictures than 4K; up to there encoders choose for themselves
_LOOK_AHEAD_BYTES = 512 << 20
_LEAST_LOOK_AHEAD = 5  # pictures; with fewer, the encoder sees no change of the scene coming
_OPTION = "rc-lookahead"
_SLOWER = {"slower": 1.7, "veryslow": 3.0, "placebo": 3.0}  # these keep more pictures to refer to

_USUAL_CQ: dict[Codec, str] = {"h264": "19", "hevc": "21", "av1": "24"}  # chosen, not yet measured


@dataclass(frozen=True)
class Cost:
    """Bytes that an encoder takes for each sample of a picture: of 8 bits, and of more.

    ahead: in addition, for each picture of the look-ahead.
    """

    base: tuple[float, float]
    ahead: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Encoder:
    """An FFmpeg encoder, how we run it, and what it takes.

    cost: with the presets that are usual here. quality, preset, params: the options that the
    setting `crf`, the setting `preset` and the encoder's own parameters go into, if any.
    look_ahead: how many pictures it looks ahead, by preset. sparing: parameters with which it holds
    fewer pictures, and what it costs then.
    """

    name: str
    options: Mapping[str, str]
    cost: Cost
    quality: str | None = None
    preset: str | None = None
    params: str = ""
    look_ahead: Mapping[str, int] = field(default_factory=dict)
    sparing: tuple[str, Cost] | None = None
    segment_format: str = "nut"  # keeps pts; but NUT holds neither ProRes nor DNxHR

    def bounded(self, options: Mapping[str, str], samples: int, depth: int) -> dict[str, str]:
        """The options for a picture larger than 4K, with a bound on the pictures that are held.

        samples: of a picture, in all planes. What the options themselves say of it stays.
        """
        found = dict(options)
        told = [self.sparing[0]] if self.sparing else []
        if self._asked_look_ahead(options) is not None:
            return found
        if self.look_ahead:
            usual = self.look_ahead.get(options.get("preset", ""))
            if usual is None:
                return found
            fitting = int(_LOOK_AHEAD_BYTES / (self.cost.ahead[depth > 8] * samples))
            count = min(usual, max(_LEAST_LOOK_AHEAD, fitting))
            if not told:
                return found | {_OPTION: str(count)}
            told = [f"{_OPTION}={count}", *told]
        if told:
            found[self.params] = ":".join(filter(None, (found.get(self.params), *told)))
        return found

    def memory_bytes(self, options: Mapping[str, str], samples: int, depth: int) -> int:
        """About how much it takes with these options. samples: of a picture, in all planes."""
        cost, deep, preset = self.cost, depth > 8, options.get("preset", "")
        if self.sparing and self.sparing[0] in options.get(self.params, ""):
            cost = self.sparing[1]
        ahead = self._asked_look_ahead(options)
        if ahead is None:
            ahead = self.look_ahead.get(preset, 0)
        base = cost.base[deep] * _SLOWER.get(preset, 1.0)
        return int(samples * (base + cost.ahead[deep] * ahead))

    def _asked_look_ahead(self, options: Mapping[str, str]) -> int | None:
        """The look-ahead that options ask for themselves, None if they do not."""
        if options.get(_OPTION, "").isdecimal():
            return int(options[_OPTION])
        params = options.get(self.params, "")
        found = re.search(rf"(?:^|:)(?:{_OPTION}|lookahead)=(\d+)", params)
        return int(found[1]) if found else None


ENCODERS: dict[Codec, Encoder] = {
    "h264": Encoder(
        "libx264",
        # With what it would choose for a processor that has AVX-512, the same pictures come out
        # different from run to run (seen at 64, 96 and 320 px of width). Costs no time.
        {"crf": "17", "preset": "medium", "x264-params": "cpu-independent=1"},
        Cost((28, 66), (2.3, 4.6)),
        "crf",
        "preset",
        "x264-params",
        {"ultrafast": 0, "superfast": 0, "veryfast": 10, "faster": 20, "fast": 30,
         "medium": 40, "slow": 50, "slower": 60, "veryslow": 60, "placebo": 60},
    ),
    "hevc": Encoder(
        "libx265",
        # info=0: its header would name the processor, and a film could not go on at another one.
        {"crf": "18", "preset": "medium", "x265-params": "open-gop=0:info=0:log-level=error"},
        Cost((115, 175), (2.8, 5.1)),
        "crf",
        "preset",
        "x265-params",
        {"ultrafast": 5, "superfast": 10, "veryfast": 15, "faster": 15, "fast": 15,
         "medium": 20, "slow": 25, "slower": 40, "veryslow": 40, "placebo": 60},
        ("frame-threads=1", Cost((65, 100), (2.8, 5.1))),
    ),
    "av1": Encoder(
        "libsvtav1",
        {"crf": "22", "preset": "6"},
        Cost((235, 375)),
        "crf",
        "preset",
        "svtav1-params",
        # Groups of 8 pictures in place of 32.
        sparing=("lookahead=0:hierarchical-levels=3", Cost((72, 112))),
    ),
    "prores": Encoder(
        "prores_ks", {"profile": "hq", "vendor": "apl0"}, Cost((8, 8)), segment_format="mov"
    ),
    "dnxhr": Encoder("dnxhd", {"profile": "dnxhr_hqx"}, Cost((22, 25)), segment_format="mov"),
    "ffv1": Encoder("ffv1", {"level": "3", "g": "1", "slicecrc": "1"}, Cost((29, 48))),
}  # fmt: skip
# The encoders of NVIDIA's GPUs. What they take is on the card, and their copies of a few pictures.
NVENC: dict[Codec, Encoder] = {
    codec: Encoder(
        f"{codec}_nvenc",
        {"preset": "p5", "tune": "hq", "rc": "vbr", "b": "0", "cq": cq},
        Cost((16, 16)),
        "cq",
    )
    for codec, cq in _USUAL_CQ.items()
}
os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 greets on stderr otherwise
