"""CSpineSeg: cervical T2 MR with outlined vertebral bodies and discs (Zhou et al. 2025, 10.1038/s41597-025-05975-w).

The image `NAME.nii.gz` and its outlines `NAME_SEG.nii.gz` may lie anywhere below the place; NAME is
PATIENT-STUDY-SERIES, 1 is a vertebral body, 2 a disc. Images without outlines are left out. The outlines do not say
which vertebra is which, and nothing is known of lesions. This is assumed:

- the uppermost body is C2: C1 has none, and cervical series begin above C2;
- bodies and discs take turns. Where they do not, as in fused vertebrae, counting would go wrong: the study then has
  no structures.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from inference.datasets import grid, itk_volume
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import DISC, VERTEBRAE, LabelledMR, MRDataSet, MRSeries
from inference.datasets.mr_series import placed, renamed
from inference.datasets.nifti import without_suffix

logger = logging.getLogger(__name__)

SOURCE = "CSpineSeg (Duke), doi 10.1038/s41597-025-05975-w, outlined vertebral bodies and discs"
LICENCE = "terms agreed to at download"
BODY, BETWEEN = 1, 2
SMALLEST_MM3 = 100.0  # of a body or disc; what is smaller is a stray voxel of an outline drawn by hand


def open_dataset(place: str) -> MRDataSet:
    """Every image below the folder `place` with outlines. Raises UnusableData where there is none, or a name twice."""
    root = Path(place)
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*.nii.gz")):
        name = without_suffix(path)
        if name in files:
            raise UnusableData(f"{files[name]} and {path} have one name; leave one of them")
        files[name] = path
    images = [name for name in files if not name.endswith("_SEG")]
    outlined = [name for name in images if f"{name}_SEG" in files]
    if not outlined:
        raise UnusableData(f"{root}: none of {len(images)} image(s) NAME.nii.gz has its outlines NAME_SEG.nii.gz")
    pairs = {name: (files[name], files[f"{name}_SEG"]) for name in outlined}
    return CSpineSeg(root, pairs, left_out=len(images) - len(outlined))


@dataclass(frozen=True)
class CSpineSeg:
    """An MRDataSet of anatomy."""

    root: Path
    #: Image and outlines by name.
    pairs: Mapping[str, tuple[Path, Path]]
    #: How many images have no outlines.
    left_out: int

    @cached_property
    def names(self) -> Sequence[str]:
        """PATIENT-STUDY-SERIES in the order of the files."""
        if self.left_out:
            logger.warning("%s: %d images without outlines are left out", self.root, self.left_out)
        return tuple(self.pairs)

    def load(self, name: str) -> LabelledMR:
        """Read one series. Raises UnusableData for a damaged file, or outlines of another grid or with other labels."""
        if name not in self.pairs:
            raise UnusableData(f"{self.root}: no image {name!r} with outlines")
        image_path, mask_path = self.pairs[name]
        image = placed(itk_volume.read(image_path)).turned("sagittal")
        mask = placed(itk_volume.read(mask_path)).turned("sagittal")
        grid.refuse_another(str(mask_path), mask, image)
        kinds = renamed(mask.array, {BODY: BODY, BETWEEN: BETWEEN}, str(mask_path))
        structures = _named(kinds, float(np.prod(image.spacing)))
        if structures is None:
            logger.warning("%s: bodies and discs do not take turns from C2 on; without structures", mask_path)
        series = MRSeries(
            sequence="T2",
            plane="sagittal",
            values=image.array.astype(np.float32),
            affine=image.affine,
            boxes=None,
            structures=structures,
        )
        return LabelledMR(
            name=name,
            patient=name.split("-")[0],
            region="cervical",
            series=(series,),
            source=SOURCE,
            licence=LICENCE,
        )


def _named(kinds: np.ndarray, voxel_mm3: float) -> np.ndarray | None:
    """Bodies and discs (slices, rows, columns; rows from head to feet) counted from C2; None where they cannot be."""
    pieces: list[tuple[float, int, np.ndarray]] = []
    for kind in (BODY, BETWEEN):
        labels, count = ndimage.label(kinds == kind, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_mm3
        heights = ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))
        pieces += [(heights[one][1], kind, labels == one + 1) for one in range(count) if sizes[one] >= SMALLEST_MM3]
    pieces.sort(key=lambda piece: piece[0])
    if [kind for _, kind, _ in pieces] != [BODY if n % 2 == 0 else BETWEEN for n in range(len(pieces))] or not pieces:
        return None
    found = np.zeros(kinds.shape, np.uint8)
    for position, (_, kind, voxels) in enumerate(pieces):
        found[voxels] = VERTEBRAE["C2"] + position // 2 + (DISC if kind == BETWEEN else 0)
    return found
