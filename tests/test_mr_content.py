"""What the voxels of a sagittal T2 series give away: no patient, another contrast, metal, noise, movement."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from inference.phantom.mr.sampling import sample_spec
from inference.phantom.mr.specification import Motion
from inference.preprocess import content, mr_content
from inference.preprocess.mr_content import QUANTITIES
from inference.volume import read_volume
from tests.phantoms_mr import disturbed, sagittal

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VALIDATION, HELD_OUT = range(20), range(900_000, 900_010)


@pytest.fixture(scope="module", params=["cervical", "lumbar"])
def region(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def validated(region) -> dict[str, list[float]]:
    return content.ranges([mr_content.measure(*sagittal(region, seed)) for seed in VALIDATION], QUANTITIES)


def names(measured: dict[str, float], validated: dict[str, list[float]]) -> list[str]:
    """Return the quantities outside their ranges."""
    return [name for name in validated if content.complaints(measured, {name: validated[name]}, QUANTITIES)]


def test_series_of_the_same_kind_pass(region, validated):
    measured = [mr_content.measure(*sagittal(region, seed)) for seed in HELD_OUT]
    assert [mr_content.refuse(case) for case in measured] == [""] * len(measured)
    assert np.mean([not names(case, validated) for case in measured]) >= 0.9


@pytest.mark.parametrize(
    ("region", "changes", "named"),
    [
        ("cervical", {"motion": Motion(during=(0.25, 0.48), shift=(6.0, 4.0))}, "unevenness"),
        ("lumbar", {"motion": Motion(during=(0.2, 0.6), shift=(12.0, 8.0))}, "void_percent"),
        ("cervical", {"noise": 0.2}, "noise_percent"),
        ("lumbar", {"noise": 0.2}, "noise_percent"),
        ("cervical", {"sequence": "T1"}, "fat"),
        ("lumbar", {"sequence": "STIR"}, "fat"),
    ],
    indirect=["region"],
)
def test_what_the_validation_cases_did_not_show_is_named(changes, named, region, validated):
    specs = [sample_spec(seed, region) for seed in (900_001, 900_003, 900_004, 900_006)]
    found = [names(mr_content.measure(*disturbed(spec, **changes)), validated) for spec in specs]
    assert sum(named in one for one in found) >= 3


def implanted(values: np.ndarray) -> np.ndarray:
    """Return the series with the void of an implant in half of its slices, with a bright rim."""
    slices, rows, columns = values.shape
    y, x = np.ogrid[:rows, :columns]
    radius = np.hypot((y - rows / 2) / 0.16 / rows, (x - columns / 2) / 0.12 / columns)
    made = values.copy()
    made[slices // 4 : 3 * slices // 4, radius < 1.1] = values.max()
    made[slices // 4 : 3 * slices // 4, radius < 1] = 0
    return made


def jolted(values: np.ndarray) -> np.ndarray:
    """Return the series with every second slice 6 pixels aside, as interleaved slices are after a movement."""
    made = values.copy()
    made[::2] = np.roll(values[::2], (6, 6), (1, 2))
    return made


def blank(values: np.ndarray) -> np.ndarray:
    """Return the series with one empty slice."""
    made = values.copy()
    made[len(made) // 2] = 0
    return made


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (implanted, "middle_void_percent"),
        (jolted, "alternation"),
        (blank, "largest_change"),
        (lambda values: np.repeat(values, 2, axis=0), "smallest_change"),
        (lambda values: gaussian_filter(values.astype(float), (0, 2, 2)), "structure_percent"),
        (lambda values: np.minimum(values, np.percentile(values, 97)), "clipped_percent"),
    ],
)
def test_what_happened_to_the_voxels_is_named(
    change: Callable[[np.ndarray], np.ndarray], named: str, region, validated
):
    for seed in HELD_OUT[:2]:
        values, spacing = sagittal(region, seed)
        found = names(mr_content.measure(change(values), spacing), validated)
        assert named in found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (np.zeros_like, "nothing is bright in this series"),
        (lambda values: np.full_like(values, 500), "0 % of the variance is structure, in a patient at least 40 %"),
        (
            lambda values: np.abs(np.random.default_rng(0).normal(0, 300, values.shape)),
            "this series shows noise, or one value",
        ),
    ],
)
def test_what_no_patient_shows_is_refused(change, reason, region):
    values, spacing = sagittal(region, HELD_OUT[0])
    assert reason in mr_content.refuse(mr_content.measure(change(values), spacing))


@pytest.mark.parametrize("factor", [16, 1 / 4095])
def test_the_unit_of_the_values_does_not_matter(factor, region):
    values, spacing = sagittal(region, HELD_OUT[0])
    assert mr_content.measure(values.astype(float) * factor, spacing) == pytest.approx(
        mr_content.measure(values, spacing), rel=1e-3
    )


def test_an_empty_background_is_not_uneven(region):
    values, spacing = sagittal(region, HELD_OUT[0])
    masked = np.where(values > 0.05 * values.max(), values, 0)  # as scanners do that suppress it
    assert mr_content.measure(masked, spacing)["unevenness"] == 0


def test_every_quantity_gets_a_range_that_a_manifest_can_hold(validated):
    assert list(validated) == list(QUANTITIES)
    assert json.loads(json.dumps(validated, allow_nan=False)) == validated


def test_two_slices_have_no_alternation():
    values, spacing = sagittal("cervical", HELD_OUT[0])
    assert math.isnan(mr_content.measure(values[:2], spacing)["alternation"])


def test_a_real_series_of_another_region_and_contrast_is_named(region, validated):
    if not DATA.is_dir():
        pytest.skip("the shared data set is not on this machine")
    volume = read_volume(sorted((DATA / "mr-t1-brain").glob("*.dcm")))
    measured = mr_content.measure(volume.array, volume.spacing)
    assert mr_content.refuse(measured) == ""
    assert names(measured, validated)
