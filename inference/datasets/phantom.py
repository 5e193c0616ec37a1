"""Phantoms as a labelled data set: `phantom:PROFILE@FIRST+COUNT`, such as `phantom:standard@0+560`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.datasets.labelled import CERVICAL, LabelledCT, UnusableData
from inference.phantom.cervical_ct import render, sample_spec
from inference.phantom.specification import FIRST_RESERVED_SEED, GENERATOR_VERSION, PROFILES


@dataclass(frozen=True)
class Phantoms:
    """Rendered when asked for; the name of a case is generator version, profile and seed."""

    profile: str
    seeds: range

    @property
    def names(self) -> Sequence[str]:
        return [f"cervical-ct-v{GENERATOR_VERSION}-{self.profile}-{seed}" for seed in self.seeds]

    def load(self, name: str) -> LabelledCT:
        phantom = render(sample_spec(int(name.rsplit("-", 1)[1]), self.profile))
        visible = np.bincount(phantom.fractures.ravel(), minlength=len(phantom.spec.acute) + 1)[1:] > 0
        broken = {lesion.level for lesion, seen in zip(phantom.spec.acute, visible, strict=True) if seen}
        return LabelledCT(
            name=name,
            patient=name,
            hu=phantom.volume,
            spacing=phantom.spec.scan.spacing,
            vertebrae=phantom.vertebrae,
            fractures=phantom.fractures > 0,
            levels={level: level in broken for level in CERVICAL},
            fractured=bool(broken),
            source=f"synthetic phantoms, generator version {GENERATOR_VERSION}, profile {self.profile}",
            licence="Apache-2.0",
        )


def open_dataset(place: str) -> Phantoms:
    """Parse PROFILE@FIRST+COUNT. Raises UnusableData for anything else, and for seeds that are reserved."""
    return Phantoms(*profile_and_seeds("phantom", place))


def profile_and_seeds(name: str, place: str) -> tuple[str, range]:
    """Parse the PROFILE@FIRST+COUNT of a data set. Raises UnusableData."""
    match = re.fullmatch(r"(\w+)@(\d+)\+(\d+)", place)
    if match is None or match[1] not in PROFILES:
        raise UnusableData(f"{name}:{place}: write {name}:PROFILE@FIRST+COUNT, PROFILE one of {', '.join(PROFILES)}")
    seeds = range(int(match[2]), int(match[2]) + int(match[3]))
    if seeds.stop > FIRST_RESERVED_SEED:
        raise UnusableData(f"{name}:{place}: seeds from {FIRST_RESERVED_SEED} are reserved for independent evaluation")
    return match[1], seeds
