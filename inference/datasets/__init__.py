"""Labelled data sets by name: `phantom:standard@0+20`, `spider:FOLDER` and so on; one file each in this package.

A file here has one function, `open_dataset(place)`, which returns a DataSet of CT or an MRDataSet. Only what a data
set needs is imported: phantoms do without any DICOM library.
"""

from __future__ import annotations

import importlib
from typing import Any

from inference.datasets.labelled import DataSet, UnusableData
from inference.datasets.labelled_mr import MRDataSet

NAMES = ("phantom", "rsna2022", "cspine", "verse", "ctspine1k")
MR_NAMES = ("phantom_mr", "spider", "rsna2024", "cspineseg", "spinegeneric", "voc", "labelme")


def open_dataset(text: str) -> DataSet:
    """Open `NAME:PLACE` of CT, the form of `--data`. Raises UnusableData with what is missing or wrong, and where."""
    dataset: DataSet = _open(text, NAMES, "MR", MR_NAMES)
    return dataset


def open_mr_dataset(text: str) -> MRDataSet:
    """Open `NAME:PLACE` of MR. Raises UnusableData with what is missing or wrong, and where."""
    dataset: MRDataSet = _open(text, MR_NAMES, "CT", NAMES)
    return dataset


def _open(text: str, names: tuple[str, ...], other: str, others: tuple[str, ...]) -> Any:
    name, _, place = text.partition(":")
    if name in others and name not in names:
        raise UnusableData(f"data set {text!r} is {other}: this task takes one of {', '.join(names)}")
    if name not in names or not place:
        raise UnusableData(f"data set {text!r}: write NAME:PLACE, where NAME is one of {', '.join(names)}")
    return importlib.import_module(f"inference.datasets.{name}").open_dataset(place)
