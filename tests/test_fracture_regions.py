"""From suspicious slices to regions: on the bone, connected, large enough, most probable first, never none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.findings import Code
from inference.fracture_regions import Answer, Region, Scene, Settings, Shown, find, hot_places, in_vertebra
from inference.preprocess.crop import Crop
from inference.preprocess.orientation import axial
from inference.volume import Volume
from tests.models import Spotlight

FRACTURE = Code(scheme="SCT", value="72704001", meaning="Fracture")
NECK = Code(scheme="SCT", value="122494005", meaning="Cervical spine")
SHAPE = (8, 64, 64)


def settings(**changes: float) -> Settings:
    values = {"cam_share": 0.5, "bone_margin_mm": 1.0, "min_volume_mm3": 1.0, "max_findings": 5}
    return Settings(**values | changes)  # type: ignore[arg-type]


def scene(
    *spots: tuple[int, int, int], background: float = -500, voxel_mm3: float = 1.0, side: int = 8, hu: float = 1200
) -> Scene:
    """Return a scene whose crop is the whole image, with square spots of bone (slice, row, column of their corner)."""
    array = np.full(SHAPE, background, np.float32)
    for s, r, c in spots:
        array[s, r : r + side, c : c + side] = hu
    crop = Crop(top=0, left=0, side=64, image=SHAPE[1:])
    return Scene(array, crop.cut(torch.from_numpy(array), 64), crop, 1.0, voxel_mm3)


def probability(**slices: float) -> np.ndarray:
    """Return 0.1 per slice, but for the named ones, such as s3=0.9."""
    values = np.full(SHAPE[0], 0.1)
    for name, value in slices.items():
        values[int(name[1:])] = value
    return values


def suspicious(*slices: int) -> np.ndarray:
    return np.array(slices)


def test_a_spot_becomes_one_region_at_its_place():
    (region,) = find(Spotlight(), scene((3, 16, 24)), suspicious(3), probability(s3=0.9), settings())
    (s0, r0, c0), (s1, r1, c1) = region.box
    assert (s0, s1) == (3, 4)
    assert 13 <= r0 <= 17
    assert 21 <= c0 <= 25
    assert 23 <= r1 <= 27
    assert 31 <= c1 <= 35
    assert region.inside.shape == (s1 - s0, r1 - r0, c1 - c0)
    assert region.inside.any((1, 2)).all()
    assert region.key_slice == 3


def test_spots_in_neighbouring_slices_are_one_region_whose_key_slice_is_the_most_probable():
    where = scene((3, 16, 24), (4, 16, 24), (5, 20, 28))
    found = find(Spotlight(), where, suspicious(3, 4, 5), probability(s3=0.6, s4=0.9, s5=0.7), settings())
    assert [(region.box[0][0], region.box[1][0], region.key_slice) for region in found] == [(3, 6, 4)]


def test_spots_with_a_clear_slice_between_them_are_two_regions_most_probable_first():
    where = scene((1, 16, 24), (5, 16, 24))
    found = find(Spotlight(), where, suspicious(1, 5), probability(s1=0.6, s5=0.8), settings())
    assert [region.key_slice for region in found] == [5, 1]


def test_slices_that_are_not_suspicious_are_not_looked_at():
    where = scene((1, 16, 24), (5, 16, 24))
    found = find(Spotlight(), where, suspicious(5), probability(s5=0.8), settings())
    assert [region.key_slice for region in found] == [5]


def test_the_heat_of_each_slice_that_was_looked_at_is_kept_and_highest_where_the_network_looked():
    where = scene((1, 16, 24), (5, 40, 8))
    find(Spotlight(), where, suspicious(1, 5), probability(s1=0.9, s5=0.8), settings())
    assert where.heat.dtype == np.float32
    assert [s for s in range(SHAPE[0]) if where.heat[s].any()] == [1, 5]
    for s, row, column in ((1, 16, 24), (5, 40, 8)):
        assert where.heat[s].max() == pytest.approx(1)
        hottest = np.unravel_index(where.heat[s].argmax(), SHAPE[1:])
        assert row <= hottest[0] < row + 8 and column <= hottest[1] < column + 8


def test_only_so_many_regions_are_kept():
    where = scene((0, 16, 24), (2, 16, 24), (4, 16, 24), (6, 16, 24))
    scores = probability(s0=0.6, s2=0.9, s4=0.7, s6=0.8)
    found = find(Spotlight(), where, suspicious(0, 2, 4, 6), scores, settings(max_findings=2))
    assert [region.key_slice for region in found] == [2, 6]


def test_small_regions_are_dropped_by_their_volume_in_mm3():
    where = scene((1, 16, 24), (5, 16, 24), (5, 40, 8), voxel_mm3=2.0)
    everything = find(Spotlight(), where, suspicious(1, 5), probability(s1=0.9, s5=0.8), settings())
    sizes = sorted(2.0 * float(region.inside.sum()) for region in everything)
    assert len(sizes) == 3
    limit = settings(min_volume_mm3=sizes[-1])
    kept = find(Spotlight(), where, suspicious(1, 5), probability(s1=0.9, s5=0.8), limit)
    assert all(2.0 * region.inside.sum() >= sizes[-1] for region in kept)
    assert 1 <= len(kept) <= 3


def test_the_largest_region_is_shown_if_all_are_too_small():
    where = replace(scene((5, 16, 24)), voxel_mm3=1e-3)
    found = find(Spotlight(), where, suspicious(5), probability(s5=0.8), settings(min_volume_mm3=50))
    assert [region.key_slice for region in found] == [5]


def test_without_any_gradient_the_crop_of_the_most_suspicious_slice_is_shown():
    where = scene((2, 16, 24), (6, 16, 24))
    (region,) = find(Spotlight(weight=-1), where, suspicious(2, 6), probability(s2=0.6, s6=0.9), settings())
    assert region.key_slice == 6
    assert region.box == ((6, 0, 0), (7, 64, 64))


def maps(*, peak: tuple[int, int] = (1, 1)) -> torch.Tensor:
    one = torch.zeros(1, 4, 4)
    one[0, peak[0], peak[1]], one[0, 3, 3] = 1.0, 0.6
    return one


def test_a_hot_place_reaches_the_share_of_the_highest_and_lies_on_bone():
    bone = np.zeros((1, 4, 4), bool)
    bone[0, :, 3] = True
    assert np.argwhere(hot_places(maps(), bone, 0.5)).tolist() == [[0, 3, 3]]
    assert np.argwhere(hot_places(maps(), ~bone, 0.5)).tolist() == [[0, 1, 1]]
    assert np.argwhere(hot_places(maps(), np.ones((1, 4, 4), bool), 0.7)).tolist() == [[0, 1, 1]]


def test_a_map_that_misses_the_bone_is_kept_whole():
    assert hot_places(maps(), np.zeros((1, 4, 4), bool), 0.5).sum() == 2


def test_an_empty_map_has_no_hot_place():
    assert not hot_places(torch.zeros(2, 4, 4), np.ones((2, 4, 4), bool), 0.5).any()


def test_regions_stay_near_the_bone():
    where = scene((3, 16, 24), side=8, background=150, hu=250)
    (region,) = find(Spotlight(), where, suspicious(3), probability(s3=0.9), settings(cam_share=0.01))
    assert region.box == ((3, 15, 23), (4, 25, 33))  # the spot and one pixel of margin
    assert not region.inside[0, 0, 0]  # a disc widens no corner


def shown(*, flipped: bool = False, number: int = 2) -> tuple[Shown, Volume]:
    """Return a region of an L in slices 1 and 2 of 4, and the volume, feet first and prone if flipped."""
    sign = -1 if flipped else 1
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[2, 0], affine[1, 1], affine[0, 2] = 3.0 * sign, 2.0 * sign, 0.5 * sign
    volume = Volume(array=np.zeros((4, 6, 5), np.float32), affine=affine, headers=(), frames=())
    inside = np.ones((2, 2, 3), bool)
    inside[1, 0, 1:] = False
    region = Region(((1, 3, 0), (3, 5, 3)), inside, 1)
    return Shown(region, axial(volume), number, FRACTURE, NECK), volume


ANSWER = Answer(probability=0.8, raw=0.7, spread=0.02)


def test_a_finding_tells_its_probability_and_its_volume():
    one, volume = shown()
    finding = one.finding(volume.voxel_mm3, ANSWER)
    assert (finding.tracking_id, finding.code, finding.site, finding.level) == ("fracture-2", FRACTURE, NECK, None)
    assert (finding.probability, finding.raw_probability, finding.uncertainty) == (0.8, 0.7, 0.02)
    assert (finding.box, finding.key_slice) == (((1, 3, 0), (3, 5, 3)), 1)
    (measured,) = finding.measurements
    assert (measured.name.value, measured.unit) == ("118565006", "cm3")
    assert measured.value == pytest.approx(10 * 3.0 / 1000)  # ten voxels of 3 x 2 x 0.5 mm


def test_a_finding_and_its_mask_go_back_to_a_flipped_volume():
    one, volume = shown(flipped=True)
    finding, mask = one.finding(volume.voxel_mm3, ANSWER), one.mask(volume.array.shape)
    assert (finding.box, finding.key_slice) == (((1, 1, 2), (3, 3, 5)), 2)
    assert finding.probability == 0.8
    plain, straight = shown()[0].mask((4, 6, 5)), np.flip(mask.array, (0, 1, 2))
    assert np.array_equal(plain.array, straight)
    (s0, r0, c0), (s1, r1, c1) = finding.box
    assert mask.array[s0:s1, r0:r1, c0:c1].sum() == mask.array.sum() == 10
    assert (mask.label, mask.tracking_id, mask.kind) == ("Suspected fracture 2", finding.tracking_id, FRACTURE)


def test_a_finding_in_a_vertebra_names_it():
    one, volume = shown()
    named = replace(one, level="C5")
    assert named.finding(volume.voxel_mm3, ANSWER).level == "C5"
    assert named.mask((4, 6, 5)).label == "C5 suspected fracture 2"


BOX = (slice(2, 5), slice(10, 20), slice(30, 40))


def test_the_region_of_a_vertebra_is_what_is_hot_inside_its_outline():
    inside, hot = np.ones((3, 10, 10), bool), np.zeros((8, 64, 64), bool)
    inside[:, :, :2] = False
    hot[4, 12:14, 28:36] = hot[1, 12:14, 33:36] = True
    region = in_vertebra(hot, BOX, inside, probability(s4=0.8))
    assert region.box == ((4, 12, 32), (5, 14, 36))
    assert region.inside.all()
    assert region.key_slice == 4


def test_the_region_of_a_vertebra_without_a_hot_place_is_its_outline():
    inside = np.zeros((3, 10, 10), bool)
    inside[:, 3:6, 4:9] = True
    region = in_vertebra(np.zeros((8, 64, 64), bool), BOX, inside, probability(s3=0.4))
    assert region.box == ((2, 13, 34), (5, 16, 39))
    assert region.key_slice == 3


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((slice(1, 3), slice(3, 5), slice(0, 3)), 1.0),
        ((slice(2, 3), slice(0, 9), slice(0, 9)), 0.4),
        ((slice(1, 2), slice(4, 9), slice(2, 9)), 0.1),
        ((slice(3, 9), slice(0, 9), slice(0, 9)), 0.0),
    ],
)
def test_the_share_of_a_region_in_a_mask_is_counted_in_voxels(box, share):
    whole = np.ones([side.stop - side.start for side in box], bool)
    assert shown()[0].region.inside_of(box, whole) == pytest.approx(share)
