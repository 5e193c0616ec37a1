"""What a model refuses to look at, and what it looks at with a remark."""

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from inference.phantom.vendors import VENDORS
from inference.preprocess.input_limits import age_years, kernel_family, outside, refuse
from inference.volume import Volume

LIMITS = {
    "modality": "CT",
    "plane": "axial",
    "min_slices": 20,
    "slice_spacing_mm": [1.0, 1.5],
    "pixel_spacing_mm": [0.6, 0.8],
    "coverage_mm": [110, 210],
    "max_tilt_degrees": 20,
    "slice_thickness_mm": [1.0, 1.5],
    "min_age_years": 18,
    "kernel": "sharp",
}


def volume(
    *,
    slices: int = 120,
    step: float = 1.25,
    pixel: tuple[float, float] = (0.7, 0.7),
    tilt: float = 0,
    turn: float = 0,
    brightest: float = 900,
    modality: str = "CT",
    **attributes: Any,
) -> Volume:
    """Return a volume of soft tissue with one bright voxel; `tilt` and `turn` in degrees."""
    array = np.full((slices, 4, 4), 40, np.float32)
    array[slices // 2, 1, 1] = brightest
    a, b = np.radians(tilt), np.radians(turn)
    lean = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    spin = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = lean @ spin @ np.array([[0, 0, pixel[1]], [0, pixel[0], 0], [step, 0, 0]])
    return Volume(array=array, affine=affine, headers=(header(Modality=modality, **attributes),) * slices, frames=())


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_another_modality_is_refused():
    assert refuse(volume(modality="MR"), LIMITS) == "modality MR: the model reads CT"


def test_a_usual_volume_is_accepted_without_remark():
    assert refuse(volume(), LIMITS) == ""
    assert outside(volume(), LIMITS) == ()


@pytest.mark.parametrize(("slices", "refused"), [(19, True), (20, False)])
def test_too_few_slices_are_refused(slices, refused):
    assert refuse(volume(slices=slices), LIMITS) == ("19 slices: the model needs at least 20" if refused else "")


@pytest.mark.parametrize(("tilt", "refused"), [(44, False), (46, True), (90, True), (-60, True)])
def test_slices_that_are_not_axial_are_refused(tilt, refused):
    reason = refuse(volume(tilt=tilt), LIMITS)
    assert reason == (f"slices are tilted {abs(tilt)} degrees from axial: the model reads axial slices" * refused)


@pytest.mark.parametrize(("turn", "refused"), [(0, False), (44, False), (46, True), (90, True), (-90, True)])
def test_a_patient_on_the_side_is_refused_because_flips_cannot_turn_the_image(turn, refused):
    reason = refuse(volume(turn=turn), LIMITS)
    assert bool(reason) is refused
    assert reason.startswith(f"slices are turned {abs(turn)} degrees in their plane" * refused)


def test_a_patient_on_the_front_is_accepted():
    assert refuse(volume(turn=180), LIMITS) == ""


@pytest.mark.parametrize(("brightest", "refused"), [(300, True), (301, False), (-1000, True)])
def test_a_volume_without_bone_is_refused(brightest, refused):
    reason = refuse(volume(brightest=brightest), LIMITS)
    assert reason == ("no bone was found in this series: no voxel above 300 HU" * refused)


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ({"step": 3.0, "slices": 50}, "slice spacing 3.00 mm, validated 1.0 to 1.5 mm"),
        ({"step": 0.5, "slices": 300}, "slice spacing 0.50 mm, validated 1.0 to 1.5 mm"),
        ({"pixel": (0.4, 0.4)}, "pixel spacing 0.40 mm, validated 0.6 to 0.8 mm"),
        ({"pixel": (0.7, 0.9)}, "pixel spacing 0.90 mm, validated 0.6 to 0.8 mm"),
        ({"slices": 60}, "coverage 75.00 mm, validated 110 to 210 mm"),
        ({"slices": 200}, "coverage 250.00 mm, validated 110 to 210 mm"),
        ({"tilt": 25}, "slice tilt 25.00 degrees, validated 0 to 20 degrees"),
    ],
)
def test_each_difference_from_the_validated_range_is_one_remark(options, remark):
    assert outside(volume(**options), LIMITS) == (f"outside the validated range: {remark}",)


