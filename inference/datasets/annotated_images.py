"""Single MR images with the boxes of one reader: `voc:PATH/READER` or `labelme:PATH/READER`.

`PATH/images.csv` (file, patient, region, sequence, plane, pixel_mm), the images in `PATH/images/`, and for each an
XML file of the same name in the folder of the reader. Images are JPEG or PNG, with pixel_mm as the distance between
pixels, or DICOM, which says it itself. An image is a study of its own. One without XML is one that nobody marked; for
an image without a finding the reader saves an annotation without boxes. Colour becomes grey by the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import SimpleITK

from inference.datasets.annotation import CLASSES, Reader
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox, LabelledMR, MRDataSet, MRSeries, Plane, Weighting
from inference.datasets.mr_series import DIRECTIONS, Placed, placed
from inference.datasets.table import number, rows

SOURCE = "single MR images with the boxes of one reader"
LICENCE = "that of the images"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "region": ("cervical", "lumbar"),
    "sequence": get_args(Weighting),
    "plane": get_args(Plane),
}


def open_reader(folder: Path, read: Reader) -> MRDataSet:
    """Every image of `images.csv` beside the folder of a reader.

    Raises UnusableData where the table cannot be read or names an image twice, or an XML file belongs to no image.
    """
    root = folder.parent
    images: dict[str, dict[str, str]] = {}
    for where, row in rows(root / "images.csv", ("file", "patient", *COLUMNS, "pixel_mm")):
        for column, allowed in COLUMNS.items():
            if row[column] not in allowed:
                raise UnusableData(f"{where}: {column} is {row[column]!r}, not one of {', '.join(allowed)}")
        if not row["patient"] or Path(row["file"]).name != row["file"] or Path(row["file"]).stem in images:
            raise UnusableData(f"{where}: {row['file']!r} has no patient, is no plain name, or was listed before")
        images[Path(row["file"]).stem] = row | {"where": where}
    marked = {path.stem for path in folder.glob("*.xml")}
    if not marked or marked - set(images):
        stray = ", ".join(sorted(marked - set(images))[:3])
        raise UnusableData(
            f"{folder}: " + (f"XML without an image in images.csv: {stray}" if marked else "no XML file")
        )
    return AnnotatedImages(folder, images, read)


@dataclass(frozen=True)
class AnnotatedImages:
    """An MRDataSet of single images."""

    #: Of the reader.
    folder: Path
    #: Rows of images.csv by the name of the image without suffix.
    images: Mapping[str, Mapping[str, Any]]
    read: Reader

    @property
    def names(self) -> Sequence[str]:
        """Images in the order of the table."""
        return tuple(self.images)

    def load(self, name: str) -> LabelledMR:
        """Read one image. Raises UnusableData for a damaged one, and an annotation of another size."""
        if name not in self.images:
            raise UnusableData(f"{self.folder}: no image {name!r} in images.csv")
        row = self.images[name]
        path = self.folder.parent / "images" / row["file"]
        image = _read(path, row)
        series = MRSeries(
            sequence=row["sequence"],
            plane=row["plane"],
            values=image.array,
            affine=image.affine,
            boxes=self._boxes(name, image.array.shape),
        )
        return LabelledMR(
            name=name,
            patient=row["patient"],
            region=row["region"],
            series=(series,),
            source=SOURCE,
            licence=LICENCE,
        )

    def _boxes(self, name: str, shape: tuple[int, ...]) -> tuple[ImageBox, ...] | None:
        path = self.folder / f"{name}.xml"
        if not path.exists():
            return None
        annotation = self.read(path, CLASSES)
        if (annotation.rows, annotation.columns) != shape[1:]:
            sizes = f"{annotation.columns} x {annotation.rows} pixels, the image {shape[2]} x {shape[1]}"
            raise UnusableData(f"{path}: drawn in an image of {sizes}; draw in the image itself")
        return annotation.boxes


def _read(path: Path, row: Mapping[str, Any]) -> Placed:
    """One slice as it is stored: turned, its boxes would lie elsewhere."""
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise UnusableData(f"{path}: not a readable image ({str(error).strip().splitlines()[-1]})") from error
    if image.GetDimension() == 3 and image.GetNumberOfComponentsPerPixel() == 1 and image.GetSize()[2] == 1:
        found = placed(image)
        return Placed(found.array.astype(np.float32), found.affine)
    if image.GetDimension() != 2 or image.GetNumberOfComponentsPerPixel() not in (1, 3):
        size = " x ".join(str(n) for n in image.GetSize())
        kind = f"{size} pixels of {image.GetNumberOfComponentsPerPixel()} value(s)"
        raise UnusableData(f"{path}: {kind}; each image is a file of its own here, grey or RGB")
    array = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    grey = array.mean(axis=2) if array.ndim == 3 else array
    spacing = number(row, "pixel_mm", row["where"])
    if spacing <= 0:
        raise UnusableData(f"{row['where']}: pixel_mm is {spacing:g}, not positive")
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[row["plane"]].T * spacing
    return Placed(grey[None], affine)
