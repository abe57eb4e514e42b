"""Evaluations of miniatures on small pictures: what must hold for any model, and the command."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
import torch
from conftest import LABELS
from processes import run
from rich.console import Console
from torch import Tensor

from colordaemon.color import gray_to_lightness
from colordaemon.config import ModelSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.evaluation import command
from colordaemon.evaluation.metrics import chroma, squared_error
from colordaemon.evaluation.pictures import (
    Evaluation,
    SavedPredictions,
    choose_pictures,
    evaluate_pictures,
    gray_view,
    predict_each,
)
from colordaemon.evaluation.scores import Row, RowSum, chroma_factor, read_pixels, truth_of
from colordaemon.evaluation.tables import show
from colordaemon.network.checkpoint import save_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet, Look
from colordaemon.pictures.dataset import Picture, find_pictures, split

CPU = torch.device("cpu")


class Painter(Colorizer):
    """Says what a function of lightness (N, 1, h, w) says, at half size as a network does."""

    def __init__(self, model: ColorNet, paint: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model, CPU, torch.float32)
        self.paint = paint

    def _look(self, gray: Tensor) -> Look:
        ab = torch.nn.functional.avg_pool2d(self.paint(gray_to_lightness(gray)), 2)
        return Look(ab, torch.ones_like(ab[:, :1]), ())


def by_brightness(gain: float) -> Callable[[Tensor], Tensor]:
    """Dark is blue, bright is yellow, as in the pictures, though not as strong there."""
    return lambda light: gain * torch.cat((0 * light, 20 * torch.tanh((light - 50) / 20)), dim=1)


@pytest.fixture
def pictures(pictures_folder: Path) -> list[Picture]:
    return find_pictures(pictures_folder)[::4]


@pytest.fixture
def colorizer(tiny_model: ColorNet) -> Colorizer:
    return Colorizer(tiny_model, CPU, torch.float32)


@pytest.fixture
def model(tmp_path: Path, tiny_model: ColorNet) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(path, tiny_model, {"data_fingerprint": "0123"})
    return path


def evaluate(pictures: list[Picture], *colorizers: Colorizer) -> Evaluation:
    return evaluate_pictures(pictures, [(f"model {i}", c) for i, c in enumerate(colorizers)])


def rows(evaluation: Evaluation) -> dict[str, Row]:
    return {row.name: row for row in evaluation.tables[0].rows}


def pixels_of(picture: Picture) -> np.ndarray:
    pixels = cv2.imread(str(picture.path))
    assert pixels is not None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


# What must hold for any model


def test_truth_itself_is_perfect_in_every_column(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    for table in evaluate(pictures, colorizer).tables:
        truth = table.rows[-1]
        assert (truth.mse, truth.accuracy, truth.delta_e, truth.chroma_share) == (0, 1, 0, 1)
        assert (truth.auc, truth.auc_rebalanced) == pytest.approx((100, 100))
        assert truth.psnr == pytest.approx(58.92, abs=0.01)


def test_gray_scores_what_can_be_worked_out_from_the_truth(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    gray = rows(evaluate(pictures, colorizer))["left gray"]
    truths = [truth_of(pixels_of(picture), CPU) for picture in pictures]
    errors = [t.ab.square().mean().item() for t in truths]
    near = [(t.ab.square().sum(dim=1) < 100).float().mean().item() for t in truths]
    assert gray.mse == pytest.approx(np.mean(errors), rel=1e-5)
    assert gray.accuracy == pytest.approx(np.mean(near))
    assert gray.chroma == gray.chroma_share == 0
    assert gray.colorfulness == pytest.approx(0, abs=1e-3)
    assert gray.delta_e_70 is None


def test_a_mean_color_beats_gray_and_truth_beats_both(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    for table in evaluate(pictures, colorizer).tables:
        gray, mean, *_, truth = table.rows
        for better, worse in ((mean, gray), (truth, mean)):
            assert better.mse < worse.mse
            assert better.psnr > worse.psnr
            assert better.delta_e < worse.delta_e
            assert better.auc > worse.auc


@pytest.mark.parametrize("gain", [0.05, 0.37, 2, 11])
def test_scaling_the_chroma_of_a_model_does_not_change_its_delta_e_at_70(
    pictures: list[Picture], tiny_model: ColorNet, gain: float
) -> None:
    painters = [Painter(tiny_model, by_brightness(g)) for g in (1, gain)]
    one, other = (rows(evaluate(pictures, p))["model 0"] for p in painters)
    assert one.delta_e_70 == pytest.approx(other.delta_e_70, abs=2e-3)
    assert abs(one.delta_e - other.delta_e) > 0.1


def test_delta_e_at_70_is_taken_at_70_percent_of_the_true_chroma(
    pictures: list[Picture], tiny_model: ColorNet
) -> None:
    found = rows(evaluate(pictures, Painter(tiny_model, by_brightness(2))))["model 0"]
    assert found.chroma_factor is not None and found.chroma_share is not None
    assert found.chroma_factor * found.chroma_share == pytest.approx(0.7)
    again = rows(evaluate(pictures, Painter(tiny_model, by_brightness(2 * found.chroma_factor))))
    assert again["model 0"].chroma_share == pytest.approx(0.7, rel=1e-3)
    assert again["model 0"].delta_e == pytest.approx(found.delta_e_70, abs=2e-3)


def test_a_model_that_knows_more_scores_better(
    pictures: list[Picture], tiny_model: ColorNet
) -> None:
    knowing = Painter(tiny_model, lambda light: torch.cat((0.1 * light - 5, 0.5 * light - 25), 1))
    wrong = Painter(tiny_model, lambda light: torch.cat((0.5 * light - 25, 5 - 0.1 * light), 1))
    good, bad = list(rows(evaluate(pictures, knowing, wrong)).values())[2:4]
    assert good.mse < 1 and good.accuracy == 1 and good.delta_e < 1
    assert good.chroma_share == pytest.approx(1, abs=0.02)
    assert bad.mse > good.mse and bad.auc < good.auc and bad.psnr < good.psnr
    assert bad.delta_e_70 is not None and good.delta_e_70 is not None
    assert bad.delta_e_70 > good.delta_e_70


def test_every_label_has_a_table_and_all_pictures_have_the_first(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    whole, *labels = evaluate(pictures, colorizer).tables
    assert [table.label for table in labels] == sorted(LABELS)
    assert whole.pictures == len(pictures) == sum(table.pictures for table in labels)
    for number, row in enumerate(whole.rows):
        parts = [(table.pictures, table.rows[number]) for table in labels]
        for name in ("mse", "accuracy", "auc", "psnr", "delta_e", "chroma", "colorfulness"):
            mean = sum(count * getattr(part, name) for count, part in parts) / len(pictures)
            assert getattr(row, name) == pytest.approx(mean), name


def test_one_label_needs_no_table_of_its_own(pictures: list[Picture], colorizer: Colorizer) -> None:
    assert len(evaluate(pictures[:2], colorizer).tables) == 1


def test_gray_pictures_can_be_evaluated(tmp_path: Path, tiny_model: ColorNet) -> None:
    (tmp_path / "old").mkdir()
    cv2.imwrite(str(tmp_path / "old" / "1.png"), np.arange(2304, dtype=np.uint8).reshape(48, 48))
    found = rows(evaluate(find_pictures(tmp_path), Painter(tiny_model, by_brightness(1))))
    assert found["left gray"].psnr == pytest.approx(58.92, abs=0.01)
    assert found["truth"].delta_e_70 is None
    assert found["model 0"].delta_e_70 == pytest.approx(0, abs=1e-2)


def test_the_model_is_scored_on_what_the_production_path_gives(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    mse, strength = [], []
    for picture in pictures:
        truth = truth_of(pixels_of(picture), CPU)
        ab = colorizer.predict_ab(gray_view(pixels_of(picture)))
        size = truth.ab.shape[-2:]
        ab = torch.nn.functional.interpolate(ab, size, mode="bicubic", align_corners=False)
        mse.append(squared_error(ab, truth.ab).item())
        strength.append(chroma(ab).item())
    found = rows(evaluate(pictures, colorizer))["model 0"]
    assert found.mse == pytest.approx(np.mean(mse), rel=1e-3)  # kept as float16 meanwhile
    assert found.chroma == pytest.approx(np.mean(strength), rel=1e-3)


def test_pictures_of_one_size_share_a_batch_and_keep_their_order(colorizer: Colorizer) -> None:
    grays = [torch.rand(1, 1, *size) for size in ((40, 48), (48, 40), (40, 48), (48, 48), (40, 48))]
    seen: list[int] = []
    predict = colorizer.predict_ab

    def counted(gray: Tensor) -> Tensor:
        seen.append(len(gray))
        return predict(gray)

    colorizer.predict_ab = counted  # type: ignore[method-assign]
    together = predict_each(colorizer, grays)
    assert seen == [3, 1, 1]
    for gray, ab in zip(grays, together, strict=True):
        torch.testing.assert_close(ab, predict(gray), atol=1e-3, rtol=1e-4)


def test_guesses_come_back_in_any_order(colorizer: Colorizer) -> None:
    grays = [torch.rand(1, 1, 40, width) for width in (40, 52, 64)]
    with SavedPredictions(colorizer) as guesses:
        guesses.extend(grays[:2])
        guesses.extend(grays[2:])
        for number in (2, 0, 1):
            ab = colorizer.predict_ab(grays[number])
            found = guesses.at_size(number, (ab.shape[2], ab.shape[3]))
            torch.testing.assert_close(found, ab, atol=0.04, rtol=1e-3)


def test_large_pictures_are_compared_small_and_small_ones_as_they_are() -> None:
    for size, expected in (
        ((600, 900), (256, 384)),
        ((900, 600), (384, 256)),
        ((100, 144), (100, 144)),
        ((500, 5000), (102, 1024)),
        ((3, 5000), (1, 1024)),
    ):
        truth = truth_of(np.zeros((*size, 3), np.uint8), CPU)
        assert truth.lab.shape == (1, 3, *expected)
    assert gray_view(np.zeros((600, 900, 3), np.uint8)).shape == (1, 1, 512, 768)


def test_a_picture_that_broke_since_it_was_checked_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"face/1\.png could be read before"):
        read_pixels(Picture("face", "face/1.png", tmp_path / "1.png", False))


def test_every_picture_weighs_the_same_whatever_its_size() -> None:
    sums = RowSum("gray", None)
    for side, level in ((8, 0.0), (64, 1.0)):
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[..., 0] = int(255 * level)
        truth = truth_of(pixels, CPU)
        sums.add(torch.zeros_like(truth.ab), truth)
    assert sums.row(sums).accuracy == 0.5


def test_gray_output_has_no_factor() -> None:
    assert chroma_factor(0.0, 15.0) is None
    assert chroma_factor(5.0, 15.0) == pytest.approx(2.1)


def test_a_stop_that_was_asked_for_ends_an_evaluation(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted, match="stopped after 0 of 12"):
        evaluate_pictures(pictures, [("model", colorizer)], stop=stop)


# Which pictures


def test_held_out_pictures_are_those_that_training_leaves_aside(pictures_folder: Path) -> None:
    chosen, _ = choose_pictures(pictures_folder, None, 0.25, None)
    assert chosen == split(find_pictures(pictures_folder), 0.25)[1]


def test_a_sample_is_spread_evenly_and_always_the_same(pictures_folder: Path) -> None:
    sample, _ = choose_pictures(pictures_folder, None, None, 9)
    assert [p.label for p in sample] == [label for label in LABELS for _ in range(3)]
    assert choose_pictures(pictures_folder, None, None, 9)[0] == sample
    assert len(choose_pictures(pictures_folder, None, None, 1000)[0]) == 48


def test_unreadable_pictures_are_named_and_skipped(
    pictures_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(pictures_folder, tmp_path / "pictures"))
    (folder / "face" / "03.png").write_bytes(b"no picture")
    good, bad = choose_pictures(folder, "face", None, None)
    assert (len(good), bad) == (15, ["face/03.png"])
    assert "face/03.png: skipped" in caplog.text


def test_nothing_to_evaluate_is_an_error_that_says_why(
    pictures_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no label 'plane'"):
        choose_pictures(pictures_folder, "plane", None, None)
    with pytest.raises(DataError, match="training holds none"):
        choose_pictures(pictures_folder, None, 1e-9, None)
    (tmp_path / "label").mkdir()
    (tmp_path / "label" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 1 pictures can be read"):
        choose_pictures(tmp_path, None, None, None)


def test_a_model_is_missed_before_any_picture_is_read(tmp_path: Path) -> None:
    settings = ModelSettings(file=tmp_path / "none.safetensors", device="cpu")
    with pytest.raises(ModelError, match="no such model file"):
        command.evaluate_folder(tmp_path / "nowhere", settings)


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = ModelSettings(device="cpu")
    with pytest.raises(ConfigError, match="results cannot be written here"):
        command.evaluate_folder(tmp_path, settings, output=tmp_path / "file" / "out")


# What is shown


def text_of(evaluation: Evaluation, width: int | None = None) -> str:
    console = Console(record=True, force_terminal=width is not None, width=width, file=sys.stderr)
    show(evaluation, console)
    return console.export_text()


def test_plain_text_has_a_line_for_every_row(pictures: list[Picture], colorizer: Colorizer) -> None:
    lines = text_of(evaluate(pictures, colorizer)).splitlines()
    assert lines[0].strip() == "all pictures: 12"
    for name in ("left gray", "mean color", "model 0", "truth"):
        found = [line for line in lines if line.startswith(name)]
        assert len(found) == 1 + len(LABELS)
        assert {len(line[len(name) :].split()) for line in found} == {11}


def test_a_terminal_of_80_columns_shows_every_figure_whole(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    text = text_of(evaluate(pictures, colorizer), width=80)
    assert "…" not in text and "58.92" in text and "100.0" in text


def test_names_with_brackets_are_shown_as_they_are(
    pictures: list[Picture], colorizer: Colorizer
) -> None:
    found = evaluate_pictures(pictures[:2], [("runs/[red]/model", colorizer)])
    assert "runs/[red]/model" in text_of(found)


# The command


def test_the_command_prints_tables_and_leaves_json_and_a_contact_sheet(
    pictures_folder: Path, model: Path, tmp_path: Path
) -> None:
    shard, out = tmp_path / "in" / "shard.zip", tmp_path / "new" / "out"
    shard.parent.mkdir()
    with zipfile.ZipFile(shard, "w") as opened:
        for path in sorted(pictures_folder.rglob("*.png"))[::2]:
            opened.write(path, path.relative_to(pictures_folder))
        opened.writestr("face/broken.png", b"no picture")
    result = run("evaluate", shard.parent, "--model", model, "--against", model, "--device", "cpu",
                 "--json", out / "scores.json", "-o", out)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "all pictures: 24" in result.stdout and "landscape: 8" in result.stdout
    assert "face/broken.png: skipped" in result.stderr
    written = json.loads((out / "scores.json").read_text())
    assert written["pictures"] == 24
    assert written["unreadable"] == ["face/broken.png"]
    assert [entry["file"] for entry in written["models"]] == [str(model)] * 2
    assert written["models"][0]["data_fingerprint"] == "0123"
    assert set(written["versions"]) == {"colordaemon", "python", "torch"}
    scored = written["tables"][0]["rows"]
    assert [row["name"] for row in scored] == [
        "left gray", "mean color", str(model), str(model), "truth"
    ]  # fmt: skip
    assert scored[2] == scored[3]
    sheet = cv2.imread(str(out / "contact.png"))
    assert sheet is not None and sheet.shape == (28 + 6 * 160, 9 * 160 + 24, 3)


def test_errors_are_one_line_and_have_the_codes_of_the_other_commands(
    tmp_path: Path, pictures_folder: Path, model: Path
) -> None:
    cv2.imwrite(str(tmp_path / "loose.png"), np.zeros((8, 8, 3), np.uint8))
    for arguments, code, message in (
        ((tmp_path, "--model", model), 1, "no pictures found in its subfolders or zip shards"),
        ((pictures_folder, "--model", tmp_path / "none"), 78, "no such model file"),
        ((pictures_folder, "--pictures", 0), 2, "greater than or equal to 1"),
    ):
        result = run("evaluate", *arguments, "--device", "cpu")
        assert result.returncode == code
        assert message in result.stderr and "Traceback" not in result.stderr