def test_the_ends_of_the_ranges_belong_to_them():
    assert outside(volume(step=1.0, slices=110, pixel=(0.6, 0.8), tilt=20), LIMITS) == ()
    assert outside(volume(step=1.5, slices=140), LIMITS) == ()


def test_several_differences_are_all_named():
    assert len(outside(volume(step=4.0, slices=10, pixel=(0.2, 0.9), tilt=30), LIMITS)) == 5


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientAge": "042Y"}, 42),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "010W"}, 0.19),
        ({"PatientAge": "003D"}, 0.01),
        ({"PatientBirthDate": "20100615", "StudyDate": "20200615"}, 10),
        ({"PatientAge": "", "PatientBirthDate": "20100615", "StudyDate": "20200615"}, 10),
        ({"PatientAge": "017Y", "PatientBirthDate": "19000101", "StudyDate": "20200101"}, 17),
        ({"PatientBirthDate": "", "StudyDate": "20200615"}, None),
        ({"PatientBirthDate": "20100615"}, None),
        ({}, None),
    ],
)
def test_the_age_comes_from_the_age_or_else_from_the_dates(attributes, years):
    assert age_years(header(**attributes)) == (years if years is None else pytest.approx(years, abs=0.01))


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_an_age_without_unit_is_no_age():
    assert age_years(header(PatientAge="42")) is None


def test_children_are_refused_and_adults_and_unknown_ages_are_not():
    assert (
        refuse(volume(PatientAge="009Y"), LIMITS)
        == "the patient is 9 years old: the model reads patients from 18 years"
    )
    assert refuse(volume(PatientAge="018Y"), LIMITS) == refuse(volume(), LIMITS) == ""


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        ("B70s", "sharp"),
        ("H60f", "sharp"),
        ("Br59", "sharp"),
        ("Hr64", "sharp"),
        ("BONEPLUS", "sharp"),
        ("LUNG", "sharp"),
        ("YC", "sharp"),
        ("FC30", "sharp"),
        ("B30f", "smooth"),
        ("I31s", "smooth"),
        ("Br36", "smooth"),
        ("Qr40", "smooth"),
        ("STANDARD", "smooth"),
        ("Standard", "smooth"),
        ("B", "smooth"),
        ("UB", "smooth"),
        ("FC08", "smooth"),
        ("B50f", None),
        ("DETAIL", None),
        ("C", None),
        ("BONEMARROW", None),
        ("", None),
    ],
)
def test_kernels_belong_to_a_family_by_their_name(kernel, family):
    assert kernel_family(kernel) == family


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_kernels_of_the_phantoms_are_known(vendor):
    names = VENDORS[vendor].names
    assert kernel_family(names["axial"].kernel[0]) == "sharp"
    assert kernel_family(names["soft"].kernel[0]) == "smooth"


def test_a_kernel_of_another_family_is_a_remark():
    remark = ("outside the validated range: Br36 is a smooth kernel, validated with sharp ones",)
    assert outside(volume(ConvolutionKernel=["Br36", "3"]), LIMITS) == remark
    assert outside(volume(ConvolutionKernel=["Br59", "3"]), LIMITS) == ()
    assert outside(volume(ConvolutionKernel="unheard of"), LIMITS) == ()


@pytest.mark.parametrize("thickness", [0.5, 5.0])
def test_slices_with_gaps_or_overlap_are_a_remark(thickness):
    remark = f"outside the validated range: slice thickness {thickness:.2f} mm, validated 1.0 to 1.5 mm"
    assert outside(volume(SliceThickness=thickness), LIMITS) == (remark,)


