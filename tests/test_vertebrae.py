"""Names of vertebrae: given where the anatomy confirms them, withheld, with the reason, where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from inference.datasets.labelled import CERVICAL
from inference.preprocess.sagittal import LEVELS
from inference.vertebrae import CODES, locate, named, shares
from sr import codes
from tests import blocks

MM = 1.5
SIZE, GAP = 8, 2  # voxels: 12 mm high, 15 mm apart


def spine(*levels: str, top: int = 0, sure: float = 0.95, **odd: tuple[int, int]) -> np.ndarray:
    """Blocks of 5.5 cm3, from head to feet; `odd` gives single levels another first slice and height."""
    share = np.zeros((len(LEVELS), 110, 40, 40), np.float32)
    for place, level in enumerate(levels):
        first, height = odd.get(level, (110 - 4 - top - (SIZE + GAP) * (place + 1), SIZE))
        share[LEVELS.index(level), max(first, 0) : first + height, 10:24, 10:25] = sure
    return share


def test_a_whole_neck_is_named_from_head_to_feet():
    found, notes = named(spine(*LEVELS), MM)
    assert tuple(found) == LEVELS
    assert notes == ()
    centres = [one.centre[0] for one in found.values()]
    assert centres == sorted(centres, reverse=True)
    assert found["C1"].volume_cm3 == pytest.approx(8 * 14 * 15 * MM**3 / 1000)
    assert found["C4"].sure == pytest.approx(0.95)
    assert not any(one.cut_off for one in found.values())


@pytest.mark.parametrize("levels", [LEVELS[:4], LEVELS[4:], ("C2",), ("T1",)])
def test_part_of_a_neck_is_named_from_the_landmark_that_is_in_view(levels):
    found, _ = named(spine(*levels), MM)
    assert tuple(found) == tuple(levels)


def test_without_a_landmark_nothing_is_named():
    found, notes = named(spine("C3", "C4", "C5", "C6"), MM)
    assert found == {}
    assert notes == ("vertebrae are not named: none of C1, C2 and T1, from which to count, is in view",)


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (np.zeros((8, 40, 40, 40), np.float32), "none was recognised"),
        (spine("C1", "C2", "C4", "C5"), "C3 between C1 and C5 was not recognised"),
        (spine("C2", "C1", "C3"), "C2 would lie above C1"),
        (spine("C1", "C2", "C3", C3=(20, 8)), "C2 and C3 would be"),
        (spine("C1", "C2", "C3", C3=(62, 12)), "would be"),
        (spine("C1", "C2", "C3", sure=0.55), "none of C1, C2 and T1"),
        (spine("C1", "C2", "C3", C3=(1, 73)), "would be larger than a vertebra"),
    ],
)
def test_names_that_anatomy_contradicts_are_withheld(share, why):
    found, (note,) = named(share, MM)
    assert found == {}
    assert note.startswith("vertebrae are not named: ")
    assert why in note


def test_a_level_that_the_network_is_not_sure_of_spoils_the_counting():
    share = spine("C1", "C2", "C3", "C4")
    share[LEVELS.index("C3")] *= 0.58
    assert "not sure of C3" in named(share, MM)[1][0]


def test_specks_do_not_count():
    share = spine(*LEVELS)
    share[LEVELS.index("C5"), 100:102, 35:37, 35:37] = 0.99
    found, _ = named(share, MM)
    assert tuple(found) == LEVELS
    assert not (found["C5"].share[100:102] > 0).any()


def test_a_speck_alone_is_no_vertebra():
    share = spine("C1", "C2", "C3")
    share[LEVELS.index("C4"), 60:63, 12:15, 12:15] = 0.99
    assert tuple(named(share, MM)[0]) == ("C1", "C2", "C3")


def test_fragments_of_a_broken_vertebra_are_kept():
    share = spine("C1", "C2", "C3")
    block = share[LEVELS.index("C2")]
    whole = (block > 0).sum()
    block[:, :, 20] = 0  # a gap
    assert (named(share, MM)[0]["C2"].share > 0.5).sum() == (block > 0).sum() < whole


def test_a_vertebra_at_the_end_of_the_scan_is_named_and_said_to_be_cut_off():
    found, notes = named(spine("C1", "C2", "C3", C1=(104, 6)), MM)
    assert tuple(found) == ("C1", "C2", "C3")
    assert found["C1"].cut_off
    assert notes == ("partly in view: C1",)


@pytest.mark.parametrize("spacing", [(1.0, 0.5, 0.5), (2.0, 0.7, 0.7)])
def test_a_volume_of_any_spacing_is_outlined_at_its_own_resolution(spacing):
    truth = blocks.labels(spacing)
    volume = np.where(truth > 0, np.where(truth == 5, blocks.DENSE, blocks.BONE), 0).astype(np.float32)
    found = locate(blocks.Painter(MM), volume, spacing, MM)
    assert tuple(found.named) == LEVELS
    for number, (level, vertebra) in enumerate(found.named.items(), start=1):
        answer = np.zeros(volume.shape, bool)
        answer[vertebra.box] = vertebra.inside
        assert (
            2 * (answer & (truth == number)).sum() / (answer.sum() + (truth == number).sum()) > 0.8
        )  # voxels of 1.5 mm against slices of 2 mm
        assert (vertebra.fractured > 0.9) == (level == "C5")


def test_images_of_any_size_are_padded_for_the_network_and_cut_back():
    volume = np.where(blocks.labels((MM, MM, MM)) > 0, 600, 0).astype(np.float32)[:, :37]
    levels, fracture = shares(blocks.Painter(MM), volume)
    assert levels.shape == (8, 93, 37, 40)
    assert fracture.shape == (93, 37, 40)
    assert levels.max() > 0.99


def test_the_codes_are_those_of_the_configuration():
    assert {level: codes.table()[level] for level in CERVICAL} == CODES
