"""`python -m sr`: another program's mask and findings become DICOM at the right place, or are refused with a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import CTImageStorage

from inference.volume import read_volume
from sr import standalone
from sr.__main__ import main
from sr.standalone import UnusableInput
from tests.sources import AXIAL, FEET_FIRST, OBLIQUE, SAGITTAL, SHAPE, SPACING, as_file, ct_headers

DOCUMENT = json.loads(
    re.search(r"```json\n(.*?)```", (Path(__file__).parents[1] / "docs" / "standalone.md").read_text(), re.DOTALL)[1]
)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[3:7, 10:22, 12:18] = 1
LABELS[8:10, 5:12, 20:40] = 2


def series(folder: Path, **geometry) -> Path:
    folder.mkdir()
    for index, header in enumerate(ct_headers(**geometry)):
        header.SOPClassUID = CTImageStorage
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.PixelData = np.full(SHAPE[1:], 40 + index, np.int16).tobytes()
        as_file(header).save_as(folder / f"{index:02}.dcm", enforce_file_format=True)
    return folder


def mask(path: Path, folder: Path, *, labels=LABELS, turned=(), order=(0, 1, 2), shift=0.0) -> Path:
    """Write labels of the series' grid as NIfTI, with axes in another order and direction."""
    affine = read_volume(sorted(folder.iterdir())).affine
    origin = affine[:3, 3] + shift * affine[:3, 2]
    columns, steps = [], [affine[:3, axis] for axis in range(3)]
    for axis in turned:
        origin = origin + steps[axis] * (SHAPE[axis] - 1)
        steps[axis] = -steps[axis]
    columns = [steps[axis] for axis in order]
    image = SimpleITK.GetImageFromArray(np.flip(labels, turned).transpose(order))
    lengths = [float(np.linalg.norm(step)) for step in columns]
    image.SetSpacing(lengths[::-1])
    image.SetDirection(np.column_stack([c / n for c, n in zip(columns, lengths, strict=True)][::-1]).ravel().tolist())
    image.SetOrigin(origin.tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def document(path: Path, **changes) -> Path:
    path.write_text(json.dumps(DOCUMENT | changes))
    return path


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE, FEET_FIRST])
@pytest.mark.parametrize(
    ("turned", "order"), [((), (0, 1, 2)), ((0, 2), (0, 1, 2)), ((1,), (2, 1, 0)), ((), (1, 2, 0))]
)
def test_a_mask_lies_where_it_lay_whatever_the_order_of_its_axes(orientation, turned, order, tmp_path):
    folder = series(tmp_path / "in", orientation=orientation)
    path = mask(tmp_path / "m.nii.gz", folder, turned=turned, order=order)
    assert np.array_equal(standalone.on_grid(path, read_volume(sorted(folder.iterdir()))), LABELS)


def test_the_example_of_the_manual_becomes_checked_objects(tmp_path):
    folder = series(tmp_path / "in")
    main(["--series", str(folder), "--mask", str(mask(tmp_path / "m.nii.gz", folder, turned=(0,))),
          "--findings", str(document(tmp_path / "f.json")), "--out", str(tmp_path / "out")])  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1-seg.dcm", "2-sr.dcm", "3-sc.dcm"]
    segments = pydicom.dcmread(tmp_path / "out" / "1-seg.dcm")
    assert [x.SegmentLabel for x in segments.SegmentSequence] == ["C5 fracture", "C6"]
    assert segments.PatientName == "Doe^Jane"


def test_box_and_key_image_follow_from_the_segment(tmp_path):
    folder = series(tmp_path / "in")
    labels = LABELS.copy()
    labels[5, 8:10, 12] = 1
    path = mask(tmp_path / "m.nii.gz", folder, labels=labels)
    volume, analysis, _ = standalone.read(folder, path, document(tmp_path / "f.json"))
    (finding,) = analysis.findings
    assert (finding.box, finding.key_slice) == (((3, 8, 12), (7, 22, 18)), 5)
    assert volume.spacing == pytest.approx(SPACING)


def refusal(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return str(caught.value.code) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "frakture"}, "'frakture' is no key"),
        ({"case_probability": 1.5}, "case_probability: Input should be less than or equal to 1"),
        ({"extra": 1}, "extra"),
        ({"segments": DOCUMENT["segments"][:1]}, r"value\(s\) \[2\] are no segment"),
        ({"segments": [s | {"finding": None} for s in DOCUMENT["segments"]]}, "fracture-1 has no segment"),
    ],
)
def test_what_is_wrong_with_the_findings_is_named(changes, said, tmp_path, capsys):
    folder = series(tmp_path / "in")
    path = document(tmp_path / "f.json", **changes)
    message = refusal(capsys, "--series", folder, "--mask", mask(tmp_path / "m.nii.gz", folder),
                      "--findings", path, "--out", tmp_path / "out")  # fmt: skip
    assert re.search(said, message)
    assert not (tmp_path / "out").exists()


def test_a_mask_on_another_grid_or_beside_the_series_is_refused(tmp_path):
    folder = series(tmp_path / "in")
    volume = read_volume(sorted(folder.iterdir()))
    with pytest.raises(UnusableInput, match="another grid"):
        standalone.on_grid(mask(tmp_path / "a.nii.gz", folder, labels=LABELS[1:]), volume)
    with pytest.raises(UnusableInput, match="0.5 voxels away"):
        standalone.on_grid(mask(tmp_path / "b.nii.gz", folder, shift=0.5), volume)


def test_a_mask_that_is_no_mask_is_refused(tmp_path):
    folder = series(tmp_path / "in")
    volume = read_volume(sorted(folder.iterdir()))
    (tmp_path / "text.nii").write_text("not an image")
    with pytest.raises(UnusableInput, match="cannot be read"):
        standalone.on_grid(tmp_path / "text.nii", volume)
    path = mask(tmp_path / "soft.nii.gz", folder, labels=(LABELS * 0.5).astype(np.float32))
    with pytest.raises(UnusableInput, match="whole numbers"):
        standalone.on_grid(path, volume)


def test_a_folder_with_two_series_or_none_is_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("no image")
    with pytest.raises(UnusableInput, match="images of 0 series"):
        standalone.read(empty, tmp_path / "m.nii", tmp_path / "f.json")
    series(tmp_path / "two")
    series(tmp_path / "two" / "other", uid_root="1.2.826.0.1.3680043.10.2")
    with pytest.raises(UnusableInput, match="images of 2 series"):
        standalone.read(tmp_path / "two", tmp_path / "m.nii", tmp_path / "f.json")
