"""What keeps a GPU busy, tested on a processor as far as that goes, and on a GPU if there is one.

On a processor a stand-in queues work and records graphs: results come only when they are asked
for, and a recorded function is played back into the same memory each time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from films import decode, make_film, pictures, planes
from torch import Tensor
from torch.nn import functional

from colordaemon.color import PixelCode, chroma_planes
from colordaemon.config import FilmSettings
from colordaemon.errors import ModelError
from colordaemon.film import gpu_chroma, prediction, segment
from colordaemon.film.analysis import AnalyzedFrame
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.film.gpu_chroma import ChromaPainter
from colordaemon.film.gpu_smoothing import GpuSmoother, SmoothingMath
from colordaemon.film.prediction import Predictions
from colordaemon.film.smoothing import Sample, Smoother
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import probe_film
from colordaemon.network import cuda
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.cuda import Arriving, Graphs, Traffic, fuse
from colordaemon.network.model import ColorNet, Look, fold_norms

CPU = torch.device("cpu")


class Queue(Traffic):
    """Traffic of a device that queues its work; knows what has been waited for."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(CPU)
        self.queues = True
        self.arriving: list[Late] = []

    def download(self, *tensors: Tensor) -> Arriving:
        self.arriving.append(Late(tensors))
        return self.arriving[-1]


class Late(Arriving):
    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__(tensors)
        self.arrived = False

    def get(self) -> tuple[np.ndarray, ...]:
        self.arrived = True
        return super().get()


