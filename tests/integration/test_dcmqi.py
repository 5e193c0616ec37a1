"""dcmqi, which shares no code with us, reads our segments at the same points in the patient."""

from __future__ import annotations

import shutil
import subprocess

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

TOOLS = ("segimage2itkimage", "tid1500reader")

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


@pytest.mark.parametrize("source", ["single-frame", "enhanced"])
@pytest.mark.parametrize(
    "orientation", [AXIAL, SAGITTAL, OBLIQUE, FEET_FIRST], ids=["axial", "sagittal", "oblique", "feet-first"]
)
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


def test_the_report_can_be_read(tmp_path):
    headers = ct_headers()
    volume = volume_of(headers)
    results = write_results(volume, analysis_of(volume), run_for(headers))
    save(results[1], tmp_path / "sr.dcm")
    run("tid1500reader", "--inputDICOM", tmp_path / "sr.dcm", "--outputMetadata", tmp_path / "sr.json")
    assert "C5 vertebra" in (tmp_path / "sr.json").read_text()
