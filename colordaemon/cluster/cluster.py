"""The machines that color segments with us: which there are, and what they do.

An actor is made for each GPU of each machine (or each few cores), and again wherever one was lost
or a machine joins. Whether it may take part in a film is decided in `film`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from colordaemon.cluster import engine
from colordaemon.cluster.actor import ActorBody
from colordaemon.cluster.helper import Member
from colordaemon.config import ClusterSettings
from colordaemon.errors import ConfigError

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0  # between two looks at which machines there are
_HEAD_SECONDS = 20.0  # without a head; Ray would end this process after 60
_MOST_PER_GPU = 2  # for `auto`
_NOTHING: Mapping[str, object] = dict.fromkeys(("film", "segment", "seconds", "photo"))


class Cluster:
    """The actors of this process. It connects when a film needs them."""

    def __init__(self, settings: ClusterSettings, hang_seconds: float) -> None:
        assert settings.address is not None
        self._settings, self._address = settings, settings.address
        self.hang_seconds = hang_seconds
        self.members: list[Member] = []
        self.refused: dict[str, str] = {}  # nodes by their names, and why
        self.trouble = ""  # why there is no connection
        self._part, self._leaving = 1.0, set[Member]()
        self._nodes: list[engine.Node] = []
        self._is_connected, self._turning = False, threading.Lock()
        self._turn_at = self._head_at = -_HEAD_SECONDS

    def turn(self) -> None:
        """To be called again and again while work is to be done, by any thread. Raises ConfigError
        for a wrong token."""
        with self._turning:
            now = time.monotonic()
            if now - self._turn_at >= TURN_SECONDS:
                self._turn_at = now
                self._turn(now)

    def _turn(self, now: float) -> None:
        if not self.look(now):
            return
        alive = {node.number for node in self._nodes}
        for member in self.members:
            if member.node.number not in alive:
                member.is_gone = True
            elif member.lost_at is not None:
                self._look_after(member, now)
        self.members = [member for member in self.members if not member.is_gone]
        for node in self._nodes:
            self._fill(node)
        self._keep_to_part()

    def take_part(self, part: float) -> None:
        """Take at most so large a part of all workers, 0..1; others take the rest. Those beyond
        that are left as soon as they have finished what they are at."""
        with self._turning:
            self._part = part
            if self._is_connected:
                self._keep_to_part()

    def look(self, now: float) -> bool:
        """See which machines there are; returns whether the head answers."""
        if not self._has_head(now):
            return False
        try:
            self._nodes = engine.nodes()
        except engine.Unreachable as error:
            self.trouble = str(error)
            return False
        return True

    def end(self) -> None:
        if self._is_connected:
            engine.disconnect()
        self._is_connected, self.members, self._nodes, self._leaving = False, [], [], set()

    def nodes(self) -> list[engine.Node]:
        """Those that are alive now; none if we have left them meanwhile."""
        with suppress(engine.Unreachable):
            return engine.nodes() if engine.is_there(self._address) else []
        return []

    @property
    def settings(self) -> ClusterSettings:
        return self._settings

    @property
    def waits_for(self) -> str:
        """What work waits for; empty if it does not."""
        if self.trouble:
            return f"for the cluster: {self.trouble}"
        if any(member.is_here for member in self.members):
            return ""
        kind = "GPU node" if self._settings.device == "cuda" else "node"
        return f"for a worker on a {kind} to start" if self.members else f"for a {kind}"

    def as_json(self) -> dict[str, object]:
        """The machines, what work waits for, and what each worker does: a segment of a film, which
        begins after so many seconds, or a photo of a batch."""
        return {
            "address": self._address,
            "waiting": self.waits_for,
            "nodes": [
                {
                    "name": node.name,
                    "gpus": node.resources.get("GPU", 0.0),
                    "cpus": node.resources.get("CPU", 0.0),
                    "refused": self.refused.get(node.name, ""),
                    "workers": [
                        {"is_ready": member.is_here, **_NOTHING, **member.doing}
                        for member in self.members
                        if member.node.number == node.number
                    ],
                }
                for node in self._nodes
            ],
        }

    def at_rest(self) -> dict[str, object]:
        """As `as_json`, where there is no work that could wait for machines."""
        return self.as_json() | {"waiting": ""}

    def _has_head(self, now: float) -> bool:
        """Whether we are connected; connects if need be, and leaves a head that is gone before Ray
        ends this process for it."""
        is_there = engine.is_there(self._address)
        if is_there:
            self._head_at, self.trouble = now, ""
        elif self._is_connected and now - self._head_at < _HEAD_SECONDS:
            return False
        if not is_there:
            self.trouble = f"its head at {self._address} does not answer"
            if self._is_connected:
                log.warning("cluster: %s", self.trouble)
                for member in self.members:
                    member.is_gone = True
                self.end()
            return False
        if not self._is_connected:
            try:
                engine.connect(
                    self._address, self._settings.token_file, self._settings.node_address
                )
            except engine.NoHead as error:
                self.trouble = str(error)
                return False
            self._is_connected = True
        return True

    def _look_after(self, member: Member, now: float) -> None:
        """One that did not answer may be back; what it did then is used by nobody."""
        assert member.lost_at is not None
        if now - member.lost_at > self._settings.node_seconds:
            member.end()
            return
        with suppress(engine.Unreachable):
            member.actor.ask("stop", member.newest_number)
            try:
                if member.actor.ask("is_idle").get(TURN_SECONDS):
                    member.lost_at = None
                    member.turns += 1
            except engine.Gone:
                member.is_gone = True

    def _fill(self, node: engine.Node) -> None:
        """Make the actors that a machine has room for, if we want more."""
        settings, (seats, gpu_share) = self._settings, self._seats(node)
        missing = seats - sum(member.node.number == node.number for member in self.members)
        for _ in range(missing if self._wanted > 0 else 0):
            actor = engine.Actor(
                ActorBody,
                node,
                gpus=gpu_share,
                cpus=settings.cpus,
                memory_bytes=settings.memory_mib << 20,
                given=settings.cpus,
            )
            self.members.append(Member(actor))

    def _seats(self, node: engine.Node) -> tuple[int, float]:
        """How many actors a machine has room for, and the share of a GPU that each has."""
        settings, gpus = self._settings, int(node.resources.get("GPU", 0))
        seats = int(node.resources.get("CPU", 0)) // settings.cpus
        if settings.device != "cuda":
            return seats, 0.0
        auto = max(1, min(_MOST_PER_GPU, seats // max(1, gpus)))
        per_gpu = auto if settings.workers_per_gpu == "auto" else settings.workers_per_gpu
        return min(seats, gpus * per_gpu), 1 / per_gpu

    @property
    def _wanted(self) -> int:
        """How many actors we still want."""
        every = sum(self._seats(node)[0] for node in self._nodes)
        return math.ceil(every * self._part) - sum(member.is_here for member in self.members)

    def _keep_to_part(self) -> None:
        """While too few actors are ours, one waits on each machine for room that others leave.
        With enough, none waits; with too many, some leave after their work."""
        wanted = self._wanted
        here = [member for member in self.members if member.is_here]
        if wanted <= 0:
            for member in self.members:
                if not member.is_gone and not member.started.is_there:
                    member.end()
        here.sort(key=lambda member: (member not in self._leaving, bool(member.doing)))
        self._leaving = {*here[: max(0, -wanted)]}
        for member in here:
            if member not in self._leaving:
                member.line.leave(self)
            elif member.line.is_turn_of(self):
                log.info("%s: a worker makes way for other work", member.node.name)
                member.end()
        self.members = [member for member in self.members if not member.is_gone]


def look_at(settings: ClusterSettings) -> dict[str, object]:
    """The machines as they are now, without any work. Raises ConfigError."""
    if settings.address is None:
        raise ConfigError("cluster.address: found null, expected HOST:PORT of the cluster's head")
    cluster = Cluster(settings, 0.0)
    try:
        is_there = cluster.look(time.monotonic())
        return cluster.at_rest() if is_there else cluster.as_json()
    finally:
        cluster.end()
