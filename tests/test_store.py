"""Cases on disk: what they say about their slices, what is made again, and what is refused."""

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from inference.datasets import shelf
from inference.datasets.labelled import UnusableData
from inference.datasets.store import POSITIVE_MM2, prepare
from inference.phantom.cervical_ct import render, sample_spec
from inference.preprocess.crop import PAD_HU, case_crop
from tests.cases import silent, write_case
from tests.phantoms import SMALL_SEED


def test_slices_with_enough_fracture_are_positive_and_with_a_trace_neither(tmp_path):
    case = replace(write_case(tmp_path, 0, fractured=True), area=np.array([0, 0.01, POSITIVE_MM2 - 0.01, POSITIVE_MM2]))
    assert case.labels.tolist() == [False, False, False, True]
    assert case.clear.tolist() == [True, False, False, True]


@pytest.mark.parametrize(("fractured", "clear"), [(False, True), (True, False), (None, False)])
def test_without_a_map_of_fractures_only_the_slices_of_an_intact_case_are_known(fractured, clear, tmp_path):
    case = replace(write_case(tmp_path, 0, fractured=True, slices=5), area=None, fractured=fractured)
    assert case.labels.tolist() == [False] * 5
    assert case.clear.tolist() == [clear] * 5


def test_the_maps_of_a_case_are_cut_and_resized_as_its_image(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    every = slice(None)
    hu, fractures = case.hu_at(every, 48), case.fractures_at(every, 48)
    assert torch.equal(hu, case.crop.cut(torch.from_numpy(np.array(case.hu)), 48))
    assert torch.equal(hu[[4, 2]], case.hu_at([4, 2], 48))
    assert hu.shape == fractures.shape == (16, 48, 48)
    assert fractures.min() == 0
    assert fractures.max() == 1
    assert ((fractures > 0.5).any(2).any(1).numpy() == case.labels).all()
    assert hu[fractures == 1].max() < 0 < hu[:, 20:28, 4:44][fractures[:, 20:28, 4:44] == 0].mean()


def test_outside_the_image_there_is_air_and_no_fracture(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    beyond = replace(case, crop=replace(case.crop, top=-case.crop.side // 2))
    assert (beyond.hu_at([5], 32)[0, :8] == PAD_HU).all()
    assert (beyond.fractures_at([5], 32)[0, :8] == 0).all()


def test_a_map_that_a_data_set_does_not_have_is_missed_by_name(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    assert not case.has_vertebrae
    with pytest.raises(UnusableData, match=rf"{case.name} \(tests\) has no map of vertebrae"):
        _ = case.vertebrae


def test_hundreds_of_cases_hold_no_files_open(tmp_path):
    for number in range(60):
        write_case(tmp_path, number, fractured=False, slices=2, size=24)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 40, hard))
    try:
        cases = prepare("phantom:standard@0+60", cache=tmp_path, progress=silent)
        values = [case.hu[1, 4, 5] + case.fractures[1, 0, 0] for case in cases]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(values) == 60


def test_a_phantom_is_rendered_once_again_after_an_interruption_and_cropped_as_the_pipeline_crops_it(tmp_path):
    text, said = f"phantom:standard@{SMALL_SEED}+1", []
    interrupted = write_case(tmp_path, SMALL_SEED, fractured=False)
    (interrupted.folder / "case.json").rename(interrupted.folder / "case.json.part")
    (case,) = prepare(text, cache=tmp_path, progress=said.append)
    assert said == [f"{text}: read 1 of 1 cases"]
    phantom = render(sample_spec(SMALL_SEED))
    assert np.array_equal(case.hu, phantom.volume)
    assert np.array_equal(case.fractures, phantom.fractures > 0)
    assert np.array_equal(case.vertebrae, phantom.vertebrae)
    assert case.crop == case_crop(phantom.volume)
    assert case.spacing == phantom.spec.scan.spacing
    area = case.crop.inside(phantom.fractures > 0).sum((1, 2)) * case.spacing[1] * case.spacing[2]
    assert case.area == pytest.approx(area, abs=0.01)
    broken = {level for level, is_broken in case.levels.items() if is_broken}
    assert case.fractured is bool(broken) is True
    assert broken <= {lesion.level for lesion in phantom.spec.acute}
    prepare(text, cache=tmp_path, progress=said.append)
    assert len(said) == 1


def test_a_case_that_another_process_makes_at_the_same_time_is_made_once(tmp_path, monkeypatch):
    pids = iter((1, 2))
    monkeypatch.setattr(shelf.os, "getpid", lambda: next(pids))
    complete = partial(shelf._complete, "one", shelf=tmp_path, record="case.json")

    def make(_: str, folder: Path, *, meanwhile: Callable[[], None]) -> dict[str, Any]:
        meanwhile()
        (folder / "hu.npy").write_bytes(b"voxels")
        return {"name": "one"}

    other = partial(complete, make=partial(make, meanwhile=lambda: None))
    complete(make=partial(make, meanwhile=other))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["case.json", "hu.npy"]


def write_ctspine1k(folder: Path, *, hu: int) -> Path:
    """Write the data set with one volume, all of one value, and its map."""
    folder.mkdir()
    (folder / "data_split.txt").write_text("trainset:\nHN_P001.nii.gz\n")
    for name, array in (
        ("HN_P001", np.full((4, 30, 30), hu, np.int16)),
        ("HN_P001_seg", np.ones((4, 30, 30), np.uint8)),
    ):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), folder / f"{name}.nii.gz")
    return folder


def test_a_case_without_bone_is_refused_by_name_and_leaves_no_record(tmp_path):
    data = write_ctspine1k(tmp_path / "data", hu=40)
    with pytest.raises(UnusableData, match=r"HN_P001 \(CTSpine1K, vertebra labels\) shows no bone"):
        prepare(f"ctspine1k:{data}", cache=tmp_path / "cache", progress=silent)
    assert not list((tmp_path / "cache").rglob("case.json"))


@pytest.mark.parametrize("content", ["", '{"name": "a"', "[]", "{}", '{"crop": {"top": 1, "image": [2, 2]}}'])
def test_a_damaged_record_is_named_with_what_to_do(content, tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    (case.folder / "case.json").write_text(content)
    with pytest.raises(UnusableData, match=r"case\.json: no record of a case .*delete its folder"):
        prepare("phantom:standard@0+1", cache=tmp_path, progress=silent)


def test_a_record_with_a_key_that_is_not_known_is_refused(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    record = json.loads((case.folder / "case.json").read_text())
    (case.folder / "case.json").write_text(json.dumps(record | {"size": 64}))
    with pytest.raises(UnusableData, match="size"):
        prepare("phantom:standard@0+1", cache=tmp_path, progress=silent)
