"""MR phantoms as a labelled data set: `phantom_mr:REGION:PROFILE@FIRST+COUNT`, as in `phantom_mr:lumbar:hard@0+90`.

`phantom_mr:cervical:standard:injured@0+90` are only those of the first 90 seeds that have an injured cord.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import EXCLUSIONS, LabelledMR, MRSeries
from inference.datasets.phantom import profile_and_seeds
from inference.phantom.mr.boxes import boxes, measurements, structures
from inference.phantom.mr.rendering import Image, RenderedMR, affine, render
from inference.phantom.mr.sampling import sample_spec
from inference.phantom.mr.specification import GENERATOR_VERSION, INJURIES, REGIONS, MRPhantomSpec, Region

#: Between the most tilted vertebrae: less is no scoliosis (Cobb 1948).
COBB_DEGREES = 10.0
#: How these are asked for.
INJURED = "injured"


@dataclass(frozen=True)
class MRPhantoms:
    """Rendered when asked for; the name of a study is region, generator version, profile and seed."""

    region: Region
    profile: str
    seeds: range
    #: Only those with an injured cord.
    injured: bool = False

    @cached_property
    def names(self) -> Sequence[str]:
        chosen = [seed for seed in self.seeds if self._wanted(seed)]
        return [f"{self.region}-mr-v{GENERATOR_VERSION}-{self.profile}-{seed}" for seed in chosen]

    def _wanted(self, seed: int) -> bool:
        if not self.injured:
            return True
        return any(lesion.kind in INJURIES for lesion in sample_spec(seed, self.region, self.profile).cord)

    def load(self, name: str) -> LabelledMR:
        """Render the phantom of a name."""
        phantom = render(sample_spec(int(name.rsplit("-", 1)[1]), self.region, self.profile))
        return LabelledMR(
            name=name,
            patient=name,
            region=self.region,
            series=tuple(_series(phantom, image) for image in phantom.images),
            measurements={
                level: {
                    "slip_mm": disc.slip_mm,
                    "slip_percent": disc.slip_percent,
                    "herniation_mm": disc.herniation_mm,
                }
                for level, disc in measurements(phantom).items()
            },
            exclusions=exclusions(phantom.spec),
            source=f"synthetic MR phantoms, generator version {GENERATOR_VERSION}, profile {self.profile}",
            licence="Apache-2.0",
        )


def exclusions(spec: MRPhantomSpec) -> tuple[str, ...]:
    """Which of EXCLUSIONS a phantom meets."""
    bends = [vertebra.roll for vertebra in spec.vertebrae]
    met = {
        "surgery": spec.implant is not None,
        "tumour": any(lesion.kind == "tumour" for lesion in spec.cord),
        "scoliosis": math.degrees(max(bends) - min(bends)) >= COBB_DEGREES,
        "motion": any(one.motion is not None for one in spec.scan.acquisitions if one.plane == "sagittal"),
    }
    return tuple(criterion for criterion in EXCLUSIONS if met[criterion])


def _series(phantom: RenderedMR, image: Image) -> MRSeries:
    return MRSeries(
        sequence=image.acquisition.sequence,
        plane=image.acquisition.plane,
        values=image.values.astype("float32"),
        affine=affine(phantom.spec, image.acquisition.plane),
        boxes=boxes(phantom, image),
        structures=structures(phantom, image),
    )


def open_dataset(place: str) -> MRPhantoms:
    """Parse REGION:PROFILE@FIRST+COUNT, `:injured` after the profile if only such phantoms are wanted.

    Raises UnusableData for anything else, and for seeds that are reserved.
    """
    name, _, rest = place.partition(":")
    region = next((known for known in REGIONS if known == name), None)
    if region is None:
        raise UnusableData(
            f"phantom_mr:{place}: write phantom_mr:REGION:PROFILE@FIRST+COUNT, REGION {' or '.join(REGIONS)}"
        )
    profile, seeds = profile_and_seeds(f"phantom_mr:{region}", rest.replace(f":{INJURED}@", "@"))
    return MRPhantoms(region, profile, seeds, injured=f":{INJURED}@" in rest)
