"""XML of the LabelMe toolbox, one file per image and one folder per reader (paper 000).

A shape is a polygon, also where a rectangle was drawn; its box is what encloses it. Deleted objects stay in the file
and are not read. For `--data`, see `annotated_images`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree  # noqa: S405 - `annotation.parse` refuses what is dangerous

from inference.datasets.annotation import CLASSES, Annotation, checked, number, parse, text
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox, MRDataSet


def open_dataset(place: str) -> MRDataSet:
    """Images with the boxes of one reader, whose folder is `place`. Raises UnusableData."""
    from inference.datasets import annotated_images  # needs SimpleITK, which the XML alone does not

    return annotated_images.open_reader(Path(place), read)


def read(path: Path, classes: Collection[str] = CLASSES) -> Annotation:
    """Read one file. Raises UnusableData for XML that is no annotation, other classes, and boxes outside the image."""
    root = parse(path)
    items = (item for item in root.iter("object") if (item.findtext("deleted") or "0").strip() != "1")
    annotation = Annotation(
        image=Path(text(root, "filename", path)).name,
        columns=int(number(root, "imagesize/ncols", path)),
        rows=int(number(root, "imagesize/nrows", path)),
        boxes=tuple(_box(item, path) for item in items),
    )
    return checked(annotation, path, classes)


def _box(item: ElementTree.Element, path: Path) -> ImageBox:
    label = text(item, "name", path)
    corners = [(number(point, "x", path), number(point, "y", path)) for point in item.iterfind("polygon/pt")]
    if not corners:
        raise UnusableData(f"{path}: the object {label!r} is no polygon; draw a box around it")
    (left, top), (right, bottom) = (tuple(pick(axis) for axis in zip(*corners, strict=True)) for pick in (min, max))
    return ImageBox(slice=0, left=left, top=top, right=right, bottom=bottom, label=label)
