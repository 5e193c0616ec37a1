"""Phantoms are repeatable, differ only where they are broken, and what looks like a fracture is none in the truth."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from inference.phantom import dicom, mechanisms, mimics
from inference.phantom.cervical_ct import METAL_HU, Rendered, render, sample_spec
from inference.phantom.mechanisms import LEVEL_COUNTS
from inference.phantom.scanning import visible_levels
from inference.phantom.specification import (
    FIRST_RESERVED_SEED,
    LEVELS,
    PROFILES,
    SEEDS,
    Implant,
    Motion,
    PhantomSpec,
    streams,
)
from inference.phantom.truth import truth
from tests.phantoms import SMALL_SEED, closeup, rendered, thin
from tests.test_phantom_leaks import area_under_curve

MANY = range(400)
FOUR = 136  # a seed whose phantom has fractures of C4 (burst), C5 (burst), C6 (lamina) and C7 (wedge)
#: Sampled differently by intention for broken vertebrae: how much height they lost, and where slipping took them.
CRUSHED_OR_SLIPPED = ("front_loss", "back_loss", "centre")


def digest(phantom: Rendered) -> str:
    arrays = (phantom.volume, phantom.fractures, phantom.vertebrae)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def without_fractures(spec: PhantomSpec) -> PhantomSpec:
    """Return a specification without what a fracture may change in it."""
    intact = tuple(replace(v, front_loss=0.0, back_loss=0.0, centre=(0.0, 0.0, 0.0)) for v in spec.vertebrae)
    broken = {lesion.level for lesion in sample_spec(spec.seed, spec.profile, positive=True).acute}
    kept = tuple(lesion for lesion in spec.lesions if lesion.level not in broken)
    return replace(spec, vertebrae=intact, lesions=kept)


def changed(one: Rendered, other: Rendered) -> np.ndarray:
    """Return the HU by which two phantoms differ."""
    return one.volume.astype(int) - other.volume


def test_the_same_seed_gives_the_same_voxels_and_truth():
    assert digest(render(sample_spec(SMALL_SEED))) == digest(rendered())


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_gives_the_same_voxels_with_any_number_of_threads(threads):
    program = (
        "from tests.test_phantom_cervical_ct import digest, render, sample_spec, thin; "
        f"print(digest(render(thin(sample_spec({SMALL_SEED})))))"
    )
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | dict.fromkeys(names, threads),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == digest(render(thin(sample_spec(SMALL_SEED))))


def test_another_seed_and_another_profile_give_another_phantom():
    assert sample_spec(1) != sample_spec(2)
    assert len({sample_spec(1, profile).scan.noise_hu for profile in PROFILES}) == 3


@pytest.mark.parametrize("profile", PROFILES)
def test_the_volume_is_hounsfield_units_with_all_levels_in_order(profile):
    phantom = rendered(SMALL_SEED, profile)
    assert phantom.volume.dtype == np.int16
    assert phantom.volume.shape == phantom.spec.scan.shape
    assert phantom.volume.min() >= -1024
    assert phantom.volume.max() <= 3071
    heights = [np.argwhere(phantom.vertebrae == number)[:, 0].mean() for number in range(1, len(LEVELS) + 1)]
    assert (np.diff(heights) < 0).all()  # C1 highest, and slice 0 lowest
    bone = phantom.volume[phantom.vertebrae > 0]
    assert bone.mean() > 250


def test_profiles_get_harder():
    easy, standard, hard = (PROFILES[name] for name in ("easy", "standard", "hard"))
    for field in ("gap_mm", "displacement_mm", "loss"):
        assert getattr(easy, field)[1] > getattr(standard, field)[1] > getattr(hard, field)[1]
    assert easy.noise_hu < standard.noise_hu < hard.noise_hu
    for field in ("canals", "variants", "wear", "artefacts"):
        assert getattr(easy, field) < getattr(standard, field) < getattr(hard, field)


def test_the_noise_of_a_scan_is_what_the_profile_draws():
    spec = thin(sample_spec(SMALL_SEED, "easy", positive=False), slices=4)
    noise = []
    for hu in (10.0, 60.0):
        air = render(replace(spec, scan=replace(spec.scan, noise_hu=hu, shoulder_noise=0.0, rings_hu=0.0))).volume
        noise.append(air[:, :12, :12].clip(-1020).std())
    assert noise[1] > 3 * noise[0]


@pytest.mark.parametrize(("seed", "profile"), [(SMALL_SEED, "standard"), (FOUR, "standard"), (SMALL_SEED, "hard")])
def test_every_acute_fracture_shows_in_the_masks_at_its_level(seed, profile):
    phantom = rendered(seed, profile)
    assert phantom.spec.acute
    assert set(np.unique(phantom.fractures)) == set(range(len(phantom.spec.acute) + 1))
    for number, lesion in enumerate(phantom.spec.acute, start=1):
        levels = phantom.vertebrae[phantom.fractures == number]
        assert Counter(levels.tolist()).most_common(1)[0][0] == LEVELS.index(lesion.level) + 1


@pytest.mark.parametrize("name", mechanisms.NAMES)
def test_each_mechanism_breaks_the_bone_of_its_vertebra_where_the_truth_says(name):
    for level in {mechanisms.levels_of(name)[0], mechanisms.levels_of(name)[-1]}:
        broken, whole = closeup(level, name), closeup(level)
        [lesion] = broken.spec.acute
        assert (lesion.name, lesion.level) == (name, level)
        here = broken.fractures == 1
        voxel_mm3 = np.prod(broken.spec.scan.spacing)
        assert 20 < here.sum() * voxel_mm3 < 1500
        inside = whole.vertebrae[here]
        assert (inside == LEVELS.index(level) + 1).mean() > 0.7
        assert np.abs(changed(broken, whole)[here]).mean() > 150


@pytest.mark.parametrize("name", ["wedge compression", "burst"])
def test_a_crushed_body_is_lower_and_denser_under_its_upper_endplate(name):
    broken, whole = closeup("C5", name), closeup("C5")
    shape = next(v for v in broken.spec.vertebrae if v.level == "C5")
    assert shape.front_loss >= PROFILES["easy"].loss[0]
    assert shape.front_loss > shape.back_loss > 0
    bodies = [(phantom.vertebrae == LEVELS.index("C5") + 1).sum() for phantom in (broken, whole)]
    assert bodies[0] < 0.95 * bodies[1]
    assert (changed(broken, whole)[broken.fractures == 1] > 200).sum() > 50


def test_a_perched_facet_takes_everything_above_forward():
    slipped = [sample_spec(seed, positive=True) for seed in MANY]
    pairs = [
        (s, sample_spec(s.seed, positive=False)) for s in slipped if [x.name for x in s.acute] == ["perched facet"]
    ]
    assert pairs
    for one, other in pairs:
        level = LEVELS.index(one.acute[0].level)
        forward = [b.centre[1] - a.centre[1] for a, b in zip(one.vertebrae, other.vertebrae, strict=True)]
        assert min(forward[:level]) > 0
        assert forward[level:] == [0.0] * (len(LEVELS) - level)


@pytest.mark.parametrize("name", mimics.VARIANTS)
def test_no_variant_or_old_fracture_is_an_acute_one_though_the_bone_looks_different(name):
    for level in {mimics.VARIANTS[name][0], mimics.VARIANTS[name][-1]} - {"T1"}:
        odd, whole = closeup(level, variant=name), closeup(level)
        assert odd.spec.acute == ()
        assert not odd.fractures.any()
        bone = whole.vertebrae == LEVELS.index(level) + 1
        assert (np.abs(changed(odd, whole)) > 150)[bone].sum() > 50
        assert truth(odd)["fractured"] is False
        assert truth(odd)["mimics"] == [{"level": level, "variant": name}]


def test_wear_swelling_and_channels_are_no_fracture_either():
    spec = sample_spec(SMALL_SEED, "hard", positive=False)
    vertebrae = tuple(replace(v, osteophyte=4.0, sclerosis=500.0, gas=v.level != "T1") for v in spec.vertebrae)
    spec = replace(spec, vertebrae=vertebrae, neck=replace(spec.neck, swelling=("C4", 6.0)), lesions=())
    assert len(spec.canals) > len(LEVELS)
    phantom = render(thin(spec))
    assert not phantom.fractures.any()
    assert phantom.vertebrae.any()


@pytest.mark.parametrize("kind", ["plate", "rods"])
def test_metal_is_metal_with_streaks_around_it_and_no_fracture(kind):
    spec = closeup("C5").spec
    screwed = render(replace(spec, implant=Implant(kind=kind, levels=("C5", "C6"))))
    metal = screwed.volume > 0.9 * METAL_HU
    assert 300 < metal.sum() * np.prod(spec.scan.spacing) < 5000  # mm3
    assert not screwed.fractures.any()
    around = changed(screwed, closeup("C5"))[metal.any((1, 2))]
    assert np.abs(around).mean() > 10


def test_motion_shows_everything_twice_in_its_slices_and_nowhere_else():
    spec = closeup("C5").spec
    moved = render(replace(spec, scan=replace(spec.scan, motion=Motion(slices=(8, 12), offset=(0, 3)))))
    different = np.flatnonzero((changed(moved, closeup("C5")) != 0).any((1, 2)))
    assert different.tolist() == list(range(8, 13))
    assert np.array_equal(moved.vertebrae, closeup("C5").vertebrae)


def test_rings_surround_the_centre_of_the_image():
    spec = closeup("C5").spec
    difference = changed(render(replace(spec, scan=replace(spec.scan, rings_hu=25.0))), closeup("C5"))
    middle = difference.shape[1] // 2
    inner = slice(middle - 4, middle + 4)
    assert np.abs(difference[:, inner, inner]).max() > 15
    assert np.abs(difference[:, :10, :10]).max() < 3


def test_a_limited_scan_breaks_only_what_it_shows():
    specs = [sample_spec(seed, "hard", positive=True) for seed in MANY]
    limited = [spec for spec in specs if len(visible_levels(spec.scan, spec.vertebrae)) < 7]
    assert len(limited) > 40
    for spec in specs:
        assert {lesion.level for lesion in spec.acute} <= set(visible_levels(spec.scan, spec.vertebrae))
    phantom = render(min(limited, key=lambda spec: spec.scan.shape))
    shown = {LEVELS[number - 1] for number in np.unique(phantom.vertebrae)[1:]}
    assert shown < set(LEVELS)
    assert {lesion.level for lesion in phantom.spec.acute} <= shown


@pytest.mark.parametrize("seed", [0, 3, SMALL_SEED, FOUR, 900_000])
def test_the_label_changes_nothing_of_a_specification_but_what_broke(seed):
    positive, negative = sample_spec(seed, positive=True), sample_spec(seed, positive=False)
    assert without_fractures(positive) == without_fractures(negative)
    assert positive.acute
    assert not negative.acute
    assert sample_spec(seed) in (positive, negative)


@pytest.mark.parametrize("seed", [SMALL_SEED, 330])
def test_the_same_seed_with_and_without_fracture_differs_only_near_the_fracture(seed):
    broken, whole = rendered(seed), rendered(seed, positive=False)
    step, row, column = broken.spec.scan.spacing
    centres = [v.centre for v in broken.spec.vertebrae if v.level in {f.level for f in broken.spec.acute}]
    different = np.argwhere(broken.volume != whole.volume)
    points = np.array(broken.spec.scan.origin) + different[:, ::-1] * (column, row, step)
    away = np.abs(points[:, None] - np.array(centres)[None])  # (voxels, fractures, xyz)
    near = (away < (40, 60, 45)).all(2).any(1)  # the vertebra, and swelling up to three levels along the airway
    assert near.all()
    assert 0 < len(different) < 0.02 * broken.volume.size
    assert not whole.fractures.any()


@pytest.mark.parametrize(("level", "name"), [("C5", "lamina"), ("C2", "dens II"), ("C7", "spinous process")])
def test_the_truth_box_is_where_the_bone_changed(level, name):
    whole, spec = closeup(level), closeup(level, name).spec
    [lesion] = spec.acute
    gaps = tuple(replace(crack, shift=(0.0, 0.0, 0.0)) for crack in lesion.breaks)
    broken = render(replace(spec, lesions=(replace(lesion, breaks=gaps),)))
    bone = whole.vertebrae == LEVELS.index(level) + 1
    different = np.argwhere(bone & (np.abs(changed(broken, whole)) > 150))
    scan = spec.scan
    [entry] = truth(broken)["fractures"]
    assert entry["mechanism"] == name
    origin, pitch = np.array(scan.origin) + scan.table, np.array(scan.spacing[::-1])
    box = (np.array(entry["box_mm"]) - origin) / pitch  # x, y, z in voxels
    assert box[0] == pytest.approx(different.min(0)[::-1], abs=2.1)
    assert box[1] == pytest.approx(different.max(0)[::-1], abs=2.1)


def test_the_truth_lists_the_slices_that_show_each_fracture():
    phantom = rendered(FOUR)
    content = truth(phantom)
    assert content["fractured"] is True
    assert content["levels"] == {level: int(level in ("C4", "C5", "C6", "C7")) for level in LEVELS}
    for number, entry in enumerate(content["fractures"], start=1):
        shown = np.flatnonzero((phantom.fractures == number).any((1, 2)))
        assert entry["slices"] == [dicom.sop_uid(phantom.spec, int(index)) for index in shown]
        assert entry["mechanism"] in mechanisms.NAMES
    assert json.loads(json.dumps(content)) == content


def test_the_truth_of_an_intact_phantom_is_empty():
    content = truth(rendered(SMALL_SEED, positive=False))
    assert content["fractured"] is False
    assert content["fractures"] == []
    assert set(content["levels"].values()) == {0}


def test_a_fracture_that_no_voxel_shows_has_no_box():
    phantom = rendered()
    (entry,) = truth(replace(phantom, fractures=np.zeros_like(phantom.fractures)))["fractures"]
    assert entry["box_mm"] is None
    assert entry["slices"] == []


def test_half_of_the_seeds_are_fractured_at_the_levels_of_the_challenge():
    specs = [sample_spec(seed) for seed in MANY]
    assert 0.45 < np.mean([bool(spec.acute) for spec in specs]) < 0.55
    broken = Counter(lesion.level for seed in MANY for lesion in sample_spec(seed, positive=True).acute)
    for level, count in LEVEL_COUNTS.items():
        expected = count / sum(LEVEL_COUNTS.values())
        assert broken[level] / broken.total() == pytest.approx(expected, abs=0.06), level


def numbers(value: object, path: str = "") -> dict[str, float]:
    """Return every number of nested plain data by its path."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in numbers(part, f"{path}/{name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, part in enumerate(value) for k, v in numbers(part, f"{path}/{i}").items()}
    return {path: float(value)} if isinstance(value, int | float) else {}


