"""MR phantoms that several tests look at: small views of quiet patients, rendered once per process, never changed."""

from dataclasses import replace
from functools import cache

import numpy as np

from inference.phantom.mr.course import canal_centre
from inference.phantom.mr.rendering import RenderedMR, render
from inference.phantom.mr.sampling import sample_spec
from inference.phantom.mr.specification import CordKind, CordLesion, Disc, MRPhantomSpec, Region

SEED = 21  # a straight neck, and a straight back with five lumbar vertebrae
LEVEL = {"cervical": "C5", "lumbar": "L4"}


def plain(region: Region) -> MRPhantomSpec:
    """Return a young patient without anything wrong, in a scanner without artefacts."""
    spec = sample_spec(SEED, region, "easy", positive=False)
    quiet = [
        replace(a, noise=0.003, ghost=0.0, motion=None, fold=0.0, shift=(0.0, 0.0), acquired=(0.95, 0.95))
        for a in spec.scan.acquisitions
    ]
    scan = replace(spec.scan, acquisitions=tuple(quiet), flow=0.0, coil=(60.0, 0.0), reversed=False)
    discs = tuple(
        replace(d, grade=1, bulge_mm=0.0, modic=0, stenosis=0.0, osteophyte_mm=0.0) if d.upper[0] != "S" else d
        for d in spec.discs
    )
    return small(replace(spec, scan=scan, discs=discs, cord=(), swellings=(), spots=(), implant=None))


def small(spec: MRPhantomSpec, level: str | None = None) -> MRPhantomSpec:
    """Return the same phantom in few and small images around the canal behind a vertebra."""
    x, y, z = canal_centre(spec.vertebra(level or LEVEL[spec.region]))
    centre = (x, y - 6, z)
    sagittal = replace(spec.scan.sagittal, shape=(3, 144, 144), centre=centre)
    axial = replace(spec.scan.axial, shape=(3, 96, 96), centre=centre)
    return replace(spec, scan=replace(spec.scan, sagittal=sagittal, axial=axial))


def with_disc(spec: MRPhantomSpec, level: str, **changes: object) -> tuple[MRPhantomSpec, Disc]:
    """Return the phantom with one disc changed, and that disc."""
    changed = replace(next(d for d in spec.discs if d.level == level), **changes)
    return replace(spec, discs=tuple(changed if d.level == level else d for d in spec.discs)), changed


def lesion(kind: CordKind) -> CordLesion:
    """Return a plain lesion behind C5."""
    return CordLesion(
        kind=kind, level="C5", offset=0.0, length=22.0, radius=0.9, conspicuity=1.0, phases=(1.0, 2.0, 3.0, 4.0)
    )


@cache
def rendered(region: Region, kind: CordKind | None = None) -> RenderedMR:
    """Return the plain phantom, with a lesion of the cord if asked."""
    spec = plain(region)
    phantom = render(replace(spec, cord=(lesion(kind),) if kind else ()))
    for array in (*(image.values for image in phantom.images), *(one.values for one in phantom.labels.values())):
        array.flags.writeable = False
    return phantom


def mean(phantom: RenderedMR, sequence: str, tissue: str) -> float:
    """Return the mean value of a sagittal series where all layers of a slice are of a tissue, by its name."""
    from inference.phantom.mr.tissue import TISSUES

    labels = phantom.labels["sagittal"]
    numbers = [n for n, known in enumerate(labels.tissues) if known == TISSUES[tissue]]
    inside = np.isin(labels.values, numbers).all(1)
    image = next(i for i in phantom.images if i.acquisition.kind == f"sagittal {sequence}")
    assert inside.sum() > 10, tissue
    return float(image.values[inside].mean())


@cache
def sagittal(region: Region, seed: int, sequence: str = "T2") -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return one series of a standard patient, and its spacing in mm, on half the grid. Nobody can change it.

    Without metal and movement, so that each of them is something new.
    """
    spec = sample_spec(seed, region)
    return disturbed(replace(spec, implant=None), sequence)


def disturbed(
    spec: MRPhantomSpec, sequence: str = "T2", **changes: object
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return the same of any patient, with something changed in how the series was acquired."""
    kept = {"motion": None, "fold": 0.0} | changes
    one = next(replace(a, **kept) for a in spec.scan.acquisitions if a.kind == f"sagittal {sequence}")
    # `render` wants both planes.
    across = next(replace(a, fold=0.0) for a in spec.scan.acquisitions if a.plane == "axial")
    (slices, rows, columns), (step, row, column) = spec.scan.sagittal.shape, spec.scan.sagittal.spacing
    stack = replace(spec.scan.sagittal, shape=(slices, rows // 2, columns // 2), spacing=(step, 2 * row, 2 * column))
    scan = replace(
        spec.scan, sagittal=stack, axial=replace(spec.scan.axial, shape=(1, 8, 8)), acquisitions=(one, across)
    )
    values = render(replace(spec, scan=scan)).images[0].values
    values.flags.writeable = False
    return values, stack.spacing
