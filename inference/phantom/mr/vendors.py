"""Tag habits of four manufacturers of MR scanners, as plain data: how each stores values and names its series."""

from __future__ import annotations

from dataclasses import dataclass

from inference.phantom.vendors import Storage

KINDS = ("localizer", "sagittal T2", "sagittal T1", "sagittal STIR", "axial T2", "axial T1", "axial STIR")


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """The habits of one manufacturer."""

    manufacturer: str
    #: Slope other than 1: written as Rescale Slope, and in the manufacturer's private group.
    storage: Storage
    image_type: tuple[str, ...]
    localizer_type: tuple[str, ...]
    #: By kind of series, in the order of KINDS.
    descriptions: dict[str, str]
    #: Series number of the first series, and the step to the next.
    numbers: tuple[int, int]
    protocol: str
    sequence_name: str


def _described(*texts: str) -> dict[str, str]:
    return dict(zip(KINDS, texts, strict=True))


VENDORS = {
    "siemens": Vendor(
        manufacturer="Synthetic phantom (Siemens-like)",
        storage=Storage(bits_stored=12, signed=False, intercept=0),
        image_type=("ORIGINAL", "PRIMARY", "M", "ND", "NORM"),
        localizer_type=("ORIGINAL", "PRIMARY", "M", "ND"),
        descriptions=_described(
            "localizer", "t2_tse_sag", "t1_tse_sag", "t2_tirm_sag", "t2_tse_tra", "t1_tse_tra", "t2_tirm_tra"
        ),
        numbers=(1, 1),
        protocol="spine_tse",
        sequence_name="*tse2d1_{train}",
    ),
    "ge": Vendor(
        manufacturer="Synthetic phantom (GE-like)",
        storage=Storage(bits_stored=16, signed=True, intercept=0),
        image_type=("ORIGINAL", "PRIMARY", "OTHER"),
        localizer_type=("ORIGINAL", "PRIMARY", "OTHER"),
        descriptions=_described(
            "3-pl Loc", "SAG T2 FSE", "SAG T1 FSE", "SAG STIR", "AX T2 FSE", "AX T1 FSE", "AX STIR"
        ),
        numbers=(1, 1),
        protocol="SPINE ROUTINE",
        sequence_name="fse",
    ),
    "philips": Vendor(
        manufacturer="Synthetic phantom (Philips-like)",
        storage=Storage(bits_stored=12, signed=False, intercept=0, slope=1.37),
        image_type=("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"),
        localizer_type=("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"),
        descriptions=_described(
            "Survey", "T2W_TSE_sag", "T1W_TSE_sag", "STIR_TSE_sag", "T2W_TSE_ax", "T1W_TSE_ax", "STIR_TSE_ax"
        ),
        numbers=(101, 100),
        protocol="WIP T2W_TSE",
        sequence_name="TSE",
    ),
    "canon": Vendor(
        manufacturer="Synthetic phantom (Canon-like)",
        storage=Storage(bits_stored=16, signed=False, intercept=0),
        image_type=("ORIGINAL", "PRIMARY", "OTHER"),
        localizer_type=("ORIGINAL", "PRIMARY", "OTHER"),
        descriptions=_described("Locator", "Sag T2 FSE", "Sag T1 FSE", "Sag STIR", "Ax T2 FSE", "Ax T1 FSE", "Ax STIR"),
        numbers=(1000, 1000),
        protocol="Spine",
        sequence_name="FSE",
    ),
}
