"""Discs and vertebrae into the labels: degeneration, herniation, marrow, endplate changes, metal."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from inference.phantom.anatomy import Points, capsule, ellipsoid
from inference.phantom.mr import bones
from inference.phantom.mr.canvas import Canvas
from inference.phantom.mr.specification import Disc, MRPhantomSpec
from inference.phantom.mr.tissue import TISSUES, Tissue, marrow, nucleus
from inference.phantom.specification import Vertebra

CORTEX_MM = 1.0
MODIC = {1: "oedematous marrow", 2: "fatty marrow", 3: "sclerosis"}
PUSHED_OUT = Tissue(pd=0.75, t1=(1050, 1200), t2=(62, 55), grain=0.05)  # nucleus that left its space
NODE = replace(TISSUES["annulus"], t2=(55.0, 48.0), pd=0.7)  # disc in the bone above or below it
BEYOND_MM = 0.6  # how far a disc covers the corners of the bodies


def frame(spec: MRPhantomSpec, disc: Disc) -> tuple[Vertebra, float, float]:
    """A disc as a flat body between its vertebrae, the space between the endplates and how far it is sheared, mm.

    The pose and the size are means of those of the vertebrae; y runs backwards from the middle between their backs.
    """
    upper, lower = spec.vertebra(disc.upper), spec.vertebra(disc.lower)
    ends = []
    for shape, sign in ((upper, -1), (lower, 1)):
        along = sign * shape.height / 2
        half = lower.depth / 2 - shape.depth / 2  # the backs decide, the canal runs there
        ends.append(
            (
                shape.centre[0] + along * math.sin(shape.roll),
                shape.centre[1] - along * math.sin(shape.pitch) - half * math.cos(shape.pitch),
                shape.centre[2] + along * math.cos(shape.pitch) - half * math.sin(shape.pitch),
            )
        )
    pitch = (upper.pitch + lower.pitch) / 2
    (_, uy, uz), (_, ly, lz) = ends
    gap = max(-(uy - ly) * math.sin(pitch) + (uz - lz) * math.cos(pitch), 0.5)
    shear = (uy - ly) * math.cos(pitch) + (uz - lz) * math.sin(pitch)
    x, y, z = ((a + b) / 2 for a, b in zip(*ends, strict=True))
    width, roll = (upper.width + lower.width) / 2, (upper.roll + lower.roll) / 2
    body = replace(lower, level=disc.lower, centre=(x, y, z), pitch=pitch, yaw=0.0, roll=roll, width=width, height=gap)
    return body, gap, shear


def disc_distance(points: Points, disc: Disc, body: Vertebra, shear: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance to a disc with its bulge and herniation, and the radius in it (1 at the edge of the bodies)."""
    x, y, z = points
    y = y - np.float32(shear / max(body.height, 1.0)) * np.clip(z, -body.height / 2, body.height / 2)
    a, b = np.float32(body.width / 2), np.float32(body.depth / 2)
    radial = np.cbrt((np.abs(x) / a) ** 3 + (np.abs(y) / b) ** 3)
    out = (radial - 1) * b
    bulge = np.float32(disc.bulge_mm + 0.3) * np.clip(0.8 + 0.4 * y / b, 0.4, 1)
    over = np.clip(out / np.maximum(bulge, 0.1), 0, 1)
    inside = np.float32(body.height / 2 + 4.5)
    beyond = (body.height / 2 + np.float32(BEYOND_MM)) * np.sqrt(1 - over**2)
    tall = np.where(out < -0.8, inside, beyond)
    distance = np.maximum(out - bulge, np.abs(z) - tall)
    if disc.herniation is not None:
        pushed = disc.herniation
        radii = (pushed.width, pushed.size + disc.bulge_mm + 3.0, pushed.height)
        blob = ellipsoid((x, y, z), (pushed.side, float(b) - 3.0, pushed.drift), radii)
        distance = np.minimum(distance, blob)
    return np.asarray(distance), np.asarray(radial)


