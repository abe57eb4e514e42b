"""Writes the results of a run: a row per epoch, curves, and contact sheets."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from colordaemon.color import gray_to_lightness, lab_to_rgb
from colordaemon.durable import replace_file
from colordaemon.evaluation.metrics import ACCURACY_DISTANCE, Scores
from colordaemon.network.model import ColorNet
from colordaemon.pictures.loader import to_gray_and_ab
from colordaemon.training.state import Run
from colordaemon.training.validate import Measured, Validation

log = logging.getLogger(__name__)

# Overfitting is when validation is this many epochs past its best, and ever since this much worse.
OVERFIT_EPOCHS = 3
OVERFIT_SHARE = 1.01


class MetricsLog:
    """metrics.csv, curves.png and contact-NNN.png in a run's folder.

    samples: pictures for the contact sheets, (N, 3, side, side) uint8 sRGB.
    """

    def __init__(self, folder: Path, samples: Tensor) -> None:
        self.folder = folder
        self.last_line = ""
        self._samples = samples

    def add_epoch(
        self, run: Run, training_loss: float, trained: Scores, judged: Validation, best: bool
    ) -> None:
        """Append a row to metrics.csv, or replace the row of an epoch that was run again."""
        row = {name: _cell(x) for name, x in _row(run, training_loss, trained, judged).items()}
        rows = [old for old in self.rows() if int(old["epoch"]) < run.epoch] + [row]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(row), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        replace_file(self.folder / "metrics.csv", text.getvalue().encode())
        self._draw_curves(rows)
        self.last_line = f"epoch {run.epoch}: validation {_in_words(judged.held_out)}"
        if judged.unseen:
            self.last_line += f"; unseen sources {_in_words(judged.unseen)}"
        if best:
            self.last_line += "; the best so far"
        warning = overfitting(rows)
        if warning:
            log.warning("%s", warning)

    def draw_contact_sheet(self, epoch: int, model: ColorNet, device: torch.device) -> None:
        """input | output | truth of the same validation pictures each epoch."""
        gray, _ = to_gray_and_ab(self._samples)
        model.eval()
        with torch.inference_mode():
            ab = model.predict(gray.to(device)).cpu()
        ab = nn.functional.interpolate(ab, gray.shape[-2:], mode="bicubic")
        output = lab_to_rgb(torch.cat((gray_to_lightness(gray), ab), dim=1))
        rows = torch.cat((gray.expand(-1, 3, -1, -1), output, self._samples / 255), dim=3)
        # Encoded in memory: cv2.imwrite only returns False when the disk is full.
        _, encoded = cv2.imencode(".png", cv2.cvtColor(_tile(rows), cv2.COLOR_RGB2BGR))
        replace_file(self.contact_sheet(epoch), encoded.tobytes())

    def contact_sheet(self, epoch: int) -> Path:
        return self.folder / f"contact-{epoch:03}.png"

    def rows(self) -> list[dict[str, str]]:
        """What metrics.csv holds so far."""
        try:
            with (self.folder / "metrics.csv").open(newline="") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def _draw_curves(self, rows: list[dict[str, str]]) -> None:
        from matplotlib.figure import Figure  # slow to import

        figure = Figure(figsize=(14, 4), layout="constrained")
        seen = [int(float(row["pictures"])) for row in rows]
        panels = (
            ("loss", "loss"),
            ("mse", "squared error, ab units²"),
            ("accuracy", f"share within {ACCURACY_DISTANCE:g} ab"),
        )
        for axes, (name, label) in zip(figure.subplots(1, 3), panels, strict=True):
            for side, style in (("training", "--"), ("validation", "-"), ("gray", ":")):
                if f"{side}_{name}" in rows[-1]:
                    values = [float(row[f"{side}_{name}"] or "nan") for row in rows]
                    # Dots, because one epoch makes no line.
                    axes.plot(seen, values, style, marker=".", label=side)
            axes.set(xlabel="pictures seen", ylabel=label)
            axes.legend()
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        replace_file(self.folder / "curves.png", picture.getbuffer())


def _row(
    run: Run, training_loss: float, trained: Scores, judged: Validation
) -> dict[str, float | None]:
    """A row of metrics.csv; missing figures are None."""
    held_out, decoding = judged.held_out, run.model.decoding
    validated = held_out.scores
    return {
        "epoch": run.epoch,
        "pictures": run.pictures_seen,
        "training_loss": training_loss,
        "validation_loss": held_out.loss,
        "training_mse": trained.mse,
        "validation_mse": validated.mse,
        "gray_mse": validated.gray_mse,
        "training_accuracy": trained.accuracy,
        "validation_accuracy": validated.accuracy,
        "gray_accuracy": validated.gray_accuracy,
        "validation_chroma": validated.chroma,
        "true_chroma": validated.true_chroma,
        "delta_e": held_out.delta_e,
        "delta_e_70": held_out.delta_e_70,
        "gray_delta_e": held_out.gray_delta_e,
        "colorfulness": held_out.colorfulness,
        "true_colorfulness": held_out.true_colorfulness,
        "blots": held_out.blots,
        "tuning_delta_e_70": judged.tuning_delta_e_70,
        **_of_unseen(judged.unseen),
        "temperature": decoding.temperature,
        "bin_share": decoding.bin_share,
        "certainty_from": decoding.certainty_from,
        "chroma_exponent": decoding.chroma_exponent,
        "chroma_gain": decoding.chroma_gain,
    }


def _of_unseen(measured: Measured | None) -> dict[str, float | None]:
    return {
        "unseen_delta_e": measured.delta_e if measured else None,
        "unseen_delta_e_70": measured.delta_e_70 if measured else None,
        "unseen_gray_delta_e": measured.gray_delta_e if measured else None,
        "unseen_chroma": measured.scores.chroma if measured else None,
        "unseen_true_chroma": measured.scores.true_chroma if measured else None,
        "unseen_colorfulness": measured.colorfulness if measured else None,
        "unseen_true_colorfulness": measured.true_colorfulness if measured else None,
        "unseen_blots": measured.blots if measured else None,
    }


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _in_words(measured: Measured) -> str:
    scores = measured.scores
    return (
        f"ΔE {measured.delta_e:.2f} (gray {measured.gray_delta_e:.2f}), at 70 % chroma "
        f"{measured.delta_e_70:.2f}, mse {scores.mse:.1f} (gray {scores.gray_mse:.1f}), chroma "
        f"{scores.chroma:.1f} of {scores.true_chroma:.1f}, colorfulness "
        f"{measured.colorfulness:.1f} of {measured.true_colorfulness:.1f}, blots "
        f"{measured.blots:.1%}"
    )


def overfitting(rows: Sequence[dict[str, str]]) -> str | None:
    """A warning if validation has been getting worse while training was still getting better."""
    validated = [float(row["validation_loss"]) for row in rows]
    trained = [float(row["training_loss"]) for row in rows]
    best = min(range(len(rows)), key=validated.__getitem__)
    past = len(rows) - 1 - best
    worse = min(validated[best + 1 :], default=0.0) > OVERFIT_SHARE * validated[best]
    if past < OVERFIT_EPOCHS or not worse or trained[-1] >= trained[best]:
        return None
    return (
        f"overfitting: since epoch {rows[best]['epoch']} the loss on validation pictures has risen "
        f"from {validated[best]:.4f} to {validated[-1]:.4f}, while on training pictures it fell "
        f"from {trained[best]:.4f} to {trained[-1]:.4f}; more pictures would help, more epochs not"
    )


def _tile(rows: Tensor, columns: int = 3) -> np.ndarray:
    """(N, 3, h, w) in about 0..1 to one (H, W, 3) uint8 picture with `columns` per line."""
    missing = -len(rows) % columns
    rows = torch.cat((rows, rows.new_ones(missing, *rows.shape[1:])))
    pixels = (rows.clamp(0, 1) * 255).round().byte()
    lines = torch.unflatten(pixels, 0, (-1, columns)).permute(
        0, 3, 1, 4, 2
    )  # (lines, h, columns, w, 3)
    tiled: np.ndarray = lines.flatten(2, 3).flatten(0, 1).numpy()
    return tiled
