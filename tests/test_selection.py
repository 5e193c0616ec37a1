"""Which series reach a model, by the rules that are shipped, and the reason that is given."""

from pathlib import Path

import pytest

from dicomnode.config import CONFIG_DIR
from dicomnode.errors import ConfigError
from dicomnode.process import read_studies
from dicomnode.selection import choose, load
from inference.phantom.dicom import write_dicom
from inference.phantom.vendors import VENDORS
from tests.phantoms import blank
from tests.studies import SAGITTAL, SC, SR, mr_rules, series, study

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
        ({"Modality": "DX"}, "modality DX, cervical-ct-fracture wants CT"),
        ({"Modality": "MR"}, "not sagittal: 90 degrees off"),
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


@pytest.mark.parametrize("vendor", VENDORS)
def test_of_a_whole_study_the_thin_bone_series_is_taken_and_every_other_left_with_a_reason(vendor, tmp_path):
    write_dicom(blank(vendor, slices=40), tmp_path)
    [whole] = read_studies([tmp_path], lambda path, why: None)
    numbers = {it.uid: it.value("SeriesNumber") for it in whole.series}
    choices = sorted(choose(whole, RULES), key=lambda choice: numbers[choice.series_uid])
    assert [choice.pipeline for choice in choices] == [None, NAME, None, None, None, None]
    scout, _, soft, sagittal, coronal, dose = (choice.reason for choice in choices)
    assert scout == "image type LOCALIZER"
    assert soft == f"fits {NAME}, but series 2 fits better"
    assert sagittal == coronal
    assert sagittal in ("image type MPR", "image type MPR, SECONDARY", "image type REFORMATTED, SECONDARY")
    assert dose == f"modality SR, {NAME} wants CT"


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_kernel_alone_tells_bone_from_soft_tissue(vendor):
    names = VENDORS[vendor].names
    soft = series(1, ConvolutionKernel=list(names["soft"].kernel), step=0.7)
    bone = series(2, ConvolutionKernel=list(names["axial"].kernel), step=2.0)
    assert [pipeline for pipeline, _ in verdict(soft, bone)] == [None, NAME]


@pytest.mark.parametrize(
    "kernel", ["B70s", "H60f", "I70f", "Br64d", "Hr68", "YA", "YD", "FC30", "FC81", "BONE", "BONEPLUS"]
)
def test_a_sharp_kernel_is_preferred(kernel):
    plain, sharp = series(1, ConvolutionKernel="STANDARD"), series(2, ConvolutionKernel=kernel, step=2.0)
    assert [pipeline for pipeline, _ in verdict(plain, sharp)] == [None, NAME]


@pytest.mark.parametrize("kernel", ["B30s", "H31s", "I30f", "Br36", "Hr40", "A", "B", "FC08", "FC13", "SOFT"])
def test_a_soft_kernel_is_not(kernel):
    plain, other = series(1, ConvolutionKernel="STANDARD"), series(2, ConvolutionKernel=kernel, step=2.0)
    assert [pipeline for pipeline, _ in verdict(plain, other)] == [NAME, None]


def test_the_order_in_which_series_came_does_not_matter():
    a, b = series(1, SeriesDescription="BONE"), series(2, SeriesDescription="BONE")
    assert verdict(a, b) == verdict(b, a)


def test_rules_with_an_unknown_key_are_refused_with_file_and_key(tmp_path):
    path = tmp_path / "selection.toml"
    path.write_text((CONFIG_DIR / "selection.toml").read_text() + "\nsurprise = 1\n")
    with pytest.raises(ConfigError, match=r"selection\.toml(.|\n)*surprise"):
        load(path)


@pytest.mark.skipif(not DATA.exists(), reason="the real studies are not beside this checkout")
@pytest.mark.parametrize("folder", ["ct-philips-study", "ct-philips-tilt", "mr-t1-brain"])
def test_no_series_of_the_real_studies_of_other_regions_reaches_the_model(folder):
    studies = read_studies([DATA / folder], lambda path, why: None)
    choices = [choice for it in studies for choice in choose(it, RULES)]
    assert choices
    assert all(choice.pipeline is None and choice.reason for choice in choices)


MR = {
    "Modality": "MR",
    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
    "slices": 15,
    "step": 3.0,
    "orientation": SAGITTAL,
}
T1 = {"RepetitionTime": 500.0, "EchoTime": 10.0}
T2 = {"RepetitionTime": 3500.0, "EchoTime": 100.0}
STIR = {"RepetitionTime": 4000.0, "EchoTime": 40.0, "InversionTime": 160.0}
MR_RULES = mr_rules(min_slices=7)


def verdicts(*parts):
    return [(c.pipeline, c.companion, c.reason) for c in choose(study(*parts), MR_RULES)]


