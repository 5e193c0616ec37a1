"""CT volumes and vertebra maps in NIfTI, reoriented by their affine and never resampled."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK

from inference.datasets import grid, itk_volume
from inference.datasets.labelled import LEVELS, LabelledCT, UnusableData

logger = logging.getLogger(__name__)

#: As in VerSe: 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 27 coccyx, 28 T13.
LAST_LABEL = 28


class Image(NamedTuple):
    """A NIfTI volume in the order of a labelled case."""

    #: (slices, rows, columns): feet to head, front to back, right to left.
    array: np.ndarray
    #: mm, (slice, row, column).
    spacing: tuple[float, float, float]
    #: Centres of the first and the last voxel, (2, 3), LPS in mm.
    corners: np.ndarray


class Pair(NamedTuple):
    """A CT volume, the vertebra map on its grid and whose they are."""

    ct: Path
    mask: Path
    patient: str


@dataclass(frozen=True, kw_only=True)
class NiftiPairs:
    """A DataSet of volumes with vertebra maps; it knows nothing of fractures."""

    source: str
    licence: str
    pairs: Mapping[str, Pair]
    #: Which volumes of the data set are not offered and why; empty where all are.
    left_out: str

    @cached_property
    def names(self) -> Sequence[str]:
        """Every case, in a fixed order."""
        if self.left_out:
            logger.warning("%s: %s", self.source, self.left_out)
        return tuple(self.pairs)

    def load(self, name: str) -> LabelledCT:
        """Read one case. Raises UnusableData where a file cannot be read or the map lies on another grid."""
        if name not in self.pairs:
            raise UnusableData(f"{self.source}: no case {name!r}")
        pair = self.pairs[name]
        ct, mask = read_image(pair.ct), read_image(pair.mask)
        grid.refuse_another(f"{pair.mask}, map of {pair.ct.name}", mask, ct)
        return LabelledCT(
            name=name,
            patient=pair.patient,
            # Values beyond int16 are padding or metal; a wrap-around would turn metal into air.
            hu=np.clip(np.rint(ct.array), -32768, 32767).astype(np.int16),
            spacing=ct.spacing,
            vertebrae=vertebrae(mask.array, pair.mask),
            fractures=None,
            levels=None,
            fractured=None,
            source=self.source,
            licence=self.licence,
        )


def read_image(path: Path) -> Image:
    """Read one volume, its axes permuted and flipped to the nearest of the patient's.

    Raises UnusableData for a file that is damaged or no three-dimensional grey image.
    """
    # ITK works in LPS and stores columns first: increasing L, P, S are columns, rows and slices of the array.
    image = SimpleITK.DICOMOrient(itk_volume.read(path), "LPS")
    column, row, step = image.GetSpacing()
    last = [n - 1 for n in image.GetSize()]
    corners = np.array([image.TransformIndexToPhysicalPoint(index) for index in ([0, 0, 0], last)])
    return Image(SimpleITK.GetArrayFromImage(image), (step, row, column), corners)


def vertebrae(labels: np.ndarray, path: Path) -> np.ndarray:
    """A map of the positions in LEVELS plus one, uint8, from the labels of VerSe; everything below T12 becomes 0.

    Raises UnusableData for values that are no labels, such as those of a CT.
    """
    known = (labels >= 0) & (labels <= LAST_LABEL) & (labels == np.rint(labels))
    if not known.all():
        value = labels[~known].flat[0]
        raise UnusableData(f"{path}: {value:g} is no label of a vertebra; the labels of VerSe are 0 to {LAST_LABEL}")
    return np.where(labels > len(LEVELS), 0, labels).astype(np.uint8)


def without_suffix(path: Path) -> str:
    """The file name without .nii or .nii.gz; other dots stay, for names that are UIDs."""
    return path.name.removesuffix(".gz").removesuffix(".nii")
