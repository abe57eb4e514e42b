"""A worker that asks for more memory than it may have, and knows the refusal for what it is."""

from __future__ import annotations

import resource

from colordaemon.service.coloring import _is_out_of_memory
from colordaemon.service.worker import limit_memory


def main() -> None:
    limit_memory(1024)
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 1536 << 20
    import torch

    for take in (lambda: bytearray(3 << 30), lambda: torch.ones(3 << 30, dtype=torch.uint8)):
        try:
            take()
        except Exception as error:
            assert _is_out_of_memory(error), repr(error)
        else:
            raise AssertionError("taken")
