"""What keeps a GPU from waiting: copies beside the computing, graphs, fewer passes over memory.

Python starts work on a GPU and goes on before it is done. So nothing here waits, except
`Arriving.get`. On a CPU everything is done at once, and nothing is copied.

Kernels are never chosen by timing them (cudnn.benchmark): a film would get other bytes every time.
COLORDAEMON_WITHOUT names what is switched off, with commas between: to measure what each brings
(benchmarks/gpu.sh), and for a card on which one of them makes trouble.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from colordaemon.errors import ModelError
from colordaemon.network.model import ColorNet

log = logging.getLogger(__name__)

Switch = Literal["streams", "graphs", "fusing"]
SWITCHES: tuple[Switch, ...] = ("streams", "graphs", "fusing")
VARIABLE = "COLORDAEMON_WITHOUT"
_MOST_GRAPHS = 8  # each keeps the memory of its shape; a film has one, and short batches
USUAL = 3  # from the third time on, a shape has a graph
_PATIENCE = 100  # calls until a shape that gave way to others may have a graph again
_WARM_UPS = 2  # calls before a graph is recorded: libraries choose kernels in the first


def wanted(switch: Switch) -> bool:
    """Raises ModelError for names in COLORDAEMON_WITHOUT that are no switches."""
    found = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    if unknown := sorted(found - set(SWITCHES)):
        raise ModelError(f"{VARIABLE}: found {', '.join(unknown)}, expected {', '.join(SWITCHES)}")
    return switch not in found


class Arriving:
    """Tensors on their way into this process's memory."""

    def __init__(self, tensors: Iterable[Tensor], event: torch.cuda.Event | None = None) -> None:
        self._tensors, self._event = tuple(tensors), event

    def get(self) -> tuple[np.ndarray, ...]:
        """They as arrays; here the GPU is waited for."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return tuple(tensor.numpy() for tensor in self._tensors)


class Traffic:
    """Copies between this process and the device where it computes.

    On a GPU they go through pinned memory, which torch keeps and uses again once what it held is
    no longer needed, and in two streams beside that of the computing. `queues`: work is only
    started, and its result arrives later.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.queues = device.type == "cuda"
        self._up: Any = None
        self._down: Any = None
        if self.queues and wanted("streams"):
            self._up, self._down = _stream(device), _stream(device)

    def upload(self, arrays: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Arrays of one shape, one after the other (N, ...) on the device, to be computed with in
        the current stream."""
        if self.device.type == "cpu":
            return torch.from_numpy(np.stack(list(arrays)))
        dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, pin_memory=True)
        for target, array in zip(pinned.numpy(), arrays, strict=True):
            target[...] = array
        with self._beside(self._up):
            there = pinned.to(self.device, non_blocking=True)
        if self._up is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self._up)
            there.record_stream(computing)
        return there

    def download(self, *tensors: Tensor) -> Arriving:
        """What the current stream will have computed."""
        if self.device.type == "cpu":
            return Arriving(tensors)
        if self._down is not None:
            self._down.wait_stream(torch.cuda.current_stream(self.device))
        with self._beside(self._down):
            pinned = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
            for target, tensor in zip(pinned, tensors, strict=True):
                target.copy_(tensor, non_blocking=True)
                if self._down is not None:
                    tensor.record_stream(self._down)
            # Who waits for it sleeps, and leaves the core to the encoder.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
        return Arriving(pinned, event)

    def _beside(self, stream: Any) -> AbstractContextManager[Any]:
        return nullcontext() if stream is None else torch.cuda.stream(stream)


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


Function = Callable[[Tensor], tuple[Tensor, ...]]
Recorder = Callable[[Function, Tensor], tuple[Callable[[], None], tuple[Tensor, ...]]]


class Graphs:
    """A function of a batch (N, ...), recorded once for each shape that comes often and played
    back: its hundred kernels are started as one.

    Batches are filled up to a power of two, or to the most, with graph and without: so that few
    shapes come, and that the same kernels compute a picture whether its shape has a graph yet or
    not. The function must be always the same one, and treat the pictures of a batch apart.
    recorder: None: nothing is recorded. Not to be shared by threads.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._graphs: OrderedDict[
            tuple[int, ...], tuple[Tensor, Callable[[], None], tuple[Tensor, ...]]
        ] = OrderedDict()

    def __call__(
        self, function: Function, batch: Tensor, most: int = 1 << 30
    ) -> tuple[Tensor, ...]:
        """The function's results for the batch, in memory of their own. most: pictures at once."""
        count = len(batch)
        shape = (max(count, min(most, _filled(count))), *batch.shape[1:])
        self._seen[shape] += 1
        if shape in self._graphs or (self._recorder and self._seen[shape] >= USUAL):
            graph = self._graphs.get(shape) or self._record(function, shape, batch)
            if graph is not None:
                self._graphs.move_to_end(shape)
                given, play, results = graph
                given[:count].copy_(batch)
                play()
                return tuple(result[:count].clone() for result in results)
        return tuple(result[:count] for result in function(filled_up(batch, shape[0])))

    def drop(self) -> None:
        """Forget all graphs, and so give their memory back."""
        self._graphs.clear()
        self._seen.clear()

    def _record(
        self, function: Function, shape: tuple[int, ...], batch: Tensor
    ) -> tuple[Tensor, Callable[[], None], tuple[Tensor, ...]] | None:
        assert self._recorder is not None
        while len(self._graphs) >= _MOST_GRAPHS:
            oldest, _ = self._graphs.popitem(last=False)
            self._seen[oldest] = -_PATIENCE
        given = filled_up(batch, shape[0]).clone()
        try:
            play, results = self._recorder(function, given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # also of drivers, which say nothing more precise
            log.warning("no CUDA graphs, the network runs without: %s", error)
            self.drop()
            self._recorder = None
            return None
        self._graphs[shape] = given, play, results
        return self._graphs[shape]


def filled_up(batch: Tensor, count: int) -> Tensor:
    """A batch (N, ...) with its last picture repeated until there are `count`."""
    missing = count - len(batch)
    return torch.cat((batch, *[batch[-1:]] * missing)) if missing else batch


def _filled(count: int) -> int:
    return 1 << (count - 1).bit_length()


def cuda_recorder() -> Recorder:
    """Records CUDA graphs that share their memory: the results of one are copied before another
    one is played."""
    pool = torch.cuda.graph_pool_handle()

    def record(function: Function, given: Tensor) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        aside = _stream(given.device)
        aside.wait_stream(torch.cuda.current_stream(given.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                function(given)
        torch.cuda.current_stream(given.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            results = function(given)
        return graph.replay, results

    return record


def graphs_for(device: torch.device) -> Graphs | None:
    """None on a CPU, where nothing is gained."""
    if device.type != "cuda":
        return None
    return Graphs(cuda_recorder() if wanted("graphs") else None)


class FusedConv(nn.Module):
    """A convolution, its bias and what is below zero cut off, in one pass over memory, not three.

    fused: cuDNN's, as `torch.cudnn_convolution_relu` takes its arguments.
    """

    def __init__(self, conv: nn.Conv2d, fused: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self._fused = conv, fused

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        return self._fused(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )


def fuse(model: ColorNet, fused: Callable[..., Tensor]) -> None:
    """Put `FusedConv` in place of all convolutions of a folded model that a ReLU follows."""
    model.encoder.activation = nn.Identity()
    for stage in model.encoder.stages:
        assert isinstance(stage, nn.ModuleList)
        for number, layer in enumerate(stage):
            stage[number] = _fused(layer, fused)
    for block in model.decoder.modules():
        if isinstance(block, nn.Sequential):
            for number, layer in enumerate(block):  # a convolution, nothing, a ReLU, and again
                is_conv = isinstance(layer, nn.Conv2d)
                block[number] = _fused(layer, fused) if is_conv else nn.Identity()


def _fused(layer: nn.Module, fused: Callable[..., Tensor]) -> FusedConv:
    assert isinstance(layer, nn.Conv2d)
    return FusedConv(layer, fused)


@torch.inference_mode()
def fuse_on(model: ColorNet, device: torch.device, dtype: torch.dtype) -> None:
    """As `fuse`, on a GPU whose cuDNN can do it."""
    if device.type != "cuda" or not wanted("fusing"):
        return
    fused = torch.cudnn_convolution_relu
    picture = torch.ones(1, 8, 32, 32, device=device, dtype=dtype)
    picture, weight = (
        tensor.contiguous(memory_format=torch.channels_last)
        for tensor in (picture, picture[..., :3, :3].expand(8, -1, -1, -1) / 64)
    )
    bias = torch.linspace(-2, 2, 8, device=device, dtype=dtype)
    try:
        said = fused(picture, weight, bias, (1, 1), (1, 1), (1, 1), 1)
        expected = functional.conv2d(picture, weight, bias, padding=1).relu()
        if not torch.allclose(said, expected, atol=0.05):  # bfloat16 has steps of 0.02
            raise RuntimeError("its results are wrong")
    except RuntimeError as error:
        log.warning("cuDNN fuses no layers, the network runs without: %s", error)
        return
    fuse(model, fused)
