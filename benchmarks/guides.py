"""What references and dabs of color are worth, on frames of films in color whose truth is known.

    python benchmarks/guides.py FILM[@START..END]… [--model FILE] [--quality …] [--sheet PNG]

START and END, as in names of references, keep one shot of a film with several. The first frame of
each shot is the reference for others of it (a third and two thirds on, and the last), for crops of
the last two (60 % of width and height, mirrored), and for the last frame of the film after it,
with which it has nothing to do. Dabs: eight, on the first frame, each where it is wrong most and no
other is near, with those before as somebody would who looks after each, or all at once; their
effect on that frame and on the others of its shot.

The error is the mean CIEDE2000 at half of the network's size, with the frame's own lightness.
Beside it stands the error of leaving the frame gray, and the mean chroma as a share of the truth's.
The time is that of the processor, which is no worse on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.bench.machine import describe_machine
from colordaemon.color import decode_ycbcr, lab_to_rgb, rgb_to_lab, ycbcr_to_rgb
from colordaemon.evaluation.metrics import chroma, delta_e_2000
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import probe_film
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.network.match import make_reference
from colordaemon.network.painter import Painter, hinted_frame
from colordaemon.sidecar_names import parse_range

CROP = 0.6
DABS, RADIUS, APART = 8, 0.02, 0.12  # radius and distance in short sides
REPEATS = 12


@dataclass(frozen=True)
class Still:
    """A frame. gray: (1, 1, H, W) float32 0..1, its luma. rgb: (H, W, 3) uint8."""

    gray: Tensor
    rgb: np.ndarray

    def lab(self, size: Sequence[int]) -> Tensor:
        """The truth, (1, 3, h, w), at the size of ab."""
        color = torch.from_numpy(self.rgb.copy()).permute(2, 0, 1)[None].float() / 255
        double = functional.interpolate(color, (2 * size[0], 2 * size[1]), mode="area")
        return functional.avg_pool2d(rgb_to_lab(double), 2)

    def framed_anew(self) -> Still:
        height, width = self.rgb.shape[:2]
        top, left = round(height * (1 - CROP) / 2), round(width * (1 - CROP) / 2)
        rows, columns = slice(top, height - top), slice(left, width - left)
        rgb = np.ascontiguousarray(self.rgb[rows, columns][:, ::-1])
        return Still(self.gray[..., rows, columns].flip(-1).contiguous(), rgb)


@dataclass
class Rows:
    """Figures of the pairs of one case. Each is (gray, automatic, guided) of error, and of the
    chroma (automatic, guided) as a share of the truth's."""

    errors: list[tuple[float, float, float]] = field(default_factory=list)
    chromas: list[tuple[float, float]] = field(default_factory=list)

    def add(self, still: Still, automatic: Tensor, guided: Tensor) -> None:
        truth = still.lab(automatic.shape[-2:])
        errors = [error(ab, truth) for ab in (torch.zeros_like(automatic), automatic, guided)]
        self.errors.append((errors[0], errors[1], errors[2]))
        whole = float(chroma(truth[:, 1:]))
        self.chromas.append((float(chroma(automatic)) / whole, float(chroma(guided)) / whole))

    def line(self, name: str) -> str:
        gray, automatic, guided = np.mean(self.errors, axis=0)
        before, after = np.mean(self.chromas, axis=0)
        gains = [one[2] - one[1] for one in self.errors]
        better = sum(gain < 0 for gain in gains)
        return (
            f"| {name} | {len(gains)} | {gray:.2f} | {automatic:.2f} ({before:.2f}) | "
            f"{guided:.2f} ({after:.2f}) | {better} | {max(gains):+.2f} |"
        )


def error(ab: Tensor, truth: Tensor) -> float:
    return float(delta_e_2000(torch.cat((truth[:, :1], ab.cpu()), dim=1), truth).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="+")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sheet", type=Path, help="a picture of the middle frames, to look at")
    arguments = parser.parse_args()
    colorizer = open_colorizer(
        arguments.model, arguments.device, arguments.precision, arguments.quality, 8
    )
    print(f"{describe_machine()}; {colorizer}, {torch.get_num_threads()} threads")
    shots = {name: stills_of(name) for name in arguments.films}
    report(colorizer, shots, arguments.sheet)
    print(costs(colorizer, next(iter(shots.values()))))


