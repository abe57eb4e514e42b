"""Sends its standard input to a web address: `python -m colordaemon.service.webhook URL`.

A process of its own, since a name server or a peer that does not answer may take minutes.
"""

from __future__ import annotations

import sys
import urllib.request

from colordaemon import __version__


def post(url: str, body: bytes) -> int:
    """POST some JSON; returns the status. Raises OSError, also for a status of 400 and above."""
    headers = {"Content-Type": "application/json", "User-Agent": f"colordaemon/{__version__}"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  (the configuration checks it)
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return int(answer.status)


def main() -> None:
    try:
        post(sys.argv[1], sys.stdin.buffer.read())
    except OSError as error:
        sys.exit(f"webhook: {error}")


if __name__ == "__main__":
    main()
