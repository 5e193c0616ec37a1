"""Pascal VOC XML as LabelImg writes it, one file per image and one folder per reader (papers 004 and others).

LabelImg's coordinates are the edges of the box, rounded, with 0 at the upper left corner of the first pixel, except
that it writes 1 for 0. They are taken as they are; the other flavour of VOC, which counts pixels from 1 and includes
the last one, differs by at most a pixel. "difficult" and "truncated" boxes count as all others. For `--data`, see
`annotated_images`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree  # noqa: S405 - `annotation.parse` refuses what is dangerous

from inference.datasets.annotation import CLASSES, Annotation, checked, number, parse, text
from inference.datasets.labelled_mr import ImageBox, MRDataSet


def open_dataset(place: str) -> MRDataSet:
    """Images with the boxes of one reader, whose folder is `place`. Raises UnusableData."""
    from inference.datasets import annotated_images  # needs SimpleITK, which the XML alone does not

    return annotated_images.open_reader(Path(place), read)


def read(path: Path, classes: Collection[str] = CLASSES) -> Annotation:
    """Read one file. Raises UnusableData for XML that is no annotation, other classes, and boxes outside the image."""
    root = parse(path)
    boxes = []
    for item in root.iter("object"):
        left, top, right, bottom = (number(item, f"bndbox/{tag}", path) for tag in ("xmin", "ymin", "xmax", "ymax"))
        label = text(item, "name", path)
        boxes.append(ImageBox(slice=0, left=left, top=top, right=right, bottom=bottom, label=label))
    annotation = Annotation(
        image=Path(text(root, "filename", path)).name,
        columns=int(number(root, "size/width", path)),
        rows=int(number(root, "size/height", path)),
        boxes=tuple(boxes),
    )
    return checked(annotation, path, classes)


def write(path: Path, annotation: Annotation) -> None:
    """Write a file that LabelImg opens; edges are rounded to whole pixels, and `pose` has the level, for people.

    Raises UnusableData for boxes that it would refuse to read.
    """
    checked(annotation, path, CLASSES)
    root = ElementTree.Element("annotation")
    _add(root, "filename", annotation.image)
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", annotation.columns), ("height", annotation.rows), ("depth", 1)):
        _add(size, tag, value)
    for box in annotation.boxes:
        item = ElementTree.SubElement(root, "object")
        _add(item, "name", box.label)
        _add(item, "pose", box.level or "Unspecified")
        _add(item, "truncated", 0)
        _add(item, "difficult", 0)
        edges = ElementTree.SubElement(item, "bndbox")
        for tag, edge in (("xmin", box.left), ("ymin", box.top), ("xmax", box.right), ("ymax", box.bottom)):
            _add(edges, tag, round(edge))
    ElementTree.indent(root, "\t")
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _add(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = str(value)
