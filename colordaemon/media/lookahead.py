"""How many pictures an encoder holds, and how much memory it needs, by its options.

Above 4K encoders look fewer pictures ahead than they are used to, or a film in 8K would take 6 to
13 GB in the encoder alone. That costs some bytes at the same quality, which crf holds. Measured
with benchmarks/memory.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

WIDE_PIXELS = 4096 * 2304  # larger pictures than 4K; up to there encoders keep their own ways
_LOOK_AHEAD_BYTES = 512 << 20
_LEAST_LOOK_AHEAD = 5  # pictures; below, the encoder sees no change coming
_OPTION, _ONE_AT_A_TIME = "rc-lookahead", "frame-threads=1"
_FEW_AV1 = "lookahead=0:hierarchical-levels=3"  # groups of 8 pictures in place of 32
_PRESETS = {
    "h264": {"ultrafast": 0, "superfast": 0, "veryfast": 10, "faster": 20, "fast": 30,
             "medium": 40, "slow": 50, "slower": 60, "veryslow": 60, "placebo": 60},
    "hevc": {"ultrafast": 5, "superfast": 10, "veryfast": 15, "faster": 15, "fast": 15,
             "medium": 20, "slow": 25, "slower": 40, "veryslow": 40, "placebo": 60},
}  # fmt: skip
_PARAMS = {"h264": "x264-params", "hevc": "x265-params", "av1": "svtav1-params"}


@dataclass(frozen=True)
class _Cost:
    """Bytes that an encoder takes for each sample of a picture of 8 bits, and of more. ahead: for
    each picture of the look-ahead, in addition."""

    base: tuple[float, float]
    ahead: tuple[float, float] = (0.0, 0.0)


# With the presets that are usual here.
_COSTS = {
    "h264": _Cost((28, 66), (2.3, 4.6)),
    "hevc": _Cost((115, 175), (2.8, 5.1)),
    "av1": _Cost((235, 375)),
    "prores": _Cost((8, 8)),
    "dnxhr": _Cost((22, 25)),
    "ffv1": _Cost((29, 48)),
}
_FEW = {  # by what the parameters then say
    "hevc": (_ONE_AT_A_TIME, _Cost((65, 100), (2.8, 5.1))),
    "av1": (_FEW_AV1, _Cost((72, 112))),
}
_SLOWER = {"slower": 1.7, "veryslow": 3.0, "placebo": 3.0}  # these keep more pictures to refer to


def bounded(codec: str, options: Mapping[str, str], samples: int, depth: int) -> dict[str, str]:
    """The options of an encoder for a picture larger than 4K. samples: of a picture, in all."""
    found, name = dict(options), _PARAMS.get(codec, "")
    if codec == "av1" and _said(codec, options) is None:
        return found | {name: ":".join(filter(None, (found.get(name), _FEW_AV1)))}
    preset = _PRESETS.get(codec, {}).get(options.get("preset", ""))
    if preset is None or _said(codec, options) is not None:
        return found
    each = _COSTS[codec].ahead[depth > 8] * samples
    count = min(preset, max(_LEAST_LOOK_AHEAD, int(_LOOK_AHEAD_BYTES / each)))
    if codec == "h264":
        return found | {_OPTION: str(count)}
    told = f"{_OPTION}={count}:{_ONE_AT_A_TIME}"
    return found | {name: ":".join(filter(None, (found.get(name), told)))}


def encoder_bytes(codec: str, options: Mapping[str, str], samples: int, depth: int) -> int:
    """About how much an encoder with these options takes. samples: of a picture, in all."""
    cost, deep = _COSTS[codec], depth > 8
    if codec in _FEW and _FEW[codec][0] in options.get(_PARAMS[codec], ""):
        cost = _FEW[codec][1]
    preset = options.get("preset", "")
    ahead = _said(codec, options)
    if ahead is None:
        ahead = _PRESETS.get(codec, {}).get(preset, 0)
    return int(samples * (cost.base[deep] * _SLOWER.get(preset, 1.0) + cost.ahead[deep] * ahead))


def _said(codec: str, options: Mapping[str, str]) -> int | None:
    """The look-ahead that options ask for themselves, None if they do not."""
    if options.get(_OPTION, "").isdecimal():
        return int(options[_OPTION])
    params = options.get(_PARAMS.get(codec, ""), "")
    found = re.search(rf"(?:^|:)(?:{_OPTION}|lookahead)=(\d+)", params)
    return int(found[1]) if found else None
