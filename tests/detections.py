"""Boxes drawn and found, for tests of what measures them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.evaluation.detection import Boxes, Image

CLASSES = ("disc", "herniation", "slip")
NAN = float("nan")


def boxes(edges: Sequence[Sequence[float]], labels: Sequence[str], levels: Sequence[str] | None = None) -> Boxes:
    return Boxes(
        edges=np.array(edges, float).reshape(-1, 4),
        labels=np.array(labels, str),
        levels=np.array(levels or [""] * len(labels), str),
    )


def image(truth: Boxes, found: Boxes, scores: Sequence[float], patient: str = "p") -> Image:
    return Image(patient=patient, truth=truth, found=found, scores=np.array(scores, float))


def square(left: float, top: float = 0.0, side: float = 10.0) -> list[float]:
    return [left, top, left + side, top + side]


NOTHING = boxes([], [])
