"""Vertebrae and discs on sagittal T2 MR: which series a network sees, how, and what has to be true of its names.

As in CT, a volume runs from feet to head, front to back, and from the patient's right to left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from inference import engine, vertebrae, weights
from inference.datasets.labelled_mr import DISC, VERTEBRAE
from inference.linked_boxes import SliceBox
from inference.nets.unet import VertebraUNet
from inference.preprocess.sagittal import View
from inference.preprocess.windows import Window
from inference.vertebrae import Anatomy

NAME = "spine-mr-levels"
#: Of the values of a series: what is black, and what is white.
PERCENTILES = (1.0, 99.0)
WHITE = 1000
#: Brighter values are all the same.
BRIGHTEST = 1500
#: A sagittal image of the neck or of the back shows some of these. C1 has no body, and is hard to see on T2.
_CHAIN = (
    *(f"C{n}" for n in range(2, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
    "S1",
)
_DISCS = tuple(f"{upper}/{lower}" for upper, lower in zip(_CHAIN[:-1], _CHAIN[1:], strict=True))
#: S1 stands for the whole sacrum.
LEVELS = (*_CHAIN, *_DISCS)
#: From which to count, and what is counted: a single image does not tell T8 from T9.
C2, SACRUM, VERTEBRA, DISC_KIND = "C2", "S1", "vertebra", "disc"
VIEW = View(
    levels=LEVELS,
    kinds=tuple(DISC_KIND if "/" in level else level if level in (C2, SACRUM) else VERTEBRA for level in LEVELS),
    window=Window(WHITE / 2, WHITE),
    outside=0.0,
    gain=0.25,
    offset=80.0,
    noise=60.0,
)
#: Of the largest part of a vertebra in a slice: less is no body. The body lies in front of the others.
BODY_SHARE = 0.25
S1_MM = 28.0
#: Fewer than these do not show how a spine bends.
FEWEST_DISCS = 5
#: Of 96 lumbar test phantoms that meet no exclusion one bends by more, of 7 with scoliosis all (results of
#: lumbar-disc-mr). This is what lies in view, along a smooth curve: less than the angle of two vertebrae (Cobb 1948).
BEND_DEGREES = 5.0
#: The outermost slices cut vertebrae, so that small ones count; the sacrum reaches far down.
ANATOMY = Anatomy(
    view=VIEW,
    landmarks=("C2", "S1"),
    volume={"C": (1.0, 60.0), "T": (1.5, 120.0), "L": (4.0, 200.0), "S": (3.0, 500.0), "/": (0.2, 50.0)},
    reported=LEVELS,
)


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """Vertebrae and discs of a sagittal series under the names that the anatomy confirms."""

    #: uint8 (slices, rows, columns), from right to left, head to feet, front to back: the position in LEVELS plus one.
    labels: np.ndarray
    #: mm, (slice, row, column).
    spacing: tuple[float, float, float]
    #: What speaks against names.
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know: why there are no names, and what names cannot know.

        Papers 000 and 004 leave out patients with scoliosis.
        """
        found = list(self.notes)
        if any(level.startswith("L") for level in self.named):
            found.append(
                "lumbar vertebrae are counted from the sacrum: six or four of them, or a transitional one, would shift "
                "the names"
            )
        if self.bends:
            found.append(
                f"outside the validated range: the spine bends by {self.bend:.0f} degrees to the side, validated up to "
                f"{BEND_DEGREES:.0f}"
            )
        return tuple(found)

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The levels that have an outline: vertebrae from head to feet, then discs."""
        there = np.bincount(self.labels.ravel(), minlength=len(LEVELS) + 1)[1:] > 0
        return tuple(level for level, any_ in zip(LEVELS, there, strict=True) if any_)

    def mask(self, level: str) -> np.ndarray:
        """bool (slices, rows, columns) of one level."""
        return np.asarray(self.labels == 1 + LEVELS.index(level))

    def middle(self, level: str) -> int:
        """The slice through the middle of a named level."""
        area = self.mask(level).sum((1, 2))
        return int(round(float(np.average(np.arange(len(area)), weights=area))))

    def body(self, level: str) -> np.ndarray:
        """bool (rows, columns): the vertebral body in the middle slice, where the canal parts it from the arch.

        Of the sacrum what lies beside the disc above it.
        """
        shown = self.labels[self.middle(level)]
        mine = shown == 1 + LEVELS.index(level)
        if level == SACRUM:
            mine &= self._near(shown == 1 + LEVELS.index(_DISCS[-1]))
        parts, count = ndimage.label(mine)
        if not count:
            return np.asarray(mine)
        sizes = np.bincount(parts.ravel())[1:]
        large = 1 + np.flatnonzero(sizes >= BODY_SHARE * sizes.max())
        front = min(large, key=lambda part: float(np.nonzero(parts == part)[1].mean()))
        return np.asarray(parts == front)

    def _near(self, disc: np.ndarray) -> np.ndarray:
        """bool (rows, columns): what is nearer to the middle of a disc than S1 is high; everything without one."""
        if not disc.any():
            return ~disc
        away = (np.indices(disc.shape) - np.argwhere(disc).mean(0)[:, None, None]) * np.array(self.spacing[1:])[
            :, None, None
        ]
        return np.asarray(np.linalg.norm(away, axis=0) <= S1_MM)

    def disc(self, boxes: Sequence[SliceBox]) -> str | None:
        """The named disc that fills most of the boxes; None if none is in them."""
        counts = np.zeros(len(LEVELS) + 1, np.intp)
        for box in boxes:
            left, top, right, bottom = (max(round(edge), 0) for edge in box.edges)
            counts += np.bincount(self.labels[box.slice, top:bottom, left:right].ravel(), minlength=len(counts))
        discs = [level for level in LEVELS if "/" in level and counts[1 + LEVELS.index(level)]]
        return max(discs, key=lambda level: counts[1 + LEVELS.index(level)], default=None)

    def vertebra_behind(self, box: SliceBox) -> str | None:
        """The named vertebra at whose height, along the spine, the middle of a box lies; None beyond the last ones."""
        centres = self._bodies
        if len(centres) < 2:
            return None
        left, top, right, bottom = box.edges
        place = np.array([(top + bottom) / 2, (left + right) / 2]) * self.spacing[1:]
        along = np.gradient(np.array(list(centres.values())), axis=0)
        steps = np.linalg.norm(along, axis=1)
        away = ((place - np.array(list(centres.values()))) * along).sum(1) / steps
        nearest = int(np.abs(away).argmin())
        return list(centres)[nearest] if abs(away[nearest]) <= steps[nearest] else None

    @property
    def bends(self) -> bool:
        """Does the spine bend further than the validated ones?"""
        return self.bend is not None and self.bend > BEND_DEGREES

    @cached_property
    def bend(self) -> float | None:
        """Degrees by which the spine in view bends to the side, along a cubic through its discs; None with too few."""
        discs = [np.argwhere(self.mask(level)).mean(0) * self.spacing for level in self.named if "/" in level]
        if len(discs) < FEWEST_DISCS:
            return None
        places = np.array(discs)
        steps = np.linalg.norm(np.diff(places[:, 1:], axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        slopes = np.polyval(np.polyder(np.polyfit(along, places[:, 0], 3)), along)
        return float(np.ptp(np.degrees(np.arctan(slopes))))

    @cached_property
    def _bodies(self) -> dict[str, np.ndarray]:
        """Centres of the vertebral bodies from head to feet, (down, back) in mm."""
        bodies = {level: self.body(level) for level in self.named if "/" not in level}
        return {
            level: np.array(ndimage.center_of_mass(body)) * self.spacing[1:]
            for level, body in bodies.items()
            if body.any()
        }


def outline(net: VertebraUNet, values: np.ndarray, spacing: Sequence[float], mm: float) -> Outlines:
    """Outline and name the vertebrae and discs of a sagittal T2 series; `mm` is the network's voxel."""
    step, row, column = spacing
    found = vertebrae.locate(net, upright(thousandths(values)), (row, column, step), mm, ANATOMY)
    shape = (values.shape[1], values.shape[2], values.shape[0])
    named = np.zeros(shape, np.uint8)
    for level, one in found.named.items():
        named[one.box][one.inside] = 1 + LEVELS.index(level)
    return Outlines(labels=sagittal(named), spacing=(step, row, column), notes=found.notes)


