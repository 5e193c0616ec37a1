"""Tables of data sets, with the file and line of what is wrong in them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from inference.datasets.labelled import UnusableData


def rows(table: Path, columns: Sequence[str], delimiter: str = ",") -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file, each with its file and line for messages.

    Raises UnusableData for a file that cannot be read or lacks one of the columns.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            header = reader.fieldnames or ()
            found = [(f"{table}, line {reader.line_num}", row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableData(f"{table}: cannot be read ({error}); put the table of the data set there") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise UnusableData(f"{table}: no column {', '.join(missing)}; fetch the table of the data set again")
    return found


def number(row: Mapping[str, str], column: str, where: str) -> float:
    """A finite number. Raises UnusableData that begins with `where`."""
    try:
        value = float(row[column])
    except (TypeError, ValueError):  # a short row has None
        value = math.nan
    if not math.isfinite(value):
        raise UnusableData(f"{where}: {column} is {row[column]!r}, not a number")
    return value
