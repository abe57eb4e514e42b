"""Ends of jobs are told to the hooks, one after the other."""

from __future__ import annotations

from colordaemon.config import AfterSettings
from colordaemon.service.hooks import Hooks, commands_of
from colordaemon.service.journal import Journal


class Herald:
    """Between the journal and the hooks. `now` is in seconds of a clock that never jumps."""

    def __init__(self, journal: Journal, settings: AfterSettings) -> None:
        self._journal = journal
        self._take(settings)

    def _take(self, settings: AfterSettings) -> None:
        """Hooks that are new are not told of all that was done before them."""
        self._hooks = Hooks(commands_of(settings), settings.hook_seconds)
        if self._hooks and not self._journal.fact("hook"):
            self._journal.announce_nothing()
        self._journal.note("hook", "yes" if self._hooks else "")

    def reload(self, settings: AfterSettings) -> None:
        self._hooks.close()
        self._take(settings)

    @property
    def is_busy(self) -> bool:
        return self._hooks.is_busy

    def turn(self, now: float) -> None:
        if not self._hooks:
            return
        if (job := self._hooks.ended(now)) is not None:
            self._journal.announced(job)
        if not self._hooks.is_busy:
            for job in self._journal.to_announce(1):
                self._hooks.start(job, now)

    def close(self) -> None:
        self._hooks.close()
