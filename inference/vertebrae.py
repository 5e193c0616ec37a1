"""Vertebrae in an axial CT: outlined by the U-Net of paper 001, named only where the anatomy confirms the names.

A wrong level is worse than none. So each vertebra is named once, neighbours follow each other from head to feet at
plausible distances and sizes, and counting starts from a landmark in view (C1, C2 or T1); otherwise no name is given,
and a sentence says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from inference import engine
from inference.datasets.labelled import CERVICAL
from inference.findings import Code
from inference.nets.unet import Maps, VertebraUNet
from inference.preprocess.crop import PAD_HU
from inference.preprocess.isotropic import INSIDE, enlarge, resample
from inference.preprocess.sagittal import LEVELS, images, network_input

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
LANDMARKS = ("C1", "C2", "T1")
#: mm between the centres of neighbours, along the spine's axis; C1 lies around the dens of C2.
DISTANCE = (7.0, 32.0)
DISTANCE_C1_C2 = (3.0, 32.0)
#: cm3 of a whole vertebra, C1 to T1, children to large adults, with arch and processes.
VOLUME = (2.0, 45.0)
SURE = 0.6  # mean probability of the voxels of a named vertebra
#: A part of a vertebra smaller than this share of its largest part is noise; fragments are larger.
SPECK = 0.05
FRACTURE_VOXELS = 10  # the most suspicious ones of a vertebra speak for it: one is noise


@dataclass(frozen=True, kw_only=True)
class Vertebra:
    """One vertebra in an axial volume (slices, rows, columns)."""

    #: Where it lies in the volume.
    box: tuple[slice, slice, slice]
    #: bool, in the shape of the box.
    inside: np.ndarray
    #: Mean probability of its voxels.
    sure: float
    #: Whether it reaches the first or last slice.
    cut_off: bool
    #: The network's probability of a fractured region inside it, 0..1, not calibrated.
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


def locate(net: VertebraUNet, volume: np.ndarray, spacing: Sequence[float], mm: float) -> Vertebrae:
    """Outline and name the vertebrae of a volume: feet to head, front to back, the patient's right to left, in HU."""
    levels, fracture = shares(net, resample(volume, spacing, mm))
    found, notes = named(levels, mm)
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


def shares(net: VertebraUNet, hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each of LEVELS (levels, slices, rows, columns), and of fracture, from HU on cubic voxels."""
    device = next(net.parameters()).device
    net.eval()
    slices, rows = hu.shape[:2]
    padded = np.pad(hu, [(0, -slices % STRIDE), (0, -rows % STRIDE), (0, 0)], constant_values=PAD_HU)
    columns = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))

    def probabilities(at: torch.Tensor) -> torch.Tensor:
        maps: Maps = net(network_input(images(columns, at.tolist()).to(device)))
        both = torch.cat([maps.vertebrae.softmax(1)[:, 1:], maps.fracture.sigmoid()[:, None]], 1)
        return both[:, :, :slices, :rows].cpu()

    found = engine.in_batches(probabilities, torch.arange(len(columns)), device=torch.device("cpu"))
    both = found.permute(1, 2, 3, 0).contiguous().numpy()
    return both[:-1], both[-1]


def named(share: np.ndarray, mm: float) -> tuple[dict[str, _Candidate], tuple[str, ...]]:
    """The vertebrae whose names the anatomy confirms, from head to feet, and what speaks against the others.

    share (levels, slices, rows, columns) as `shares` gives it, slices from feet to head, voxels of `mm`.
    """
    best = share.argmax(0)
    filled = share.max(0) >= np.maximum(1 - share.sum(0), 0.0)  # more probable than background
    candidates = {}
    for number, level in enumerate(LEVELS):
        candidate = _candidate(share[number], filled & (best == number), mm)
        if candidate is not None:
            candidates[level] = candidate
    problem = _problem(candidates)
    if problem:
        return {}, (f"vertebrae are not named: {problem}",)
    partial = [level for level, candidate in candidates.items() if candidate.cut_off and level in CERVICAL]
    return candidates, (f"partly in view: {', '.join(partial)}",) if partial else ()


def _candidate(share: np.ndarray, mine: np.ndarray, mm: float) -> _Candidate | None:
    """One label without specks, from its probability and where it is the most probable; None without a vertebra."""
    parts, count = ndimage.label(mine, structure=np.ones((3, 3, 3)))
    if not count:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    kept = np.isin(parts, 1 + np.nonzero(sizes >= SPECK * sizes.max())[0])
    cut_off = bool(kept[0].any() or kept[-1].any())
    volume = float(kept.sum()) * mm**3 / 1000
    if volume < VOLUME[0] and not (cut_off and volume >= VOLUME[0] / 4):
        return None
    # One voxel more on each side: the outline lies between the voxels, where the probability is a half.
    around = ndimage.binary_dilation(kept, np.ones((3, 3, 3)))
    return _Candidate(
        share=np.where(around, share, 0.0).astype(np.float32),
        centre=np.array(ndimage.center_of_mass(kept)) * mm,
        volume_cm3=volume,
        sure=float(share[kept].mean()),
        cut_off=cut_off,
    )


def _problem(candidates: Mapping[str, _Candidate]) -> str:
    """What speaks against the names; empty if nothing does."""
    if not candidates:
        return "none was recognised"
    present = [level for level in LEVELS if level in candidates]
    first, last = LEVELS.index(present[0]), LEVELS.index(present[-1])
    missing = [level for level in LEVELS[first:last] if level not in candidates]
    if missing:
        return f"{', '.join(missing)} between {present[0]} and {present[-1]} was not recognised"
    landmarks = [level for level in present if level in LANDMARKS and candidates[level].sure >= SURE]
    if not landmarks:
        return "none of C1, C2 and T1, from which to count, is in view"
    unsure = [level for level in present if candidates[level].sure < SURE]
    if unsure:
        return f"the network is not sure of {', '.join(unsure)}"
    large = [level for level in present if candidates[level].volume_cm3 > VOLUME[1]]
    if large:
        return f"{', '.join(large)} would be larger than a vertebra"
    return next((text for text in map(_distance, *_neighbours(candidates, present)) if text), "")


def _neighbours(
    candidates: Mapping[str, _Candidate], present: Sequence[str]
) -> tuple[list[tuple[str, _Candidate]], list[tuple[str, _Candidate]]]:
    pairs = [(level, candidates[level]) for level in present]
    return pairs[:-1], pairs[1:]


def _distance(upper: tuple[str, _Candidate], lower: tuple[str, _Candidate]) -> str:
    """What is wrong with the distance of two neighbours; empty if nothing is."""
    drop = upper[1].centre[0] - lower[1].centre[0]
    apart = float(np.linalg.norm(upper[1].centre - lower[1].centre))
    low, high = DISTANCE_C1_C2 if upper[0] == "C1" else DISTANCE
    if drop <= 0:
        return f"{lower[0]} would lie above {upper[0]}"
    if upper[1].cut_off or lower[1].cut_off or low <= apart <= high:
        return ""
    return f"{upper[0]} and {lower[0]} would be {apart:.0f} mm apart"