class Recorder:
    """Plays functions back into memory of their own, as a CUDA graph does. asked: all shapes."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.played = 0
        self.error = error

    def __call__(
        self, function: cuda.Function, given: Tensor
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        self.asked.append(tuple(given.shape))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        results = tuple(result.clone() for result in function(given))

        def play() -> None:
            self.played += 1
            for result, now in zip(results, function(given), strict=True):
                result.copy_(now)

        return play, results


def twice(batch: Tensor) -> tuple[Tensor, ...]:
    return 2 * batch, batch.sum(dim=1)


def with_graphs(model: ColorNet, recorder: Recorder, batch_size: int = 4) -> Colorizer:
    colorizer = Colorizer(copy.deepcopy(model), CPU, torch.float32, batch_size=batch_size)
    colorizer._graphs = Graphs(recorder)
    return colorizer


def gray(count: int, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(count, 1, height, width)


def test_a_shape_that_comes_often_is_recorded_once() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for _ in range(6):
        batch = torch.rand(4, 3)
        assert all(map(torch.equal, graphs(twice, batch), twice(batch)))
    assert recorder.asked == [(4, 3)] and recorder.played == 4


def test_short_batches_share_the_graph_of_the_next_power_of_two() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for count in (5, 8, 6, 7, 3, 1):
        batch = torch.rand(count, 3)
        assert all(map(torch.equal, graphs(twice, batch), twice(batch)))
    assert recorder.asked == [(8, 3)] and recorder.played == 2


def test_no_batch_is_filled_beyond_the_most() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for count in (5, 6, 6, 5):
        batch = torch.rand(count, 3)
        assert all(map(torch.equal, graphs(twice, batch, 6), twice(batch)))
    assert recorder.asked == [(6, 3)] and recorder.played == 2


def test_results_stay_when_a_graph_is_played_again() -> None:
    graphs = Graphs(Recorder())
    batches = [torch.rand(2, 3) for _ in range(6)]
    said = [graphs(twice, batch) for batch in batches]
    for batch, (double, _) in zip(batches, said, strict=True):
        assert torch.equal(double, 2 * batch)


def test_the_graphs_of_many_shapes_are_not_kept_for_ever() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for width in (*range(1, 20), 1):
        for _ in range(cuda.USUAL):
            graphs(twice, torch.rand(1, width))
    assert len(graphs._graphs) == cuda._MOST_GRAPHS
    assert recorder.asked == [(1, width) for width in range(1, 20)]
    for _ in range(cuda._PATIENCE):  # photos of all sizes by turns: recording would cost more
        graphs(twice, torch.rand(1, 1))
    assert recorder.asked.count((1, 1)) == 2


def test_a_driver_that_records_nothing_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(RuntimeError("operation not permitted when stream is capturing"))
    graphs = Graphs(recorder)
    for _ in range(6):
        batch = torch.rand(2, 3)
        assert all(map(torch.equal, graphs(twice, batch), twice(batch)))
    assert len(recorder.asked) == 1
    assert caplog.text.count("no CUDA graphs") == 1


def test_the_network_says_the_same_with_graphs(tiny_model: ColorNet) -> None:
    recorder = Recorder()
    plain = Colorizer(copy.deepcopy(tiny_model), CPU, torch.float32, batch_size=4)
    graphed = with_graphs(tiny_model, recorder)
    for count in (4, 4, 3, 4, 2, 11):
        pictures = gray(count)
        for one, other in zip(plain.guess(pictures), graphed.guess(pictures), strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert recorder.played


def test_graphs_are_dropped_when_memory_runs_out(
    tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    colorizer = with_graphs(tiny_model, recorder)
    pictures = gray(4)
    for _ in range(4):
        expected = colorizer.predict_ab(pictures)
    look = ColorNet.look

    def small(model: ColorNet, luma: Tensor) -> Look:
        if len(luma) > 2:
            raise torch.OutOfMemoryError
        return look(model, luma)

    monkeypatch.setattr(ColorNet, "look", small)
    torch.testing.assert_close(colorizer.predict_ab(pictures), expected, atol=1e-3, rtol=0)
    assert colorizer.batch_size == 2
    assert colorizer._graphs is not None and len(colorizer._graphs._graphs) == 0
    recorder.error = torch.OutOfMemoryError()  # also while one is recorded
    torch.testing.assert_close(colorizer.predict_ab(pictures), expected, atol=1e-3, rtol=0)
    assert colorizer.batch_size == 1


def test_usual_shapes_are_recorded_before_work_begins(tiny_model: ColorNet) -> None:
    recorder = Recorder()
    colorizer = with_graphs(tiny_model, recorder)
    colorizer.warm_up()
    sizes = [colorizer.network_size(*shape) for shape in ((3, 4), (9, 16))]
    assert recorder.asked == [(4, 1, *size) for size in sizes]


def test_fused_layers_say_the_same(tiny_model: ColorNet) -> None:
    calls = 0

    def conv_relu(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:
        nonlocal calls
        calls += 1
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    model = fold_norms(copy.deepcopy(tiny_model))
    fused = copy.deepcopy(model)
    fuse(fused, conv_relu)
    pictures = gray(2)
    with torch.inference_mode():
        plain, other = model.look(pictures), fused.look(pictures)
    assert torch.equal(plain.ab, other.ab) and torch.equal(plain.sure, other.sure)
    assert all(map(torch.equal, plain.features, other.features))
    spec = tiny_model.spec
    assert calls == sum(map(len, spec.encoder)) + 2 * len(spec.decoder)


def test_a_switch_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.VARIABLE, "graphs, streams")
    assert not cuda.wanted("graphs") and not cuda.wanted("streams") and cuda.wanted("fusing")
    monkeypatch.setenv(cuda.VARIABLE, "graphics")
    with pytest.raises(ModelError, match="found graphics, expected streams"):
        cuda.wanted("graphs")


def analyzed(cuts: str) -> list[AnalyzedFrame]:
    """A frame for each letter: c begins a shot."""
    chance = np.random.default_rng(3)
    return [
        AnalyzedFrame(
            number,
            letter == "c",
            np.zeros((32, 48), np.uint8),
            chance.random((64, 96), np.float32),
            None,
        )
        for number, letter in enumerate(cuts)
    ]


def test_a_batch_is_begun_before_the_last_one_is_waited_for(
    tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    colorizer = Colorizer(tiny_model, CPU, torch.float32, batch_size=4)
    frames = analyzed("c-----c----------")
    plain = Predictions(iter(frames), colorizer)
    monkeypatch.setattr(prediction, "Traffic", Queue)
    queued = Predictions(iter(frames), colorizer)
    traffic = queued._traffic
    assert isinstance(traffic, Queue)
    for frame in frames:
        assert queued.next is frame and plain.next is frame
        assert len(list(queued.ahead())) == len(list(plain.ahead()))
        one, other = plain.take(), queued.take()
        assert other.frame is frame
        assert one.sample is not None and other.sample is not None
        assert np.array_equal(one.sample.ab, other.sample.ab)
        assert np.array_equal(one.sample.sure, other.sample.sure)
    assert queued.next is None and len(traffic.arriving) == 5
    assert all(late.arrived for late in traffic.arriving)


def test_only_one_batch_is_ahead(tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "Traffic", Queue)
    colorizer = Colorizer(tiny_model, CPU, torch.float32, batch_size=4)
    queued = Predictions(iter(analyzed("c" + 15 * "-")), colorizer)
    queued.take()
    assert isinstance(queued._traffic, Queue)
    assert [late.arrived for late in queued._traffic.arriving] == [True, False]


def test_colors_that_are_no_numbers_are_noticed_when_they_arrive(
    tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "Traffic", Queue)
    with torch.no_grad():
        tiny_model.decoder.head.bias.fill_(float("nan"))  # type: ignore[union-attr]
    colorizer = Colorizer(tiny_model, CPU, torch.float32, batch_size=4)
    with pytest.raises(ModelError, match="no finite numbers"):
        Predictions(iter(analyzed("c---")), colorizer).take()


@pytest.mark.parametrize("pixels", [64 * 48, 3 * 64 * 48, 1 << 30])
def test_chroma_made_in_groups_is_that_of_each_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    monkeypatch.setattr(gpu_chroma, "_PIXELS", pixels)
    monkeypatch.setattr(gpu_chroma, "_MOST", 4)
    info = probe_film(make_film(tmp_path / "film.mkv", 11, size=(64, 48)))
    chance, traffic = np.random.default_rng(1), Queue(CPU)
    painter = ChromaPainter[int](traffic)
    found, expected = list[tuple[int, np.ndarray]](), list[np.ndarray]()
    with FilmReader(info) as reader:
        for number, frame in enumerate(reader):
            ab = chance.uniform(-60, 60, (2, 12, 16)).astype(np.float32)
            code = replace(info.code, interlaced=number in (5, 6))
            found += painter.feed(number, frame, ab, code)
            luma = torch.from_numpy(frame.luma)[None, None]
            expected.append(chroma_planes(luma, torch.from_numpy(ab)[None], code)[0].numpy())
            assert sum(not late.arrived for late in traffic.arriving) <= 1
    found += painter.finish()
    assert [number for number, _ in found] == list(range(11))
    for (_, chroma), right in zip(found, expected, strict=True):
        assert np.array_equal(chroma, right)


def test_groups_shrink_when_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    info = probe_film(make_film(tmp_path / "film.mkv", 16, size=(64, 48)))
    room, sizes = 2, list[int]()

    def small(luma: Tensor, ab: Tensor, code: PixelCode) -> Tensor:
        if len(luma) > room:
            raise torch.OutOfMemoryError
        sizes.append(len(luma))
        return chroma_planes(luma, ab, code)

    monkeypatch.setattr(gpu_chroma, "chroma_planes", small)
    monkeypatch.setattr(gpu_chroma, "_PIXELS", 8 * 64 * 48)
    painter, ab = ChromaPainter[int](Queue(CPU)), np.zeros((2, 12, 16), np.float32)
    with FilmReader(info) as reader:
        frames = list(reader)
    found = [one for n, frame in enumerate(frames) for one in painter.feed(n, frame, ab, info.code)]
    assert [number for number, _ in [*found, *painter.finish()]] == list(range(16))
    assert sizes == 8 * [2]
    assert caplog.text.count("fewer frames at a time") == 3  # of eight, and twice of four
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        [painter.feed(0, frame, ab, info.code) for frame in frames]


def color(
    source: Path, model: ColorNet, work: Path, device: torch.device = CPU, **more: Any
) -> list[bytes]:
    """The packets of a colored film."""
    dtype = torch.float32 if device == CPU else torch.float16
    colorizer = Colorizer(copy.deepcopy(model), device, dtype, batch_size=4)
    settings = FilmSettings(codec="ffv1", segment_seconds=2.0, **more)
    result = work / "done.mkv"
    color_film(plan_film(source, settings), result, colorizer)
    with av.open(str(result)) as film:
        return [bytes(packet) for packet in film.demux(video=0)]


def test_a_film_on_a_device_that_queues_is_the_same_film(
    tmp_path: Path, tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_film(tmp_path / "film.mkv", pictures(30), size=(64, 48), rate=10)
    # The formulas of a GPU on both ways: those of a processor round a few samples otherwise.
    monkeypatch.setattr(
        gpu_chroma,
        "frame_chroma",
        lambda frame, ab, code: chroma_planes(
            torch.from_numpy(frame.luma)[None, None], ab[None], code
        )[0].numpy(),
    )
    plain = color(source, tiny_model, tmp_path)
    for module in (prediction, segment):
        monkeypatch.setattr(module, "Traffic", Queue)
    assert color(source, tiny_model, tmp_path) == plain


def samples(count: int, size: tuple[int, int] = (48, 64)) -> list[Sample]:
    """A texture that moves and gets brighter, with noise and other colors every now and then."""
    chance = np.random.default_rng(4)
    height, width = size
    whole = chance.random((height + 40, width + 40), np.float32)
    whole = np.asarray(cv2.GaussianBlur(whole, (0, 0), 2.5))
    whole = 30 + 190 * (whole - whole.min()) / np.ptp(whole)
    made = []
    for number in range(count):
        luma = whole[number % 20 :, number % 17 :][:height, :width] * (0.8 + 0.005 * number)
        luma = luma + chance.normal(0, 2, size)
        ab = chance.uniform(-40, 40, (2, 1, 1)) + chance.normal(0, 3, (2, *size))
        sure = chance.random(size, np.float32)
        made.append(Sample(luma.clip(0, 255).astype(np.uint8), ab.astype(np.float32), sure))
    return made


def smoothed(smoother: Smoother, fed: Sequence[Sample]) -> np.ndarray:
    smoother.remember(fed[0])
    done = []
    for number, one in enumerate(fed[1:-3], 1):
        done += smoother.feed(one, cut=number == 20)
    for one in fed[-3:]:
        smoother.follow(one)
    return np.stack(done + smoother.finish(beyond=True))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("size", "most"), [((48, 64), 0.5), ((40, 17), 0.5), ((8, 64), 0.5), ((1, 16), 3.0)]
)
def test_a_gpu_smooths_as_the_processor_does(
    device: str, size: tuple[int, int], most: float
) -> None:
    fed = samples(130, size)
    math = SmoothingMath(torch.device(device))
    if device == "cpu":
        math._for_motions, math._for_averages = Graphs(Recorder()), Graphs(Recorder())
    expected, found = smoothed(Smoother("motion"), fed), smoothed(GpuSmoother(math), fed)
    apart = np.abs(found - expected)
    assert found.shape == expected.shape == (127, 2, *size)
    # OpenCV moves pictures by thirty-seconds of a pixel; where trust ends, that shows.
    assert np.quantile(apart, 0.99) < most and apart.mean() < 0.1 * most
    before = np.stack([one.ab for one in fed[1:-2]])
    assert np.abs(expected - before).mean() > 3  # there was something to do


def test_smoothing_stays_on_the_processor_unless_both_wish_it() -> None:
    math = SmoothingMath(CPU)
    assert type(math.smoother("motion", "gpu")) is Smoother  # no GPU
    math.traffic = Queue(CPU)
    assert type(math.smoother("motion", "cpu")) is Smoother
    assert type(math.smoother("ema", "gpu")) is Smoother
    assert type(math.smoother("motion", "gpu")) is GpuSmoother


@pytest.mark.gpu
@pytest.mark.parametrize("without", ["", "streams", "graphs", "fusing", "streams,graphs,fusing"])
def test_a_gpu_says_the_same_colors_with_any_switch(
    tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    exact = Colorizer(copy.deepcopy(tiny_model), CPU, torch.float32, batch_size=4)
    monkeypatch.setenv(cuda.VARIABLE, without)
    device = torch.device("cuda")
    colorizer = Colorizer(copy.deepcopy(tiny_model), device, torch.float16, batch_size=4)
    traffic = Traffic(device)
    for count in (4, 3, 4, 4, 4, 3):
        pictures = gray(count)
        uploaded = traffic.upload(pictures.numpy())
        ab, _ = traffic.download(*colorizer.begin(uploaded)).get()
        torch.testing.assert_close(torch.from_numpy(ab), exact.predict_ab(pictures), atol=1, rtol=0)


@pytest.mark.gpu
def test_a_gpu_computes_the_same_bits_with_graph_and_without(tiny_model: ColorNet) -> None:
    colorizer = Colorizer(tiny_model, torch.device("cuda"), torch.float16, batch_size=8)
    pictures = gray(5)
    said = [colorizer.predict_ab(pictures).cpu() for _ in range(cuda.USUAL + 3)]
    assert colorizer._graphs is not None and len(colorizer._graphs._graphs) == 1
    assert all(torch.equal(said[0], one) for one in said[1:])


@pytest.mark.gpu
@pytest.mark.parametrize("smooth_on", ["cpu", "gpu"])
def test_a_film_has_the_same_bytes_each_time_on_a_gpu(
    tmp_path: Path, tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch, smooth_on: str
) -> None:
    source = make_film(tmp_path / "film.mkv", pictures(70), size=(64, 48), rate=10)
    device = torch.device("cuda")

    def colored() -> list[bytes]:
        return color(source, tiny_model, tmp_path, device, smooth_on=smooth_on)

    first = colored()
    on_gpu = chroma_of(tmp_path / "done.mkv")
    assert colored() == first
    monkeypatch.setenv(cuda.VARIABLE, "streams,graphs")
    assert colored() == first
    color(source, tiny_model, tmp_path, stride=1)
    on_cpu = chroma_of(tmp_path / "done.mkv")
    assert max(np.abs(a - b).mean() for a, b in zip(on_gpu, on_cpu, strict=True)) < 2


def chroma_of(path: Path) -> list[np.ndarray]:
    return [plane.astype(int) for frame in decode(path) for plane in planes(frame)[1:]]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_goes_to_a_gpu_and_back_is_the_same(dtype: type[np.generic]) -> None:
    traffic = Traffic(torch.device("cuda"))
    chance = np.random.default_rng(0)
    arrays: Sequence[np.ndarray] = [
        chance.integers(0, 200, (2, 300, 400)).astype(dtype) for _ in range(20)
    ]
    for array in arrays:
        array.setflags(write=False)  # as the planes of decoded pictures are
    arriving = [traffic.download(traffic.upload([array])) for array in arrays]
    for array, late in zip(arrays, arriving, strict=True):
        assert np.array_equal(late.get()[0][0], array)