def stills_of(name: str) -> list[Still]:
    """The first frame of a shot, those at a third and at two thirds, and the last."""
    path, _, times = name.partition("@")
    start, end = parse_range(times) if times else (None, None)
    info, shot = probe_film(Path(path)), list[int]()
    with FilmReader(info, damaged_percent=100.0) as reader:
        for number, frame in enumerate(reader):
            seconds = float(frame.pts * info.time_base)
            if seconds >= (start or 0) and (end is None or seconds < end):
                shot.append(number)
    wanted = [shot[round(share * (len(shot) - 1))] for share in (0, 1 / 3, 2 / 3, 1)]
    found = {}
    with FilmReader(info, damaged_percent=100.0) as reader:
        for number, frame in enumerate(reader):
            if number in wanted:
                layout = "yuvj444p" if info.code.full_range else "yuv444p"
                picture = frame.picture.reformat(format=layout).to_ndarray()
                ycbcr = decode_ycbcr(torch.from_numpy(picture), info.code).clamp(-1, 1)
                rgb = ycbcr_to_rgb(ycbcr, info.code.matrix).clamp(0, 1)
                pixels = (rgb * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
                found[number] = Still(ycbcr[None, :1].clamp(0, 1), pixels)
    return [found[number] for number in wanted]


def report(colorizer: Colorizer, shots: dict[str, list[Still]], sheet: Path | None) -> None:
    cases = {
        name: Rows()
        for name in (
            "same shot",
            "framed anew",
            "unrelated",
            "8 dabs",
            "8 dabs, carried",
            "8 dabs at once",
            "8 dabs at once, carried",
        )
    }
    references = [make_reference(colorizer, stills[0].rgb) for stills in shots.values()]
    pictures = []
    for number, (name, stills) in enumerate(shots.items()):
        with_reference = Painter(colorizer, [references[number]])
        unrelated = Painter(colorizer, [references[number - 1]])
        rgba = dabs_for(stills[0], colorizer)
        with_dabs, at_once = (
            Painter(colorizer, hints=[hinted_frame(Painter(colorizer), stills[0].gray, dabs)])
            for dabs in (rgba, dabs_for(stills[0], colorizer, looks=False))
        )

        def compare(case: str, painter: Painter, still: Still) -> tuple[Tensor, Tensor]:
            pair = colorizer.predict_ab(still.gray), painter.predict_ab(still.gray)
            cases[case].add(still, *pair)
            return pair

        before = {case: len(rows.errors) for case, rows in cases.items()}
        for still in stills[1:]:
            compare("same shot", with_reference, still)
            compare("8 dabs, carried", with_dabs, still)
            compare("8 dabs at once, carried", at_once, still)
        for still in stills[2:]:
            compare("framed anew", with_reference, still.framed_anew())
        compare("unrelated", unrelated, stills[-1])
        compare("8 dabs", with_dabs, stills[0])
        compare("8 dabs at once", at_once, stills[0])
        parts = [
            f"{case} {' → '.join(f'{x:.2f}' for x in np.mean(rows.errors[before[case] :], axis=0))}"
            for case, rows in cases.items()
        ]
        print(f"{Path(name).name}: {', '.join(parts)}", flush=True)
        if sheet is not None:
            pictures.append(strip(colorizer, with_reference, with_dabs, stills, rgba))
    print("| case | pairs | gray | automatic | guided | better | worst |")
    print("|---|---|---|---|---|---|---|")
    for case, rows in cases.items():
        print(rows.line(case))
    if sheet is not None:
        width = min(picture.shape[1] for picture in pictures)
        lines = [picture[:, :width] for picture in pictures]
        cv2.imwrite(str(sheet), np.vstack(lines)[..., ::-1])


def dabs_for(still: Still, colorizer: Colorizer, looks: bool = True) -> np.ndarray:
    """(H, W, 4): discs in the true color, one after another where the frame is wrong most; looks:
    with those before, else without."""
    ab = colorizer.predict_ab(still.gray).cpu()
    truth = still.lab(ab.shape[-2:])
    height, width = still.rgb.shape[:2]
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in ab.shape[-2:]), indexing="ij")
    taken = torch.zeros(rows.shape, dtype=torch.bool)
    rgba = np.zeros((height, width, 4), np.uint8)
    for _ in range(DABS):
        wrong = delta_e_2000(torch.cat((truth[:, :1], ab), dim=1), truth)[None]
        wrong = functional.avg_pool2d(wrong, 5, stride=1, padding=2)[0, 0]
        wrong[taken] = 0
        row, column = divmod(int(wrong.argmax()), wrong.shape[1])
        taken |= (rows - row) ** 2 + (columns - column) ** 2 < (APART * min(wrong.shape)) ** 2
        center = (
            round((column + 0.5) * width / wrong.shape[1]),
            round((row + 0.5) * height / wrong.shape[0]),
        )
        disc = np.zeros((height, width), np.uint8)
        cv2.circle(disc, center, max(1, round(RADIUS * min(height, width))), 1, -1)
        rgba[disc > 0] = (*still.rgb[disc > 0].mean(axis=0).round().astype(np.uint8), 255)
        if looks:
            hints = [hinted_frame(Painter(colorizer), still.gray, rgba)]
            ab = Painter(colorizer, hints=hints).predict_ab(still.gray).cpu()
    return rgba