def drawn(spec: PhantomSpec) -> dict[str, float]:
    """Return every number of a specification that must not know the label."""
    vertebrae = [
        {name: value for name, value in asdict(v).items() if name not in CRUSHED_OR_SLIPPED} for v in spec.vertebrae
    ]
    scan, neck = asdict(spec.scan) | {"motion": bool(spec.scan.motion)}, asdict(spec.neck)
    neck |= {"swelling": bool(spec.neck.swelling), "nuchal": len(spec.neck.nuchal)}
    return numbers({"scan": scan, "neck": neck, "vertebrae": vertebrae, "canals": len(spec.canals)}) | {
        "variants": float(len(spec.lesions) - len(spec.acute)),
        "implant": float(spec.implant is not None),
    }


def test_no_sampled_number_but_those_of_fractures_tells_the_label():
    specs = [sample_spec(seed) for seed in MANY]
    labels = np.array([bool(spec.acute) for spec in specs])
    rows = [drawn(spec) for spec in specs]
    # By chance alone, one of these 180 numbers reaches about 3.3 standard errors of 0.029.
    assert len(rows[0]) > 150
    for name in rows[0]:
        assert 0.40 < area_under_curve(np.array([row[name] for row in rows]), labels) < 0.60, name


@pytest.mark.parametrize("seed", [-1, FIRST_RESERVED_SEED, FIRST_RESERVED_SEED + 5])
def test_a_reserved_seed_is_refused(seed):
    with pytest.raises(ValueError, match="reserved"):
        sample_spec(seed)


def test_an_unknown_profile_is_refused():
    with pytest.raises(KeyError, match="impossible"):
        sample_spec(1, "impossible")


def test_the_seed_ranges_do_not_overlap_and_leave_out_the_reserved_ones():
    train, val, test = SEEDS["train"], SEEDS["val"], SEEDS["test"]
    assert (train.stop, val.stop) == (val.start, test.start)
    assert test.stop <= FIRST_RESERVED_SEED


def test_a_new_component_at_the_end_moves_no_other_stream():
    before, after = streams(7, ("a", "b")), streams(7, ("a", "b", "c"))
    assert before["b"].random() == after["b"].random()
    assert after["a"].random() != after["c"].random()


def test_the_specification_is_one_json_document():
    assert json.loads(sample_spec(SMALL_SEED).to_json())["seed"] == SMALL_SEED
