"""Phantom studies on disk: one folder of DICOM files per study, the truth in a folder beside them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from inference.phantom.cervical_ct import render, sample_spec
from inference.phantom.dicom import uid, write_dicom
from inference.phantom.truth import truth as truth_of

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

    `positive` forces the label of all of them. With `truth`, `out/truth/<study_uid>.json` is written as well.
    """
    folders = []
    for number in range(count):
        spec = sample_spec(seed + number, profile, positive=positive)
        phantom = render(spec)
        study_uid = uid(spec, "study")
        folder = out / study_uid
        write_dicom(phantom, folder, localizer=True)
        if truth:
            (out / "truth").mkdir(parents=True, exist_ok=True)
            (out / "truth" / f"{study_uid}.json").write_text(json.dumps(truth_of(phantom), indent=2) + "\n")
        progress(f"phantom {number + 1} of {count}: {folder}")
        folders.append(folder)
    return folders
