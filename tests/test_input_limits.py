"""What a model refuses to look at, and what it looks at with a remark."""

import numpy as np
import pytest

from inference.preprocess.input_limits import outside, refuse
from inference.volume import Volume
from tests.models import bare_headers

LIMITS = {
    "modality": "CT",
    "min_slices": 20,
    "slice_spacing_mm": [1.0, 1.5],
    "pixel_spacing_mm": [0.6, 0.8],
    "coverage_mm": [110, 210],
    "max_tilt_degrees": 20,
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
) -> Volume:
    """Return a volume of soft tissue with one bright voxel; `tilt` and `turn` in degrees."""
    array = np.full((slices, 4, 4), 40, np.float32)
    array[slices // 2, 1, 1] = brightest
    a, b = np.radians(tilt), np.radians(turn)
    lean = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    spin = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = lean @ spin @ np.array([[0, 0, pixel[1]], [0, pixel[0], 0], [step, 0, 0]])
    return Volume(array=array, affine=affine, headers=bare_headers(slices, modality=modality), frames=())


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