def paint_discs(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Paint every disc; the bodies cover what is too much of it."""
    for disc in spec.discs:
        body, gap, shear = frame(spec, disc)
        half = body.depth / 2
        reach = 6 + gap / 2 + (disc.herniation.height + abs(disc.herniation.drift) if disc.herniation else 0)
        where = canvas.near(np.array([-half - 6, -reach]), np.array([half + 15, reach]), body)
        points = canvas.local(where, body)
        distance, radial = disc_distance(points, disc, body, shear)
        patch = canvas.labels[:, where]
        name = f"disc:{disc.level}"
        patch[distance < 0] = canvas.label("annulus", name)
        middle = nucleus(disc.grade)
        edge = replace(middle, t2=(middle.t2[0] * 0.5 + 17, middle.t2[1] * 0.5 + 15), pd=middle.pd * 0.85)
        size = {1: 0.86, 2: 0.82, 3: 0.8, 4: 0.78, 5: 0.72}[disc.grade]
        behind = radial + np.where(points[1] > 0, 0.06, 0)
        patch[(distance < 0) & (behind < size)] = canvas.label(edge, name)
        core = (distance < -0.5) & (behind < size - 0.14)
        patch[core] = canvas.label(middle, name)
        cleft = np.abs(points[2] + 0.25 * np.sin(points[1] * 0.5)) < 0.055 * gap + 0.15
        if disc.grade == 2:
            patch[core & cleft & (behind < size - 0.25)] = canvas.label(edge, name)
        if disc.herniation is not None:
            out = (distance < 0) & (points[1] > half + disc.bulge_mm)
            patch[out] = canvas.label("annulus", f"hernia:{disc.level}")
            inside = (distance < -0.7) & (points[1] > half - 1.0)
            patch[inside & out] = canvas.label(PUSHED_OUT, f"hernia:{disc.level}")
            patch[inside & ~out] = canvas.label(PUSHED_OUT, name)
        canvas.labels[:, where] = patch


def paint_vertebrae(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Paint bone: dark cortex, marrow, its veins, and what discs did to it."""
    for shape in spec.vertebrae:
        where = canvas.near(*bones.extent(shape), shape)
        if not len(where):
            continue
        points = canvas.local(where, shape)
        distance = np.minimum(bones.vertebra(points, shape), _osteophytes(spec, shape, points))
        patch = canvas.labels[:, where]
        patch[distance < 0] = canvas.label("cortex", shape.level)
        inside = distance < -CORTEX_MM
        patch[inside] = canvas.label(marrow(spec.body.marrow_fat), shape.level)
        _inside(canvas, spec, shape, (points, patch, inside))
        if spec.implant is not None and shape.level in spec.implant:
            _metal(canvas, shape, points, patch)
        canvas.labels[:, where] = patch


def _osteophytes(spec: MRPhantomSpec, shape: Vertebra, points: Points) -> np.ndarray:
    """Lips of bone at the corners of a body beside worn discs."""
    nearest = np.full(points[0].shape, 99, np.float32)
    for disc in spec.discs:
        sign = {disc.upper: -1, disc.lower: 1}.get(shape.level, 0)
        if sign and disc.osteophyte_mm > 0.3:
            z, grown = sign * (shape.height / 2 - 1.0), disc.osteophyte_mm
            for y, size in ((-shape.depth / 2 + 0.5, 1.3 * grown), (shape.depth / 2 - 0.5, 0.6 * grown)):
                lip = ellipsoid(points, (0.0, y, z), (shape.width * 0.42, 0.6 + size, 1.8))
                nearest = np.minimum(nearest, lip)
    return nearest


def _inside(canvas: Canvas, spec: MRPhantomSpec, shape: Vertebra, onto: tuple[Points, np.ndarray, np.ndarray]) -> None:
    """Veins, Modic changes, Schmorl nodes and haemangiomas of one vertebra."""
    points, patch, inside = onto
    x, y, z = points
    half = shape.depth / 2
    if shape.level[0] in "TL" and shape.level not in bones.UPPER or shape.level == "S1":
        vein = capsule(points, (0, half - 1, 0), (0, half - 9, 0), 1.9, flatten=0.8)
        patch[(vein < 0) & (distance_to_back(points, shape) < 0.5)] = canvas.label("vein", shape.level)
    for disc in spec.discs:
        sign = {disc.upper: -1, disc.lower: 1}.get(shape.level, 0)
        if sign and disc.modic:
            deep = shape.height * (
                0.22 + 0.07 * np.sin(0.35 * x + shape.warp[0]) + 0.08 * np.sin(0.3 * y + shape.warp[1])
            )
            changed = (sign * z > shape.height / 2 - deep) & (y < half) & inside
            patch[changed] = canvas.label(MODIC[disc.modic], shape.level)
    for spot in spec.spots:
        if spot.level == shape.level:
            ball = ellipsoid(points, spot.centre, (spot.radius, spot.radius, spot.radius * 0.9))
            if spot.kind == "haemangioma":
                patch[(ball < 0) & inside] = canvas.label("haemangioma", shape.level)
            else:
                patch[(ball < 1.0) & inside] = canvas.label("sclerosis", shape.level)
                within = (ball < 0) & (y < half) & (np.abs(z) < shape.height / 2)  # through the endplate, not the disc
                patch[within] = canvas.label(NODE, shape.level)


def distance_to_back(points: Points, shape: Vertebra) -> np.ndarray:
    """How far behind the back wall of the body, mm; negative in the body."""
    return np.asarray(points[1] - np.float32(shape.depth / 2))


def _metal(canvas: Canvas, shape: Vertebra, points: Points, patch: np.ndarray) -> None:
    """A void much larger than the screws and the plate that cause it, with a bright rim where signal piles up."""
    x, y, z = points
    front = -shape.depth / 2 - 1
    plate = np.maximum(np.maximum(np.abs(x) - 11, np.abs(y - front) - 4.5), np.abs(z) - shape.stacking * 0.55)
    screw = capsule((np.abs(x), y, z), (5.0, front, 0), (4.0, front + 0.75 * shape.depth, 0), 4.2)
    void = np.minimum(plate, screw)
    patch[(void < 1.6) & (np.sin(0.5 * z + 0.4 * y) > 0.2)] = canvas.label("vein", shape.level)
    patch[void < 0] = canvas.label("metal", shape.level)
