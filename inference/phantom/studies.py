"""Phantom studies on disk: one folder of DICOM files per study, the truth in a folder beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.phantom import cervical_ct, dicom, truth
from inference.phantom.headers import uid
from inference.phantom.mr import dicom as mr_dicom
from inference.phantom.mr import rendering, sampling
from inference.phantom.mr import truth as mr_truth
from inference.phantom.mr.specification import MRPhantomSpec, Region

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Product:
    """How one kind of phantom is drawn, computed and written."""

    #: (seed, profile, positive=...) to a specification, and that to a rendered phantom.
    sample: Callable[..., Any]
    render: Callable[[Any], Any]
    write_dicom: Callable[[Any, Path], None]
    write_truth: Callable[[Any, Path], None]


def _mr(region: Region) -> Product:
    def sample(seed: int, profile: str, *, positive: bool | None) -> MRPhantomSpec:
        return sampling.sample_spec(seed, region, profile, positive=positive)

    return Product(
        sample=sample, render=rendering.render, write_dicom=mr_dicom.write_dicom, write_truth=mr_truth.write_truth
    )


PRODUCTS = {
    "cervical-ct": Product(
        sample=cervical_ct.sample_spec,
        render=cervical_ct.render,
        write_dicom=dicom.write_dicom,
        write_truth=truth.write_truth,
    ),
    "cervical-mr": _mr("cervical"),
    "lumbar-mr": _mr("lumbar"),
}


def write_studies(  # noqa: PLR0913 - the options of `dicomnode phantom`, named
    out: Path,
    *,
    kind: str = "cervical-ct",
    count: int,
    seed: int,
    profile: str,
    truth: bool,
    positive: bool | None = None,
    progress: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Write `count` studies of a kind in PRODUCTS with the seeds `seed`, `seed + 1`, ...; return their folders.

    `positive` forces the label of all of them. With `truth`, what was planted goes to `out/truth`, see `write_truth`.
    Raises ValueError for a reserved seed.
    """
    product, folders = PRODUCTS[kind], []
    for number in range(count):
        spec = product.sample(seed + number, profile, positive=positive)
        phantom = product.render(spec)
        folder = out / uid(spec, "study")
        product.write_dicom(phantom, folder)
        if truth:
            product.write_truth(phantom, out / "truth")
        progress(f"phantom {number + 1} of {count}: {folder}")
        folders.append(folder)
    return folders
