"""What lies in an inbox and is not taken: said once in the log, and listed on request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from colordaemon.config import Config
from colordaemon.inbox.folders import find_places
from colordaemon.inbox.scan import scan

log = logging.getLogger(__name__)

_MOST_LINES = 100  # of one inbox; a folder full of text files must not fill the log


class Ignored:
    """Says of each path once why it is not taken."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._said: set[str] = set()

    def notice(self, path: str, reason: str) -> None:
        if path in self._said or len(self._said) > _MOST_LINES:
            return
        self._said.add(path)
        if len(self._said) > _MOST_LINES:
            log.info("%s: more is not taken; `colordaemon status --ignored` lists it", self._inbox)
        else:
            log.info("not taken: %s: %s", path, reason)


def list_ignored(config: Config) -> Iterator[tuple[str, str]]:
    """Every path in the inboxes that is not taken, and why. Raises ConfigError and OSError."""
    for places in find_places(config):
        found: dict[str, str] = {}
        for _ in scan(places.inbox, found.__setitem__):
            pass
        yield from sorted(found.items())
