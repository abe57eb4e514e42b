"""Which machines may take part in a work: each actor has to show that its machine is fit.

Fit are the same versions and model, the same source, and a folder for results in which both sides
see what the other wrote.
"""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from colordaemon.cluster import engine
from colordaemon.cluster.actor import Found, Versions, Visit
from colordaemon.cluster.cluster import Cluster
from colordaemon.cluster.helper import Member
from colordaemon.cluster.shared import SharedPaths, Version, look_again
from colordaemon.durable import flush_file
from colordaemon.errors import ConfigError
from colordaemon.film.helper import Load

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """What a machine has to have. load: loads the model there. model: its file here.
    digest: its SHA-256. colors: everything about the model at work that affects colors."""

    load: Load
    model: Path | None
    digest: str
    colors: str


class Admission:
    """Asks the actors of a cluster, each once for each time that it comes."""

    def __init__(self, cluster: Cluster, terms: Terms, source: Path, folder: Path) -> None:
        """source: a file of the work. folder: for results; both as opened here."""
        self.paths = SharedPaths(cluster.settings.paths)
        self._cluster, self._terms = cluster, terms
        self._source, self._folder = source, folder
        self._version = Version.of(source)
        self._asked: dict[Member, _Asked] = {}
        self._turns: dict[Member, int] = {}  # in which each takes part
        self._refused_at: dict[str, float] = {}

    def admit(self) -> list[Member]:
        """Those that may take part from now on. Raises ConfigError if there are machines, and none
        of them is fit."""
        now, members = time.monotonic(), self._cluster.members
        asked = [each for each in members if each.is_here and not self.has(each)]
        found = [member for member in asked if self._may_take_part(member, now)]
        self._refuse_if_none_is_fit()
        return found

    def has(self, member: Member) -> bool:
        return self._turns.get(member) == member.turns

    def close(self) -> None:
        for asked in self._asked.values():
            asked.clean()

    def _may_take_part(self, member: Member, now: float) -> bool:
        name = member.node.name
        if now - self._refused_at.get(name, -1e9) < self._cluster.settings.node_seconds:
            return False
        if member not in self._asked:
            self._asked[member] = _Asked(self._visit(), member, self._folder, now)
        asked = self._asked[member]
        try:
            why = asked.verdict(self._terms, self._version, now)
        except engine.Gone:
            member.is_gone, why = True, None
        except engine.Unreachable:
            member.lost_at, why = now, None
        if why is None and member.is_here:
            return False
        del self._asked[member]
        asked.clean()
        if why == "":
            self._turns[member] = member.turns
            self._cluster.refused.pop(name, None)
            self._refused_at.pop(name, None)
        elif why is not None:
            if self._cluster.refused.get(name) != why:
                log.warning("%s: does not take part: %s", name, why)
            self._cluster.refused[name], self._refused_at[name] = why, now
        return why == ""

    def _visit(self) -> Visit:
        """Write a file for the actor to find."""
        there, name = self.paths.there, f".look-{secrets.token_hex(4)}"
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

    def verdict(self, terms: Terms, version: Version, now: float) -> str | None:
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
        if found.source != version:
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
