"""Head and neck around a cervical spine: skull base, brain stem, airway, tongue, muscles, vessels, chest inlet."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from inference.phantom.mr.canvas import Canvas, Inset, both, disc2d, dome, rod2d, wedge
from inference.phantom.mr.specification import MRPhantomSpec
from inference.phantom.mr.tissue import TISSUES, Tissue, marrow

CORTEX_MM = 1.2


def paint(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Everything but the spine and its canal; those come after."""
    _outline(canvas, spec)
    _back_of_neck(canvas, spec)
    _throat(canvas, spec)
    _head(canvas, spec)


def _between(canvas: Canvas, places: dict[str, float]) -> np.ndarray:
    """Values at levels (and mm above them, as "C1+30"), interpolated along the canal, (p,)."""
    known = []
    for name, value in places.items():
        level, _, above = name.partition("+")
        known.append((canvas.course.levels[level] + float(above or 0), value))
    known.sort()
    return np.asarray(np.interp(canvas.s, [k for k, _ in known], [v for _, v in known]), np.float32)


def front_of_bodies(canvas: Canvas, spec: MRPhantomSpec) -> np.ndarray:
    """d of the front of the bodies, (p,)."""
    return -canvas.course.along(
        spec.vertebrae, lambda v: 22.0 if v.level == "C1" else v.canal_depth / 2 + v.depth, canvas.s
    )


def band(half: float, centre: float = 0.0) -> Inset:
    """No inset within a half width of a centre, and nothing beyond it."""
    return dome(half, 0.0, centre)


def _outline(canvas: Canvas, spec: MRPhantomSpec) -> None:
    body, wave = spec.body, 1.2 * np.sin(0.06 * canvas.s + spec.body.phases[0])
    back = _back(canvas, spec)
    front = body.size * _between(
        canvas, {"T3": 98, "T1": 84, "C7": 66, "C6": 62, "C5": 66, "C4": 88, "C3": 116, "C1": 122, "C1+30": 128}
    )
    shape = np.maximum(canvas.d - back - wave, -front - canvas.d)
    canvas.fill("skin", shape, dome(75, 26))
    canvas.fill("fat", shape + 1.8, dome(75, 26))
    deep = np.maximum(canvas.d - back - wave + body.fat, -front - canvas.d + 0.7 * body.fat)
    canvas.fill(_muscle(spec), deep, dome(75, 26))


def _back(canvas: Canvas, spec: MRPhantomSpec) -> np.ndarray:
    """d of the skin of the back, (p,)."""
    places = {"T5": 1.3, "T2": 1.2, "T1": 1.1, "C7": 1.02, "C5": 0.93, "C3": 0.95, "C1": 1.05, "C1+30": 1.4}
    return np.asarray(spec.body.back * _between(canvas, places))


def _muscle(spec: MRPhantomSpec) -> Tissue:
    return replace(TISSUES["muscle"], fat=spec.body.muscle_fat)


