"""What a run leaves behind: a row per epoch, curves, and pictures to look at."""

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
from colordaemon.judging.metrics import ACCURACY_DISTANCE, Scores
from colordaemon.network.checkpoint import write_durably
from colordaemon.network.model import ColorNet
from colordaemon.pictures.crops import Crops, to_gray_and_ab
from colordaemon.training.run import Run
from colordaemon.training.validate import Validation

log = logging.getLogger(__name__)

COLUMNS = (
    "epoch",
    "pictures",
    "training_loss",
    "validation_loss",
    "training_mse",
    "validation_mse",
    "gray_mse",
    "training_accuracy",
    "validation_accuracy",
    "gray_accuracy",
    "validation_chroma",
    "true_chroma",
    "delta_e",
    "delta_e_70",
    "gray_delta_e",
    "temperature",
    "bin_share",
    "chroma_gain",
)
# Overfitting is when validation is this many epochs past its best, and ever since this much worse.
OVERFIT_EPOCHS = 3
OVERFIT_SHARE = 1.01


class Report:
    """metrics.csv, curves.png and contact-NNN.png in a run's folder."""

    def __init__(self, folder: Path, samples: Crops) -> None:
        self.folder = folder
        self.last_line = ""
        self._samples = torch.stack([samples[i] for i in range(len(samples))])

    def add_epoch(
        self, run: Run, training_loss: float, trained: Scores, judged: Validation, best: bool
    ) -> None:
        """Append a row to metrics.csv, or replace the row of an epoch that was run again."""
        epoch, validated, decoding = run.epoch, judged.scores, run.model.decoding
        values = (
            epoch,
            run.pictures_seen,
            training_loss,
            judged.loss,
            trained.mse,
            validated.mse,
            validated.gray_mse,
            trained.accuracy,
            validated.accuracy,
            validated.gray_accuracy,
            validated.chroma,
            validated.true_chroma,
            judged.delta_e,
            judged.delta_e_70,
            judged.gray_delta_e,
            decoding.temperature,
            decoding.bin_share,
            decoding.chroma_gain,
        )
        row = {column: f"{value:.6g}" for column, value in zip(COLUMNS, values, strict=True)}
        rows = [old for old in self.rows() if int(old["epoch"]) < epoch] + [row]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_durably(self.folder / "metrics.csv", text.getvalue().encode())
        self._draw_curves(rows)
        self.last_line = (
            f"epoch {epoch}: validation ΔE {judged.delta_e:.2f} (gray {judged.gray_delta_e:.2f}), "
            f"at 70 % chroma {judged.delta_e_70:.2f}, mse {validated.mse:.1f} (gray "
            f"{validated.gray_mse:.1f}), chroma {validated.chroma:.1f} of "
            f"{validated.true_chroma:.1f}" + (", the best so far" if best else "")
        )
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
        write_durably(self.contact_sheet(epoch), encoded.tobytes())

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
        seen = [int(row["pictures"]) for row in rows]
        panels = (
            ("loss", "loss"),
            ("mse", "squared error, ab units²"),
            ("accuracy", f"share within {ACCURACY_DISTANCE:g} ab"),
        )
        for axes, (name, label) in zip(figure.subplots(1, 3), panels, strict=True):
            for side, style in (("training", "--"), ("validation", "-"), ("gray", ":")):
                if f"{side}_{name}" in COLUMNS:
                    values = [float(row[f"{side}_{name}"]) for row in rows]
                    # Dots, because one epoch makes no line.
                    axes.plot(seen, values, style, marker=".", label=side)
            axes.set(xlabel="pictures seen", ylabel=label)
            axes.legend()
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_durably(self.folder / "curves.png", picture.getbuffer())


def overfitting(rows: Sequence[dict[str, str]]) -> str | None:
    """In words, if validation has been getting worse while training went on getting better."""
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
