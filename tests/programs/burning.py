"""colordaemon; the first picture that the network sees sets it on fire, and after that it works."""

from __future__ import annotations

from colordaemon.cli import main as colordaemon
from colordaemon.network.colorizer import Colorizer


def main() -> None:
    guess = Colorizer.guess

    def burn(*_: object) -> None:
        Colorizer.guess = guess  # type: ignore[method-assign]
        raise RuntimeError("the device is on fire")

    Colorizer.guess = burn  # type: ignore[method-assign, assignment]
    colordaemon()