def labels(structures: np.ndarray) -> np.ndarray:
    """A map of structures as in LabelledMR to positions in LEVELS plus one, uint8; what has no place there is 0."""
    table = np.zeros(256, np.uint8)
    for number, level in enumerate(LEVELS, start=1):
        upper, _, lower = level.partition("/")
        table[VERTEBRAE[upper] + (DISC if lower else 0)] = number
    return np.asarray(table[structures])


def upright(values: np.ndarray) -> np.ndarray:
    """Sagittal (right to left, head to feet, front to back) to (feet to head, front to back, right to left)."""
    return np.ascontiguousarray(values.transpose(1, 2, 0)[::-1])


def sagittal(values: np.ndarray) -> np.ndarray:
    """The way back from `upright`."""
    return np.ascontiguousarray(values[::-1].transpose(2, 0, 1))


def thousandths(values: np.ndarray) -> np.ndarray:
    """Values of a series in any unit to int16: 0 at its 1st, 1000 at its 99th percentile, not above 1500."""
    low, high = np.percentile(values, PERCENTILES)
    share = (values - low) / max(float(high - low), np.finfo(np.float32).tiny)
    return np.asarray(np.clip(WHITE * share, 0, BRIGHTEST).round().astype(np.int16))


def level_net(folder: Path, manifest: Mapping[str, Any], device: str) -> VertebraUNet:
    """The U-Net of a manifest, filled with its verified weights."""
    net = VertebraUNet(**manifest["networks"]["unet"]["arguments"])
    weights.fill(net, weights.load_tensors(folder, manifest), part="unet")
    return net.to(engine.choose_device(device)).eval()
