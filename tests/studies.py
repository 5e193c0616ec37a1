"""Studies as assembly, selection and the ledger see them, made from a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dicomnode.selection import Never, Rule, Rules
from dicomnode.study import Instance, Study, Transfer

CT, SR, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.7"
AXIAL, SAGITTAL = [1.0, 0, 0, 0, 1, 0], [0.0, 1, 0, 0, 0, -1]


def mr_rules(*, min_slices: int) -> Rules:
    """One pipeline for the sagittal T2 series of a cervical spine, which looks at T1 and STIR too where they are."""
    rule = Rule(
        name="mr",
        modality="MR",
        plane="sagittal",
        max_angle=20,
        min_slices=min_slices,
        spacing=(1, 6),
        body_part=("CSPINE",),
        description=(),
        contrast="T2",
        companions=("T1", "STIR"),
    )
    return Rules(never=Never(image_type=(), description=()), pipeline=(rule,))


def series(
    number: int = 1,
    *,
    slices: int = 30,
    step: float = 1.0,
    study_uid: str = "1.2",
    sop_class_uid: str = CT,
    orientation: Sequence[float] = AXIAL,
    skip: Sequence[int] = (),
    **header: Any,
) -> list[Instance]:
    """Instances of an axial CT series of the cervical spine; a header value of None leaves the attribute out."""
    found = []
    for index in range(slices):
        if index in skip:
            continue
        position = [0.0, 0.0, index * step] if list(orientation) == AXIAL else [index * step, 0.0, 0.0]
        values: Mapping[str, Any] = {
            "Modality": "CT", "BodyPartExamined": "CSPINE", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "SeriesNumber": float(number), "ImagePositionPatient": position,
            "ImageOrientationPatient": list(orientation),
        } | header  # fmt: skip
        found.append(
            Instance(
                sop_class_uid=sop_class_uid,
                sop_uid=f"{study_uid}.{number}.{index + 1}",
                study_uid=study_uid,
                series_uid=f"{study_uid}.{number}",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path=Path(f"/nowhere/{number}-{index}.dcm"),
                sha256=f"{number}-{index}",
                header={k: v for k, v in values.items() if v is not None},
            )
        )
    return found


def study(*parts: Sequence[Instance], endings: Sequence[str] = ("released",), last_at: float = 1000.0) -> Study:
    """A study whose last instance came at `last_at`."""
    instances = tuple(instance for part in parts for instance in part)
    transfers = tuple(Transfer(calling_ae="CT1", ending=ending) for ending in endings)
    return Study(uid="1.2", instances=instances, transfers=transfers, first_at=990.0, last_at=last_at)
