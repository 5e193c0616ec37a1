"""Labelled CT data sets by name: `phantom:standard`, `rsna2022:FOLDER` and so on; one file each in this package.

A file here has one function, `open_dataset(place)`, which returns a DataSet. Only what a data set needs is
imported: phantoms do without any DICOM library.
"""

from __future__ import annotations

import importlib

from inference.datasets.labelled import DataSet, UnusableData

NAMES = ("phantom", "rsna2022", "cspine", "verse", "ctspine1k")


def open_dataset(text: str) -> DataSet:
    """Open `NAME:PLACE`, the form of `--data`. Raises UnusableData with what is missing or wrong, and where."""
    name, _, place = text.partition(":")
    if name not in NAMES or not place:
        raise UnusableData(f"data set {text!r}: write NAME:PLACE, where NAME is one of {', '.join(NAMES)}")
    module = importlib.import_module(f"inference.datasets.{name}")
    dataset: DataSet = module.open_dataset(place)
    return dataset
