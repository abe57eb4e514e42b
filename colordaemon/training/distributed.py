"""The processes that train one model together, as torchrun starts them; usually only one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from colordaemon.errors import ConfigError

# The others wait for the leader while it validates.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Team:
    """rank: which of `size` processes this one is, from 0, the leader; only that one writes files.

    device: where this process computes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are averaged over all processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model)

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process wants to stop, and the longest time, so that all do the same."""
        if self.size == 1:
            return stop, seconds
        said = torch.tensor([float(stop), seconds], dtype=torch.float64, device=self.device)
        distributed.all_reduce(said, distributed.ReduceOp.MAX)
        stopping, longest = said.tolist()  # waits for the GPU
        return bool(stopping), longest

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join_team(device: torch.device) -> Iterator[Team]:
    """Connect to the other processes by the variables that torchrun sets; without them, run alone.

    Raises ConfigError where there are more processes on a machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(device)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs; start "
                "as many processes as there are GPUs"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    package = logging.getLogger("colordaemon")
    before = package.level
    if rank:
        package.setLevel(logging.ERROR)  # the leader says it all
    try:
        yield Team(device, rank, size)
    finally:
        package.setLevel(before)
        distributed.destroy_process_group()
