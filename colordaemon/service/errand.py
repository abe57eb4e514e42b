"""A request to the daemon, or to its journal where no daemon runs."""

from __future__ import annotations

import time

from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import find_places
from colordaemon.inbox.lock import locked_state
from colordaemon.service.commands import Commands, Reply, queue, status
from colordaemon.service.control import ask
from colordaemon.service.journal import Journal
from colordaemon.service.records import Records

_LOOKING = {"status": status, "queue": queue}


def run_errand(config: Config, request: Reply) -> Reply:
    """Raises BadRequest, NoAnswer, and ConfigError where neither a daemon nor a journal is."""
    places = find_places(config)[0]  # control and journal are the same for all inboxes
    if (reply := ask(places.control, request)) is not None:
        return reply
    if not places.journal.exists():
        raise ConfigError(f"state_dir: there is no journal in {places.state} yet")
    if request["verb"] in _LOOKING:
        with Records(places.journal) as records:
            return _LOOKING[request["verb"]](records) | {"daemon": None}
    with locked_state(places.state), Journal(places.journal) as journal:
        commands = Commands(journal, time.time)
        reply = commands.run(request)
        while commands.is_busy:
            commands.turn()
        return reply
