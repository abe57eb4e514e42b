"""Which machines may take part in a work: each actor has to show that its machine is fit.

Fit are the same versions and model, the same source, and a folder for results in which both sides
see what the other wrote.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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

    def __init__(self, cluster: Cluster, terms: Terms) -> None:
        self._cluster, self._terms = cluster, terms
        self._paths = SharedPaths(cluster.settings.paths)
        self._asked: dict[Member, _Visiting] = {}
        self._turns: dict[Member, int] = {}  # in which each takes part
        self._refused: dict[str, tuple[float, str]] = {}  # when, and why; by nodes' names

    def admit(self, source: Path, version: Version, folder: Path, prefix: str = "") -> list[Member]:
        """Those that may take part from now on.

        source: a file of the work that is to be done now, and its version. folder: for results.
        prefix: of what is made there for a while; by it others know what was left after a crash.
        Raises ConfigError if there are machines, and none of them is fit, and OSError if we cannot
        write there ourselves.
        """
        now, members = time.monotonic(), self._cluster.members
        self._turns = {each: turns for each, turns in self._turns.items() if each in members}
        asked = [each for each in members if each.is_here and not self.has(each)]
        found = []
        for member in asked:
            if member not in self._asked and not self._is_refused(member, now):
                visit = _Visiting(self._terms, self._paths, source, version, folder, prefix)
                try:
                    visit.begin(member, self._cluster.settings.node_seconds)
                except engine.Unreachable:
                    member.lost_at = now
                    visit.clean()
                    continue
                self._asked[member] = visit
            if member in self._asked and self._is_fit(member, now):
                found.append(member)
        self._refuse_if_none_is_fit()
        return found

    def has(self, member: Member) -> bool:
        return self._turns.get(member) == member.turns

    def close(self) -> None:
        for visit in self._asked.values():
            visit.clean()

    def _is_refused(self, member: Member, now: float) -> bool:
        """Whether it was, a short time ago."""
        refused_at, _ = self._refused.get(member.node.name, (-math.inf, ""))
        return now - refused_at < self._cluster.settings.node_seconds

    def _is_fit(self, member: Member, now: float) -> bool:
        name, visit = member.node.name, self._asked[member]
        try:
            why = visit.verdict(now)
        except engine.Gone:
            member.is_gone, why = True, None
        except engine.Unreachable:
            member.lost_at, why = now, None
        if why is None and member.is_here:
            return False
        del self._asked[member]
        visit.clean()
        if why == "":
            self._turns[member] = member.turns
            self._cluster.refused.pop(name, None)
            self._refused.pop(name, None)
        elif why is not None and not visit.is_moot:
            if self._cluster.refused.get(name) != why:
                log.warning("%s: does not take part: %s", name, why)
            self._cluster.refused[name], self._refused[name] = why, (now, why)
        return why == ""

    def _refuse_if_none_is_fit(self) -> None:
        names = {member.node.name for member in self._cluster.members}
        if not names or not names <= self._refused.keys():
            return
        reasons = [f"cluster: {name}: {self._refused[name][1]}" for name in sorted(names)]
        raise ConfigError("\n".join(reasons))


class _Visiting:
    """A visit to a machine: what it found, and whether its answer has arrived here."""

    def __init__(
        self,
        terms: Terms,
        paths: SharedPaths,
        source: Path,
        version: Version,
        folder: Path,
        prefix: str,
    ) -> None:
        self._terms, self._paths = terms, paths
        self._source, self._version = source, version
        self._folder = TemporaryDirectory(".work", f"{prefix}.", folder, ignore_cleanup_errors=True)
        self._found: Found | None = None

    def begin(self, member: Member, wait_seconds: float) -> None:
        """Write a file for the machine to find."""
        there, text = self._paths.there, secrets.token_hex(16)
        path = Path(self._folder.name) / "here"
        path.write_text(text)
        flush_file(path)
        model = self._terms.model and there(self._terms.model)
        folder = there(path.parent)
        self._visit = Visit(model, there(self._source), folder, path.name, text, wait_seconds)
        self._since, self._answer = time.monotonic(), member.actor.ask("look", self._visit)

    @property
    def is_moot(self) -> bool:
        """Whether the file that was to be seen there is gone from here as well."""
        try:
            return Version.of(self._source) != self._version
        except OSError:
            return True

    def verdict(self, now: float) -> str | None:
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
        if found.model != self._terms.digest:
            return (
                f"{visit.model or 'the built-in model'}: found another model (SHA-256 "
                f"{found.model[:12]}), expected {self._terms.digest[:12]}"
            )
        if found.source != self._version:
            return f"{visit.source}: found another file than here ({found.source})"
        answer = Path(self._folder.name, visit.name).with_suffix(".answer")
        look_again(answer)
        with suppress(OSError):
            if answer.read_text() == visit.text:
                return ""
        if now - self._since < visit.wait_seconds:
            return None
        return f"what it writes to {visit.folder} does not arrive here; see cluster.paths"

    def clean(self) -> None:
        self._folder.cleanup()
