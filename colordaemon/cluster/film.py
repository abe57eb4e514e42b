"""A film on a cluster: the helpers that its machines are."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from colordaemon.cluster.admission import Admission, Terms
from colordaemon.cluster.cluster import TURN_SECONDS, Cluster
from colordaemon.cluster.helper import ActorHelper, Film
from colordaemon.cluster.shared import SharedPaths, Version, top_of
from colordaemon.errors import HelperDied, HelperLost, Interrupted
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


class FilmCluster:
    """A cluster with a film: `film.crew.Elsewhere`."""

    def __init__(self, cluster: Cluster, terms: Terms, context: WorkContext) -> None:
        self._cluster, self._terms, self._context = cluster, terms, context
        settings = cluster.settings
        self.device = torch.device(settings.device)
        self.colors = terms.colors
        self.tries = settings.tries
        self.stretch_seconds = settings.stretch_seconds
        self.memory_bytes = settings.memory_mib << 20
        self._helpers: list[ActorHelper] = []
        self._told, self._told_at = "", 0.0

    def open(self, source: Path, folder: Path) -> None:
        """source: the film. folder: for its segments; both as opened here."""
        settings = self._cluster.settings
        self._admission = Admission(self._cluster, self._terms)
        self._source, self._folder, self._version = source, folder, Version.of(source)
        paths, top = SharedPaths(settings.paths), top_of(source)
        self._film = Film(
            self._terms.load,
            top and paths.there(top),
            self._version,
            paths,
            settings.node_seconds,
            self._cluster.hang_seconds,
        )

    def helpers(self) -> Sequence[ActorHelper]:
        """All that have taken part so far, and those that may now. Raises ConfigError if there are
        machines, and none of them is fit."""
        cluster, now = self._cluster, time.monotonic()
        cluster.turn()
        for member in self._admission.admit(self._source, self._version, self._folder):
            self._helpers.append(ActorHelper(member, self._film, cluster.nodes))
        if now - self._told_at > TURN_SECONDS:
            self._told_at = now
            self._context.machines(cluster.as_json())
        if (waits := cluster.waits_for) != self._told:
            self._told = waits
            if waits:
                log.info("%s waits %s", self._source, waits)
        if waits:
            self._context.heartbeat()
        return self._helpers

    def alone(self) -> OneAfterTheOther:
        return OneAfterTheOther(self, self.tries)

    def close(self) -> None:
        """Tell for the last time what the machines do, which is nothing for this film."""
        for helper in self._helpers:
            helper.close()
            for path in helper.given_up:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        self._admission.close()
        self._context.machines(self._cluster.at_rest())


class OneAfterTheOther:
    """Runs all tasks of a film on one machine, on another one if that is lost."""

    def __init__(self, film: FilmCluster, tries: int) -> None:
        self.context = WorkContext()
        self._film, self._tries = film, tries

    def run(self, task: SegmentTask) -> SegmentResult:
        died = 0
        while True:
            helper = self._helper(task)
            helper.context = self.context
            try:
                return helper.run(task)
            except HelperLost as reason:
                log.info("%s: segment %d once more: %s", task.source.path, task.index, reason)
            except HelperDied:
                died += 1
                if died >= self._tries:
                    raise

    def close(self) -> None:
        """`FilmCluster.close` does it."""

    def _helper(self, task: SegmentTask) -> ActorHelper:
        while True:
            usable = (helper for helper in self._film.helpers() if helper.is_usable)
            if (helper := next(usable, None)) is not None:
                return helper
            if self.context.should_stop():
                raise Interrupted(f"{os.fspath(task.source.path)}: stopped")
            time.sleep(_POLL_SECONDS)