def strip(
    colorizer: Colorizer,
    with_reference: Painter,
    with_dabs: Painter,
    stills: list[Still],
    rgba: np.ndarray,
) -> np.ndarray:
    """Gray, automatic, with the reference, with dabs, truth of a frame in the middle; then the
    frame of the dabs: automatic with the dabs on it, guided, truth."""
    middle, first = stills[2], stills[0]
    asked = colorizer.predict_ab(first.gray)
    shown = [
        painted(middle, torch.zeros_like(asked)),
        painted(middle, colorizer.predict_ab(middle.gray)),
        painted(middle, with_reference.predict_ab(middle.gray)),
        painted(middle, with_dabs.predict_ab(middle.gray)),
        middle.rgb,
        np.where(rgba[..., 3:] > 0, rgba[..., :3], painted(first, asked)),
        painted(first, with_dabs.predict_ab(first.gray)),
        first.rgb,
    ]
    return np.hstack([cv2.resize(each, (320, 180), interpolation=cv2.INTER_AREA) for each in shown])


def painted(still: Still, ab: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 with a frame's own lightness."""
    size = still.rgb.shape[:2]
    wide = functional.interpolate(ab.cpu(), size, mode="bicubic", align_corners=False)
    color = torch.from_numpy(still.rgb.copy()).permute(2, 0, 1)[None].float() / 255
    rgb = lab_to_rgb(torch.cat((rgb_to_lab(color)[:, :1], wide), dim=1)).clamp(0, 1)
    return (rgb[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def costs(colorizer: Colorizer, stills: list[Still]) -> str:
    """Processor time of a frame, alone and with guides."""
    gray = functional.interpolate(
        stills[1].gray, colorizer.network_size(*stills[1].gray.shape[-2:]), mode="area"
    )
    one, two = (make_reference(colorizer, still.rgb) for still in (stills[0], stills[-1]))
    rgba = dabs_for(stills[0], colorizer)
    hints = hinted_frame(Painter(colorizer), stills[0].gray, rgba)
    ways: dict[str, Callable[[], object]] = {
        "network": lambda: colorizer.guess(gray),
        "one reference": lambda: Painter(colorizer, [one]).guess(gray),
        "two references": lambda: Painter(colorizer, [one, two]).guess(gray),
        "dabs": lambda: Painter(colorizer, hints=[hints]).guess(gray),
        "solving dabs": lambda: hinted_frame(Painter(colorizer), gray, rgba),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):  # in turn, so that a busy moment meets all of them
        for name, way in ways.items():
            began = time.process_time()
            way()
            taken[name].append(1000 * (time.process_time() - began))
    least = {name: float(np.median(times)) for name, times in taken.items()}
    network = least.pop("network")
    more = [
        f"{name} {ms - network:.0f} ms more ({(ms - network) / network:.2f})"
        for name, ms in least.items()
    ]
    return f"processor time of a frame: network {network:.0f} ms; " + ", ".join(more)


if __name__ == "__main__":
    main()
