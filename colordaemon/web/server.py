"""Runs the page: `colordaemon web`."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import find_folders
from colordaemon.web.app import Page, make_app
from colordaemon.web.guard import Keys, hosts_of, token_of

MOST_CALLERS = 100  # connections at once; browsers that look on keep one each
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where the page is. file: the token's. link: opens it without asking for the token."""

    url: str
    link: str
    file: Path


def serve(config: Config, on_start: Callable[[Address], None]) -> None:
    """Serve the page until SIGTERM or SIGINT, where the settings say; port 0: any that is free.

    on_start: called once it can be asked for. Raises ConfigError, and OSError if the address
    cannot be had.
    """
    all_folders = find_folders(config)
    state = all_folders[0].state
    if not state.is_dir():
        raise ConfigError(f"state_dir: there is no folder {state}; the daemon makes it")
    file = state / "web.token"
    token = token_of(file)
    keys = Keys(token)
    listen = config.web.listen
    host = listen.rpartition(":")[0]
    if not config.web.is_local:
        log.warning(
            "web.listen: %s can be reached from other machines, without encryption; docs/page.md"
            " shows safer ways",
            listen,
        )
    with closing(bound(listen)) as listener:
        port = listener.getsockname()[1]
        page = Page(all_folders, keys, lambda: server.should_exit)
        app = make_app(page, keys, hosts_of(listen, config.web.hosts))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # addresses hold the names of files
                server_header=False,
                lifespan="off",
                limit_concurrency=MOST_CALLERS,
                timeout_graceful_shutdown=5,
                ws="none",
            )
        )
        url = f"http://{host}:{port}/"
        on_start(Address(url, f"{url}?token={token}", file))
        server.run(sockets=[listener])


def bound(listen: str) -> socket.socket:
    """A listening socket. Raises ConfigError for an address that this machine does not have."""
    host, _, port = listen.rpartition(":")
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"web.listen: cannot listen on {listen}: {reason}") from None
    return listener
