"""An MR phantom is anatomy in mm, contrast by the signal equations, and a truth that is measured."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.datasets.labelled_mr import CANAL, CORD, DISC, VERTEBRAE
from inference.phantom.mr import spines
from inference.phantom.mr.boxes import boxes, structures
from inference.phantom.mr.course import course_of
from inference.phantom.mr.measurement import excess, group, measure
from inference.phantom.mr.rendering import RenderedMR, paint, render
from inference.phantom.mr.sampling import sample_spec
from inference.phantom.mr.signal import echo, null_time
from inference.phantom.mr.specification import INJURIES, PROFILES, REGIONS, Herniation, Motion, MRPhantomSpec, Spot
from inference.phantom.mr.tissue import FAT_T1, nucleus
from inference.phantom.specification import FIRST_RESERVED_SEED
from tests.phantoms_mr import SEED, mean, plain, rendered, small, with_disc

ROOT = Path(__file__).resolve().parents[1]
by_region = pytest.mark.parametrize("region", REGIONS)
PUSHED = Herniation(size=5.0, side=0.0, drift=0.0, width=8.0, height=5.0)


def image(phantom: RenderedMR, kind: str):
    return next(one for one in phantom.images if one.acquisition.kind == kind)


def extent_mm(mask: np.ndarray, step: float) -> float:
    return float(mask.sum() * step)


def digest(spec: MRPhantomSpec) -> str:
    phantom = render(spec)
    return hashlib.sha256(b"".join(one.values.tobytes() for one in phantom.images)).hexdigest()


def test_the_cervical_cord_is_as_thick_as_a_cord():
    spec = plain("cervical")
    labels = paint(spec, "axial")
    cord = np.isin(labels.values, [n for n, part in enumerate(labels.parts) if part == "cord"])[1, 1]
    _, row, column = spec.scan.axial.spacing
    assert 6.0 < extent_mm(cord.any(1), row) < 9.5  # from front to back
    assert 11.0 < extent_mm(cord.any(0), column) < 15.5


def test_a_lumbar_phantom_has_a_conus_above_and_roots_below():
    spec = replace(sample_spec(SEED, "lumbar", "easy", positive=False), cord=())
    labels = paint(small(spec, "T12"), "axial")
    assert "cord" in {labels.parts[n] for n in np.unique(labels.values)}
    labels = paint(small(spec, "L4"), "axial")
    assert "cord" not in {labels.parts[n] for n in np.unique(labels.values)}
    assert labels.tissues[labels.parts.index("canal")].fat > 0.9  # epidural fat


@pytest.mark.parametrize(("region", "level", "low", "high"), [("cervical", "C5/C6", 3, 7), ("lumbar", "L4/L5", 8, 14)])
def test_discs_are_as_high_as_discs_and_lose_height_with_wear(region, level, low, high):
    spec = plain(region)
    healthy = measure(spec, next(d for d in spec.discs if d.level == level))
    assert low < healthy.height_mm < high
    column = spines.Column(spec.vertebrae, {v.level: v.stacking - v.height for v in spec.vertebrae})
    worn, disc = with_disc(spec, level, grade=5)
    narrowed = replace(worn, vertebrae=spines.narrowed(column, [disc]))
    assert measure(narrowed, disc).height_mm < 0.8 * healthy.height_mm


def test_lumbar_spines_are_lordotic_and_the_sacrum_slopes():
    leans = [{v.level: v.pitch for v in sample_spec(seed, "lumbar").vertebrae} for seed in range(20)]
    assert all(0.4 < lean["S1"] - lean["L1"] < 1.3 for lean in leans)
    assert all(lean["S1"] > 0.4 for lean in leans)


def test_some_spines_have_six_or_four_lumbar_vertebrae_and_all_end_in_a_sacrum():
    levels = [[v.level for v in sample_spec(seed, "lumbar").vertebrae] for seed in range(150)]
    counts = [sum(name[0] == "L" for name in names) for names in levels]
    assert {4, 5, 6} == set(counts)
    assert all(f"L{n}/S1" in {d.level for d in sample_spec(s, "lumbar").discs} for s, n in enumerate(counts[:30]))


def test_coordinates_along_the_canal_are_mm():
    course = course_of(plain("cervical").vertebrae)
    middle = len(course.s) // 2
    y, z, ty, tz = course.y[middle], course.z[middle], course.ty[middle], course.tz[middle]
    s, d = course.coordinates(np.array([y + 6 * tz]), np.array([z - 6 * ty]))
    assert d[0] == pytest.approx(6, abs=0.05)
    assert s[0] == pytest.approx(course.s[middle], abs=0.3)


@by_region
def test_fluid_is_bright_on_t2_and_dark_on_t1(region):
    phantom = rendered(region)
    other = "cord" if region == "cervical" else "muscle"
    assert mean(phantom, "T2", "csf") > 1.6 * mean(phantom, "T2", other)
    assert mean(phantom, "T1", "csf") < 0.6 * mean(phantom, "T1", other)
    assert mean(phantom, "STIR", "csf") > 1.5 * mean(phantom, "STIR", other)


def test_fat_is_bright_on_t1_and_gone_on_stir():
    phantom = rendered("lumbar")
    assert mean(phantom, "T1", "fat") > 1.4 * mean(phantom, "T1", "muscle")
    assert mean(phantom, "STIR", "fat") < 0.25 * mean(phantom, "STIR", "muscle")


def test_oedema_is_bright_on_t2_and_stir_and_not_on_t1():
    phantom = rendered("cervical", "oedema")
    for sequence in ("T2", "STIR"):
        assert mean(phantom, sequence, "oedema") > 1.4 * mean(phantom, sequence, "cord")
    assert mean(phantom, "T1", "oedema") < 1.05 * mean(phantom, "T1", "cord")


def test_haemorrhage_follows_table_2_of_paper_000():
    phantom = rendered("cervical", "haemorrhage")
    assert mean(phantom, "T1", "haemorrhage rim") > 1.1 * mean(phantom, "T1", "cord")  # slightly higher
    assert mean(phantom, "T2", "haemorrhage rim") > 1.4 * mean(phantom, "T2", "cord")
    assert mean(phantom, "T1", "haemorrhage core") < 0.9 * mean(phantom, "T1", "cord")  # large low centre


def test_a_mixed_lesion_is_uneven():
    values = []
    for kind in ("oedema", "mixed"):
        phantom = rendered("cervical", kind)
        labels = phantom.labels["sagittal"]
        lesions = [n for n, part in enumerate(labels.parts) if part == "lesion:0"]
        inside = np.isin(labels.values, lesions).all(1)
        values.append(image(phantom, "sagittal T2").values[inside].astype(float))
    assert values[1].std() > 1.5 * values[0].std()


def test_discs_darken_with_their_grade():
    [t2] = [a for a in plain("lumbar").scan.acquisitions if a.kind == "sagittal T2"]
    shown = [nucleus(g).pd * echo(t2, nucleus(g).t1[0], nucleus(g).t2[0]) for g in range(1, 6)]
    assert shown == sorted(shown, reverse=True)
    assert shown[4] < 0.25 * shown[0]


@pytest.mark.parametrize("tr", [3600, 5200])
def test_fat_gives_no_signal_at_its_null_time(tr):
    stir = next(a for a in plain("lumbar").scan.acquisitions if a.sequence == "STIR")
    exact = replace(stir, tr=tr, ti=null_time(FAT_T1[0], tr))
    assert abs(echo(exact, FAT_T1[0], 165.0)) < 1e-9


@by_region
@pytest.mark.parametrize("profile", PROFILES)
def test_negatives_measure_normal_and_positives_do_not(region, profile):
    for seed in range(5):
        assert group(sample_spec(seed, region, profile, positive=False)) == "normal", seed
        assert group(sample_spec(seed, region, profile, positive=True)) != "normal", seed


@pytest.mark.parametrize(("size", "label"), [(2.2, "disc"), (3.2, "herniation"), (8.0, "herniation")])
def test_a_herniation_is_3_mm_behind_the_bodies(size, label):
    spec, disc = with_disc(plain("lumbar"), "L3/L4", herniation=replace(PUSHED, size=size))
    found = measure(spec, disc)
    assert found.herniation_mm == pytest.approx(size, abs=0.5)
    assert found.label == label


def test_a_bulge_is_no_herniation_and_stays_normal():
    spec, disc = with_disc(plain("lumbar"), "L4/L5", bulge_mm=2.2)
    assert 1.5 < measure(spec, disc).herniation_mm < 3
    assert measure(spec, disc).label == "disc"


@pytest.mark.parametrize(
    ("percent", "label", "grade"),
    [(4.8, "disc", 0), (5.2, "slip", 1), (24.0, "slip", 1), (26.0, "slip", 2), (-8.0, "slip", 1)],
)
def test_a_slip_is_a_share_of_the_endplate_below(percent, label, grade):
    spec = plain("lumbar")
    disc = next(d for d in spec.discs if d.level == "L4/L5")
    upper, lower = spec.vertebra("L4"), spec.vertebra("L5")
    moved = spines.slipped(spec.vertebrae, disc, percent / 100 * lower.depth + spines.offset(upper, lower))
    found = measure(replace(spec, vertebrae=moved), disc)
    assert found.slip_percent == pytest.approx(percent, abs=0.01)
    assert (found.label, found.meyerding) == (label, grade)


def test_the_painted_disc_reaches_as_far_as_the_measured_one():
    spec, disc = with_disc(plain("lumbar"), "L3/L4", herniation=PUSHED)
    spec = small(spec, "L4")
    whole, flat = (paint(one, "sagittal") for one in (spec, with_disc(spec, "L3/L4", herniation=None)[0]))

    def back(labels) -> int:
        parts = [n for n, part in enumerate(labels.parts) if part.endswith(":L3/L4")]
        return int(np.flatnonzero(np.isin(labels.values[1, 1], parts).any(0)).max())

    step = spec.scan.sagittal.spacing[2]
    x = np.array([spec.scan.sagittal.centre[0] - (spec.vertebra("L3").centre[0] + spec.vertebra("L4").centre[0]) / 2])
    flat_disc = replace(disc, herniation=None)
    expected = excess(spec, disc, x)[0] - excess(spec, flat_disc, x)[0]
    assert (back(whole) - back(flat)) * step == pytest.approx(expected, abs=1.6)


def test_a_herniation_pushes_the_cord_back():
    spec, _ = with_disc(plain("cervical"), "C5/C6", herniation=replace(PUSHED, size=6.0))

    def cord(one) -> np.ndarray:
        labels = paint(one, "sagittal")
        return np.isin(labels.values[1, 1], [n for n, part in enumerate(labels.parts) if part == "cord"])

    before, after = cord(plain("cervical")), cord(spec)
    assert after.sum() < before.sum()
    assert np.argwhere(after & ~before)[:, 1].mean() > np.argwhere(before & ~after)[:, 1].mean()


@pytest.mark.parametrize("kind", INJURIES)
def test_an_injury_has_a_box_in_every_series_that_shows_it(kind):
    phantom = rendered("cervical", kind)
    for one in phantom.images:
        found = [box for box in boxes(phantom, one) if box.label == kind]
        assert found, one.acquisition.kind
        assert {box.level for box in found} == {"C5"}
        plane = phantom.spec.scan.sagittal if one.acquisition.plane == "sagittal" else phantom.spec.scan.axial
        if one.acquisition.plane == "sagittal":
            longest = max(box.bottom - box.top for box in found) * plane.spacing[1]
            assert 0.7 * 22 < longest < 1.3 * 22


@pytest.mark.parametrize("kind", ["syrinx", "tumour"])
def test_what_only_looks_like_an_injury_has_no_box(kind):
    phantom = rendered("cervical", kind)
    assert group(phantom.spec) == "normal"
    assert [boxes(phantom, one) for one in phantom.images] == [()] * 6


def test_lumbar_discs_have_boxes_named_by_what_the_slice_shows():
    spec, _ = with_disc(plain("lumbar"), "L3/L4", herniation=PUSHED)
    spec = small(spec, "L3")
    phantom = render(replace(spec, scan=replace(spec.scan, sagittal=replace(spec.scan.sagittal, shape=(9, 144, 144)))))
    found = [box for box in boxes(phantom, image(phantom, "sagittal T2")) if box.level == "L3/L4"]
    labels = {box.slice: box.label for box in found}
    assert labels[4] == "herniation"
    assert labels[min(labels)] == labels[max(labels)] == "disc"  # too far from the middle


def test_boxes_and_structures_move_with_the_patient():
    still = rendered("cervical", "oedema")
    t2 = image(still, "sagittal T2")
    moved = replace(t2, acquisition=replace(t2.acquisition, shift=(2.0, -1.0)))
    row, column = still.spec.scan.sagittal.spacing[1:]
    for before, after in zip(boxes(still, t2), boxes(still, moved), strict=True):
        assert after.top - before.top == pytest.approx(2.0 / row, abs=0.02)
        assert after.left - before.left == pytest.approx(-1.0 / column, abs=0.02)
    rolled = np.roll(structures(still, t2), (round(2.0 / row), round(-1.0 / column)), (1, 2))
    assert np.array_equal(structures(still, moved), rolled)


def test_structures_have_the_numbers_of_spineps():
    shown = set(np.unique(structures(rendered("cervical"), image(rendered("cervical"), "sagittal T1"))))
    assert {CORD, CANAL, VERTEBRAE["C5"], DISC + VERTEBRAE["C5"]} <= shown
    shown = set(np.unique(structures(rendered("lumbar"), image(rendered("lumbar"), "sagittal T1"))))
    assert {CANAL, VERTEBRAE["L4"], DISC + VERTEBRAE["L4"]} <= shown
    assert CORD not in shown


@pytest.mark.parametrize(("kind", "brighter"), [("haemangioma", True), ("schmorl", False)])
def test_spots_in_bone_are_seen_and_are_nothing_to_find(kind, brighter):
    spec = plain("lumbar")
    end = 0.0 if brighter else spec.vertebra("L4").height / 2
    spot = Spot(kind=kind, level="L4", centre=(0.0, -4.0, end), radius=6.0)
    before, after = rendered("lumbar"), render(replace(spec, spots=(spot,)))
    change = image(after, "sagittal T2").values.astype(float) - image(before, "sagittal T2").values
    assert np.abs(change).max() > 100
    assert (change[np.abs(change) > 100].mean() > 0) == brighter
    assert [b.label for b in boxes(after, image(after, "sagittal T2"))] == [
        b.label for b in boxes(before, image(before, "sagittal T2"))
    ]


@pytest.mark.parametrize(
    "flaw",
    [
        {"ghost": 0.08},
        {"fold": 0.08},
        {"acquired": (0.4, 0.9)},
        {"motion": Motion(during=(0.3, 0.5), shift=(2.0, 2.0))},
        {"noise": 0.08},
        {"shift": (1.5, 0.0)},
        {"bandwidth": 60.0},
    ],
    ids=lambda flaw: next(iter(flaw)),
)
def test_every_flaw_of_a_series_changes_its_image_and_no_other(flaw):
    spec = plain("cervical")
    series = [replace(a, **flaw) if a.kind == "sagittal T2" else a for a in spec.scan.acquisitions]
    flawed = render(replace(spec, scan=replace(spec.scan, acquisitions=tuple(series))))
    for one, other in zip(flawed.images, rendered("cervical").images, strict=True):
        change = np.abs(one.values.astype(float) - other.values).mean()
        assert (change > 4) if one.acquisition.kind == "sagittal T2" else (change == 0)


def test_noise_in_air_is_that_of_a_magnitude():
    spec = plain("cervical")
    noisy = [replace(a, noise=0.05) for a in spec.scan.acquisitions]
    phantom = render(replace(spec, scan=replace(spec.scan, acquisitions=tuple(noisy))))
    labels = phantom.labels["axial"]
    air = (labels.values == 0).all(1)
    values = image(phantom, "axial T2").values[air].astype(float)
    values = values[values < np.percentile(values, 60)]
    assert values.mean() > 5  # Rician: no negative values, a floor above zero
    assert values.min() >= 0


@by_region
@pytest.mark.parametrize("seed", [0, SEED, 900_000])
def test_the_label_changes_nothing_of_a_specification_but_what_is_wrong(region, seed):
    def without(spec: MRPhantomSpec) -> MRPhantomSpec:
        kept = tuple(replace(d, herniation=None) for d in spec.discs)
        still = tuple(replace(v, centre=(0.0, 0.0, 0.0)) for v in spec.vertebrae)
        quiet = tuple(one for one in spec.cord if one.kind not in INJURIES)
        return replace(spec, discs=kept, vertebrae=still, cord=quiet, swellings=())

    positive, negative = (sample_spec(seed, region, positive=label) for label in (True, False))
    assert without(positive) == without(negative)
    assert set(negative.swellings) <= set(positive.swellings)
    assert sample_spec(seed, region) in (positive, negative)


@by_region
def test_half_of_the_seeds_are_positive(region):
    positive = [sample_spec(seed, region) == sample_spec(seed, region, positive=True) for seed in range(120)]
    assert 0.38 < np.mean(positive) < 0.62


def test_the_same_seed_gives_another_patient_in_another_region():
    assert sample_spec(3, "cervical").body.phases != sample_spec(3, "lumbar").body.phases


@pytest.mark.parametrize("seed", [-1, FIRST_RESERVED_SEED])
def test_a_reserved_seed_is_refused(seed):
    with pytest.raises(ValueError, match="reserved"):
        sample_spec(seed, "lumbar")


def test_an_unknown_profile_is_refused():
    with pytest.raises(KeyError, match="impossible"):
        sample_spec(1, "lumbar", "impossible")


def test_the_specification_is_one_json_document():
    assert json.loads(sample_spec(SEED, "cervical").to_json())["region"] == "cervical"


def test_pixels_are_the_same_in_another_process_with_two_threads():
    code = "from tests.test_phantom_mr import digest, plain; print(digest(plain('lumbar')))"
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(plain("lumbar"))
