"""MR studies that are not as expected, with the configuration as it is delivered: the answer, and what its SR says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from dicomnode import answer, selection
from dicomnode.config import CONFIG_DIR, Config
from dicomnode.process import process, read_studies
from inference import pipeline
from inference.phantom.mr.sampling import sample_spec
from inference.phantom.studies import write_studies
from sr.text import render

REGIONS = {"cervical-mr": "cord-injury-mr", "lumbar-mr": "lumbar-disc-mr"}
LOAD = cache(partial(pipeline.load, config_dir=CONFIG_DIR, device="cpu"))


@dataclass(frozen=True)
class Answered:
    """The document of a study, and the text of its report."""

    document: dict[str, Any]
    report: str


@cache
def images(kind: str, folder: Path) -> list[Dataset]:
    [study] = write_studies(folder, kind=kind, count=1, seed=950_000, profile="standard", truth=False)
    return [pydicom.dcmread(path) for path in sorted(study.iterdir())]


@pytest.fixture(scope="module", params=REGIONS)
def phantom(request, tmp_path_factory) -> tuple[str, Callable[[], list[Dataset]]]:
    """The pipeline that a phantom is for, and its images, anew for each test."""
    given = images(request.param, tmp_path_factory.mktemp(request.param))
    return REGIONS[request.param], lambda: [pydicom.dcmread(one.filename) for one in given]


def answered(images: Sequence[Dataset], folder: Path) -> Answered:
    folder.mkdir()
    for number, one in enumerate(images):
        one.save_as(folder / f"{number}.dcm")
    [study] = read_studies([folder], lambda path, why: pytest.fail(f"{path}: {why}"))
    rules = selection.load(CONFIG_DIR / "selection.toml")
    document = process(study, folder / "out", rules=rules, origin=answer.origin(Config()), load=LOAD)
    [report] = [result["path"] for result in document["results"] if result["kind"] == "SR"]
    return Answered(document, render(pydicom.dcmread(report)))


def of(images: Sequence[Dataset], *words: str) -> list[Dataset]:
    """The series whose description begins with one of these words."""
    return [one for one in images if one.SeriesDescription.upper().startswith(words)]


def leave_axial(images: list[Dataset]) -> list[Dataset]:
    return of(images, "AX")


def leave_localizer(images: list[Dataset]) -> list[Dataset]:
    return [one for one in images if "LOC" in one.SeriesDescription.upper()]


def leave_no_t2(images: list[Dataset]) -> list[Dataset]:
    return of(images, "SAG T1", "SAG STIR")


def mix(images: list[Dataset]) -> list[Dataset]:
    for one in of(images, "SAG T2")[1::2]:
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    return images


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (leave_axial, "not sagittal: 90 degrees off"),
        (leave_localizer, "slice position(s)"),
        (leave_no_t2, "wants T2"),
        (mix, "mixes 2 orientations"),
    ],
)
def test_a_study_without_a_series_for_the_model_is_not_applicable_and_the_report_says_why(
    phantom, change, reason, tmp_path
):
    _, images = phantom
    found = answered(change(images()), tmp_path / "study")
    assert found.document["state"] == "not_applicable"
    assert reason in found.report


def in_12_bits(images: list[Dataset]) -> list[Dataset]:
    for one in of(images, "SAG"):
        store(one, np.round(one.pixel_array * (4095 / max(int(x.pixel_array.max()) for x in images))), bits=12)
    return images


def scaled_by_the_vendor(images: list[Dataset]) -> list[Dataset]:
    for one in of(images, "SAG"):
        store(one, one.pixel_array * 2 + 100)
        one.RescaleSlope, one.RescaleIntercept = 0.5, -50
    return images


def store(image: Dataset, values: np.ndarray, bits: int = 16) -> None:
    image.BitsStored, image.HighBit, image.PixelRepresentation = bits, bits - 1, 0
    image.PixelData = values.astype("<u2").tobytes()


@pytest.mark.parametrize("change", [in_12_bits, scaled_by_the_vendor])
def test_how_the_values_are_stored_does_not_matter(phantom, change, tmp_path):
    name, images = phantom
    plain, changed = answered(images(), tmp_path / "plain"), answered(change(images()), tmp_path / "changed")
    [expected], [found] = plain.document["analyses"], changed.document["analyses"]
    assert (found["pipeline"], found["state"]) == (name, "done")
    assert found["scores"]["case"] == pytest.approx(expected["scores"]["case"], abs=0.02)
    assert [(one["code"], one["level"]) for one in found["findings"]] == [
        (one["code"], one["level"]) for one in expected["findings"]
    ]
    assert found["quality"] == expected["quality"]


@pytest.mark.parametrize("phantom", ["cervical-mr"], indirect=True)
def test_without_t1_lesions_are_judged_by_what_is_there_and_the_report_says_so(phantom, tmp_path):
    _, images = phantom
    found = answered(of(images(), "SAG T2", "SAG STIR"), tmp_path / "study")
    assert found.document["state"] == "done"
    assert "no sagittal T1 series: lesions are not compared with it" in found.report


def ruin(images: list[Dataset]) -> list[Dataset]:
    """The patient moved between the lines of k-space: every second line of the picture's spectrum is shifted."""
    for one in of(images, "SAG T2"):
        lines = np.fft.fft2(one.pixel_array)
        lines[1::2] *= np.exp(2j * np.pi * 12 * np.fft.fftfreq(lines.shape[0]))[1::2, None]
        store(one, np.abs(np.fft.ifft2(lines)).clip(0, 65535))
    return images


def test_a_series_ruined_by_motion_is_refused_or_said_to_be_outside_what_was_validated(phantom, tmp_path):
    _, images = phantom
    found = answered(ruin(images()), tmp_path / "study")
    assert "outside the validated range" in found.report or found.document["state"] == "not_applicable"


@pytest.mark.parametrize(("seed", "bends"), [(480, False), (545, True)])
def test_a_spine_with_scoliosis_is_said_to_be_outside_what_was_validated(seed, bends, tmp_path):
    [study] = write_studies(tmp_path, kind="lumbar-mr", count=1, seed=seed, profile="standard", truth=False)
    found = answered([pydicom.dcmread(path) for path in sorted(study.iterdir())], tmp_path / "study")
    assert ("degrees to the side, validated up to 5" in found.report) is bends


def test_a_spine_with_an_implant_that_hides_a_disc_gets_no_names(tmp_path):
    assert sample_spec(490, "lumbar").implant
    [study] = write_studies(tmp_path, kind="lumbar-mr", count=1, seed=490, profile="standard", truth=False)
    found = answered([pydicom.dcmread(path) for path in sorted(study.iterdir())], tmp_path / "study")
    assert "vertebrae are not named: the discs above and below" in found.report
