"""How well cuts are found: precision, recall and F1 on films assembled from clips.

    python benchmarks/shots.py CLIP… [--rounds 200] [--seed 1]

Pieces of the clips are put together with hard cuts, whose places are therefore known, and disturbed
by what is no cut: flashes, exposure flicker, grain, fades to black and back, dissolves. Fades and
dissolves count for nothing either way, as long as they are going on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from colordaemon.film.shots import CutDetector
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import probe_film

SIZE = (160, 90)
SHORTEST, LONGEST = 6, 60  # frames of a piece
TRANSITION = 12  # frames of a fade or a dissolve


@dataclass
class Film:
    """Frames (h, w) float32 0..255, where the cuts are, and where nobody can say."""

    frames: list[np.ndarray] = field(default_factory=list)
    cuts: set[int] = field(default_factory=set)
    unclear: set[int] = field(default_factory=set)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=200, help="pieces put together")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = np.random.default_rng(arguments.seed)
    shots = [shot for clip in arguments.clips for shot in known_shots(clip)]
    print(f"{len(shots)} shots of {len(arguments.clips)} clips")
    for name, disturb in DISTURBANCES.items():
        film = assemble(shots, arguments.rounds, chance, dissolves=name == "fades and dissolves")
        disturb(film, chance)
        print(f"{name:>20}: {score(film)}")


def known_shots(clip: Path) -> list[list[np.ndarray]]:
    """The clip's frames, small, parted where it is cut itself (by eye: where the detector says)."""
    detector, shots = CutDetector(), list[list[np.ndarray]]()
    with FilmReader(probe_film(clip), damaged_percent=100.0) as reader:
        for frame in reader:
            luma: np.ndarray = cv2.resize(frame.luma, SIZE, interpolation=cv2.INTER_AREA).astype(
                np.float32
            )
            luma = luma / (4 if frame.depth == 10 else 1)
            if detector.is_cut(luma):
                shots.append([])
            shots[-1].append(luma)
    return [shot for shot in shots if len(shot) >= SHORTEST]


def assemble(
    shots: list[list[np.ndarray]], rounds: int, chance: np.random.Generator, dissolves: bool
) -> Film:
    film, last = Film(), -1
    for _ in range(rounds):
        number = int(chance.integers(len(shots)))
        if number == last:  # two pieces of one shot may look alike: no cut that anybody sees
            continue
        shot, last = shots[number], number
        length = int(chance.integers(SHORTEST, LONGEST))
        start = int(chance.integers(max(1, len(shot) - length)))
        piece = shot[start : start + length]
        kind = chance.integers(3) if dissolves and len(piece) > TRANSITION and film.frames else 0
        if kind == 0:
            film.cuts.add(len(film.frames))
        else:
            piece = transition(film, piece, fade=kind == 1)
        film.frames += piece
    film.cuts.discard(0)
    return film


def transition(film: Film, piece: list[np.ndarray], fade: bool) -> list[np.ndarray]:
    """Fade out and in, or let one piece dissolve into the other; returns the rest of the piece."""
    before = film.frames[-1]
    film.unclear |= set(range(len(film.frames) - 1, len(film.frames) + TRANSITION + 1))
    for step in range(TRANSITION):
        share = (step + 1) / TRANSITION
        if fade:
            side = before if share <= 0.5 else piece[step]
            film.frames.append(side * abs(1 - 2 * share))
        else:
            film.frames.append((1 - share) * before + share * piece[step])
    return piece[TRANSITION:]


def flashes(film: Film, chance: np.random.Generator) -> None:
    """One or two frames almost white, now and then."""
    for number in range(3, len(film.frames) - 3):
        if chance.random() < 0.03 and not film.cuts & set(range(number - 2, number + 4)):
            for flash in range(number, number + int(chance.integers(1, 3))):
                film.frames[flash] = 255 - (255 - film.frames[flash]) * 0.15


def flicker(film: Film, chance: np.random.Generator) -> None:
    """Exposure changes from frame to frame, by up to 30 %; grain."""
    for number, frame in enumerate(film.frames):
        grain = chance.normal(0, 6, frame.shape).astype(np.float32)
        film.frames[number] = (frame * chance.uniform(0.7, 1.3) + grain).clip(0, 255)


def nothing(film: Film, chance: np.random.Generator) -> None:
    """As they are."""


DISTURBANCES = {
    "hard cuts": nothing,
    "flashes": flashes,
    "flicker and grain": flicker,
    "fades and dissolves": nothing,
}


def score(film: Film) -> str:
    detector = CutDetector()
    found = {number for number, luma in enumerate(film.frames) if detector.is_cut(luma)} - {0}
    hits = len(found & film.cuts)
    wrong, missed = found - film.cuts - film.unclear, film.cuts - found
    precision = hits / max(1, hits + len(wrong))
    recall = hits / max(1, len(film.cuts))
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return (
        f"{len(film.frames)} frames, {len(film.cuts)} cuts: precision {precision:.3f}, "
        f"recall {recall:.3f}, F1 {f1:.3f} ({len(wrong)} wrong, {len(missed)} missed)"
    )


if __name__ == "__main__":
    main()
