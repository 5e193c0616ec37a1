"""What is to be found in each image of a phantom: boxes of discs and lesions, and a map of the structures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.ndimage import find_objects

from inference.datasets.labelled_mr import CANAL, CORD, DISC, VERTEBRAE, ImageBox
from inference.disc_measures import HERNIATION_MM
from inference.phantom.mr.column import frame
from inference.phantom.mr.measurement import Measured, excess, measure
from inference.phantom.mr.rendering import PARTS, Image, Labels, RenderedMR
from inference.phantom.mr.specification import Stack

SACRUM, COCCYX = 26, 27  # as in SPINEPS
#: A slice shows a disc when it holds this share of the largest cut through it, and a lesion or the pushed-out part of
#: a disc from this area on.
DISC_SHARE, SMALLEST_MM2 = 0.35, 6.0


def measurements(phantom: RenderedMR) -> dict[str, Measured]:
    """Every mobile disc of a phantom, by level."""
    return {disc.level: measure(phantom.spec, disc) for disc in phantom.spec.discs if disc.upper[0] != "S"}


def boxes(phantom: RenderedMR, image: Image) -> tuple[ImageBox, ...]:
    """Boxes of one series: in a lumbar study every disc (paper 004), in a cervical one herniations and lesions (000).

    A disc is labelled by what its slice shows: a herniation only where it reaches 3 mm beyond the bodies. Discs that
    the edge of the image cuts have no box.
    """
    labels = phantom.labels[image.acquisition.plane]
    found = [*_discs(phantom, image, labels), *_lesions(phantom, image, labels)]
    return tuple(sorted(found, key=lambda box: (box.slice, box.top, box.left)))


def structures(phantom: RenderedMR, image: Image) -> np.ndarray:
    """uint8 map (slices, rows, columns) of the middle of each slice, moved as the patient had."""
    labels = phantom.labels[image.acquisition.plane]
    values = np.array([_structure(part) for part in labels.parts], np.uint8)
    down, across = (round(p) for p in _shift(phantom, image))
    return np.roll(values[labels.values[:, PARTS // 2]], (down, across), (1, 2))


def _structure(part: str) -> int:
    kind, _, rest = part.partition(":")
    if kind in ("disc", "hernia"):
        return DISC + _structure(rest.split("/")[0])
    if kind in ("cord", "lesion"):
        return CORD
    if kind[:1] == "S":
        return SACRUM
    return {"": 0, "canal": CANAL, "Co1": COCCYX, "Co2": COCCYX, "Co3": COCCYX}.get(kind) or VERTEBRAE.get(kind, 0)


def _stack(phantom: RenderedMR, image: Image) -> Stack:
    scan = phantom.spec.scan
    return scan.sagittal if image.acquisition.plane == "sagittal" else scan.axial


def _shift(phantom: RenderedMR, image: Image) -> tuple[float, float]:
    """Pixels by which the patient had moved, (down, across)."""
    _, row, column = _stack(phantom, image).spacing
    return image.acquisition.shift[0] / row, image.acquisition.shift[1] / column


def _majority(labels: Labels, names: Sequence[Sequence[str]]) -> np.ndarray:
    """uint8 (slices, rows, columns): 1 + the position in `names` of the parts that fill most of a voxel, or 0."""
    number = {name: index for index, group in enumerate(names, start=1) for name in group}
    values = np.array([number.get(part, 0) for part in labels.parts], np.uint8)
    first, second, third = (values[labels.values[:, part]] for part in range(PARTS))
    return np.where((first == second) | (first == third), first, np.where(second == third, second, 0)).astype(np.uint8)


def _objects(majority: np.ndarray, count: int) -> Iterator[tuple[int, int, tuple[slice, slice], int]]:
    """(slice, index of the object, its rows and columns, its pixels) of everything in a map."""
    for index, plane in enumerate(majority):
        areas = np.bincount(plane.ravel(), minlength=count + 1)
        for number, place in enumerate(find_objects(plane, count)):
            if place is not None:
                yield index, number, place, int(areas[number + 1])


def _discs(phantom: RenderedMR, image: Image, labels: Labels) -> Iterator[ImageBox]:
    levels = [disc.level for disc in phantom.spec.discs if disc.upper[0] != "S"]
    names = [(f"disc:{level}", f"hernia:{level}") for level in levels]
    majority, shift = _majority(labels, names), _shift(phantom, image)
    objects = list(_objects(majority, len(levels)))
    largest = {n: max(area for _, m, _, area in objects if m == n) for n in {n for _, n, _, _ in objects}}
    known = measurements(phantom)
    shown = _herniated_slices(phantom, image, labels, known)
    for index, number, place, area in objects:
        level = levels[number]
        cut = any(side.start == 0 or side.stop == n for side, n in zip(place, majority.shape[1:], strict=True))
        label = "slip" if known[level].label == "slip" else "herniation" if index in shown[level] else "disc"
        wanted = phantom.spec.region == "lumbar" or label == "herniation"
        if wanted and not cut and area >= DISC_SHARE * largest[number]:
            yield _box(index, place, shift, (label, level))


def _herniated_slices(
    phantom: RenderedMR, image: Image, labels: Labels, known: dict[str, Measured]
) -> dict[str, set[int]]:
    """By disc, the slices of a series in which its herniation counts."""
    stack, spec = _stack(phantom, image), phantom.spec
    result: dict[str, set[int]] = {level: set() for level in known}
    herniated = [d for d in spec.discs if d.herniation and known[d.level].herniation_mm >= HERNIATION_MM]
    for disc in herniated:
        if image.acquisition.plane == "sagittal":
            middle = frame(spec, disc)[0].centre[0]
            offsets = np.arange(stack.shape[0]) - (stack.shape[0] - 1) / 2
            thin = (np.arange(PARTS) - (PARTS - 1) / 2) * stack.thickness / PARTS
            x = stack.centre[0] - middle + offsets[:, None] * stack.spacing[0] + thin
            near = np.abs(x[:, PARTS // 2]) < 25
            out = np.where(near[:, None], excess(spec, disc, x.ravel()).reshape(x.shape), 0)
            out = np.median(out, axis=1)  # most of the slice shows it
            result[disc.level] = set(np.flatnonzero(out >= HERNIATION_MM).tolist())
        else:
            area = (
                (_majority(labels, [(f"hernia:{disc.level}",)]) > 0).sum((1, 2)) * stack.spacing[1] * stack.spacing[2]
            )
            result[disc.level] = set(np.flatnonzero(area >= 2 * SMALLEST_MM2).tolist())
    return result


def _lesions(phantom: RenderedMR, image: Image, labels: Labels) -> Iterator[ImageBox]:
    lesions, (_, row, column) = phantom.spec.cord, _stack(phantom, image).spacing
    if not any(part.startswith("lesion:") for part in labels.parts):
        return
    majority = _majority(labels, [(f"lesion:{number}",) for number in range(len(lesions))])
    for index, number, place, area in _objects(majority, len(lesions)):
        if area * row * column >= SMALLEST_MM2:
            yield _box(index, place, _shift(phantom, image), (lesions[number].kind, lesions[number].level))


def _box(index: int, place: tuple[slice, slice], shift: tuple[float, float], what: tuple[str, str]) -> ImageBox:
    rows, columns = place
    return ImageBox(
        slice=index,
        left=round(columns.start + shift[1], 2),
        top=round(rows.start + shift[0], 2),
        right=round(columns.stop + shift[1], 2),
        bottom=round(rows.stop + shift[0], 2),
        label=what[0],
        level=what[1],
    )
