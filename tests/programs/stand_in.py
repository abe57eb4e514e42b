"""In place of the worker: colors nothing, loads nothing, and calls results as settings want it."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from colordaemon.convert.publish import result_name
from colordaemon.convert.routing import Routing
from colordaemon.service.messages import Failed, Fault, Finished, Order, Ready, Started


def main() -> None:
    with Connection(int(sys.argv[1])) as connection:
        routing: Routing = connection.recv()
        connection.send(Ready("a stand-in"))
        while True:
            try:
                order = connection.recv()
            except EOFError:
                break
            if isinstance(order, Order):
                _pretend(order, routing, connection)


def _pretend(order: Order, routing: Routing, connection: Connection) -> None:
    connection.send(Started(order.job))
    source, config = order.source, routing.config_for(order.source)
    target = order.folder / result_name(source, source.suffix, config)
    partial = order.folder / f"{order.tag}.partial"
    try:
        order.folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"colored " + source.read_bytes())
    except OSError as error:
        connection.send(Failed(order.job, Fault.MACHINE, str(error)))
    else:
        connection.send(Finished(order.job, partial, target, "", "done", ()))
