"""Which files go before others: the `priority` of inboxes, and `priorities` of folders in them."""

from __future__ import annotations

import os
from pathlib import Path

from colordaemon.config import Config
from colordaemon.convert.patterns import fits


class Priorities:
    """Of a configuration."""

    def __init__(self, config: Config) -> None:
        self._patterns = config.priorities
        self._inboxes = [
            (Path(os.path.realpath(entry.inbox)), entry.priority) for entry in config.all_inboxes
        ]

    def of(self, source: Path) -> int:
        """That of the first folder or pattern which fits, as seen from the inbox; else the inbox's.

        0 for a file of an inbox that is configured no more.
        """
        for inbox, priority in self._inboxes:
            if source.is_relative_to(inbox):
                path = source.relative_to(inbox)
                fitting = (own for pattern, own in self._patterns.items() if fits(path, pattern))
                return next(fitting, priority)
        return 0
