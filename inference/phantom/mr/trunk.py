"""The trunk around a lumbar spine: back muscles, fat, aorta and vena cava, bowel, psoas, pelvis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inference.phantom.mr.canvas import Canvas, both, disc2d, dome, rod2d, wedge
from inference.phantom.mr.neck import band, front_of_bodies
from inference.phantom.mr.specification import MRPhantomSpec
from inference.phantom.mr.tissue import TISSUES, Tissue

BIFURCATION_MM = 68.0  # of the aorta, above the middle of S1


def paint(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Everything but the spine and its canal; those come after."""
    skin = _skin(canvas, spec)
    canvas.fill("skin", canvas.d - skin, dome(130, 25))
    canvas.fill("fat", canvas.d - skin + 2.0, dome(130, 25))
    _belly(canvas, spec)
    _back_muscles(canvas, spec, skin)
    _vessels(canvas, spec)


def _levels(canvas: Canvas, places: dict[str, float]) -> np.ndarray:
    known = sorted((canvas.course.levels[level], value) for level, value in places.items())
    return np.asarray(np.interp(canvas.s, [k for k, _ in known], [v for _, v in known]), np.float32)


def _skin(canvas: Canvas, spec: MRPhantomSpec) -> np.ndarray:
    """d of the skin of the back, (p,)."""
    wave = 1.5 * np.sin(0.03 * canvas.s + spec.body.phases[1])
    share = _levels(canvas, {"T11": 0.92, "L1": 0.93, "L3": 1.0, "S1": 1.0, "S3": 0.9, "S5": 0.75, "Co3": 0.6})
    return np.asarray(spec.body.back * share + wave)


def _muscle(spec: MRPhantomSpec) -> Tissue:
    return replace(TISSUES["muscle"], fat=spec.body.muscle_fat, grain=0.1 + 0.6 * spec.body.muscle_fat)


def _back_muscles(canvas: Canvas, spec: MRPhantomSpec, skin: np.ndarray) -> None:
    """Multifidus and erector spinae beside the spinous processes, with fat in clefts that follow their fibres."""
    s, d, phases, levels = canvas.s, canvas.d, spec.body.phases, canvas.course.levels
    thin = _levels(canvas, {"T11": 0.7, "L2": 0.8, "L4" if "L5" in levels else "L3": 1.2, "S1": 1.6, "S3": 2.0})
    tail = _levels(canvas, {"L3": 0.0, "S1": 0.25, "S2": 0.6, "S4": 1.0})
    edge = (1 - tail) * (skin - spec.body.fat * thin) + tail * 7.0
    tips = canvas.course.along(spec.vertebrae, lambda v: v.canal_depth / 2 + 3.0 + v.spinous, s)
    region = np.maximum(d - np.maximum(edge, 0.6 * tips), 5 - d)
    canvas.fill(_muscle(spec), region, dome(92, 42))
    for number in range(3):
        lean = (0.3 + 0.1 * number) * d + 0.16 * s + 1.2 * np.sin(0.045 * d + phases[number])
        cleft = np.abs(np.sin(0.33 * lean + phases[number]))
        thick = 0.04 + (0.05 + 0.7 * spec.body.muscle_fat) * np.clip(
            0.5 + np.sin(0.04 * s + 0.05 * d + phases[3]), 0, 2
        )
        canvas.fill("fat", np.where(region < -1, (cleft - thick) * 10, 9), both(6, 0, 8.0 + 11 * number))
    canvas.fill("fascia", np.maximum(np.abs(d - edge) - 0.8, levels["S2"] - s), dome(80, 0.4))
    middle = np.maximum(np.maximum(6 - d, d - tips - 1), levels["S3"] - s)
    canvas.fill("fat", middle, wedge(3.5))
    canvas.fill("interspinous", middle + 1, band(3.2))
    stripe = np.maximum(middle + 1, np.abs(np.sin(0.15 * (s + 0.8 * d) + phases[2])) * 3 - 1.4)
    canvas.fill("fat", stripe, band(3.0))
    canvas.fill("ligament", np.maximum(np.abs(d - tips - 1.5) - 1.2, levels["S1"] - s), band(3.0))
    for swelling in spec.swellings:
        if swelling.place == "posterior":
            spot = disc2d(d, s, (28, levels[swelling.level] - 12), (14, swelling.length / 2))
            canvas.fill("soft oedema", spot + 1.2 * np.sin(0.4 * s + phases[0]) + np.sin(0.6 * d), wedge(0.35))


