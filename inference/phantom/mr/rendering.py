"""From a specification to images: labels of both stacks of slices, then each series, with the truth about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.phantom.mr import canal, column, neck, trunk
from inference.phantom.mr.acquisition import acquire
from inference.phantom.mr.canvas import Canvas
from inference.phantom.mr.course import course_of
from inference.phantom.mr.sampling import generators
from inference.phantom.mr.signal import signals
from inference.phantom.mr.specification import Acquisition, MRPhantomSpec, Stack
from inference.phantom.mr.tissue import Tissue

PARTS = 3  # thin layers that share a slice
GAIN, HIGHEST = 2200, 4095


@dataclass(frozen=True)
class Labels:
    """A stack of slices as labels, without what folds in from beyond it."""

    #: uint8 (slices, PARTS, rows, columns).
    values: np.ndarray
    tissues: Sequence[Tissue]
    #: By label: the part of the truth it belongs to.
    parts: Sequence[str]


@dataclass(frozen=True)
class Image:
    """One series."""

    acquisition: Acquisition
    #: int16 (slices, rows, columns), 0 to HIGHEST.
    values: np.ndarray


@dataclass(frozen=True)
class RenderedMR:
    """A phantom as its series show it."""

    spec: MRPhantomSpec
    #: By plane.
    labels: dict[str, Labels]
    images: tuple[Image, ...]


def render(spec: MRPhantomSpec) -> RenderedMR:
    """Compute the images of a phantom. Pure: same specification, same pixels."""
    rng, labels, images = generators(spec), {}, []
    for plane in ("sagittal", "axial"):
        series = [a for a in spec.scan.acquisitions if a.plane == plane]
        stack = spec.scan.sagittal if plane == "sagittal" else spec.scan.axial
        margin = (
            max(round(a.fold * stack.shape[1]) if a.phase == "COL" else 0 for a in series),
            max(round(a.fold * stack.shape[2]) if a.phase == "ROW" else 0 for a in series),
        )
        whole = paint(spec, plane, margin)
        for one in series:
            seen = _cropped(whole.values, stack, one, margin)
            shown = acquire(seen, signals(whole.tissues, one, spec.scan.field), one, spec.scan, rng[one.kind])
            images.append(Image(one, np.clip(np.rint(shown * GAIN), 0, HIGHEST).astype(np.int16)))
        inside = whole.values[:, :, margin[0] : margin[0] + stack.shape[1], margin[1] : margin[1] + stack.shape[2]]
        labels[plane] = Labels(inside, whole.tissues, whole.parts)
    return RenderedMR(spec, labels, tuple(images))


def paint(spec: MRPhantomSpec, plane: str, margin: tuple[int, int] = (0, 0)) -> Labels:
    """Labels of one stack, with `margin` rows and columns more at each edge."""
    stack = spec.scan.sagittal if plane == "sagittal" else spec.scan.axial
    slices, rows, columns = (n + 2 * m for n, m in zip(stack.shape, (0, *margin), strict=True))
    thin = (np.arange(PARTS) - (PARTS - 1) / 2) * stack.thickness / PARTS
    depth = (_steps(slices, stack.spacing[0])[:, None] + thin).ravel()
    down, across = _steps(rows, stack.spacing[1]), _steps(columns, stack.spacing[2])
    cx, cy, cz = stack.centre
    if plane == "sagittal":
        x, (y, z) = cx + depth, np.meshgrid(cy + across, cz - down)
    else:
        sin, cos = math.sin(stack.pitch), math.cos(stack.pitch)
        along, back = np.meshgrid(depth, down, indexing="ij")
        x, y, z = cx + across, cy + back * cos - along * sin, cz + back * sin + along * cos
    points = [v.ravel().astype(np.float32) for v in (x, y, z)]
    canvas = Canvas(points[0], points[1], points[2], course_of(spec.vertebrae))
    (neck if spec.region == "cervical" else trunk).paint(canvas, spec)
    canal.paint(canvas, spec)
    column.paint_discs(canvas, spec)
    column.paint_vertebrae(canvas, spec)
    values = canvas.labels if plane == "sagittal" else np.ascontiguousarray(canvas.labels.T)
    return Labels(values.reshape(slices, PARTS, rows, columns), canvas.tissues, canvas.parts)


def affine(spec: MRPhantomSpec, plane: str) -> np.ndarray:
    """(4, 4): (slice, row, column) of a voxel's centre to LPS mm, with the table's offset."""
    stack = spec.scan.sagittal if plane == "sagittal" else spec.scan.axial
    sin, cos = math.sin(stack.pitch), math.cos(stack.pitch)
    axes = [(1, 0, 0), (0, 0, -1), (0, 1, 0)] if plane == "sagittal" else [(0, -sin, cos), (0, cos, sin), (1, 0, 0)]
    matrix = np.eye(4)
    for index, (axis, step, count) in enumerate(zip(axes, stack.spacing, stack.shape, strict=True)):
        matrix[:3, index] = np.array(axis) * step
        matrix[:3, 3] -= matrix[:3, index] * (count - 1) / 2
    matrix[:3, 3] += np.array(stack.centre) + np.array(spec.scan.table)
    return matrix


def _steps(count: int, step: float) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * step


def _cropped(values: np.ndarray, stack: Stack, one: Acquisition, margin: tuple[int, int]) -> np.ndarray:
    """What a series sees: more than its field of view only in its phase direction, and only if it folds in."""
    kept = [
        round(one.fold * stack.shape[1]) if one.phase == "COL" else 0,
        round(one.fold * stack.shape[2]) if one.phase == "ROW" else 0,
    ]
    (top, side), (rows, columns) = [m - k for m, k in zip(margin, kept, strict=True)], values.shape[2:]
    return values[:, :, top : rows - top, side : columns - side]