def test_what_a_manifest_does_not_limit_is_not_judged():
    limits = {key: LIMITS[key] for key in LIMITS if key not in ("slice_thickness_mm", "min_age_years", "kernel")}
    strange = volume(SliceThickness=5, ConvolutionKernel="Br36", PatientAge="002Y")
    assert refuse(strange, limits) == ""
    assert outside(strange, limits) == ()


MR_LIMITS = {
    "modality": "MR",
    "plane": "sagittal",
    "min_slices": 5,
    "slice_spacing_mm": [3.0, 4.5],
    "pixel_spacing_mm": [0.6, 0.8],
    "coverage_mm": [225, 320],
    "max_tilt_degrees": 20,
    "slice_thickness_mm": [2.7, 4.5],
    "field_tesla": [1.5, 3.0],
    "echo_time_ms": [90, 122],
}


def sagittal(
    *, slices: int = 13, step: float = 3.5, rows: int = 384, pixel: float = 0.7, tilt: float = 0, **attributes: Any
) -> Volume:
    """Return an MR series whose slices follow each other to the patient's left, turned by `tilt` degrees."""
    a = np.radians(tilt)
    turned = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.array([[step, 0, 0], [0, 0, pixel], [0, -pixel, 0]])
    headers = (header(**{"Modality": "MR"} | attributes),) * slices
    return Volume(array=np.ones((slices, rows, 4), np.float32), affine=affine, headers=headers, frames=())


def test_a_usual_sagittal_series_is_accepted_without_remark():
    usual = sagittal(SliceThickness=3, MagneticFieldStrength=1.5, EchoTime=100)
    assert refuse(usual, MR_LIMITS) == ""
    assert outside(usual, MR_LIMITS) == ()
    assert outside(sagittal(), MR_LIMITS) == ()  # a header that names neither


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"Modality": "CT"}, "modality CT: the model reads MR"),
        ({"slices": 3}, "3 slices: the model needs at least 5"),
        ({"tilt": 46}, "slices are tilted 46 degrees from sagittal: the model reads sagittal slices"),
        ({"tilt": 90}, "slices are tilted 90 degrees from sagittal: the model reads sagittal slices"),
    ],
)
def test_what_is_no_sagittal_mr_is_refused(options, reason):
    assert refuse(sagittal(**options), MR_LIMITS) == reason


def test_axial_slices_are_refused_by_a_model_that_reads_sagittal_ones():
    assert "tilted 90 degrees from sagittal" in refuse(volume(modality="MR"), MR_LIMITS)


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ({"step": 6.0}, "slice spacing 6.00 mm, validated 3.0 to 4.5 mm"),
        ({"pixel": 0.5, "rows": 500}, "pixel spacing 0.50 mm, validated 0.6 to 0.8 mm"),
        ({"rows": 200}, "coverage 140.00 mm, validated 225 to 320 mm"),
        ({"tilt": 25}, "slice tilt 25.00 degrees, validated 0 to 20 degrees"),
        ({"SliceThickness": 1}, "slice thickness 1.00 mm, validated 2.7 to 4.5 mm"),
        ({"MagneticFieldStrength": 0.35}, "field strength 0.35 T, validated 1.5 to 3.0 T"),
        ({"EchoTime": 11}, "echo time 11.00 ms, validated 90 to 122 ms"),  # T1
    ],
)
def test_each_difference_of_a_sagittal_series_is_one_remark(options, remark):
    assert outside(sagittal(**options), MR_LIMITS) == (f"outside the validated range: {remark}",)


def test_the_coverage_of_sagittal_slices_is_their_length_along_the_body_however_they_are_stored():
    upright = sagittal(rows=100)
    affine = upright.affine[:, [0, 2, 1, 3]]
    lying = Volume(array=upright.array.swapaxes(1, 2), affine=affine, headers=upright.headers, frames=())
    remark = "outside the validated range: coverage 70.00 mm, validated 225 to 320 mm"
    assert outside(lying, MR_LIMITS) == outside(upright, MR_LIMITS) == (remark,)
