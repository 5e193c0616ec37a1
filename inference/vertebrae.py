"""Vertebrae in CT and MR: outlined by the U-Net of paper 001, named only where the anatomy confirms the names.

A wrong level is worse than none. So each vertebra is named once, neighbours follow each other from head to feet at
plausible distances and sizes, and counting starts from a landmark in view; otherwise no name is given, and a sentence
says why. A disc is named after the vertebrae that it lies between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from inference import counting, engine
from inference.datasets.labelled import CERVICAL
from inference.findings import Code
from inference.nets.unet import Maps, VertebraUNet
from inference.preprocess.isotropic import INSIDE, enlarge, resample
from inference.preprocess.sagittal import CT, View, images, network_input

#: The cervical vertebrae (PS3.16 CID 7603).
CODES = {
    level: Code(scheme="SCT", value=value, meaning=f"{level} vertebra")
    for level, value in zip(
        CERVICAL,
        ("14806007", "39976000", "113205007", "5329002", "36978003", "36054005", "87391001"),
        strict=True,
    )
}
STRIDE = 32  # of the network: images are padded to a multiple
SURE = 0.6  # mean probability of the voxels of a named vertebra
#: A part of a vertebra smaller than this share of its largest part is noise; fragments are larger.
SPECK = 0.05
FRACTURE_VOXELS = 10  # the most suspicious ones of a vertebra speak for it: one is noise


Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What a network tells apart, and what has to be true of it."""

    view: View
    #: From which to count.
    landmarks: tuple[str, ...]
    #: cm3 of a whole vertebra with arch and processes, or of a disc, by its level or its first letter; "/" for discs.
    volume: Mapping[str, Range]
    #: The levels that are wanted; the others are only counted.
    reported: tuple[str, ...]
    #: mm between the centres of neighbours, along the spine's axis, by the upper one or by its first letter; of no use
    #: where names are counted.
    distance: Mapping[str, Range] = field(default_factory=dict)

    @property
    def chain(self) -> list[str]:
        """The vertebrae, from head to feet."""
        return [level for level in self.view.levels if "/" not in level]

    def volumes(self, level: str) -> Range:
        """cm3 of a level."""
        return self.volume["/"] if "/" in level else _of(self.volume, level)


#: C1 lies around the dens of C2. From children to large adults.
NECK_CT = Anatomy(
    view=CT,
    landmarks=("C1", "C2", "T1"),
    distance={"C": (7.0, 32.0), "C1": (3.0, 32.0)},
    volume={"C": (2.0, 45.0), "T": (2.0, 45.0)},
    reported=CERVICAL,
)


def _of(ranges: Mapping[str, Range], level: str) -> Range:
    return ranges[level] if level in ranges else ranges[level[0]]


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """One vertebra, or disc, in a volume (slices, rows, columns)."""

    #: Where it lies in the volume.
    box: tuple[slice, slice, slice]
    #: bool, in the shape of the box.
    inside: np.ndarray
    #: Mean probability of its voxels.
    sure: float
    #: Whether it reaches the first or last slice.
    cut_off: bool
    #: The network's probability of a fractured region inside it, 0..1, not calibrated; means nothing of MR.
    fractured: float


@dataclass(frozen=True, kw_only=True)
class Vertebrae:
    """What was found; empty, with the reason, where the names are not certain."""

    #: From head to feet.
    named: Mapping[str, Vertebra]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """A vertebra on cubic voxels: share of each voxel, and centre (slice, row, column) in mm."""

    share: np.ndarray
    centre: np.ndarray
    volume_cm3: float
    sure: float
    cut_off: bool


def locate(
    net: VertebraUNet, volume: np.ndarray, spacing: Sequence[float], mm: float, anatomy: Anatomy = NECK_CT
) -> Vertebrae:
    """Outline and name the vertebrae of a volume: feet to head, front to back, the patient's right to left.

    In HU, or in thousandths of the range of an MR series.
    """
    levels, fracture = shares(net, resample(volume, spacing, mm), anatomy.view)
    if anatomy.view.is_counted:
        levels, problem = counting.count(levels, mm, anatomy.view, anatomy.landmarks)
        if problem:
            return Vertebrae(named={}, notes=(f"vertebrae are not named: {problem}",))
    found, notes = named(levels, mm, anatomy)
    out = {}
    for level, candidate in found.items():
        box, inside = enlarge(candidate.share, volume.shape)
        if inside.any():
            out[level] = Vertebra(
                box=box,
                inside=inside,
                sure=candidate.sure,
                cut_off=candidate.cut_off,
                fractured=float(np.sort(fracture[candidate.share >= INSIDE])[-FRACTURE_VOXELS:].mean()),
            )
    return Vertebrae(named=out, notes=notes)


