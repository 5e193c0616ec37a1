"""Draws what an MR phantom shows, for docs/phantoms.md: both regions, lesions, discs, and what only looks like one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from inference.phantom.mr import spines
from inference.phantom.mr.course import canal_centre
from inference.phantom.mr.rendering import RenderedMR, affine, render
from inference.phantom.mr.sampling import sample_spec
from inference.phantom.mr.specification import (
    CordKind,
    CordLesion,
    Disc,
    Herniation,
    Motion,
    MRPhantomSpec,
    Region,
    Spot,
    Swelling,
)

SEED = {"cervical": 21, "lumbar": 21}
COLUMNS = 6
HALF_MM = 42.0
KINDS = ("sagittal T1", "sagittal T2", "sagittal STIR")
PUSHED = Herniation(size=6.0, side=0.0, drift=0.0, width=9.0, height=5.5)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A phantom to be shown around one vertebra in one of its series."""

    title: str
    spec: MRPhantomSpec
    level: str
    kind: str = "sagittal T2"


def main() -> None:
    """Draw the sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    _regions(out / "phantom-mr.png")
    _sheet([*_injuries(), *_discs()], out / "phantom-mr-findings.png")
    _sheet([*_mimics(), *_flaws()], out / "phantom-mr-mimics.png")


def _plain(region: Region) -> MRPhantomSpec:
    spec = sample_spec(SEED[region], region, "easy", positive=False)
    series = tuple(replace(a, noise=0.012, ghost=0.0, fold=0.0, motion=None) for a in spec.scan.acquisitions)
    scan = replace(spec.scan, acquisitions=series, flow=0.0)
    return replace(spec, scan=scan, cord=(), swellings=(), spots=(), implant=None)


def _with_disc(level: str, region: Region = "lumbar", **changes: object) -> MRPhantomSpec:
    spec = _plain(region)
    return replace(spec, discs=tuple(replace(d, **changes) if d.level == level else d for d in spec.discs))


def _lesion(kind: CordKind, **changes: object) -> MRPhantomSpec:
    usual: dict[str, object] = {"level": "C5", "offset": 0.0, "length": 22.0, "radius": 0.88, "conspicuity": 1.0}
    lesion = CordLesion(kind=kind, phases=(1.0, 2.0, 3.0, 4.0), **{**usual, **changes})  # type: ignore[arg-type]
    return replace(_plain("cervical"), cord=(lesion,))


def _injuries() -> list[Case]:
    kinds: tuple[CordKind, ...] = ("oedema", "haemorrhage", "mixed")
    cases = [
        Case(title=f"{kind}, {name.split()[1]}", spec=_lesion(kind), level="C5", kind=name)
        for kind in kinds
        for name in KINDS
    ]
    around = tuple(
        Swelling(place=place, level="C5", length=45.0, thickness=size)
        for place, size in (("epidural", 3.5), ("prevertebral", 7.0), ("posterior", 7.0))
    )
    swollen = replace(_lesion("oedema"), swellings=around)
    pushed = _with_disc("C5/C6", "cervical", herniation=replace(PUSHED, size=4.5, width=6.0, height=4.0))
    return [
        *cases,
        Case(title="blood and swelling, STIR", spec=swollen, level="C5", kind="sagittal STIR"),
        Case(title="herniation C5/C6", spec=pushed, level="C6"),
        Case(title="herniation C5/C6, axial", spec=_centred(pushed, "C5/C6"), level="C6", kind="axial T2"),
    ]


def _discs() -> list[Case]:
    grades = [
        Case(title=f"L3/L4, Pfirrmann {grade}", spec=_with_disc("L3/L4", grade=grade), level="L4")
        for grade in (1, 3, 5)
    ]
    herniated = _with_disc("L4/L5", herniation=PUSHED, grade=4)
    migrated = _with_disc("L4/L5", herniation=replace(PUSHED, drift=-6.0, height=8.0), grade=4)
    return [
        *grades,
        Case(title="herniation L4/L5, 6 mm", spec=herniated, level="L5"),
        Case(title="the same, axial", spec=_centred(herniated, "L4/L5"), level="L5", kind="axial T2"),
        Case(title="migrated downwards", spec=migrated, level="L5"),
        Case(title="bulge of 2.2 mm (no finding)", spec=_with_disc("L4/L5", bulge_mm=2.2, grade=4), level="L5"),
        Case(title="slip L4 on L5, 20 %", spec=_slipped(20.0), level="L5"),
        Case(title="slip L4 on L5, 32 %", spec=_slipped(32.0), level="L5"),
        Case(title="retrolisthesis L4, -10 %", spec=_slipped(-10.0), level="L5"),
    ]


def _centred(spec: MRPhantomSpec, level: str) -> MRPhantomSpec:
    """The axial stack with its middle in a disc."""
    upper, lower = (np.array(spec.vertebra(name).centre) for name in level.split("/"))
    pitch = spec.scan.axial.pitch
    x, y, z = ((upper + lower) / 2 + 18 * np.array([0, np.cos(pitch), np.sin(pitch)])).tolist()
    return replace(spec, scan=replace(spec.scan, axial=replace(spec.scan.axial, centre=(x, y, z))))


def _slipped(percent: float) -> MRPhantomSpec:
    spec = _with_disc("L4/L5", grade=4)
    disc: Disc = next(d for d in spec.discs if d.level == "L4/L5")
    return replace(spec, vertebrae=spines.slipped(spec.vertebrae, disc, percent / 100 * spec.vertebra("L5").depth))


def _mimics() -> list[Case]:
    back = _plain("lumbar")
    height = back.vertebra("L3").height
    node = Spot(kind="schmorl", level="L3", centre=(0.0, -3.0, -height / 2), radius=5.5)
    ball = Spot(kind="haemangioma", level="L3", centre=(0.0, -3.0, 0.0), radius=8.0)
    neck = _plain("cervical")
    modic = [
        Case(
            title=f"Modic {kind}, {name.split()[1]}",
            spec=_with_disc("L3/L4", grade=4, modic=kind),
            level="L4",
            kind=name,
        )
        for kind, name in ((1, KINDS[0]), (1, KINDS[2]), (2, KINDS[0]), (3, KINDS[1]))
    ]
    narrow = _with_disc("C5/C6", "cervical", stenosis=0.32, flavum_mm=4.6, osteophyte_mm=2.0, grade=4)
    return [
        Case(title="syrinx", spec=_lesion("syrinx", length=60.0, radius=0.35), level="C5"),
        Case(title="tumour", spec=_lesion("tumour", length=38.0, radius=1.0), level="C5"),
        Case(title="CSF flow", spec=replace(neck, scan=replace(neck.scan, flow=1.0)), level="C5"),
        *modic,
        Case(title="Schmorl node", spec=replace(back, spots=(node,)), level="L3"),
        Case(title="haemangioma", spec=replace(back, spots=(ball,)), level="L3", kind=KINDS[0]),
        Case(title="stenosis, thick flavum", spec=narrow, level="C6"),
        Case(title="metal", spec=replace(neck, implant=("C5", "C6")), level="C6"),
    ]


def _flaws() -> list[Case]:
    neck, back = _plain("cervical"), _plain("lumbar")

    def flawed(spec: MRPhantomSpec, **changes: object) -> MRPhantomSpec:
        series = tuple(replace(a, **changes) for a in spec.scan.acquisitions)  # type: ignore[arg-type]
        return replace(spec, scan=replace(spec.scan, acquisitions=series))

    moved = Motion(during=(0.35, 0.48), shift=(2.5, 1.5))
    return [
        Case(title="truncation", spec=flawed(neck, phase="ROW", acquired=(0.36, 0.85)), level="C5"),
        Case(title="motion", spec=flawed(neck, motion=moved), level="C5"),
        Case(title="ghosts", spec=flawed(neck, ghost=0.3, phase="ROW"), level="C5"),
        Case(title="fold-over", spec=flawed(back, fold=0.08, phase="COL"), level="T11"),
        Case(title="noise", spec=flawed(back, noise=0.09), level="L4"),
        Case(title="chemical shift", spec=flawed(back, bandwidth=70.0), level="L4", kind=KINDS[0]),
        Case(title="scoliosis", spec=_scoliotic(), level="L3"),
    ]


def _scoliotic() -> MRPhantomSpec:
    """The first crooked back."""
    specs = (sample_spec(seed, "lumbar", "easy", positive=False) for seed in range(200))
    return next(one for one in specs if max(abs(v.roll) for v in one.vertebrae) > 0.12)


def _regions(path: Path) -> None:
    """The middle image of every series of a study of each region."""
    figure = Figure(figsize=(12, 6.2), facecolor="black", layout="constrained")
    axes = figure.subplots(2, 4)
    for row, region in enumerate(("cervical", "lumbar")):
        phantom = render(_plain(region))  # type: ignore[arg-type]
        for axis, image in zip(axes[row], phantom.images, strict=True):
            axis.set_axis_off()
            axis.set_title(f"{region}, {image.acquisition.kind}", color="white", fontsize=9)
            shown = image.values[len(image.values) // 2]
            axis.imshow(shown, cmap="gray", vmin=0, vmax=float(np.percentile(image.values, 98.5)))
    figure.savefig(path, dpi=80)


def _sheet(cases: Sequence[Case], path: Path) -> None:
    rows = -(-len(cases) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.2 * rows), facecolor="black", layout="constrained")
    axes = figure.subplots(rows, COLUMNS)
    for axis in axes.ravel():
        axis.set_axis_off()
    for axis, case in zip(axes.ravel(), cases, strict=False):
        phantom = render(case.spec)
        image = next(one for one in phantom.images if one.acquisition.kind == case.kind)
        axis.set_title(case.title, color="white", fontsize=8)
        axis.imshow(_cut(phantom, case), cmap="gray", vmin=0, vmax=float(np.percentile(image.values, 98.5)))
    figure.savefig(path, dpi=80)


def _cut(phantom: RenderedMR, case: Case) -> np.ndarray:
    """The image nearest to the canal behind a vertebra, and of it what is near that."""
    image = next(one for one in phantom.images if one.acquisition.kind == case.kind)
    place = affine(case.spec, image.acquisition.plane)
    steps = np.sqrt((place[:3, :3] ** 2).sum(0))
    away = np.array(canal_centre(case.spec.vertebra(case.level))) + case.spec.scan.table - place[:3, 3]
    along = (away[:, None] * place[:3, :3] / steps**2).sum(0)
    index, row, column = (int(np.clip(round(v), 0, n - 1)) for v, n in zip(along, image.values.shape, strict=True))
    half = round(HALF_MM / steps[1])
    if image.acquisition.plane == "axial":
        index = len(image.values) // 2
    rows, columns = (slice(max(at - half, 0), at + half) for at in (row, column - half // 6))
    return image.values[index, rows, columns]


if __name__ == "__main__":
    main()
