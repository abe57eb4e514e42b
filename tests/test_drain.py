"""The last minute of a daemon."""

from __future__ import annotations

import math

from colordaemon.clock import Monotonic
from colordaemon.service.daemon import ABORT_SECONDS, Drain


def test_work_that_fits_the_limit_is_given_the_limit() -> None:
    drain = Drain()
    assert not drain.has_begun
    drain.begin(Monotonic(100.0), 60.0, seconds_left=50.0)
    assert drain.has_begun and not drain.should_ask(159.0)
    assert drain.should_ask(160.0) and not drain.should_ask(160.0)  # once
    assert not drain.is_over(160.0 + ABORT_SECONDS - 1)
    assert drain.is_over(160.0 + ABORT_SECONDS)


def test_work_that_does_not_fit_is_left_at_once() -> None:
    drain = Drain()
    drain.begin(Monotonic(100.0), 60.0, seconds_left=math.inf)
    assert drain.should_ask(Monotonic(100.0))
