"""Phantom studies on disk: one folder of DICOM files per study, the truth in a folder beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from inference.phantom.cervical_ct import render, sample_spec
from inference.phantom.dicom import uid, write_dicom
from inference.phantom.truth import write_truth

logger = logging.getLogger(__name__)


def write_studies(  # noqa: PLR0913 - the options of `dicomnode phantom`, named
    out: Path,
    *,
    count: int,
    seed: int,
    profile: str,
    truth: bool,
    positive: bool | None = None,
    progress: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Write `count` studies with the seeds `seed`, `seed + 1`, ...; return their folders.

    `positive` forces the label of all of them. With `truth`, what was planted goes to `out/truth`, see `write_truth`.
    Raises ValueError for a reserved seed.
    """
    folders = []
    for number in range(count):
        spec = sample_spec(seed + number, profile, positive=positive)
        phantom = render(spec)
        folder = out / uid(spec, "study")
        write_dicom(phantom, folder)
        if truth:
            write_truth(phantom, out / "truth")
        progress(f"phantom {number + 1} of {count}: {folder}")
        folders.append(folder)
    return folders
