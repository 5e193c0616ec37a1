"""dcmqi, which shares no code with us, reads our segments at the same points in the patient."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from sr.results import save, write_results
from tests.sources import (
    AXIAL,
    FEET_FIRST,
    OBLIQUE,
    SAGITTAL,
    analysis_of,
    ct_headers,
    enhanced_volume,
    run_for,
    volume_of,
)

TOOLS = ("segimage2itkimage", "tid1500reader", "paramap2itkimage")

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason="dcmqi (a second opinion, from PyPI) is not on the PATH"
)


def run(*command) -> None:
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def points_of(image: SimpleITK.Image) -> np.ndarray:
    """Return LPS mm of the centres of all set voxels, sorted."""
    index = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return sorted_rows((index * image.GetSpacing()) @ direction.T + image.GetOrigin())


def sorted_rows(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.round(2).T)]


ORIENTATIONS = pytest.mark.parametrize(
    "orientation", [AXIAL, SAGITTAL, OBLIQUE, FEET_FIRST], ids=["axial", "sagittal", "oblique", "feet-first"]
)


def read_maps(path, folder) -> list[np.ndarray]:
    """Return the sorted points of every segment that dcmqi finds, by number."""
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd")
    files = sorted(folder.glob("*.nrrd"), key=lambda file: int(file.stem))
    return [points_of(SimpleITK.ReadImage(str(file))) for file in files]


def meant(volume, mask: np.ndarray) -> np.ndarray:
    return sorted_rows(np.argwhere(mask) @ volume.affine[:3, :3].T + volume.affine[:3, 3])


@ORIENTATIONS
def test_every_voxel_of_a_label_map_is_at_its_point(orientation, tmp_path):
    volume = volume_of(ct_headers(orientation=orientation))
    analysis = analysis_of(volume)
    (label_map,) = write_results(volume, analysis, run_for(volume.headers), ("LABELMAP",))
    save(label_map, tmp_path / "labels.dcm")
    found = read_maps(tmp_path / "labels.dcm", tmp_path)
    expected = meant(volume, analysis.masks[0].array)
    assert any(len(one) == len(expected) and np.allclose(one, expected, atol=0.01) for one in found)


@ORIENTATIONS
def test_every_value_of_a_heat_map_is_at_its_point(orientation, tmp_path):
    volume = volume_of(ct_headers(orientation=orientation))
    heat = np.random.default_rng(3).random(volume.array.shape).astype(np.float32)
    analysis = replace(analysis_of(volume), heat_map=heat)
    (made,) = write_results(volume, analysis, run_for(volume.headers), ("PMAP",))
    save(made, tmp_path / "map.dcm")
    run("paramap2itkimage", "--inputDICOM", tmp_path / "map.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    (file,) = tmp_path.glob("*.nrrd")
    image = SimpleITK.ReadImage(str(file))
    for index in ((0, 0, 0), (4, 11, 13), (11, 39, 47)):
        point = volume.affine[:3] @ (*index, 1.0)
        assert image[image.TransformPhysicalPointToIndex(point.tolist())] == pytest.approx(heat[index])


@pytest.mark.parametrize("source", ["single-frame", "enhanced"])
@ORIENTATIONS
def test_every_voxel_is_at_its_point(orientation, source, tmp_path):
    headers = ct_headers(orientation=orientation)
    volume = volume_of(headers) if source == "single-frame" else enhanced_volume(headers, range(11, -1, -1))
    analysis = analysis_of(volume)
    results = write_results(volume, analysis, run_for(volume.headers))
    save(results[0], tmp_path / "seg.dcm")
    run("segimage2itkimage", "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    found = points_of(SimpleITK.ReadImage(str(tmp_path / "1.nrrd")))
    index = np.argwhere(analysis.masks[0].array)
    expected = sorted_rows(index @ volume.affine[:3, :3].T + volume.affine[:3, 3])
    assert np.allclose(found, expected, atol=0.01)


def test_masks_with_a_gap_between_their_slices_keep_it(tmp_path):
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    array = np.zeros(volume.array.shape, bool)
    array[[1, 2, 7, 10], 4:9, 5:20] = True
    analysis = replace(analysis, masks=(replace(analysis.masks[0], array=array),))
    (segments,) = write_results(volume, analysis, run_for(volume.headers), ("SEG",))
    save(segments, tmp_path / "seg.dcm")
    (found,) = read_maps(tmp_path / "seg.dcm", tmp_path)
    assert np.allclose(found, meant(volume, array), atol=0.01)


def test_overlapping_segments_are_read_apart(tmp_path):
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    whole = np.zeros(volume.array.shape, bool)
    whole[2:9, 5:30, 5:40] = True
    masks = (*analysis.masks, replace(analysis.masks[0], array=whole, tracking_id=None, label="vertebra"))
    (segments,) = write_results(volume, replace(analysis, masks=masks), run_for(volume.headers), ("SEG",))
    save(segments, tmp_path / "seg.dcm")
    for found, mask in zip(read_maps(tmp_path / "seg.dcm", tmp_path), masks, strict=True):
        assert np.allclose(found, meant(volume, mask.array), atol=0.01)


def test_the_report_can_be_read(tmp_path):
    headers = ct_headers()
    volume = volume_of(headers)
    results = write_results(volume, analysis_of(volume), run_for(headers))
    save(results[1], tmp_path / "sr.dcm")
    run("tid1500reader", "--inputDICOM", tmp_path / "sr.dcm", "--outputMetadata", tmp_path / "sr.json")
    assert "C5 vertebra" in (tmp_path / "sr.json").read_text()


def test_a_tilted_gantry_keeps_every_voxel_in_its_slice(tmp_path):
    """The grids of ITK have no shear, so that places cannot be compared: the pixels of each slice can."""
    volume = volume_of(ct_headers(tilt=0.7))
    analysis = analysis_of(volume)
    (segments,) = write_results(volume, analysis, run_for(volume.headers), ("SEG",))
    save(segments, tmp_path / "seg.dcm")
    run("segimage2itkimage", "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    (file,) = tmp_path.glob("*.nrrd")
    found = np.argwhere(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))))
    expected = np.argwhere(analysis.masks[0].array)
    expected[:, 0] -= expected[0, 0]  # only slices with a voxel are kept
    assert np.array_equal(found, expected)
