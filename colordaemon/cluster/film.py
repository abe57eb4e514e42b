"""A film on a cluster: which machines may take part in it, and the helpers that they are.

Each actor has to show that its machine is fit: the same versions and model, the same source, and a
folder for segments in which both sides see what the other wrote.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from colordaemon.cluster import engine
from colordaemon.cluster.actor import Found, Versions, Visit
from colordaemon.cluster.cluster import TURN_SECONDS, Cluster
from colordaemon.cluster.helper import ActorHelper, Film, Member
from colordaemon.cluster.shared import SharedPaths, Version, look_again
from colordaemon.durable import flush_file
from colordaemon.errors import ConfigError, HelperDied, HelperLost, Interrupted
from colordaemon.film.helper import Load
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Terms:
    """What a machine has to have for a film. load: loads the model there. model: its file here.
    digest: its SHA-256. colors: everything about the model at work that affects colors."""

    load: Load
    model: Path | None
    digest: str
    colors: str


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
        self._paths = SharedPaths(settings.paths)
        self._helpers: list[ActorHelper] = []
        self._asked: dict[Member, _Asked] = {}
        self._turns: dict[Member, int] = {}  # in which each takes part
        self._refused_at: dict[str, float] = {}
        self._told_at = 0.0

    def open(self, source: Path, folder: Path) -> None:
        """source: the film. folder: for its segments; both as opened here."""
        self._source, self._folder = source, folder
        settings = self._cluster.settings
        self._film = Film(
            self._terms.load,
            Version.of(source),
            self._paths,
            settings.node_seconds,
            self._cluster.hang_seconds,
        )

    def helpers(self) -> Sequence[ActorHelper]:
        """All that have taken part so far, and those that may now. Raises ConfigError if there are
        machines, and none of them is fit."""
        cluster, now = self._cluster, time.monotonic()
        cluster.turn()
        for member in cluster.members:
            if member.is_here and self._turns.get(member) != member.turns:
                self._admit(member, now)
        if now - self._told_at > TURN_SECONDS:
            self._told_at = now
            self._context.machines(cluster.as_json())
        if cluster.waits_for:
            self._context.heartbeat()
        self._refuse_if_none_is_fit()
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
        for asked in self._asked.values():
            asked.clean()
        self._context.machines(self._cluster.as_json())

    def _admit(self, member: Member, now: float) -> None:
        name = member.node.name
        if now - self._refused_at.get(name, -1e9) < self._cluster.settings.node_seconds:
            return
        if member not in self._asked:
            self._asked[member] = _Asked(self._visit(), member, self._folder, now)
        asked = self._asked[member]
        try:
            why = asked.verdict(self._terms, self._film, now)
        except engine.Gone:
            member.is_gone, why = True, None
        except engine.Unreachable:
            member.lost_at, why = now, None
        if why is None and member.is_here:
            return
        del self._asked[member]
        asked.clean()
        if why == "":
            self._turns[member] = member.turns
            self._helpers.append(ActorHelper(member, self._film, self._cluster.nodes))
            self._cluster.refused.pop(name, None)
            self._refused_at.pop(name, None)
        elif why is not None:
            if self._cluster.refused.get(name) != why:
                log.warning("%s: does not take part: %s", name, why)
            self._cluster.refused[name], self._refused_at[name] = why, now

    def _visit(self) -> Visit:
        """Write a file for the actor to find."""
        there, name = self._paths.there, f".look-{secrets.token_hex(4)}"
        path, text = self._folder / name, secrets.token_hex(16)
        path.write_text(text)
        flush_file(path)
        model = self._terms.model and there(self._terms.model)
        return Visit(
            model,
            there(self._source),
            there(self._folder),
            name,
            text,
            self._cluster.settings.node_seconds,
        )

    def _refuse_if_none_is_fit(self) -> None:
        names = {member.node.name for member in self._cluster.members}
        if not names or not names <= self._refused_at.keys():
            return
        reasons = [f"cluster: {name}: {self._cluster.refused[name]}" for name in sorted(names)]
        raise ConfigError("\n".join(reasons))


class _Asked:
    """A visit to a machine: what it found, and whether its answer has arrived here."""

    def __init__(self, visit: Visit, member: Member, folder: Path, now: float) -> None:
        self._visit, self._since = visit, now
        self._answer = member.actor.ask("look", visit)
        self._written = folder / visit.name
        self._found: Found | None = None

    def verdict(self, terms: Terms, film: Film, now: float) -> str | None:
        """Why the machine may not take part; empty if it may, None if it is not known yet."""
        if self._found is None:
            if not self._answer.is_there:
                return None
            self._found, self._since = self._answer.get(), now
        found, here, visit = self._found, Versions.here(), self._visit
        for what, theirs, ours in (
            ("colordaemon", found.versions.colordaemon, here.colordaemon),
            ("FFmpeg", found.versions.ffmpeg, here.ffmpeg),
            ("torch", found.versions.torch, here.torch),
        ):
            if theirs != ours:
                return f"found {what} {theirs}, expected {ours}"
        if found.troubles:
            return f"{'; '.join(found.troubles)}; see cluster.paths"
        if found.model != terms.digest:
            return (
                f"{visit.model or 'the built-in model'}: found another model (SHA-256 "
                f"{found.model[:12]}), expected {terms.digest[:12]}"
            )
        if found.source != film.version:
            return f"{visit.source}: found another file than here ({found.source})"
        answer = self._written.with_suffix(".answer")
        look_again(answer)
        with suppress(OSError):
            if answer.read_text() == visit.text:
                return ""
        if now - self._since < visit.wait_seconds:
            return None
        return f"what it writes to {visit.folder} does not arrive here; see cluster.paths"

    def clean(self) -> None:
        for path in (self._written, self._written.with_suffix(".answer")):
            with suppress(OSError):
                path.unlink(missing_ok=True)


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