def _back_of_neck(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Muscle layers with fat between them; in the middle the nuchal ligament, and fat between the spines."""
    s, d, a, levels = canvas.s, canvas.d, spec.body.phases, canvas.course.levels
    edge = _back(canvas, spec) - spec.body.fat
    for number, share in enumerate((0.4, 0.58, 0.76)):
        middle = share * edge + 2.5 * np.sin(0.05 * s + a[number]) + 0.07 * (s - levels["C5"])
        thick = 0.35 + 0.7 * np.clip(np.sin(0.08 * s + 2 * a[number]), -0.4, 1)
        canvas.fill("fat", np.maximum(np.abs(d - middle) - thick, 11 - d), wedge(0.045))
    fibres = np.abs(np.sin(0.22 * s + 0.5 * d + 0.9 * np.sin(0.11 * d + a[1])))
    neck = np.maximum(np.maximum(9 - d, d - edge), s - levels["C1"] - 6)
    canvas.fill("fat", np.maximum(neck, (fibres - 0.16) * 8), band(14.0))
    canvas.fill("fat", neck, wedge(4.0))
    tips = canvas.course.along(spec.vertebrae, lambda v: v.canal_depth / 2 + 3.5 + 0.9 * v.spinous, s)
    strands = np.maximum(np.maximum(neck, tips + 1 - d), 0.45 - np.abs(np.sin(0.13 * s + 0.33 * d + a[2])))
    canvas.fill("interspinous", strands, band(2.2))
    nuchal = np.maximum(np.abs(d - np.maximum(0.86 * edge, tips + 2)) - 0.9, s - levels["C1"] - 4)
    canvas.fill("ligament", np.maximum(nuchal, levels["C7"] - 6 - s), band(2.0))
    between = np.maximum(np.maximum(6 - d, d - tips), s - levels["C2"] - 8)
    canvas.fill("interspinous", between, band(3.4))
    streaks = np.maximum(between, np.abs(np.sin(0.1 * s + 0.16 * d + 1.5 * np.sin(0.07 * s) + a[3])) * 4 - 1.1)
    canvas.fill("fat", streaks, band(3.2))
    for swelling in spec.swellings:
        if swelling.place == "posterior":
            spot = disc2d(d, s, (20.0, levels[swelling.level] - 6), (13.0, swelling.length / 2))
            canvas.fill("soft oedema", spot + 0.8 * np.sin(0.5 * s + a[0]) + 0.9 * np.sin(0.7 * d), wedge(0.35))


def _throat(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Prevertebral muscles, then pharynx and trachea as one tube, then what lies in front of it."""
    s, d, body, levels = canvas.s, canvas.d, spec.body, canvas.course.levels
    front = front_of_bodies(canvas, spec)
    thick = body.front * _between(
        canvas, {"T3": 2.7, "T1": 2.5, "C7": 2.3, "C6": 2.0, "C5": 1.1, "C4": 0.8, "C2": 0.8, "C1": 1.1, "C1+14": 2.0}
    )
    wall = front - thick  # back wall of the airway
    canvas.fill("muscle", np.maximum(d - front, wall - d), dome(26, 6))
    canvas.fill("fat", np.abs(d - front + 1.8) - 0.45, dome(14, 0.5))
    canvas.fill("ligament", np.abs(d - front + 0.4) - 0.9, dome(11, 0.5))
    wide = body.size * _between(
        canvas, {"T4": 14, "C7": 13, "C6": 10, "C5": 7, "C4": 10, "C3": 9, "C2": 8, "C1": 9, "C1+18": 15, "C1+28": 12}
    )
    _pharynx(canvas, spec, wall - wide)
    tube = np.maximum(np.abs(d - wall + wide / 2) - wide / 2, s - levels["C1"] - 24)
    canvas.fill("mucosa", tube - 1.8, dome(13, 5))
    low = np.maximum(tube, s - levels["C5"])
    canvas.fill("cartilage", np.maximum(low - 1.6, np.sin(0.85 * s) - 0.55), dome(12, 4))
    canvas.fill("air", tube, dome(10, 4))
    canvas.fill("gland", disc2d(d, s, (float(np.median(wall)) - 21, levels["C7"] + 3), (5, 9)), dome(9, 5))
    canvas.fill("muscle", np.maximum(np.abs(d - wall - 0.5 * thick) - 0.28 * thick, s - levels["C6"]), dome(10, 3))
    canvas.fill("mucosa", np.maximum(np.abs(d - wall - 0.5 * thick) - 0.9, s - levels["C6"]), dome(6, 1))
    _swelling(canvas, spec, front)
    _vessels(canvas, spec, front)


def _pharynx(canvas: Canvas, spec: MRPhantomSpec, edge: np.ndarray) -> None:
    """Tongue, fat in front of the epiglottis, hyoid; `edge` (p,) is d of the front of the airway."""
    s, d, levels, size = canvas.s, canvas.d, canvas.course.levels, spec.body.size
    root = float(np.median(edge[np.abs(s - levels["C3"]) < 6])) if np.any(np.abs(s - levels["C3"]) < 6) else -42.0
    a = spec.body.phases
    tongue = disc2d(d, s, (root - 31 * size, levels["C2"] + 3), (33 * size, 25 * size))
    canvas.fill(
        "fat", disc2d(d, s, (root - 34, levels["C3"] - 20), (30, 8)) + 1.2 * np.sin(0.2 * d + a[0]), dome(28, 5)
    )
    canvas.fill(replace(TISSUES["muscle"], fat=0.16, grain=0.17), tongue, dome(26, 14))
    canvas.fill("fat", disc2d(d, s, (root - 5, levels["C4"] + 2), (5.5, 11)), dome(12, 4))
    canvas.fill("cartilage", rod2d(d, s, (root + 4, levels["C3"] - 1, root + 1, levels["C5"] + 8), 1.1), dome(8, 1))
    hyoid = disc2d(d, s, (root - 13, levels["C4"] + 11), (2.8, 4.6))
    canvas.fill("cortex", hyoid, dome(16, 2))
    canvas.fill("fatty marrow", hyoid + 1.0, dome(15, 2))


def _swelling(canvas: Canvas, spec: MRPhantomSpec, front: np.ndarray) -> None:
    for swelling in spec.swellings:
        if swelling.place == "prevertebral":
            along = (canvas.s - canvas.course.levels[swelling.level]) / (swelling.length / 2)
            thick = swelling.thickness * np.sqrt(np.clip(1 - along**2, 0, 1))
            canvas.fill("soft oedema", np.maximum(canvas.d - front + 0.6, front - thick - canvas.d), dome(16, 2))


def _vessels(canvas: Canvas, spec: MRPhantomSpec, front: np.ndarray) -> None:
    """Vertebral arteries through their foramina, carotid arteries and jugular veins beside the throat, the chest."""
    s, d, levels = canvas.s, canvas.d, canvas.course.levels
    veins = "slow blood" if spec.body.slow_vessels else "flow void"
    below = s - levels["C1"]
    place = front + 7.5 + np.sin(0.09 * s)
    canvas.fill("flow void", np.maximum(np.abs(d - place) - 2.0, below), both(2.2, 2, 15.5))
    canvas.fill("flow void", np.maximum(np.abs(d - front + 8) - 3.2, below), both(3.4, 3, 24))
    canvas.fill(veins, np.maximum(np.abs(d - front + 4) - 4.5, below), both(5, 4, 31))
    canvas.fill("air", np.maximum(d - front + 6, s - levels["T1"] + 4), both(40, 26, 52))  # tops of the lungs
    canvas.fill("flow void", disc2d(d, s, (-62, levels["T4"] + 2), (11, 10)), dome(14, 8, -3.0))
    canvas.fill("flow void", rod2d(d, s, (-58, levels["T4"] + 6, -48, levels["T1"]), 4.0), dome(6, 3, 5.0))
    sternum = rod2d(d, s, (-88, levels["T2"], -97, levels["T4"] - 10), 7.0)
    canvas.fill("cortex", sternum, dome(24, 3))
    canvas.fill(marrow(spec.body.marrow_fat), sternum + 1.3, dome(23, 3))


def _head(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """In the axes of C1: v runs back and w up from the dens."""
    atlas, size = spec.vertebra("C1"), spec.body.size
    turn = 0.5 * atlas.pitch
    dy, dz = canvas.y - atlas.centre[1], canvas.z - atlas.centre[2]
    v = (dy * math.cos(turn) + dz * math.sin(turn)) / size
    w = (dz * math.cos(turn) - dy * math.sin(turn)) / size
    inside = np.minimum(disc2d(v, w, (34, 60), (53, 46)), rod2d(v, w, (15, 10, 15, 26), 11))
    skull = np.maximum(inside - 6.5, 13 - w)
    canvas.fill("muscle", np.maximum(disc2d(v, w, (52, 12), (26, 20)), 2 - v), dome(40, 20))
    canvas.fill("fat", disc2d(v, w, (30, 6), (7, 6)), dome(9, 4))
    canvas.fill("cortex", skull, dome(62, 40))
    canvas.fill(marrow(0.6), np.maximum(skull + 1.6, -(inside - 2.0)), dome(62, 40))
    canvas.fill("csf", inside, dome(60, 40))
    canvas.fill("csf", rod2d(v, w, (15, 0, 15, 20), 9.0), dome(12, 8))
    _brain(canvas, (v, w))
    clivus = np.minimum(rod2d(v, w, (-3.5, 19, -21, 50), 4.2), disc2d(v, w, (-25, 52), (9, 10)))
    canvas.fill("ligament", rod2d(v, w, (-3, 16, 3, 8), 1.6), dome(9, 2))
    canvas.fill("cortex", clivus, dome(16, 3))
    canvas.fill(marrow(spec.body.marrow_fat), clivus + CORTEX_MM, dome(16, 3))
    canvas.fill("mucosa", disc2d(v, w, (-30, 29), (13, 8)), dome(16, 4))
    canvas.fill("air", disc2d(v, w, (-42, 54), (12, 8)), dome(15, 6))
    canvas.fill("air", disc2d(v, w, (-62, 28), (34, 11)), dome(13, 8))
    canvas.fill("mucosa", disc2d(v, w, (-62, 28), (33, 10)), band(1.7))
    canvas.fill("mucosa", disc2d(v, w, (-64, 25), (27, 4.5)), both(4, 2, 7.0))
    palate = rod2d(v, w, (-36, 6, -52, 13), 3.4)
    canvas.fill("muscle", palate, dome(15, 3))
    canvas.fill("cortex", rod2d(v, w, (-52, 14, -92, 14), 2.2), dome(20, 2))
    jaw = disc2d(v, w, (-94, -42), (9, 13))
    canvas.fill("cortex", jaw, dome(22, 8))
    canvas.fill("fatty marrow", jaw + 2.0, dome(22, 8))
    canvas.fill("cortex", disc2d(v, w, (-93, -22), (4, 9)), dome(20, 6))


def _brain(canvas: Canvas, place: tuple[np.ndarray, np.ndarray]) -> None:
    """Medulla, pons, cerebellum with its folia, the fourth ventricle between them."""
    v, w = place
    stem = np.minimum(rod2d(v, w, (14.5, -6, 11, 26), 5.4), rod2d(v, w, (11, 26, 7, 60), 7.0))
    pons = disc2d(v, w, (0.5, 44), (12.5, 14.5))
    canvas.fill("brain", np.minimum(stem, pons), dome(16, 9))
    cerebellum = disc2d(v, w, (45, 47), (31, 27))
    canvas.fill("brain", cerebellum, dome(52, 20))
    folds = np.abs(np.sin(0.62 * w + 0.004 * (v - 40) ** 2 + 0.35 * np.sin(0.3 * v)))
    canvas.fill("csf", np.where((cerebellum < 1) & (cerebellum > -13), (folds - 0.12) * 3, 1.0), dome(48, 0.2))
    canvas.fill("brain", disc2d(v, w, (38, 26), (7, 6)), both(7, 0, 9))
    canvas.fill("csf", np.maximum(disc2d(v, w, (21, 45), (8, 9)), 14 - v), dome(10, 4))
