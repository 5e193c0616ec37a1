"""python -m sr: result objects from a series, a mask and findings, without the node."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.volume import UnusableSeries
from sr import standalone
from sr.results import InvalidResult, Kind, save, write_results


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the objects; ends with 1 and one line on stderr if that cannot be done, with 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m sr", description=__doc__)
    parser.add_argument("--series", type=Path, required=True, help="folder with the images of one series")
    parser.add_argument("--mask", type=Path, required=True, help="NIfTI on the grid of the series, one value a segment")
    parser.add_argument("--findings", type=Path, required=True, help="JSON, see docs/standalone.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for the objects")
    parser.add_argument("--results", nargs="+", default=["seg", "sr", "sc"], choices=[kind.lower() for kind in Kind])
    given = parser.parse_args(arguments)
    try:
        volume, analysis, run = standalone.read(given.series, given.mask, given.findings)
        made = write_results(volume, analysis, run, [kind.upper() for kind in given.results])
        given.out.mkdir(parents=True, exist_ok=True)
        for number, result in enumerate(made, start=1):
            save(result, given.out / f"{number}-{result.kind.lower()}.dcm")
    except (OSError, UnusableSeries, standalone.UnusableInput, InvalidResult) as error:
        sys.exit(f"sr: {error}")


if __name__ == "__main__":
    main()
