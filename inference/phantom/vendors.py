"""Tag habits of four manufacturers, as plain data: how each stores Hounsfield units and names its series.

The habits are copied so that whatever reads the phantom meets them; the equipment stays a synthetic phantom, and
Manufacturer says so.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Lowest and highest HU of a phantom; every way of storing below holds this range without loss.
HU_RANGE = (-1024, 3071)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How HU become stored values (PS3.3 C.7.6.3 and C.11.1): stored = (HU - intercept) / slope."""

    bits_stored: int
    signed: bool
    intercept: int
    slope: float = 1.0
    #: Stored value outside the circle that the scanner reconstructs; None where it fills the square.
    padding: int | None = None


@dataclass(frozen=True, kw_only=True)
class Names:
    """What one kind of series is called (PS3.3 C.7.6.1.1.2 for Image Type)."""

    #: All values of Image Type.
    image_type: tuple[str, ...]
    #: Series Description; {mm} is the slice thickness, {kernel} the kernel's first value.
    description: str
    number: int
    #: Convolution Kernel; some manufacturers give it a second value.
    kernel: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """The habits of one manufacturer."""

    manufacturer: str
    protocol: str
    storage: Storage
    #: Collimation of one detector row and of all, mm.
    collimation_mm: tuple[float, float]
    pitch: float
    rotation_s: float
    #: By kind of series: scout, axial, soft, sagittal, coronal.
    names: dict[str, Names]
    dose_description: str
    dose_number: int


def _names(
    kernels: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    image_types: tuple[str, str, str],
    descriptions: tuple[str, str, str, str],
    mpr: tuple[str, str],
) -> dict[str, Names]:
    r"""Arrange a table's short notation by kind of series.

    `kernels` and `image_types` (backslashes between values) are those of the scout, the axial bone and soft-tissue
    series and of the reformats, which share the bone kernel; `descriptions` the scout, bone, soft and the reformats
    with {plane}; `mpr` the words for sagittal and coronal.
    """
    scout, bone, soft = kernels
    types = [tuple(words.split("\\")) for words in image_types]
    return {
        "scout": Names(image_type=types[0], description=descriptions[0], number=1, kernel=scout),
        "axial": Names(image_type=types[1], description=descriptions[1], number=2, kernel=bone),
        "soft": Names(image_type=types[1], description=descriptions[2], number=3, kernel=soft),
        "sagittal": Names(
            image_type=types[2], description=descriptions[3].replace("{plane}", mpr[0]), number=4, kernel=bone
        ),
        "coronal": Names(
            image_type=types[2], description=descriptions[3].replace("{plane}", mpr[1]), number=5, kernel=bone
        ),
    }


VENDORS = {
    "siemens": Vendor(
        manufacturer="Synthetic phantom (Siemens-like)",
        protocol="CSpine",
        storage=Storage(bits_stored=12, signed=False, intercept=-1024),
        collimation_mm=(0.6, 38.4),
        pitch=0.8,
        rotation_s=0.5,
        names=_names(
            (("T20s",), ("Br59", "3"), ("Br36", "3")),
            (
                r"ORIGINAL\PRIMARY\LOCALIZER\CT_SOM5 TOP",
                r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI",
                r"DERIVED\SECONDARY\MPR\CSA MPR",
            ),
            ("Topogram 0.6 T20s", "CSpine {mm} {kernel} S3", "CSpine {mm} {kernel} S3", "{plane} {mm} {kernel}"),
            ("SAG", "COR"),
        ),
        dose_description="Dose Report",
        dose_number=502,
    ),
    "ge": Vendor(
        manufacturer="Synthetic phantom (GE-like)",
        protocol="3.1 C-SPINE ROUTINE",
        storage=Storage(bits_stored=16, signed=True, intercept=-1024, padding=-2000),
        collimation_mm=(0.625, 40.0),
        pitch=0.984,
        rotation_s=0.7,
        names=_names(
            (("STANDARD",), ("BONEPLUS",), ("STANDARD",)),
            (r"ORIGINAL\PRIMARY\LOCALIZER", r"ORIGINAL\PRIMARY\AXIAL", r"DERIVED\SECONDARY\REFORMATTED\AVERAGE"),
            ("SCOUT", "C-SPINE BONE {mm}MM", "C-SPINE STD {mm}MM", "{plane} REFORMAT"),
            ("SAGITTAL", "CORONAL"),
        ),
        dose_description="Dose Record",
        dose_number=999,
    ),
    "philips": Vendor(
        manufacturer="Synthetic phantom (Philips-like)",
        protocol="C-spine trauma/Neck",
        storage=Storage(bits_stored=16, signed=False, intercept=-1024, slope=0.5),
        collimation_mm=(0.625, 40.0),
        pitch=0.797,
        rotation_s=0.5,
        names=_names(
            (("L",), ("YC",), ("B",)),
            (r"ORIGINAL\PRIMARY\LOCALIZER", r"ORIGINAL\PRIMARY\AXIAL\HELIX", r"DERIVED\PRIMARY\MPR"),
            ("Surview", "Thin {kernel}", "Axial {mm} {kernel}", "{plane} {kernel}"),
            ("Sag", "Cor"),
        ),
        dose_description="Dose Info",
        dose_number=9001,
    ),
    "canon": Vendor(
        manufacturer="Synthetic phantom (Canon-like)",
        protocol="Cervical Spine Helical",
        storage=Storage(bits_stored=16, signed=True, intercept=0),
        collimation_mm=(0.5, 40.0),
        pitch=0.813,
        rotation_s=0.5,
        names=_names(
            (("FL03",), ("FC30",), ("FC08",)),
            (r"ORIGINAL\PRIMARY\LOCALIZER", r"ORIGINAL\PRIMARY\AXIAL", r"DERIVED\SECONDARY\MPR"),
            ("Scanogram", "Bone {mm}", "Body {mm} {kernel}", "{plane} {mm} {kernel}"),
            ("Sag", "Cor"),
        ),
        dose_description="Radiation Dose Report",
        dose_number=1001,
    ),
}
