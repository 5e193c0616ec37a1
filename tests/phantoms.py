"""Phantoms that several tests look at: rendered once per process, never changed."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

import numpy as np
import pydicom

from inference.phantom import mechanisms, mimics
from inference.phantom.cervical_ct import Rendered, render, sample_spec
from inference.phantom.specification import LEVELS, PROFILES, PhantomSpec
from inference.phantom.studies import write_studies
from inference.phantom.vendors import VENDORS

SMALL_SEED = 689  # the smallest whole neck of the first 1500 seeds: 93 slices of 208 x 208, one facet of C3


@cache
def rendered(seed: int = SMALL_SEED, profile: str = "standard", *, positive: bool | None = None) -> Rendered:
    """Return the phantom of a seed, with its label or a forced one."""
    return locked(render(sample_spec(seed, profile, positive=positive)))


@cache
def broken_neck() -> tuple[Path, ...]:
    """Return the images of a study with a fracture that the shipped model finds, from the range training never saw."""
    folder = Path(mkdtemp(prefix="phantom-"))
    [study] = write_studies(folder, count=1, seed=950_092, profile="standard", truth=False, positive=True)
    # Without the dose report, which is an SR too: every SR that the PACS ends up with is ours.
    files = (path for path in study.iterdir() if pydicom.dcmread(path, specific_tags=["Modality"]).Modality == "CT")
    return tuple(sorted(files))


def locked(phantom: Rendered) -> Rendered:
    """Return the phantom with arrays that nobody can change."""
    for array in (phantom.volume, phantom.fractures, phantom.vertebrae):
        array.flags.writeable = False
    return phantom


@cache
def closeup(level: str, mechanism: str | None = None, variant: str | None = None) -> Rendered:
    """Return 44 mm around one vertebra of an easy neck without artefacts: intact, broken or with a variant."""
    spec = sample_spec(SMALL_SEED, "easy", positive=False)
    scan = replace(spec.scan, motion=None, rings_hu=0.0, trabecular_hu=250.0, noise_hu=10.0)
    spec = replace(spec, lesions=(), canals=(), implant=None, scan=scan, neck=replace(spec.neck, filling=False))
    shape = spec.vertebrae[LEVELS.index(level)]
    rng = np.random.default_rng(5)
    if mechanism is not None:
        broken = mechanisms.one(rng, shape, PROFILES["easy"], mechanism)
        shape, spec = broken.shape, replace(spec, lesions=(broken.lesion,))
    if variant is not None:
        spec = replace(spec, lesions=(mimics.variant(rng, shape, variant),))
        shape = replace(shape, front_loss=0.3, back_loss=0.03) if variant == "old compression" else shape
    spec = replace(spec, vertebrae=tuple(shape if v.level == level else v for v in spec.vertebrae))
    return locked(render(slab(spec, shape.centre[2], slices=round(44 / scan.spacing[0]))))


def slab(spec: PhantomSpec, height: float, *, slices: int) -> PhantomSpec:
    """Return the same phantom seen in a few slices around a height in the world, mm: fast to render and to write."""
    scan = spec.scan
    lowest = height - scan.spacing[0] * (slices // 2)
    return replace(spec, scan=replace(scan, shape=(slices, *scan.shape[1:]), origin=(*scan.origin[:2], lowest)))


def thin(spec: PhantomSpec, *, slices: int = 6) -> PhantomSpec:
    """Return the same phantom seen in a few slices through the middle."""
    scan = spec.scan
    return slab(spec, scan.origin[2] + scan.spacing[0] * (scan.shape[0] // 2), slices=slices)


def blank(vendor: Literal["siemens", "ge", "philips", "canon"] = "canon", *, slices: int = 24) -> Rendered:
    """Return a small phantom of nothing but air, quick to write."""
    spec = thin(sample_spec(SMALL_SEED), slices=slices)
    spec = replace(spec, scan=replace(spec.scan, vendor=vendor, shape=(slices, 60, 80)))
    nothing = np.zeros(spec.scan.shape, np.uint8)
    return Rendered(spec=spec, volume=nothing.astype(np.int16) - 1000, fractures=nothing, vertebrae=nothing.copy())


def series_paths(folder: Path, spec: PhantomSpec, kind: str) -> list[Path]:
    """Return the files of one series of a written phantom."""
    number = VENDORS[spec.scan.vendor].names[kind].number
    return sorted(folder.glob(f"SE{number:04d}*.dcm"))
