"""What the paper 003 protocol cuts out of a case: once for the whole case, or slice by slice as in the paper."""

import numpy as np
import torch

from inference.evaluation.salehinejad2021 import cropped
from inference.preprocess.crop import case_crop, slice_crops
from tests.cases import write_case


def test_the_case_crop_is_that_of_the_pipeline(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    cut = cropped(case, "case", 24)
    assert case.crop == case_crop(case.hu)
    assert torch.equal(cut.hu_at(slice(None), 24), case.hu_at(slice(None), 24).round())
    assert torch.equal(cut.fractures_at(slice(None), 24), (case.fractures_at(slice(None), 24) > 0.3).float())


def test_the_slice_crop_is_the_paper_s_and_the_whole_field_where_a_slice_has_no_bone(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    hu = np.array(case.hu)
    hu[0] = 0
    hu[5, :, :30] = 0
    np.save(case.folder / "hu.npy", hu)
    crops = slice_crops(hu)
    assert crops[0] is None
    assert crops[5].left != crops[6].left
    cut = cropped(case, "slice", 24).hu_at(slice(None), 24)
    assert torch.equal(cut[0], torch.zeros(24, 24))
    for at in (5, 6):
        assert torch.equal(cut[at], crops[at].cut(torch.from_numpy(hu[at : at + 1]), 24)[0].round())


def test_labels_stay_when_the_crop_loses_the_fracture(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    cut = cropped(case, "slice", 24)
    assert np.array_equal(cut.labels, case.labels)
    assert np.array_equal(cut.clear, case.clear)


def test_cases_are_cut_once_and_again_after_an_interruption(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    file = cropped(case, "case", 24).folder / "hu.npy"
    made = file.stat().st_mtime_ns
    cropped(case, "case", 24)
    assert file.stat().st_mtime_ns == made
    file.rename(file.with_name("part.npy"))
    cropped(case, "case", 24)
    assert file.exists()
    assert not file.with_name("part.npy").exists()


def test_intact_cases_need_no_map_of_fractures(tmp_path):
    case = write_case(tmp_path, 0, fractured=False)
    (case.folder / "fractures.npy").unlink()
    assert cropped(case, "case", 24).hu_at([3], 24).shape == (1, 24, 24)
