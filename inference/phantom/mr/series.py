"""The image series of an MR study, in the patient's coordinates and in the order of their Instance Numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inference.phantom.mr.rendering import RenderedMR, affine
from inference.phantom.series import Image, Plane, Series

LOCALIZER_STEP = 2  # pixels of the other series that make one of the localizer's
LOCALIZER_MM = 8.0


def all_series(phantom: RenderedMR) -> Iterator[Series]:
    """The localizer, and then every series as it was acquired."""
    yield localizer(phantom)
    for image in phantom.images:
        yield series(phantom, image.acquisition.kind)


def series(phantom: RenderedMR, kind: str) -> Series:
    """One of the diagnostic series; images run from the patient's right or from the head, or the other way round."""
    image = next(one for one in phantom.images if one.acquisition.kind == kind)
    place, scan = affine(phantom.spec, image.acquisition.plane), phantom.spec.scan
    order = range(len(image.values))
    if (image.acquisition.plane == "axial") != scan.reversed:
        order = order[::-1]
    stack = scan.sagittal if image.acquisition.plane == "sagittal" else scan.axial
    size = (stack.spacing[1:], stack.thickness)
    images = tuple(_image(str(i), image.values[i], (place, (i, 0, 0)), size) for i in order)
    return Series(kind=kind, images=images)


def localizer(phantom: RenderedMR) -> Series:
    """Coarse sagittal images and an axial one through the middle."""
    images = []
    views = (("sagittal T1", -1), ("sagittal T1", 0), ("sagittal T1", 1), ("axial T2", 0))
    for name, (kind, beside) in enumerate(views):
        image = next(one for one in phantom.images if one.acquisition.kind == kind)
        plane = image.acquisition.plane
        stack = phantom.spec.scan.sagittal if plane == "sagittal" else phantom.spec.scan.axial
        index, step = len(image.values) // 2 + beside, LOCALIZER_STEP
        rows, columns = (n // step * step for n in image.values.shape[1:])
        coarse = image.values[index, :rows, :columns].reshape(rows // step, step, columns // step, step).mean((1, 3))
        spacing = (round(stack.spacing[1] * step, 4), round(stack.spacing[2] * step, 4))
        place = (affine(phantom.spec, plane), (index, (step - 1) / 2, (step - 1) / 2))
        images.append(_image(str(name), np.rint(coarse).astype(np.int16), place, (spacing, LOCALIZER_MM)))
    return Series(kind="localizer", images=tuple(images))


def _image(
    name: str,
    pixels: np.ndarray,
    where: tuple[np.ndarray, tuple[float, float, float]],
    size: tuple[tuple[float, float], float],
) -> Image:
    """An image by the affine and the voxel (slice, row, column) of its first pixel, pixel spacing and thickness."""
    place, first = where
    x, y, z = (float(round(v, 4)) for v in (place[:3, :3] * np.array(first)).sum(1) + place[:3, 3])
    along = [place[:3, axis] / np.sqrt((place[:3, axis] ** 2).sum()) for axis in (2, 1)]
    orientation = tuple(round(float(v), 6) + 0.0 for axis in along for v in axis)
    plane = Plane(orientation=orientation, pixel_spacing=size[0], thickness_mm=size[1])
    return Image(name=name, pixels=pixels, position=(x, y, z), plane=plane)
