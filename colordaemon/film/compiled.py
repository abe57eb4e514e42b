"""Loops of films that Numba compiles, and what happens where it cannot.

A loop has a module of its own with a function `compile_loop`, which only this module calls: neither
photos nor a machine without Numba import it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module

log = logging.getLogger(__name__)

Loop = Callable[..., None]


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
