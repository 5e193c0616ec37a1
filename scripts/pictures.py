"""Draws every fracture mechanism, mimic and artefact of the cervical CT phantom, for docs/phantoms.md."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import map_coordinates

from inference.phantom import mechanisms, mimics, spine
from inference.phantom.anatomy import pillar_centre
from inference.phantom.cervical_ct import Rendered, render, sample_spec
from inference.phantom.mechanisms import as_point
from inference.phantom.specification import LEVELS, PROFILES, Implant, Motion, PhantomSpec, Point, Vertebra

SEED = 3
COLUMNS = 6
HALF_MM, STEP_MM = 42.0, 0.35  # half the width of a picture, and its pixels
RING_CENTRE_MM = 14.0  # from the middle of a body back to the middle of the whole vertebra
BONE, SOFT, RINGS = (-600, 1600), (-160, 240), (-60, 160)  # windows, lowest and highest HU


@dataclass(frozen=True, kw_only=True)
class Case:
    """A phantom to be cut through one point of one vertebra."""

    title: str
    phantom: Rendered
    level: str
    #: In the coordinates of the vertebra, mm.
    point: Point
    window: tuple[int, int] = BONE


def main() -> None:
    """Draw both sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    _sheet([_broken(name) for name in mechanisms.NAMES], out / "phantom-fractures.png")
    _sheet([_variant(name) for name in mimics.VARIANTS] + _other_mimics(), out / "phantom-mimics.png")


def _plain() -> PhantomSpec:
    """A quiet adult neck without lesions, wear or artefacts."""
    spec = sample_spec(SEED, "easy", positive=False)
    scan = replace(spec.scan, noise_hu=12.0, motion=None, rings_hu=0.0, trabecular_hu=260.0, cortical_hu=1100.0)
    young = mimics.wear(np.random.default_rng(0), spec.vertebrae, 0.0)
    neck = replace(spec.neck, filling=False, tube=False, swelling=None, nuchal=(), vessel_hu=45.0)
    return replace(spec, lesions=(), canals=(), implant=None, scan=scan, vertebrae=young, neck=neck)


def _usual_level(levels: Sequence[str]) -> str:
    """C6 where it can be: lower levels end at the edge of the field of view."""
    return "C6" if "C6" in levels else levels[0]


def _of(spec: PhantomSpec, level: str) -> Vertebra:
    return spec.vertebrae[LEVELS.index(level)]


def _with(spec: PhantomSpec, shape: Vertebra) -> PhantomSpec:
    return replace(spec, vertebrae=tuple(shape if v.level == shape.level else v for v in spec.vertebrae))


def _broken(name: str) -> Case:
    spec, level = _plain(), _usual_level(mechanisms.levels_of(name))
    broken = mechanisms.one(np.random.default_rng(7), _of(spec, level), PROFILES["easy"], name)
    spec = replace(_with(spec, broken.shape), lesions=(broken.lesion,))
    spec = replace(spec, vertebrae=spine.slipped(spec.vertebrae, level, broken.slip_mm))
    point = broken.lesion.breaks[-1].point
    if name == "burst":  # beside its sagittal split, which would fill the sagittal cut, and below what is crushed
        point = (6.0, 0.0, -2.0)
    return Case(title=f"{name}, {level}", phantom=render(spec), level=level, point=point)


def _variant(name: str) -> Case:
    spec, level = _plain(), _usual_level(mimics.VARIANTS[name])
    shape = _of(spec, level)
    lesion = mimics.variant(np.random.default_rng(7), shape, name)
    if name == "old compression":
        spec = _with(spec, replace(shape, front_loss=0.3, back_loss=0.03))
    point = lesion.breaks[0].point if lesion.breaks else (0.0, 0.0, 0.0)
    spec = replace(spec, lesions=(lesion,))
    return Case(title=f"{name}, {level}", phantom=render(spec), level=level, point=point)


