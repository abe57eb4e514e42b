"""The process that one function is called in: `python -m colordaemon.bench FD`; see `process`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

from colordaemon.bench.process import Ran, device_peak_mib, peak_mib
from colordaemon.errors import ColordaemonError


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    connection = Connection(int(sys.argv[1]))
    function, arguments = connection.recv()
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    try:
        connection.send(Ran(function(*arguments), peak_mib(), device_peak_mib()))
    except ColordaemonError as error:
        connection.send(error)
    except Exception:
        traceback.print_exc()
        _end(1)
    _end(0)


def _end_with_parent(connection: Connection) -> None:
    """Nothing more is sent, so what comes next is the end of the parent."""
    with suppress(EOFError, OSError):
        connection.recv()
    _end(1)


def _end(status: int) -> None:
    """At once: threads of libraries that are still there could hold up the usual way."""
    sys.stderr.flush()
    os._exit(status)


main()
