"""Which series reach a model, by the rules that are shipped, and the reason that is given."""

from pathlib import Path

import pytest

from dicomnode.config import CONFIG_DIR
from dicomnode.errors import ConfigError
from dicomnode.process import read_studies
from dicomnode.selection import choose, load
from tests.studies import SAGITTAL, SC, SR, series, study

RULES = load(CONFIG_DIR / "selection.toml")
NAME = "cervical-ct-fracture"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def verdict(*parts):
    return [(choice.pipeline, choice.reason) for choice in choose(study(*parts), RULES)]


def test_an_axial_ct_of_the_cervical_spine_is_taken():
    assert verdict(series()) == [(NAME, f"fits {NAME}: 30 slices, 1.00 mm apart")]


@pytest.mark.parametrize("words", ["C-SPINE 1.0 B60", "CT cervical spine", "HWS nativ", "Rachis cervical"])
def test_a_description_names_the_region_where_body_part_is_missing(words):
    assert verdict(series(BodyPartExamined=None, SeriesDescription=words))[0][0] == NAME


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MR"}, "modality MR, cervical-ct-fracture wants CT"),
        ({"Modality": None}, "modality missing"),
        ({"sop_class_uid": SR}, "not images"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "image type LOCALIZER"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "image type MPR, SECONDARY"),
        ({"ImageType": ["derived", "primary", "reformatted"]}, "image type REFORMATTED"),
        ({"SeriesDescription": "Topogram 0.6"}, "description contains 'topogram'"),
        ({"SeriesDescription": "Patient Protocol Dose Report"}, "description contains 'dose'"),
        ({"sop_class_uid": SC, "SamplesPerPixel": 3.0}, "colour images"),
        ({"BodyPartExamined": "HEAD"}, "body part HEAD"),
        ({"BodyPartExamined": None}, "body part not given"),
        ({"BodyPartExamined": None, "SeriesDescription": "C-arm"}, "body part not given"),
        ({"orientation": SAGITTAL}, "not axial: 90 degrees off"),
        ({"slices": 19}, "19 slice position(s)"),
        ({"slices": 1}, "1 slice position(s)"),
        ({"step": 0.0}, "1 slice position(s)"),
        ({"step": 5.0}, "slices 5.0 mm apart"),
        ({"step": 0.1}, "slices 0.1 mm apart"),
        ({"ImagePositionPatient": None}, "without a position"),
        ({"ImageOrientationPatient": [1.0, 0.0]}, "without a position"),
        ({"slices": 1, "NumberOfFrames": 12.0}, "12 frames"),
    ],
)
def test_anything_else_is_left_with_a_reason(changes, reason):
    [(pipeline, given)] = verdict(series(**changes))
    assert pipeline is None
    assert reason in given


def test_an_enhanced_image_with_enough_frames_is_judged_when_it_is_read():
    enhanced = series(slices=1, NumberOfFrames=80.0, ImagePositionPatient=None, ImageOrientationPatient=None)
    assert verdict(enhanced) == [(NAME, f"fits {NAME}: 80 frames")]


def test_of_several_the_bone_kernel_wins_then_the_thinner_slices():
    soft, thick, thin = (
        series(1, ConvolutionKernel="B30s", step=0.7),
        series(2, SeriesDescription="BONE", step=2.0),
        series(3, SeriesDescription="BONE", step=1.0),
    )
    assert [pipeline for pipeline, _ in verdict(soft, thick, thin)] == [None, None, NAME]
    assert verdict(soft, thick, thin)[0][1] == f"fits {NAME}, but series 3 fits better"


def test_the_order_in_which_series_came_does_not_matter():
    a, b = series(1, SeriesDescription="BONE"), series(2, SeriesDescription="BONE")
    assert verdict(a, b) == verdict(b, a)


def test_rules_with_an_unknown_key_are_refused_with_file_and_key(tmp_path):
    path = tmp_path / "selection.toml"
    path.write_text((CONFIG_DIR / "selection.toml").read_text() + "\nsurprise = 1\n")
    with pytest.raises(ConfigError, match=r"selection\.toml(.|\n)*surprise"):
        load(path)


@pytest.mark.skipif(not DATA.exists(), reason="the real studies are not beside this checkout")
@pytest.mark.parametrize("folder", ["ct-philips-study", "ct-philips-tilt", "mr-t1-brain", "mr-t2-sagittal-template"])
def test_no_series_of_the_real_studies_of_other_regions_reaches_the_model(folder):
    studies = read_studies([DATA / folder], lambda path, why: None)
    choices = [choice for it in studies for choice in choose(it, RULES)]
    assert choices
    assert all(choice.pipeline is None and choice.reason for choice in choices)
