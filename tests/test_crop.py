"""The crop finds the bone, keeps its place, and puts maps back where they came from."""

import numpy as np
import pytest
import torch

from inference.preprocess.crop import PAD_HU, Crop, case_crop, otsu, slice_box, slice_crops

SIZE = (60, 80)  # rows, columns: different, so that swapped axes show


def plane(
    *, box: tuple[int, int, int, int] | None = (20, 30, 40, 60), bone: float = 800, noise: float = 0
) -> np.ndarray:
    """Return one slice of soft tissue with a filled box (top, left, bottom, right) of bone."""
    hu = np.full(SIZE, 40, np.float32)
    if box is not None:
        hu[box[0] : box[2], box[1] : box[3]] = bone
    return hu + noise * np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)


def crop(**changes: object) -> Crop:
    return Crop(**{"top": 10, "left": 20, "side": 32, "image": SIZE} | changes)  # type: ignore[arg-type]


def best_threshold(values: np.ndarray) -> float:
    """Return Otsu's threshold by trying each edge of 256 bins: slow and obvious."""
    edges = np.linspace(0, 1, 257)[1:-1]
    binned = (np.floor(values * 256).clip(0, 255) + 0.5) / 256

    def between(edge: float) -> float:
        low, high = binned[binned < edge], binned[binned >= edge]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    scores = np.array([between(edge) for edge in edges])
    return float(edges[np.isclose(scores, scores.max(), rtol=1e-12)].mean())


def test_otsu_separates_two_classes_in_the_middle_of_the_empty_range():
    assert otsu(np.array([0.1] * 50 + [0.9] * 50)) == pytest.approx(0.5, abs=1 / 128)


@pytest.mark.parametrize("seed", range(5))
def test_otsu_equals_an_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.beta(2, 8, 700), rng.beta(8, 3, 150 + 100 * seed)])
    assert otsu(values) == pytest.approx(best_threshold(values), abs=1e-6)


def test_otsu_of_one_class_is_a_number():
    assert 0 <= otsu(np.zeros(100)) <= 1


def test_the_box_of_a_slice_is_half_open_around_its_bone():
    assert slice_box(plane()) == (20, 30, 40, 60)


def test_noise_and_single_bright_pixels_do_not_move_the_box():
    hu = plane(noise=25)
    hu[3, 3] = hu[55, 70] = 3000
    assert slice_box(hu) == (20, 30, 40, 60)


def test_a_slice_without_bone_has_no_box():
    assert slice_box(plane(box=None)) is None
    assert slice_box(np.full(SIZE, -1024, np.int16)) is None


def test_a_speck_of_bone_is_no_box():
    assert slice_box(plane(box=(10, 10, 14, 14))) is None  # 16 pixels, 12 of them inside


def test_bone_at_the_edge_of_the_image_is_found():
    assert slice_box(plane(box=(0, 0, 20, 30))) == (0, 0, 20, 30)


def test_the_crop_of_a_case_is_a_square_with_five_percent_margin_on_the_longer_side():
    found = case_crop(np.stack([plane()] * 3))
    assert found is not None
    assert found.side == 33  # 30 columns and twice 1.5
    assert (found.top, found.left) == (round(30 - 16.5), round(45 - 16.5))
    assert found.image == SIZE


def test_the_crop_of_a_case_is_the_median_of_its_slices_and_ignores_a_jaw_and_empty_slices():
    usual = [plane() for _ in range(5)]
    odd = [plane(box=(0, 0, 60, 80)), plane(box=None)]
    assert case_crop(np.stack(usual + odd)) == case_crop(np.stack(usual))


def test_a_case_without_bone_has_no_crop():
    assert case_crop(np.stack([plane(box=None)] * 2)) is None


def test_each_slice_has_its_own_crop_in_the_manner_of_the_paper():
    first, nothing, last = slice_crops(np.stack([plane(), plane(box=None), plane(box=(5, 5, 15, 15))]))
    assert nothing is None
    assert first is not None
    assert last is not None
    assert (first.side, last.side) == (33, 11)


def test_a_crop_inside_the_image_at_its_own_size_is_the_image():
    hu = torch.arange(2 * 60 * 80, dtype=torch.float32).reshape(2, *SIZE)
    assert torch.equal(crop().cut(hu, 32), hu[:, 10:42, 20:52])


@pytest.mark.parametrize(
    ("top", "left", "shape"), [(10, 20, (32, 32)), (-5, 70, (27, 10)), (50, -7, (10, 25)), (60, 20, (0, 32))]
)
def test_inside_is_the_part_of_the_image_under_the_square_as_it_is(top, left, shape):
    array = np.arange(2 * 60 * 80, dtype=np.uint16).reshape(2, *SIZE)
    found = crop(top=top, left=left).inside(array)
    assert found.dtype == np.uint16
    assert found.shape == (2, *shape)
    assert np.array_equal(found, array[:, max(top, 0) : top + 32, max(left, 0) : left + 32])


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_crop_has_the_size_that_is_asked_for_and_the_same_field(size):
    hu = torch.zeros(1, *SIZE)
    hu[0, 10:26, 20:36] = 100  # the first quarter of the square
    cut = crop().cut(hu, size)
    assert cut.shape == (1, size, size)
    assert cut[0, : size // 2 - 1, : size // 2 - 1].min() == 100
    assert cut[0, size // 2 + 1 :].max() == cut[0, :, size // 2 + 1 :].max() == 0


@pytest.mark.parametrize(
    ("top", "left", "rows", "columns"),
    [
        (-5, 20, slice(5, 32), slice(0, 32)),
        (10, -7, slice(0, 32), slice(7, 32)),
        (50, 20, slice(0, 10), slice(0, 32)),
        (10, 70, slice(0, 32), slice(0, 10)),
    ],
)
def test_what_lies_beyond_the_image_is_black_in_the_crop_and_lost_on_the_way_back(top, left, rows, columns):
    one = crop(top=top, left=left)
    cut = one.cut(torch.full((1, *SIZE), 7, dtype=torch.int16), 32)
    expected = torch.full((1, 32, 32), PAD_HU)
    expected[:, rows, columns] = 7
    assert torch.equal(cut, expected)
    back = one.put_back(torch.ones(1, 32, 32))
    assert back.shape == (1, *SIZE)
    assert back.sum() == (expected == 7).sum()


def test_a_map_goes_back_to_the_pixels_it_was_cut_from():
    hu = torch.zeros(1, *SIZE)
    hu[0, 22:28, 35:41] = 1
    one = crop()
    assert torch.allclose(one.put_back(one.cut(hu, 64)), hu, atol=0.3)
    assert one.put_back(one.cut(hu, 64))[0, 23:27, 36:40].min() == 1


def test_a_coarse_map_goes_back_with_its_peak_in_the_right_cell():
    maps = torch.zeros(1, 4, 4)  # cells of 8 x 8 pixels
    maps[0, 1, 3] = 1
    back = crop().put_back(maps)
    peak = np.unravel_index(int(back.argmax()), back.shape)
    assert 10 + 8 <= peak[1] < 10 + 16
    assert 20 + 24 <= peak[2] < 20 + 32
    outside = back.clone()
    outside[:, 10:42, 20:52] = 0
    assert outside.abs().max() == 0
