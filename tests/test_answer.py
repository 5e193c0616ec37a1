"""Several series for one analysis: what the pipeline gets, what the answer says, and on what its digest depends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from dicomnode import answer, selection
from dicomnode.config import Config
from dicomnode.process import read_studies
from dicomnode.study import Study
from inference.findings import Analysis, Code, ModelIdentity
from inference.pipeline import Pipeline
from inference.volume import Volume
from tests.sources import SAGITTAL, as_file, ct_headers
from tests.studies import mr_rules

RULES = mr_rules(min_slices=3)
TIMES = {"T1": (500, 10, None), "T2": (3500, 100, None), "STIR": (4000, 40, 160)}
SPINE = Code(scheme="SCT", value="122494005", meaning="Cervical spine")
MODEL = ModelIdentity(
    name="stand-in", version="1", sha256="0" * 64, manufacturer="tests", trained_on="nothing", notice="Test only."
)


def write(folder: Path, contrast: str, number: int, *, value: int, positions: tuple[float, ...] = (0, 2, 4, 6)) -> None:
    """One sagittal series whose pixels all have one value."""
    repetition, echo, inversion = TIMES[contrast]
    headers = ct_headers(
        len(positions),
        orientation=SAGITTAL,
        positions=positions,
        rows=6,
        columns=8,
        patient={
            "SOPClassUID": MRImageStorage, "Modality": "MR", "BodyPartExamined": "CSPINE", "SeriesNumber": number,
            "SeriesInstanceUID": f"1.2.826.0.1.3680043.10.1.1.{number}", "RepetitionTime": repetition,
            "EchoTime": echo, "InversionTime": inversion, "SeriesDescription": contrast,
        },
    )  # fmt: skip
    for index, header in enumerate(headers):
        header.SOPInstanceUID = f"1.2.826.0.1.3680043.10.1.1.{number}.{index + 1}"
        _fill(header, value).save_as(folder / f"{number}-{index}.dcm", enforce_file_format=True)


def _fill(header: Dataset, value: int) -> Dataset:
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.PixelData = np.full((6, 8), value, np.uint16).tobytes()
    return as_file(header)


def read(folder: Path) -> Study:
    (study,) = read_studies([folder], lambda path, why: pytest.fail(f"{path}: {why}"))
    return replace(study, instances=tuple(replace(i, sha256=i.path.read_bytes().hex()) for i in study.instances))


class Model:
    """Keeps what it was given, and finds nothing."""

    def __init__(self) -> None:
        self.given: dict[str, float] = {}

    def __call__(self, volume: Volume, companions: dict[str, Volume]) -> Analysis:
        self.given = {name: float(one.array.mean()) for name, one in {"main": volume, **companions}.items()}
        return Analysis(
            pipeline="mr", state="done", reason="", model=MODEL, target=SPINE, site=SPINE, case_probability=0.1,
            threshold=0.5, quality=("said by the model",),
        )  # fmt: skip


def ask(study: Study, model: Model) -> dict:
    (job,) = answer.jobs(study, selection.choose(study, RULES))
    pipeline = Pipeline(name="mr", identity=MODEL, configuration_sha256="1" * 64, analyse=model)
    return answer.analyse(job, answer.origin(Config()), lambda _: pipeline).document


def test_a_pipeline_gets_its_series_and_the_other_contrasts_by_name(tmp_path):
    for number, (contrast, value) in enumerate((("STIR", 30), ("T2", 20), ("T1", 10)), start=1):
        write(tmp_path, contrast, number, value=value)
    model = Model()
    document = ask(read(tmp_path), model)
    assert model.given == {"main": 20, "T1": 10, "STIR": 30}
    assert (document["state"], document["series_uid"][-2:]) == ("done", ".2")
    assert document["quality"] == ["said by the model"]


def test_a_contrast_that_the_study_lacks_is_not_given(tmp_path):
    write(tmp_path, "T2", 1, value=20)
    model = Model()
    assert ask(read(tmp_path), model)["state"] == "done"
    assert model.given == {"main": 20}


def test_a_companion_that_is_no_volume_is_left_out_and_it_is_said(tmp_path):
    write(tmp_path, "T2", 1, value=20)
    write(tmp_path, "T1", 2, value=10, positions=(0, 2, 4, 8))
    model = Model()
    document = ask(read(tmp_path), model)
    assert model.given == {"main": 20}
    assert document["quality"][0] == "said by the model"
    assert document["quality"][1].startswith("T1 series 2 'T1' was left out: ")


def test_the_digest_of_a_job_depends_on_every_series_that_is_used(tmp_path):
    def digest() -> str:
        study = read(tmp_path)
        (job,) = answer.jobs(study, selection.choose(study, RULES))
        return job.digest

    write(tmp_path, "T2", 1, value=20)
    alone = digest()
    write(tmp_path, "T1", 2, value=10)
    both = digest()
    write(tmp_path, "T1", 2, value=11)
    changed = digest()
    write(tmp_path, "STIR", 3, value=30, positions=(0, 2))  # too few slices to go along
    assert digest() == changed
    assert len({alone, both, changed}) == 3
