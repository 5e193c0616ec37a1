"""Boxes that a person drew in one image, from the XML of an annotation tool."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree  # noqa: S405 - document types, which is where the attacks are, are refused

from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox

#: Every class of papers 000, 002 and 004, as in ImageBox.
CLASSES = ("oedema", "haemorrhage", "mixed", "herniation", "disc", "slip")
MOST_BYTES = 10 * 2**20  # of one file: a thousand times more than a reader draws


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What one reader drew in one image."""

    #: File name of the image, without folder.
    image: str
    #: Of the image, pixels.
    columns: int
    rows: int
    #: With slice 0; empty where the reader saw nothing.
    boxes: tuple[ImageBox, ...]


#: Reads one file with these classes. Raises UnusableData.
Reader = Callable[[Path, Collection[str]], Annotation]


class _NoDocumentType(ElementTree.TreeBuilder):
    """An annotation has no document type; entities, that read other files or fill the memory, need one."""

    def doctype(self, *_: object) -> None:
        raise UnusableData("has a DOCTYPE, which no annotation tool writes; it is not read")


def parse(path: Path) -> ElementTree.Element:
    """The root <annotation> of a file. Raises UnusableData for another root, damaged XML, and any document type."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UnusableData(f"larger than {MOST_BYTES} bytes: no annotation")
        parser = ElementTree.XMLParser(target=_NoDocumentType())  # noqa: S314 - see above
        root = ElementTree.parse(path, parser).getroot()  # noqa: S314
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:  # UnusableData is a ValueError
        raise UnusableData(f"{path}: {error}") from error
    if root.tag != "annotation":
        raise UnusableData(f"{path}: begins with <{root.tag}>, not <annotation>")
    return root


def text(element: ElementTree.Element, tag: str, path: Path) -> str:
    """What is written in a child, without white space around it. Raises UnusableData where nothing is."""
    found = (element.findtext(tag) or "").strip()
    if not found:
        raise UnusableData(f"{path}: <{element.tag}> without <{tag}>")
    return found


def number(element: ElementTree.Element, tag: str, path: Path) -> float:
    """A finite number in a child. Raises UnusableData."""
    found = text(element, tag, path)
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnusableData(f"{path}: <{tag}> is {found!r}, not a number")
    return value


def checked(annotation: Annotation, path: Path, classes: Collection[str]) -> Annotation:
    """The annotation. Raises UnusableData for unknown classes, empty boxes, and boxes not all inside the image."""
    for box in annotation.boxes:
        if box.label not in classes:
            raise UnusableData(f"{path}: class {box.label!r} is none of {', '.join(classes)}; rename it in the file")
        if not (box.left < box.right and box.top < box.bottom):
            raise UnusableData(f"{path}: the {box.label} box {_edges(box)} is empty or inside out")
        if box.left < 0 or box.top < 0 or box.right > annotation.columns or box.bottom > annotation.rows:
            size = f"{annotation.columns} x {annotation.rows}"
            raise UnusableData(f"{path}: the {box.label} box {_edges(box)} is not inside the {size} pixels")
    return annotation


def read_folder(folder: Path, read: Reader, classes: Collection[str] = CLASSES) -> dict[str, Annotation]:
    """What one reader drew, by the name of the XML file without suffix. Raises UnusableData where there is none."""
    files = sorted(path for path in folder.glob("*.xml") if not path.name.startswith("."))
    if not files:
        raise UnusableData(f"{folder}: no XML file; give the folder of one reader")
    return {path.stem: read(path, classes) for path in files}


def _edges(box: ImageBox) -> str:
    return f"({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g})"
