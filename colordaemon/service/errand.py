"""A request to the daemon, or to its journal where no daemon runs."""

from __future__ import annotations

import time

from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.service.commands import Commands, Reply
from colordaemon.service.control import ask
from colordaemon.service.journal import Journal
from colordaemon.service.lock import locked
from colordaemon.service.places import find_places

_LOOKING = ("status", "queue")


def run_errand(config: Config, request: Reply) -> Reply:
    """Raises BadRequest, and ConfigError where there is neither a daemon nor a journal."""
    places = find_places(config)
    if (reply := ask(places.control, request)) is not None:
        return reply
    if not places.journal.exists():
        raise ConfigError(f"state_dir: there is no journal in {places.state} yet")
    if request["verb"] in _LOOKING:
        with Journal(places.journal, readonly=True) as journal:
            return Commands(journal, time.time).run(request) | {"daemon": None}
    with locked(places.state, "state_dir"), Journal(places.journal) as journal:
        return Commands(journal, time.time).run(request)
