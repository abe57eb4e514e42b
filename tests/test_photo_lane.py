"""Photos that other machines color beside the work of a worker; there is no cluster here."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from colordaemon.cluster.photos import PhotoCluster
from colordaemon.config import ClusterSettings
from colordaemon.service.messages import FromWorker
from colordaemon.service.photo_lane import PhotoLane


def test_a_photo_that_is_ordered_again_before_its_thread_has_ended_is_colored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a stop: the daemon orders it as soon as it hears that it was stopped."""
    monkeypatch.setattr(PhotoCluster, "most", 1)
    said, contexts, is_done = list[FromWorker](), list[object](), threading.Event()
    cluster: Any = SimpleNamespace(settings=ClusterSettings())
    order: Any = SimpleNamespace(job=1, source="a.png")
    lane = PhotoLane(cluster, said.append, lambda: True)

    def color(order: Any, context: Any) -> None:
        contexts.append(context)
        if len(contexts) == 1:
            lane.take(order)
        else:
            lane.stop(1)
            assert context.should_stop()
            is_done.set()

    lane.begin(color)
    lane.take(order)
    try:
        assert is_done.wait(20.0) and contexts[0] is not contexts[1]
    finally:
        lane.close()
