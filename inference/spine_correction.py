"""Boxes of cord lesions on T2, judged again by T1 and fat-suppressed T2 at the same place (paper 000's future work)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inference import spine_signals
from inference.calibrated import logits
from inference.linked_boxes import SliceBox
from inference.spine_findings import LEAST, Found
from inference.spine_mr import LESIONS
from inference.spine_signals import Grid

#: What a box of a lesion is, whatever its class.
REAL = ("false", "real")


def features(series: Mapping[str, Grid], boxes: Sequence[SliceBox]) -> dict[str, np.ndarray]:
    """Contrasts of boxes in every sequence, and what the detector said of each, (n,)."""
    places = np.array([(box.slice, *box.edges) for box in boxes], float).reshape(-1, 5)
    said = np.array([box.label for box in boxes])
    return {
        **spine_signals.contrasts(series, places),
        "detector probability": logits(np.array([box.probability for box in boxes])),
        **{f"detector {label}": (said == label).astype(float) for label in LESIONS},
    }


def judged_and_others(boxes: Sequence[SliceBox]) -> tuple[list[SliceBox], list[SliceBox]]:
    """The boxes whose signals are looked at, and the rest."""
    judged = [box.label in LESIONS and box.probability >= LEAST for box in boxes]
    return [b for b, chosen in zip(boxes, judged, strict=True) if chosen], [
        b for b, chosen in zip(boxes, judged, strict=True) if not chosen
    ]


def as_described(series: Mapping[str, Grid], one: Found) -> bool | None:
    """Whether a lesion looks on T1 and T2 as paper 000's table 2 says; None for what is none, and without T1."""
    if one.label not in LESIONS or "T1" not in series:
        return None
    found = spine_signals.contrasts(series, np.array([(one.key.slice, *one.key.edges)], float))
    return spine_signals.as_described(one.label, {key: float(values[0]) for key, values in found.items()})


def corrected(
    fitted: Mapping[str, Mapping[str, Any]], series: Mapping[str, Grid], boxes: Sequence[SliceBox]
) -> list[SliceBox]:
    """The same boxes: those of lesions with the class and the probability that their signals give them.

    `fitted` has "real" and "kind" as `spine_signals.fit` gives them. `series` has "T2", in whose slices the boxes are,
    and companions; where none of them covers a box, for herniations, and for what is improbable anyway, the detector's
    word stands.
    """
    lesions, others = judged_and_others(boxes)
    if not lesions or len(series) < 2:
        return list(boxes)
    measured = features(series, lesions)
    real = spine_signals.probabilities(fitted["real"], measured)[:, REAL.index("real")]
    kind = spine_signals.probabilities(fitted["kind"], measured)
    judged = [
        replace(box, probability=float(p), label=fitted["kind"]["classes"][int(of.argmax())])
        if np.isfinite(p) and np.isfinite(of).all()
        else box
        for box, p, of in zip(lesions, real, kind, strict=True)
    ]
    return [*judged, *others]
