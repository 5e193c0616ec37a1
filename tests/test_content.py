"""What the voxels give away: no patient, another region, metal, noise, movement."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from inference.preprocess import content
from inference.preprocess.orientation import axial
from inference.volume import read_volume
from tests.necks import chest, enlarged, head, jolted, mr, neck, noise, shaken, with_screws

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VALIDATION, HELD_OUT = range(24), range(900_000, 900_020)


@pytest.fixture(scope="module")
def validated() -> dict[str, list[float]]:
    return content.ranges([content.measure(*neck(seed)) for seed in VALIDATION])


@pytest.fixture(scope="module")
def necks() -> list[tuple[np.ndarray, tuple[float, float, float]]]:
    return [neck(seed) for seed in HELD_OUT]


def complaints_about(
    change: Callable[[np.ndarray], np.ndarray], necks: list, validated: dict[str, list[float]]
) -> list[str]:
    hu, spacing = necks[0]
    return content.complaints(content.measure(change(hu.copy()), spacing), validated)


def test_necks_of_the_same_kind_pass(necks, validated):
    measured = [content.measure(*neck) for neck in necks]
    assert [content.refuse(case) for case in measured] == [""] * len(necks)
    assert np.mean([not content.complaints(case, validated) for case in measured]) >= 0.95


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_screws, "metal 0.06 % of the body, validated 0 to 0 % of the body"),
        (head, "contrast of bone over noise"),
        (chest, "contrast of bone over noise"),
        (enlarged, "cross-section of the bones"),
        (shaken, "sharpness of the bone edges"),
        (jolted, "largest change between neighbouring slices (movement)"),
        (lambda hu: hu + noise(hu, 200), "noise"),
        (lambda hu: gaussian_filter(hu, (0, 2, 2)), "sharpness of the bone edges"),
        (lambda hu: 2 * hu, "the most common tissue 100 HU"),
        (lambda hu: np.repeat(hu, 2, axis=0), "smallest change between neighbouring slices 0 times the usual"),
    ],
)
def test_what_the_validation_cases_did_not_show_is_named(change, named, necks, validated):
    assert any(
        text.startswith(f"outside the validated range: {named}") for text in complaints_about(change, necks, validated)
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (mr, "no air was found in this series, no voxels below -800 HU: it is not in Hounsfield units"),
        (lambda hu: hu + 1024, "no air was found"),  # an intercept that got lost
        (lambda hu: np.clip((hu + 1000) / 2000 * 255, 0, 255), "no air was found"),  # a screen capture
        (lambda hu: -hu, "no patient, or not in Hounsfield units"),
        (lambda hu: noise(hu, 500), "is as dense as bone"),
        (lambda hu: np.where(hu > 200, 40, hu), "0.0 % of the body is as dense as bone, in a patient 0.5 to 40 %"),
        (lambda hu: np.full_like(hu, -1000), "no patient"),
    ],
)
def test_what_no_patient_shows_is_refused(change, reason, necks):
    hu, spacing = necks[0]
    assert reason in content.refuse(content.measure(change(hu), spacing))


def test_padding_outside_the_reconstructed_circle_counts_as_air(necks):
    hu, spacing = necks[0]
    padded = hu.copy()
    padded[:, :8][hu[:, :8] < -900] = -3024
    assert content.measure(padded, spacing)["air_percent"] == content.measure(hu, spacing)["air_percent"]


def test_shares_do_not_depend_on_the_size_of_the_pixels(necks):
    hu, (step, row, column) = necks[0]
    fine = hu.repeat(4, axis=1).repeat(4, axis=2)
    coarse, found = content.measure(hu, (step, row, column)), content.measure(fine, (step, row / 4, column / 4))
    for name in ("air_percent", "soft_tissue_percent", "bone_percent", "tissue_hu", "body_cm2", "bone_cm2"):
        assert found[name] == pytest.approx(coarse[name], rel=0.01)


@pytest.mark.parametrize("deviation", [10, 40, 80])
def test_the_noise_of_even_tissue_is_what_was_added(deviation):
    tissue = np.full((5, 100, 100), 40, np.float32)
    found = content.measure(tissue + noise(tissue, deviation), (1, 0.7, 0.7))["noise_hu"]
    assert found == pytest.approx(deviation, rel=0.15)


def test_what_cannot_be_measured_is_said():
    air = content.measure(np.full((5, 40, 40), -1000, np.float32), (1, 0.7, 0.7))
    assert math.isnan(air["noise_hu"])
    assert content.complaints(air, {"noise_hu": [10, 20]}) == [
        "outside the validated range: noise cannot be measured, validated 10 to 20 HU"
    ]


def test_every_quantity_gets_a_range_that_a_manifest_can_hold_and_that_holds_its_cases(validated):
    assert list(validated) == list(content.QUANTITIES)
    assert json.loads(json.dumps(validated, allow_nan=False)) == validated
    for seed in VALIDATION[:3]:
        assert content.complaints(content.measure(*neck(seed)), validated) == []


def test_shares_have_no_limit_below_nothing():
    found = content.ranges([dict.fromkeys(content.QUANTITIES, value) for value in (0.1, 10.1)])
    assert found["metal_percent"] == [0.0, 12.6]


@pytest.mark.parametrize("folder", ["ct-philips-study/bone-1mm", "ct-philips-tilt", "mr-t1-brain"])
def test_real_series_without_a_neck_are_refused(folder):
    if not DATA.is_dir():
        pytest.skip("the shared data set is not on this machine")
    volume = read_volume(sorted((DATA / folder).glob("*.dcm")))
    assert content.refuse(content.measure(axial(volume).array, volume.spacing))
