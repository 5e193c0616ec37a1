"""Every kind of result passes the validators that others judge us by."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sr.results import Kind, Reference, Result, save, write_not_analysed, write_results
from tests.integration.validators import dciodvfy, dcmpschk, dcmtk_sr, sr_validator
from tests.sources import OBLIQUE, analysis_of, ct_headers, enhanced_volume, run_for, volume_of

ALL = (Kind.SEG, Kind.SR, Kind.SC)
#: dicom3tools does not know the class of label maps: dcmqi reads them instead.
KNOWN = tuple(kind for kind in Kind if kind != Kind.LABELMAP)
DOCUMENTS = (Kind.SR, Kind.CSR, Kind.KOS, Kind.REJECT)


def positive() -> tuple[Result, ...]:
    headers = ct_headers()
    volume = volume_of(headers)
    return write_results(volume, analysis_of(volume), run_for(headers), ALL)


def two_findings() -> tuple[Result, ...]:
    headers = ct_headers(orientation=OBLIQUE)
    volume = volume_of(headers)
    analysis = analysis_of(volume)
    second = replace(analysis.findings[0], tracking_id="fracture-2", probability=0.7, uncertainty=None)
    masks = (*analysis.masks, replace(analysis.masks[0], tracking_id="fracture-2", label="second"))
    analysis = replace(analysis, findings=(*analysis.findings, second), masks=masks)
    return write_results(volume, analysis, run_for(headers), ALL)


def without_masks() -> tuple[Result, ...]:
    headers = ct_headers()
    volume = volume_of(headers)
    return write_results(volume, analysis_of(volume, masks=False), run_for(headers))


def negative() -> tuple[Result, ...]:
    headers = ct_headers()
    volume = volume_of(headers)
    return write_results(volume, analysis_of(volume, positive=False), run_for(headers))


def enhanced() -> tuple[Result, ...]:
    headers = ct_headers()
    volume = enhanced_volume(headers, order=range(len(headers) - 1, -1, -1))
    return write_results(volume, analysis_of(volume), run_for(headers), ALL)


def japanese_patient() -> tuple[Result, ...]:
    patient = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    headers = ct_headers(patient=patient)
    volume = volume_of(headers)
    return write_results(volume, analysis_of(volume), run_for(headers), ALL)


def superseding() -> tuple[Result, ...]:
    headers = ct_headers()
    volume = volume_of(headers)
    old = Reference(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.1",
        series_uid="2.25.2",
        study_uid=headers[0].StudyInstanceUID,
    )
    return write_results(volume, analysis_of(volume), run_for(headers, predecessors=(old,)))


def not_applicable() -> tuple[Result, ...]:
    headers = ct_headers()
    run = run_for(headers, pipeline="", weights_sha256="")
    looked_at = ("series 3 'bone 2 mm': CT, 12 images, body part HEAD",)
    return (write_not_analysed(headers, outcome="not_applicable", reason="no spine", looked_at=looked_at, run=run),)


def failed() -> tuple[Result, ...]:
    headers = ct_headers()
    return (write_not_analysed(headers, outcome="failed", reason="out of memory", looked_at=(), run=run_for(headers)),)


def everything(*, enhanced: bool = False) -> tuple[Result, ...]:
    """Every kind there is, a superseded answer included."""
    headers = ct_headers(patient={"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"})
    volume = enhanced_volume(headers, order=range(len(headers) - 1, -1, -1)) if enhanced else volume_of(headers)
    heat = np.linspace(0, 1, volume.array.size, dtype=np.float32).reshape(volume.array.shape)
    old = tuple(
        Reference(sop_class_uid=f"1.2.840.10008.5.1.4.1.1.{sop_class}", sop_instance_uid=f"2.25.{n}",
                  series_uid=f"2.25.1{n}", study_uid=headers[0].StudyInstanceUID)
        for n, sop_class in enumerate(("66.4", "88.34"), start=1)
    )  # fmt: skip
    analysis = replace(analysis_of(volume), heat_map=heat)
    return write_results(volume, analysis, run_for(volume.headers, predecessors=old), tuple(Kind))


def everything_of_frames() -> tuple[Result, ...]:
    return everything(enhanced=True)


EVERYTHING = [everything, everything_of_frames]
SITUATIONS = [
    positive, two_findings, without_masks, negative, enhanced, japanese_patient, superseding, not_applicable, failed,
]  # fmt: skip


@cache
def made(situation):
    return situation()


def files(situation, folder: Path, kinds=KNOWN) -> list[Path]:
    """Save the objects of a situation and return where they lie."""
    paths = []
    for number, result in enumerate(made(situation)):
        if result.kind in kinds:
            paths.append(folder / f"{number}-{result.kind}.dcm")
            save(result, paths[-1])
    assert paths
    return paths


@pytest.mark.parametrize("situation", [*EVERYTHING, *SITUATIONS], ids=lambda f: f.__name__)
def test_dciodvfy_accepts_every_object(situation, tmp_path):
    for path in files(situation, tmp_path):
        assert dciodvfy(path) == [], path.name


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda f: f.__name__)
def test_pixelmed_accepts_every_report(situation, tmp_path):
    for path in files(situation, tmp_path, kinds=(Kind.SR,)):
        assert sr_validator(path) == [], path.name


@pytest.mark.parametrize("kind", [Kind.KOS, Kind.REJECT])
def test_pixelmed_accepts_key_objects(kind, tmp_path):
    (path,) = files(everything, tmp_path, kinds=(kind,))
    assert sr_validator(path) == []


@pytest.mark.parametrize("situation", [*EVERYTHING, *SITUATIONS], ids=lambda f: f.__name__)
def test_dcmtk_reads_every_report(situation, tmp_path):
    for path in files(situation, tmp_path, kinds=DOCUMENTS):
        assert dcmtk_sr(path) == [], path.name


@pytest.mark.parametrize("situation", EVERYTHING, ids=lambda f: f.__name__)
def test_dcmtk_accepts_the_presentation_state(situation, tmp_path):
    (path,) = files(situation, tmp_path, kinds=(Kind.GSPS,))
    assert dcmpschk(path) == []


def test_dcmtk_notices_a_presentation_state_without_its_images(tmp_path):
    state = deepcopy(next(x for x in made(everything) if x.kind == Kind.GSPS))
    del state.dataset.ReferencedSeriesSequence
    save(state, path := tmp_path / "broken.dcm")
    assert dcmpschk(path)


def test_dciodvfy_notices_a_missing_attribute(tmp_path):
    (result,) = negative()
    del result.dataset.CompletionFlag
    save(result, path := tmp_path / "broken.dcm")
    assert any("CompletionFlag" in line for line in dciodvfy(path))


def test_pixelmed_notices_a_report_without_observer(tmp_path):
    (result,) = negative()
    content = result.dataset.ContentSequence
    result.dataset.ContentSequence = [item for item in content if item.ConceptNameCodeSequence[0].CodeValue != "121012"]
    save(result, path := tmp_path / "broken.dcm")
    assert sr_validator(path)