@pytest.mark.parametrize(
    ("body_part", "words", "taken"),
    [
        ("CSPINE", "t2_tse_sag", "cord-injury-mr"),
        ("LSPINE", "t2_tse_sag", "lumbar-disc-mr"),
        ("SPINE", "T2 HWS sag", "cord-injury-mr"),
        (None, "T2 LWS sag", "lumbar-disc-mr"),
        ("BRAIN", "t2_tse_sag", None),
    ],
)
def test_the_region_of_an_mr_series_decides_which_pipeline_gets_it(body_part, words, taken):
    given = series(**MR, **T2, BodyPartExamined=body_part, SeriesDescription=words)
    assert verdict(given)[0][0] == taken


def test_in_a_study_of_two_regions_each_pipeline_gets_its_own():
    both = {**MR, **T2, "StudyDescription": "MRI cervical and lumbar spine", "SeriesDescription": "t2_tse_sag"}
    parts = [series(n, **both, BodyPartExamined=part) for n, part in enumerate(("CSPINE", "LSPINE", "TSPINE"), start=1)]
    assert [pipeline for pipeline, _ in verdict(*parts)] == ["cord-injury-mr", "lumbar-disc-mr", None]


@pytest.mark.parametrize(
    ("study_words", "words", "taken"),
    [
        ("MRT HWS und BWS", {2: "t2_tse_sag HWS", 5: "t2_tse_sag BWS"}, {2: "cord-injury-mr"}),
        (
            "MRI cervical and lumbar spine",
            {2: "SAG T2 CERVICAL", 5: "SAG T2 LUMBAR"},
            {2: "cord-injury-mr", 5: "lumbar-disc-mr"},
        ),
    ],
)
def test_a_series_that_names_the_region_itself_comes_before_one_whose_study_does(study_words, words, taken):
    header = {**MR, **T2, "BodyPartExamined": "SPINE", "StudyDescription": study_words}
    found = verdict(*(series(number, **header, SeriesDescription=text) for number, text in words.items()))
    assert [pipeline for pipeline, _ in found] == [taken.get(number) for number in words]


def test_of_two_series_of_a_further_contrast_the_one_without_contrast_agent_goes_along():
    native, enhanced = series(2, **MR, **T1), series(7, **MR, **T1, ContrastBolusAgent="Gd")
    found = verdicts(series(1, **MR, **T2), native, enhanced)
    assert [companion for _, companion, _ in found] == [None, "T1", None]


def test_of_two_series_of_the_same_kind_the_later_one_is_taken():
    first, again = verdicts(series(3, **MR, **T2), series(5, **MR, **T2))
    assert first == (None, None, "fits mr, but series 5 fits better")
    assert again == ("mr", None, "fits mr: 15 slices, 3.00 mm apart")


def test_the_reason_is_that_of_the_rule_which_the_series_came_nearest_to():
    [(_, reason)] = verdict(series(**MR, **T1, BodyPartExamined="CSPINE"))
    assert reason == "contrast T1, cord-injury-mr wants T2"


def test_a_series_of_the_wanted_contrast_takes_the_other_contrasts_with_it():
    assert verdicts(series(1, **MR, **T1), series(2, **MR, **T2), series(3, **MR, **STIR)) == [
        ("mr", "T1", "goes with series 2 to mr as T1: 15 slices, 3.00 mm apart"),
        ("mr", None, "fits mr: 15 slices, 3.00 mm apart"),
        ("mr", "STIR", "goes with series 2 to mr as STIR: 15 slices, 3.00 mm apart"),
    ]


def test_of_two_series_of_a_further_contrast_the_thinner_slices_go_along():
    found = verdicts(series(1, **MR, **T2), series(2, **{**MR, "step": 4.0}, **T1), series(3, **MR, **T1))
    assert [companion for _, companion, _ in found] == [None, None, "T1"]
    assert found[1][0] is None


def test_a_series_in_other_coordinates_does_not_go_along():
    found = verdicts(series(1, **MR, **T2, FrameOfReferenceUID="1.9"), series(2, **MR, **T1, FrameOfReferenceUID="1.8"))
    assert found[1] == (None, None, "contrast T1, mr wants T2")


def test_without_the_wanted_contrast_nothing_is_taken():
    found = verdicts(series(1, **MR, **T1), series(2, **MR, RepetitionTime=2500.0, EchoTime=20.0))
    assert [reason for _, _, reason in found] == [
        "contrast T1, mr wants T2",
        "contrast not T1, T2 or STIR (TR 2500 ms, TE 20 ms), mr wants T2",
    ]
    assert not any(pipeline for pipeline, _, _ in found)
    assert verdicts(series(**MR))[0][2] == (
        "contrast not T1, T2 or STIR (no times, and no words that tell), mr wants T2"
    )
