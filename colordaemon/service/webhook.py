"""Sends its standard input to the web address in the environment: `python -m
colordaemon.service.webhook`.

In a process of its own, since a name server or a peer that does not answer may take minutes.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from email.message import Message
from typing import IO

from colordaemon import __version__

ADDRESS = "COLORDAEMON_WEBHOOK"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send a GET without the body, and report success."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


def post(url: str, body: bytes) -> int:
    """POST some JSON; returns the status. Raises OSError, also for any status but 2xx."""
    headers = {"Content-Type": "application/json", "User-Agent": f"colordaemon/{__version__}"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  (the configuration checks it)
    with urllib.request.build_opener(_NoRedirect).open(request) as answer:
        return int(answer.status)


def main() -> None:
    try:
        post(os.environ[ADDRESS], sys.stdin.buffer.read())
    except OSError as error:
        sys.exit(f"webhook: {error}")


if __name__ == "__main__":
    main()
