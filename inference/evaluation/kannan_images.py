"""The images of the paper 001 protocol: axial slices of the case crop, which vertebra each shows, and its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inference.datasets.labelled import CERVICAL, UnusableData
from inference.datasets.store import Case
from inference.evaluation.salehinejad2021 import CASE_CROP, cropped


@dataclass(frozen=True, kw_only=True)
class Images:
    """Slices that show a cervical vertebra, of many cases, on the CPU."""

    #: int16 (n, size, size).
    hu: torch.Tensor
    #: uint8 (n, size, size): 0 for all else, 1 to 7 for C1 to C7.
    levels: torch.Tensor
    #: bool (n, size, size); means nothing where `fractured` is -1.
    fractures: torch.Tensor
    #: int64 (n,), 0 to 6: the cervical vertebra with the most voxels in the crop, at full resolution.
    vertebra: torch.Tensor
    #: int64 (n,): 1 shows at least POSITIVE_MM2 of fracture, 0 none, -1 only a trace, or not known.
    fractured: torch.Tensor
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.hu)


def gather(cases: Sequence[Case], *, size: int, stride: int = 1) -> Images:
    """Every `stride`-th slice with a cervical vertebra, of all cases.

    Raises UnusableData for a case without a map of vertebrae, and when no image is left.
    """
    parts = [_images(case, size, stride) for case in cases]
    if not any(map(len, parts)):
        raise UnusableData(f"none of the {len(cases)} cases shows a cervical vertebra in its crop")
    stacked = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("hu", "levels", "fractures", "vertebra", "fractured")
    }
    return Images(**stacked, patients=[patient for part in parts for patient in part.patients])


def _images(case: Case, size: int, stride: int) -> Images:
    voxels = vertebra_voxels(case)
    at = np.flatnonzero(voxels.any(1))[::stride]
    small = cropped(case, CASE_CROP, size)
    path = small.folder / "levels.npy"
    if not path.exists():
        np.save(small.folder / "part.npy", _levels(case, size))
        (small.folder / "part.npy").replace(path)  # an interrupted case is made again
    shows_any = bool(case.labels.any())
    marks = np.array(small.fractures[at]) if shows_any else np.zeros((len(at), size, size), bool)
    return Images(
        hu=torch.from_numpy(np.array(small.hu[at])),
        levels=torch.from_numpy(np.array(np.load(path, mmap_mode="r")[at])),
        fractures=torch.from_numpy(marks),
        vertebra=torch.from_numpy(voxels[at].argmax(1)),
        fractured=torch.from_numpy(np.where(case.clear, case.labels, -1)[at]),
        patients=[case.patient] * len(at),
    )


def vertebra_voxels(case: Case) -> np.ndarray:
    """(slices, 7): voxels of C1 to C7 inside the crop."""
    inside = case.crop.inside(case.vertebrae)
    return np.stack([(inside == value).sum((1, 2)) for value in range(1, len(CERVICAL) + 1)], axis=1)


def _levels(case: Case, size: int) -> np.ndarray:
    """uint8 (slices, size, size): the vertebra that fills more than half of a pixel."""
    vertebrae = np.array(case.vertebrae)
    found = torch.zeros(len(vertebrae), size, size, dtype=torch.uint8)
    for value in range(1, len(CERVICAL) + 1):
        mask = vertebrae == value
        at = np.flatnonzero(mask.any((1, 2)))
        if len(at):
            shown = case.crop.cut(torch.from_numpy(mask[at].astype(np.float32)), size) > 0.5
            found[at] = torch.where(shown, value, found[at])
    return found.numpy()
