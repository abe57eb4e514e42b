"""Colors a film on a cluster, slowly; for tests that kill it. Arguments: address, token, source,
folder for segments, and result. Says "busy" and the numbers of the processes that color."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colordaemon.cluster.admission import Terms
from colordaemon.cluster.cluster import Cluster
from colordaemon.cluster.film import FilmCluster
from colordaemon.config import ClusterSettings
from colordaemon.film.colorize import color_film
from colordaemon.network.checkpoint import BUILT_IN_SHA256
from colordaemon.work_context import WorkContext


def main() -> None:
    from films import Painter
    from test_cluster import SlowestPainter, job_of

    address, token, source, work, done = sys.argv[1:]
    settings = ClusterSettings(
        address=address,
        token_file=Path(token),
        node_address=address.split(":")[0],
        device="cpu",
        cpus=1,
        memory_mib=1200,
        node_seconds=10.0,
    )
    cluster = Cluster(settings, hang_seconds=100.0)

    class Saying(WorkContext):
        def machines(self, found: Mapping[str, object]) -> None:
            if any(member.doing for member in cluster.members):
                pids = [str(member.started.get()) for member in cluster.members if member.is_here]
                print("busy", *pids, flush=True)

    context = Saying()
    load: Any = SlowestPainter
    there = FilmCluster(cluster, Terms(load, None, BUILT_IN_SHA256, str(Painter())), context)
    color_film(
        job_of(Path(source)),
        Path(done),
        Painter(),  # type: ignore[arg-type]
        context,
        work=Path(work),
        elsewhere=there,
    )


if __name__ == "__main__":
    main()
