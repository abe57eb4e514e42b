"""Loops of films that Numba compiles, and what happens where it cannot.

A loop has a module of its own with a function `compile_loop`, which only this module calls: neither
photos nor a machine without Numba import it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from threading import Timer

log = logging.getLogger(__name__)

Loop = Callable[..., None]

_PATIENCE = 2.0  # seconds; what lies in Numba's cache is there sooner


def compiled(module: str, try_out: Callable[[Loop], object]) -> Loop | None:
    """The loop of a module of `film`, compiled; None where that does not work.

    try_out: calls it, with arrays of the types that it will be called with. Numba keeps what it has
    compiled, and whatever can be wrong with files can be wrong with that: then it is compiled anew,
    which takes a few seconds.
    """
    reason: Exception | None = None
    for cached in (True, False):
        try:
            loop: Loop = import_module(f"colordaemon.film.{module}").compile_loop(cached=cached)
            with _told():
                try_out(loop)
        except Exception as error:  # of pickle, LLVM, the disk: none is a reason to fail
            reason = error
        else:
            if reason:
                log.info("Numba's cache cannot be used (%s); compiled without it", reason)
            return loop
    _warn(str(reason))
    return None


@cache  # once for each reason
def _warn(reason: str) -> None:
    log.warning("Numba does not work, and films take longer: %s", reason)


@contextmanager
def _told() -> Iterator[None]:
    """Says why a film stands still, if it does."""
    timer = Timer(
        _PATIENCE, log.info, ["compiling a loop for this processor, once after an installation"]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