def shares(net: VertebraUNet, hu: np.ndarray, view: View = CT) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each output (outputs, slices, rows, columns), and of fracture, from values on cubic voxels."""
    device = next(net.parameters()).device
    net.eval()
    slices, rows = hu.shape[:2]
    padded = np.pad(hu, [(0, -slices % STRIDE), (0, -rows % STRIDE), (0, 0)], constant_values=view.outside)
    columns = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))

    def probabilities(at: torch.Tensor) -> torch.Tensor:
        maps: Maps = net(network_input(images(columns, at.tolist()).to(device), view))
        both = torch.cat([maps.vertebrae.softmax(1)[:, 1:], maps.fracture.sigmoid()[:, None]], 1)
        return both[:, :, :slices, :rows].cpu()

    found = engine.in_batches(probabilities, torch.arange(len(columns)), device=torch.device("cpu"))
    both = found.permute(1, 2, 3, 0).contiguous().numpy()
    return both[:-1], both[-1]


def named(share: np.ndarray, mm: float, anatomy: Anatomy = NECK_CT) -> tuple[dict[str, _Candidate], tuple[str, ...]]:
    """The levels whose names the anatomy confirms, vertebrae from head to feet, and what speaks against the others.

    share (levels, slices, rows, columns) as `shares` gives it, slices from feet to head, voxels of `mm`.
    """
    best = share.argmax(0)
    filled = share.max(0) >= np.maximum(1 - share.sum(0), 0.0)  # more probable than background
    marks = np.where(filled, best + 1, 0)
    boxes = ndimage.find_objects(marks, len(share))
    candidates = {}
    for number, (level, box) in enumerate(zip(anatomy.view.levels, boxes, strict=True)):
        if box is None:
            continue
        # One voxel more on each side: the outline lies between the voxels, where the probability is a half.
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        candidate = _candidate(share[number], marks[around] == number + 1, around, mm, anatomy.volumes(level)[0])
        if candidate is not None:
            candidates[level] = candidate
    problem = _problem({level: candidates[level] for level in anatomy.chain if level in candidates}, anatomy)
    if problem:
        return {}, (f"vertebrae are not named: {problem}",)
    partial = [level for level, one in candidates.items() if one.cut_off and level in anatomy.reported]
    return candidates, (f"partly in view: {', '.join(partial)}",) if partial else ()


def _candidate(
    share: np.ndarray, mine: np.ndarray, around: tuple[slice, ...], mm: float, least: float
) -> _Candidate | None:
    """One label without specks, from its probability and where around it it is the most probable; None if too small."""
    parts, _ = ndimage.label(mine, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    kept = np.isin(parts, 1 + np.nonzero(sizes >= SPECK * sizes.max())[0])
    cut_off = bool(kept[0].any() or kept[-1].any())
    volume = float(kept.sum()) * mm**3 / 1000
    if volume < least and not (cut_off and volume >= least / 4):
        return None
    whole = np.zeros(share.shape, np.float32)
    whole[around] = np.where(ndimage.binary_dilation(kept, np.ones((3, 3, 3))), share[around], 0.0)
    return _Candidate(
        share=whole,
        centre=(np.array(ndimage.center_of_mass(kept)) + [side.start for side in around]) * mm,
        volume_cm3=volume,
        sure=float(share[around][kept].mean()),
        cut_off=cut_off,
    )


def _problem(candidates: Mapping[str, _Candidate], anatomy: Anatomy) -> str:
    """What speaks against the names of the vertebrae; empty if nothing does."""
    if not candidates:
        return "none was recognised"
    chain, present = anatomy.chain, list(candidates)
    first, last = chain.index(present[0]), chain.index(present[-1])
    missing = [level for level in chain[first:last] if level not in candidates]
    if missing:
        return f"{', '.join(missing)} between {present[0]} and {present[-1]} was not recognised"
    landmarks = [level for level in present if level in anatomy.landmarks and candidates[level].sure >= SURE]
    if not landmarks:
        *others, final = anatomy.landmarks
        return f"none of {', '.join(others)} and {final}, from which to count, is in view"
    unsure = [level for level in present if candidates[level].sure < SURE]
    if unsure:
        return f"the network is not sure of {', '.join(unsure)}"
    large = [level for level in present if candidates[level].volume_cm3 > anatomy.volumes(level)[1]]
    if large:
        return f"{', '.join(large)} would be larger than a vertebra"
    if anatomy.view.is_counted:  # in their order, at distances that were looked at before
        return ""
    pairs = zip(present[:-1], present[1:], strict=True)
    return next((text for pair in pairs if (text := _distance(*pair, candidates, anatomy))), "")


def _distance(upper: str, lower: str, candidates: Mapping[str, _Candidate], anatomy: Anatomy) -> str:
    """What is wrong with the distance of two neighbours; empty if nothing is."""
    one, other = candidates[upper], candidates[lower]
    apart = float(np.linalg.norm(one.centre - other.centre))
    low, high = _of(anatomy.distance, upper)
    if one.centre[0] <= other.centre[0]:
        return f"{lower} would lie above {upper}"
    if one.cut_off or other.cut_off or low <= apart <= high:
        return ""
    return f"{upper} and {lower} would be {apart:.0f} mm apart"
