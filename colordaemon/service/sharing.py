"""How the workers of the daemon share a cluster: the part that each may take, and what all of them
see of its machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colordaemon.clock import Monotonic
from colordaemon.service.messages import Share
from colordaemon.service.running import RunningJobs
from colordaemon.service.supervisor import Supervisor

_IDLE_SECONDS = 60.0  # without work, until its machines are left to others

Reply = Mapping[str, Any]


class ClusterSharing:
    """Tells workers their parts, and remembers what they have told."""

    def __init__(self, running: RunningJobs) -> None:
        self._running, self._used_at = running, 0.0
        self._told: dict[int, Reply] = {}  # by each worker, at last

    def hear(self, worker: int, found: Reply) -> None:
        """found: as `cluster.Cluster.as_json`."""
        self._told[worker] = found

    def forget(self, worker: int) -> None:
        """A worker has ended, and what its machines did for it."""
        self._told.pop(worker, None)

    @property
    def machines(self) -> Reply | None:
        """Those of the cluster, with what each does for any of our workers; None before any of them
        has told."""
        busy = {task.worker for task in self._running}
        told = sorted(self._told.items(), key=lambda item: item[0] not in busy)
        return together([found for _, found in told])

    @property
    def waits_for(self) -> str | None:
        """What the file that is worked on waits for, as "for a node", if it is machines."""
        found = self.machines
        return (found["waiting"] or None) if found and len(self._running) else None

    def turn(self, supervisors: Sequence[Supervisor], now: Monotonic) -> None:
        """Let the workers that have files take the same part each. Those that have none keep what
        they have for a while, as long as nobody else has any."""
        on_cluster = [each for each in supervisors if each.beside and each.worker]
        busy = [each for each in on_cluster if self._running.of(each.number)]
        if busy:
            self._used_at = now
        elif now < self._used_at + _IDLE_SECONDS:
            return
        for supervisor in on_cluster:
            part = 1 / len(busy) if supervisor in busy else 0.0
            if part != supervisor.part and supervisor.worker is not None:
                supervisor.part = part
                supervisor.worker.send(Share(part))


def together(found: Sequence[Reply]) -> Reply | None:
    """The machines of a cluster as several workers of ours see them, who have some of its workers
    each. found: as `cluster.Cluster.as_json`; the first that waits for machines says for what."""
    seen: dict[str, list[Reply]] = {}
    for node in (node for each in found for node in each["nodes"]):
        seen.setdefault(node["name"], []).append(node)
    if not found:
        return None
    waiting = next(filter(None, (each["waiting"] for each in found)), "")
    return {**found[0], "waiting": waiting, "nodes": [_as_one(each) for each in seen.values()]}


def _as_one(seen: Sequence[Reply]) -> Reply:
    """A machine that several see. What one of them has begun to start waits for room that another
    one's worker has; it is no further worker of the machine."""
    workers = [worker for node in seen for worker in node["workers"]]
    ready = [worker for worker in workers if worker["is_ready"]]
    room = max(len(node["workers"]) for node in seen) - len(ready)
    starting = [worker for worker in workers if not worker["is_ready"]][: max(0, room)]
    refused = next(filter(None, (node["refused"] for node in seen)), "")
    return {**seen[0], "workers": [*ready, *starting], "refused": refused}