def _other_mimics() -> list[Case]:
    spec = _plain()
    scan, neck, fifth, sixth = spec.scan, spec.neck, _of(spec, "C5"), _of(spec, "C6")
    canals = mimics.draw_canals(np.random.default_rng(3), spec.vertebrae, replace(PROFILES["hard"], canals=6.0))
    widest = max((canal for canal in canals if canal.level == "C5"), key=lambda canal: canal.radius_mm)
    middle = round((fifth.centre[2] - scan.origin[2]) / scan.spacing[0])
    moved = Motion(slices=(middle - 6, middle + 6), offset=(0, 3))
    disc: Point = (0.0, 0.0, -fifth.stacking / 2)
    screw: Point = (pillar_centre(fifth)[0], pillar_centre(fifth)[1] + 3, 0.5)
    cases: dict[str, tuple[PhantomSpec, str, Point]] = {
        "vessel channels": (replace(spec, canals=canals), "C5", as_point(np.add(widest.start, widest.end) / 2)),
        "osteophytes": (_with(spec, replace(fifth, osteophyte=4.0)), "C5", (0.0, 0.0, fifth.height / 2 - 1)),
        "bridging bone to C6": (_with(spec, replace(fifth, bridged=True)), "C5", disc),
        "facet sclerosis": (_with(spec, replace(fifth, sclerosis=600.0)), "C5", (screw[0], screw[1] - 3, -3.0)),
        "gas in the disc below": (_with(spec, replace(fifth, gas=True)), "C5", disc),
        "bone in nuchal ligament": (replace(spec, neck=replace(neck, nuchal=("C6",))), "C6", _ossicle(sixth)),
        "plate to C6": (replace(spec, implant=Implant(kind="plate", levels=("C5", "C6"))), "C5", (0.0, 0.0, 0.0)),
        "screws, rods to C6": (replace(spec, implant=Implant(kind="rods", levels=("C5", "C6"))), "C5", screw),
        "motion": (replace(spec, scan=replace(scan, motion=moved)), "C5", (0.0, 0.0, 0.0)),
        "rings": (replace(spec, scan=replace(scan, rings_hu=25.0, noise_hu=6.0)), "C5", (0.0, 0.0, 0.0)),
        "low dose, osteoporosis": (
            replace(spec, scan=replace(scan, noise_hu=60.0, trabecular_hu=95.0)),
            "C5",
            (0.0, 0.0, 0.0),
        ),
        "swelling, no fracture": (replace(spec, neck=replace(neck, swelling=("C5", 6.0))), "C5", (0.0, 0.0, 0.0)),
    }
    windows = {"rings": RINGS, "swelling, no fracture": SOFT}
    return [
        Case(
            title=f"{name}, {level}",
            phantom=render(case),
            level=level,
            point=point,
            window=windows.get(name, BONE),
        )
        for name, (case, level, point) in cases.items()
    ]


def _ossicle(shape: Vertebra) -> Point:
    """The middle of the bone in the nuchal ligament: beside the tip of the spinous process, level in the world."""
    tip = shape.depth / 2 + shape.canal_depth + 2.5 + shape.spinous
    world = np.array([1.0, tip + 9.0, -4 - 0.45 * shape.spinous], np.float32)
    return as_point(world @ spine.rotation(shape))


def _sheet(cases: Sequence[Case], path: Path) -> None:
    """An axial and a sagittal cut of each case, in the planes of its vertebra."""
    rows = -(-len(cases) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 4.3 * rows), facecolor="black", layout="constrained")
    axes = figure.subplots(2 * rows, COLUMNS)
    for axis in axes.ravel():
        axis.set_axis_off()
    for number, case in enumerate(cases):
        row, column = 2 * (number // COLUMNS), number % COLUMNS
        x, y, z = case.point
        centre = float(np.clip(RING_CENTRE_MM, y - HALF_MM + 12, y + HALF_MM - 12))
        axes[row, column].set_title(case.title, color="white", fontsize=9)
        _cut(axes[row, column], case, (0.0, centre, z), across=(1, 0, 0), down=(0, 1, 0))
        _cut(axes[row + 1, column], case, (x, y, z), across=(0, 1, 0), down=(0, 0, -1))
    figure.savefig(path, dpi=80)


def _cut(axis: Axes, case: Case, middle: Point, *, across: tuple[int, int, int], down: tuple[int, int, int]) -> None:
    """A plane through `middle`; all in the coordinates of the vertebra, so that its ring or body lies flat."""
    scan, shape = case.phantom.spec.scan, _of(case.phantom.spec, case.level)
    along = np.arange(-HALF_MM, HALF_MM, STEP_MM)
    local = np.array(middle) + along[None, :, None] * np.array(across) + along[:, None, None] * np.array(down)
    world = local @ spine.rotation(shape).T + np.array(shape.centre) - np.array(scan.origin)
    index = np.moveaxis(world[..., ::-1] / np.array(scan.spacing), -1, 0)
    plane = map_coordinates(case.phantom.volume.astype(np.float32), index, order=1, cval=-1024)
    axis.imshow(plane, cmap="gray", vmin=case.window[0], vmax=case.window[1])


if __name__ == "__main__":
    main()
