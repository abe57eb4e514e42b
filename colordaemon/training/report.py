"""What a run leaves behind: a row per epoch, curves, and pictures to look at."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from colordaemon.color import gray_to_lightness, lab_to_rgb
from colordaemon.network.checkpoint import write_durably
from colordaemon.network.model import ColorNet
from colordaemon.training.dataset import Crops, to_gray_and_ab
from colordaemon.training.metrics import ACCURACY_DISTANCE, Scores

COLUMNS = (
    "epoch",
    "pictures",
    "training_mse",
    "validation_mse",
    "gray_mse",
    "training_accuracy",
    "validation_accuracy",
    "gray_accuracy",
    "validation_chroma",
    "true_chroma",
)


class Report:
    """metrics.csv, curves.png and contact-NNN.png in a run's folder."""

    def __init__(self, folder: Path, samples: Crops) -> None:
        self.folder = folder
        self.last_line = ""
        self._samples = torch.stack([samples[i] for i in range(len(samples))])

    def add_epoch(
        self, epoch: int, pictures: int, trained: Scores, validated: Scores, best: bool
    ) -> None:
        """Append a row to metrics.csv, or replace the row of an epoch that was run again."""
        values = (
            epoch,
            pictures,
            trained.mse,
            validated.mse,
            validated.gray_mse,
            trained.accuracy,
            validated.accuracy,
            validated.gray_accuracy,
            validated.chroma,
            validated.true_chroma,
        )
        row = {column: f"{value:.6g}" for column, value in zip(COLUMNS, values, strict=True)}
        rows = [old for old in self._rows() if int(old["epoch"]) < epoch] + [row]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_durably(self.folder / "metrics.csv", text.getvalue().encode())
        self._draw_curves(rows)
        self.last_line = (
            f"epoch {epoch}: validation mse {validated.mse:.1f} (gray {validated.gray_mse:.1f}), "
            f"accuracy {validated.accuracy:.1%} (gray {validated.gray_accuracy:.1%}), "
            f"chroma {validated.chroma:.1f} of {validated.true_chroma:.1f}"
            + (", the best so far" if best else "")
        )

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
        write_durably(self.folder / f"contact-{epoch:03}.png", encoded.tobytes())

    def _rows(self) -> list[dict[str, str]]:
        try:
            with (self.folder / "metrics.csv").open(newline="") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def _draw_curves(self, rows: list[dict[str, str]]) -> None:
        from matplotlib.figure import Figure  # slow to import

        figure = Figure(figsize=(10, 4), layout="constrained")
        seen = [int(row["pictures"]) for row in rows]
        panels = (
            ("mse", "squared error, ab units²"),
            ("accuracy", f"share within {ACCURACY_DISTANCE:g} ab"),
        )
        for axes, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for side, style in (("training", "--"), ("validation", "-"), ("gray", ":")):
                axes.plot(seen, [float(row[f"{side}_{name}"]) for row in rows], style, label=side)
            axes.set(xlabel="pictures seen", ylabel=label)
            axes.legend()
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_durably(self.folder / "curves.png", picture.getbuffer())


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
