"""Slip and herniation in mm and per cent, measured from the outlines of the two vertebral bodies beside a disc.

Outlines are bool (rows, columns) of one sagittal image: head to feet, front to back. Points are (down, back) in mm.
Paper 004 asks for these numbers as future work; slip and its grades after Meyerding 1932: the distance by which the
upper body stands before the lower one, in per cent of the depth of the lower one's upper endplate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

MEYERDING_PERCENT = 25.0  # per grade
SLIP_PERCENT = 5.0  # from here on a slip counts
HERNIATION_MM = 3.0  # and a herniation, behind the line between the corners of the bodies
#: Where a herniation is looked for: so far before and behind that line, and beyond its ends.
BEFORE_MM, BEHIND_MM, BEYOND_MM = 2.0, 12.0, 6.0
#: Of the brightness of the fluid there (its 90th percentile): darker is disc, or ligament, root and cortex, which are
#: thinner than LEAST_MM. Chosen with the others on phantoms that are in no test.
DARK, FLUID, LEAST_MM = 0.5, 90, 2.0


@dataclass(frozen=True, kw_only=True)
class Corners:
    """The corners of a vertebral body in a sagittal image, each (2,)."""

    front_top: np.ndarray
    back_top: np.ndarray
    front_bottom: np.ndarray
    back_bottom: np.ndarray


def corners(body: np.ndarray, spacing: tuple[float, float], axis: np.ndarray) -> Corners:
    """The corners of an outline: its points that reach furthest in the four diagonal directions of its own frame.

    `spacing` is mm between (rows, columns); `axis` (2,) points along the spine towards the feet, as from the middle of
    the body above to that of the body below. Raises ValueError for an empty outline.
    """
    points = np.argwhere(body) * np.array(spacing)
    if not len(points):
        raise ValueError("an outline without a pixel has no corners")
    down = axis / np.linalg.norm(axis)
    back = np.array([-down[1], down[0]])
    along = np.stack([points @ down, points @ back])
    middle, half = (along.max(1) + along.min(1)) / 2, np.maximum((along.max(1) - along.min(1)) / 2, 1e-6)
    scaled = (along - middle[:, None]) / half[:, None]

    def furthest(vertical: int, horizontal: int) -> np.ndarray:
        return np.asarray(points[int(np.argmax(vertical * scaled[0] + horizontal * scaled[1]))])

    return Corners(
        front_top=furthest(-1, -1),
        back_top=furthest(-1, 1),
        front_bottom=furthest(1, -1),
        back_bottom=furthest(1, 1),
    )


def slip(upper: Corners, lower: Corners) -> tuple[float, float]:
    """How far the upper body stands before the lower one: mm, and per cent of the lower one's upper endplate.

    Negative where it stands behind (retrolisthesis).
    """
    endplate = lower.back_top - lower.front_top
    depth = float(np.linalg.norm(endplate))
    forward = float((lower.back_top - upper.back_bottom) @ endplate / depth)
    return forward, 100 * forward / depth


def meyerding(percent: float) -> int:
    """The grade: 0 below 5 %, 1 below 25 %, and one more for every further 25 %; backwards the same."""
    return 1 + int(abs(percent) / MEYERDING_PERCENT) if abs(percent) >= SLIP_PERCENT else 0


def herniation(
    image: np.ndarray, spacing: tuple[float, float], upper: Corners, lower: Corners, axis: np.ndarray
) -> float | None:
    """How far a disc reaches behind the line between the back corners of its bodies: mm, 0 or more; `axis` as above.

    On a T2 image (rows, columns): what is dark and begins at that line. The outline of the disc will not do: networks
    leave out what was pushed out, of which they have seen little. None where it cannot be told from what lies behind,
    such as a dark cord, or reaches further than is looked.
    """
    down = axis / np.linalg.norm(axis)
    back = np.array([-down[1], down[0]])
    points = np.moveaxis(np.indices(image.shape), 0, -1) * np.array(spacing)
    height, corners_back = points @ down, [upper.back_bottom @ back, lower.back_top @ back]
    top = float(upper.back_bottom @ down)
    bottom = max(float(lower.back_top @ down), top + min(spacing) / 10)  # outlines may overlap
    behind = points @ back - np.interp(height, [top, bottom], corners_back)
    room = (behind > -BEFORE_MM) & (behind < BEHIND_MM) & (top - BEYOND_MM < height) & (height < bottom + BEYOND_MM)
    if not (room & (behind > 0)).any():
        return None
    dark = room & (image < DARK * np.percentile(image[room & (behind > 0)], FLUID))
    thick = np.ones([max(round(LEAST_MM / mm), 1) for mm in spacing])
    parts, _ = ndimage.label(ndimage.binary_opening(dark, thick))
    at_line = (behind > -BEFORE_MM) & (behind < 1) & (top - 1 < height) & (height < bottom + 1)
    disc = (parts > 0) & np.isin(parts, np.unique(parts[at_line]))
    reach = max(float(behind[disc].max(initial=0.0)), 0.0)
    return reach if reach < BEHIND_MM - max(spacing) else None
