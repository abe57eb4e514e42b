"""What the network says of a film's frames, made in batches ahead of those that are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from colordaemon.film.analysis import Seen
from colordaemon.film.smoothing import Sample
from colordaemon.network.colorizer import Colorizer


@dataclass(frozen=True)
class Guess:
    """A frame and what the network says of it, None where it is not asked."""

    seen: Seen
    sample: Sample | None


class Guesses:
    """The frames of a film in order; those that follow can be looked at before they are taken."""

    def __init__(self, frames: Iterator[Seen], colorizer: Colorizer) -> None:
        self._frames, self._colorizer = frames, colorizer
        self._unguessed: deque[Seen] = deque()
        self._guesses: deque[Guess] = deque()  # not yet taken

    @property
    def next(self) -> Seen | None:
        """The frame that is taken next; None at the film's end."""
        if self._guesses:
            return self._guesses[0].seen
        if not self._unguessed:
            self._unguessed.extend(islice(self._frames, 1))
        return self._unguessed[0] if self._unguessed else None

    def skip(self) -> Seen:
        """Take the next frame without asking the network; before any other is taken."""
        return self._unguessed.popleft()

    def take(self) -> Guess:
        if not self._guesses:
            self._guess()
        return self._guesses.popleft()

    def ahead(self) -> Iterator[Guess]:
        """The samples that follow in this shot; they stay to be taken."""
        number = 0
        while number < len(self._guesses) or self._guess():
            guess = self._guesses[number]
            if guess.seen.cut:
                return
            if guess.sample is not None:
                yield guess
            number += 1

    def _guess(self) -> bool:
        """Let the network see another batch; False at the film's end."""
        asked = [seen for seen in self._unguessed if _is_asked(seen)]
        while len(asked) < self._colorizer.batch_size:
            seen = next(self._frames, None)
            if seen is None:
                break
            self._unguessed.append(seen)
            if _is_asked(seen):
                asked.append(seen)
            elif seen.in_color and len(self._unguessed) >= self._colorizer.batch_size:
                break  # a long shot in color has nothing to ask about
        samples = dict(zip((seen.pts for seen in asked), self._samples(asked), strict=True))
        self._guesses.extend(Guess(seen, samples.get(seen.pts)) for seen in self._unguessed)
        found = bool(self._unguessed)
        self._unguessed.clear()
        return found

    def _samples(self, asked: list[Seen]) -> list[Sample]:
        if not asked:
            return []
        gray = np.stack([seen.gray for seen in asked if seen.gray is not None])
        said = self._colorizer.guess(torch.from_numpy(gray).unsqueeze(1))
        ab, sure = (part.cpu().numpy() for part in said)  # waits for the GPU
        return [Sample(seen.luma, ab[n], sure[n, 0]) for n, seen in enumerate(asked)]


def _is_asked(seen: Seen) -> bool:
    return seen.gray is not None and not seen.in_color