def _belly(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Fat with loops of bowel in front of the spine, psoas muscles at the sides, organs of the pelvis."""
    s, d, levels = canvas.s, canvas.d, canvas.course.levels
    front, sacrum = front_of_bodies(canvas, spec), spec.vertebra("S1").centre
    y, z = canvas.y - np.float32(sacrum[1]), canvas.z - np.float32(sacrum[2])
    a, b, c, e = spec.body.phases
    bent_y, bent_z = y + 6 * np.sin(0.06 * z + a), z + 7 * np.sin(0.05 * y + b)
    loops = np.sin(0.1 * bent_y + a) * np.sin(0.085 * bent_z + b) + 0.6 * np.sin(0.15 * bent_y - 0.11 * bent_z + c)
    loops = loops + 0.3 * np.sin(0.31 * bent_z + 0.2 * bent_y + e)
    near = np.where(z > -10, d - front + 26 + 5 * np.sin(0.07 * z + a), np.maximum(y + 25, -z - 60))
    wall = np.where(near < 0, 0.45 - loops, 9)
    canvas.fill("muscle", wall, lambda x: 0.16 * np.sin(0.12 * x + a))
    canvas.fill("bowel", wall + 0.22, lambda x: 0.16 * np.sin(0.12 * x + a))
    canvas.fill("air", np.where((near < -18) & (z > 60), 1.15 - loops, 9), lambda x: 0.2 * np.sin(0.17 * x + b))
    veins = np.abs(np.sin(0.09 * bent_z + 0.05 * y + c)) * 14 - 0.9
    canvas.fill("fascia", np.where((near < 0) & (loops < 0.2), veins, 9), lambda x: 0.7 + 0.7 * np.sin(0.35 * x + e))
    canvas.fill("liver", disc2d(y, z, (-110, 210), (72, 55)), lambda x: 0.6 * np.clip(x + 10, 0, None))
    psoas = np.maximum(np.abs(d - front - 14) - 15, s - levels["L1"])
    canvas.fill("muscle", psoas, both(24, 16, 42.0))
    canvas.fill("muscle", disc2d(y, z, (-52, -82), (31, 24)), dome(42, 20))
    canvas.fill("csf", disc2d(y, z, (-52, -82), (28, 21)), dome(38, 18))
    rectum = np.maximum(rod2d(y, z, (2, -45, 8, -100), 11 + 2.5 * np.sin(0.13 * z)), s - levels["S1"] + 22)
    canvas.fill("muscle", rectum, dome(18, 7))
    canvas.fill("bowel", rectum + 2.4, dome(16, 7))
    canvas.fill("ligament", np.abs(d - front + 0.5) - 0.9, dome(16, 0.6))


def _vessels(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Aorta on the left and vena cava on the right of the bodies; where they part, branches go to the sides."""
    s, d = canvas.s, canvas.d
    front, size, phases = front_of_bodies(canvas, spec), spec.body.size, spec.body.phases
    low = canvas.course.levels["S1"] + BIFURCATION_MM
    veins = "slow blood" if spec.body.slow_vessels else "flow void"
    for name, side, half in (("flow void", 5.0 + phases[0], 8.0), (veins, -13.0, 9.5)):
        place = front - half * size - 3 + 2.5 * np.sin(0.025 * s + phases[2])
        end = np.maximum(low - s, 0) * 1.2  # a round end
        tube = np.sqrt((d - place) ** 2 + end**2) - half * size
        canvas.fill("fascia", tube - 1.0, dome(half + 1, half - 1, side))
        canvas.fill(name, tube, dome(half, half - 1, side))
        for branch in (-1.0, 1.0):
            part = rod2d(d - place, s, (1.0, low, 5.0, low - 75), 5.0)
            canvas.fill(name, part, dome(6, 5, side + branch * 15))
    crossing = float(np.median(front)) - 5
    canvas.fill(veins, disc2d(d, s, (crossing, canvas.course.levels["S1"] + 48), (4.5, 8)), dome(22, 4))
