"""spine-generic and CSpineSeg: outlines of healthy people and of bodies without names, and what is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from inference.datasets import MR_NAMES, NAMES, open_dataset, open_mr_dataset
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import CANAL, CORD, DISC, VERTEBRAE, LabelledMR
from tests.mr_fixtures import ORIGIN, column_of, point, values, write_csv, write_sagittal

NAME = "sub-amu01"
PEOPLE = "participant_id\tsex\tage"
POINTER = "/annex/objects/SHA256E-s86078--57d0fbb9c54990a26b8c5e74a66f5189eae9c901d2249b7c6e8fc7b90932c16a.nii.gz\n"
#: C2, the disc below it, C3, C7, the disc below it, T1; cord and canal behind them.
SPINE = column_of({12: (0, 5), 63: (6, 9), 13: (10, 16), 17: (20, 26), 71: (27, 29), 21: (30, 36)})
CORD_OUTLINE, CANAL_OUTLINE = np.zeros_like(SPINE), np.zeros_like(SPINE)
CORD_OUTLINE[2, :, 17:19], CANAL_OUTLINE[2, :, 15:21] = 1, 1

EXAM = "593973-001-002"
#: C2 to C4 with the discs between them.
BODIES = column_of({1: (0, 5)}) + column_of({2: (6, 9)}) + column_of({1: (10, 16)}) + column_of({2: (17, 19)})
BODIES += column_of({1: (20, 26)})


def write_spinegeneric(root: Path, *, series: tuple[str, ...] = ("T1w", "T2w"), axes: str = "PIL") -> Path:
    """Write one participant and return the folder of its outlines."""
    write_csv(root / "participants.tsv", PEOPLE, f"{NAME}\tM\t28", "sub-amu02\tF\t28")
    labels = root / "derivatives" / "labels" / NAME / "anat"
    for one in series:
        write_sagittal(root / NAME / "anat" / f"{NAME}_{one}.nii.gz", values(), axes=axes)
        outlines = {"spine_dseg": SPINE, "canal_seg": CANAL_OUTLINE, "SC_seg": CORD_OUTLINE}
        for label, outline in outlines.items():
            write_sagittal(labels / f"{NAME}_{one}_label-{label}.nii.gz", outline, axes=axes)
    return labels


def write_cspineseg(root: Path, *, mask: np.ndarray = BODIES, axes: str = "PIL") -> None:
    write_sagittal(root / "annotation" / f"{EXAM}.nii.gz", values(), axes=axes)
    write_sagittal(root / "segmentation" / f"{EXAM}_SEG.nii.gz", mask, axes=axes)


def load(kind: str, root: Path) -> LabelledMR:
    return open_mr_dataset(f"{kind}:{root}").load({"spinegeneric": NAME, "cspineseg": EXAM}[kind])


def refusal(kind: str, root: Path) -> str:
    with pytest.raises(UnusableData) as refused:
        load(kind, root)
    return str(refused.value)


@pytest.mark.parametrize("axes", ["PIL", "RPI", "LPS", "ASR"])
@pytest.mark.parametrize(("kind", "write"), [("spinegeneric", write_spinegeneric), ("cspineseg", write_cspineseg)])
def test_any_order_of_axes_gives_one_study(tmp_path, axes, kind, write):
    write(tmp_path, axes=axes)
    series = load(kind, tmp_path).series[-1]
    assert np.array_equal(series.values, values())
    assert point(series, (0, 0, 0)) == pytest.approx(ORIGIN)
    assert (series.structures == VERTEBRAE["C2"]).sum() == 3 * 5 * 8
    assert np.argwhere(series.structures == VERTEBRAE["C2"]).max(axis=0).tolist() == [3, 4, 13]


def test_healthy_people_are_negatives_in_both_series(tmp_path):
    write_spinegeneric(tmp_path)
    case = load("spinegeneric", tmp_path)
    assert [(one.sequence, one.plane, one.boxes) for one in case.series] == [
        ("T1", "sagittal", ()),
        ("T2", "sagittal", ()),
    ]
    assert (case.name, case.patient, case.region, case.licence) == (NAME, NAME, "cervical", "CC BY 4.0")


def test_the_labels_of_totalspineseg_become_ours(tmp_path):
    write_spinegeneric(tmp_path)
    found = load("spinegeneric", tmp_path).series[0].structures
    expected = {12: "C2", 13: "C3", 17: "C7", 21: "T1"}
    for label, name in expected.items():
        assert np.array_equal(found == VERTEBRAE[name], label == SPINE), name
    for label, name in {63: "C2", 71: "C7"}.items():
        assert np.array_equal(found == DISC + VERTEBRAE[name], label == SPINE), name
    assert np.array_equal(found == CORD, CORD_OUTLINE == 1)
    assert np.array_equal(found == CANAL, (CANAL_OUTLINE == 1) & (CORD_OUTLINE == 0))


@pytest.mark.parametrize(("label", "name"), [(64, "C3"), (67, "C6"), (72, "T1"), (82, "T11"), (91, "T12"), (100, "L5")])
def test_a_disc_is_named_by_the_vertebra_above_it(label, name):
    from inference.datasets.spinegeneric import LABELS

    assert LABELS[label] == DISC + VERTEBRAE[name]


def test_outlines_that_were_not_made_leave_the_series_without_structures(tmp_path):
    labels = write_spinegeneric(tmp_path)
    (labels / f"{NAME}_T1w_label-spine_dseg.nii.gz").unlink()
    (labels / f"{NAME}_T2w_label-SC_seg.nii.gz").unlink()
    first, second = load("spinegeneric", tmp_path).series
    assert first.structures is None
    assert set(np.unique(second.structures)) == {0, 2, 3, 7, 8, DISC + 2, DISC + 7, CANAL}


def test_a_series_that_was_not_taken_is_absent(tmp_path):
    write_spinegeneric(tmp_path, series=("T2w",))
    dataset = open_mr_dataset(f"spinegeneric:{tmp_path}")
    assert dataset.names == (NAME,)
    assert [one.sequence for one in dataset.load(NAME).series] == ["T2"]


@pytest.mark.parametrize(("pathology", "boxes"), [("HC", ()), ("MildCompression", None), ("", None)])
def test_who_is_not_known_to_be_healthy_is_no_negative(tmp_path, pathology, boxes):
    write_spinegeneric(tmp_path)
    write_csv(tmp_path / "participants.tsv", PEOPLE + "\tpathology", f"{NAME}\tM\t28\t{pathology}")
    assert {one.boxes for one in load("spinegeneric", tmp_path).series} == {boxes}


@pytest.mark.parametrize("what", ["image", "outline"])
def test_a_file_that_git_annex_did_not_fetch_is_named(tmp_path, what):
    labels = write_spinegeneric(tmp_path)
    image = tmp_path / NAME / "anat" / f"{NAME}_T2w.nii.gz"
    path = image if what == "image" else labels / f"{NAME}_T2w_label-SC_seg.nii.gz"
    path.write_text(POINTER)
    assert refusal("spinegeneric", tmp_path) == (
        f"{path}: only a pointer to the image; fetch it with `git annex get` (or `git lfs pull`)"
    )
    path.unlink()
    path.symlink_to("../../.git/annex/objects/xx/yy/SHA256E-s86078--57d0")
    assert "only a pointer to the image" in refusal("spinegeneric", tmp_path)


def test_outlines_of_another_space_are_refused(tmp_path):
    labels = write_spinegeneric(tmp_path)
    write_sagittal(labels / f"{NAME}_T2w_label-canal_seg.nii.gz", CANAL_OUTLINE[:, :30])
    assert "T2w_label-canal_seg.nii.gz: mask and images differ" in refusal("spinegeneric", tmp_path)


def test_labels_of_an_older_release_are_refused(tmp_path):
    labels = write_spinegeneric(tmp_path)
    write_sagittal(labels / f"{NAME}_T1w_label-spine_dseg.nii.gz", np.where(SPINE == 12, 202, SPINE).astype(np.uint8))
    assert "T1w_label-spine_dseg.nii.gz: 202 is no label of this data set" in refusal("spinegeneric", tmp_path)


def test_participants_without_images_or_of_another_form_are_refused(tmp_path):
    write_csv(tmp_path / "participants.tsv", PEOPLE, "sub-amu01\tM\t28")
    assert "none of 1 participants has" in refusal("spinegeneric", tmp_path)
    write_csv(tmp_path / "participants.tsv", PEOPLE, "../amu01\tM\t28")
    assert "line 2: participant_id is '../amu01'" in refusal("spinegeneric", tmp_path)
    (tmp_path / "participants.tsv").unlink()
    assert "participants.tsv: cannot be read" in refusal("spinegeneric", tmp_path)


def test_bodies_and_discs_are_counted_from_c2(tmp_path):
    write_cspineseg(tmp_path)
    case = load("cspineseg", tmp_path)
    (series,) = case.series
    rows = {name: np.flatnonzero((series.structures == value).any(axis=(0, 2))) for name, value in VERTEBRAE.items()}
    assert [(name, found[0], found[-1]) for name, found in rows.items() if len(found)] == [
        ("C2", 0, 4),
        ("C3", 10, 15),
        ("C4", 20, 25),
    ]
    assert np.array_equal(series.structures == DISC + VERTEBRAE["C2"], (BODIES == 2) & (series.structures == 102))
    assert set(np.unique(series.structures)) == {0, 2, 3, 4, 102, 103}
    assert (series.sequence, series.plane, series.boxes) == ("T2", "sagittal", None)
    assert (case.name, case.patient, case.region) == (EXAM, "593973", "cervical")


def test_stray_voxels_are_not_counted(tmp_path):
    mask = BODIES.copy()
    mask[0, 36, 2] = 1
    write_cspineseg(tmp_path, mask=mask)
    assert set(np.unique(load("cspineseg", tmp_path).series[0].structures)) == {0, 2, 3, 4, 102, 103}


@pytest.mark.parametrize("mask", [np.where(BODIES == 2, 0, BODIES), np.where(BODIES == 1, 0, BODIES), BODIES * 0])
def test_what_cannot_be_counted_has_no_structures(tmp_path, caplog, mask):
    write_cspineseg(tmp_path, mask=mask)
    assert load("cspineseg", tmp_path).series[0].structures is None
    assert "bodies and discs do not take turns" in caplog.text


def test_images_without_outlines_are_left_out_with_a_word(tmp_path, caplog):
    write_cspineseg(tmp_path)
    write_sagittal(tmp_path / "annotation" / "593974-001-002.nii.gz", values())
    assert open_mr_dataset(f"cspineseg:{tmp_path}").names == (EXAM,)
    assert "1 images without outlines are left out" in caplog.text


def test_cspineseg_refuses_what_is_not_its_own(tmp_path):
    assert "none of 0 image(s) NAME.nii.gz has its outlines" in refusal("cspineseg", tmp_path)
    write_cspineseg(tmp_path, mask=BODIES * 3)
    assert "_SEG.nii.gz: 3 is no label" in refusal("cspineseg", tmp_path)
    write_cspineseg(tmp_path, mask=BODIES[:, :30])
    assert "mask and images differ" in refusal("cspineseg", tmp_path)
    write_sagittal(tmp_path / "again" / f"{EXAM}.nii.gz", values())
    assert "have one name" in refusal("cspineseg", tmp_path)


@pytest.mark.parametrize(
    ("opener", "text", "message"),
    [
        (open_dataset, "spider:/data", "is MR: this task takes one of phantom, rsna2022"),
        (open_mr_dataset, "rsna2022:/data", "is CT: this task takes one of phantom_mr, spider"),
        (open_mr_dataset, "spider:", "write NAME:PLACE, where NAME is one of phantom_mr"),
        (open_mr_dataset, "spyder:/data", "write NAME:PLACE"),
        (open_dataset, "nothing", "write NAME:PLACE, where NAME is one of phantom"),
    ],
)
def test_the_other_kind_of_data_set_is_refused_by_name(opener, text, message):
    with pytest.raises(UnusableData) as refused:
        opener(text)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", [*NAMES, *MR_NAMES])
def test_every_data_set_is_described(name):
    text = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()
    assert name.startswith("phantom") or f"`{name}:PATH" in text
