"""How the three models answer together: which slices speak for a vertebra, and how logits are combined."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference import cervical_ct
from inference.cervical_ct import LevelNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.vertebrae import Vertebra, Vertebrae

SPACING = (1.0, 1.0, 1.0)


def found(**starts: int) -> Vertebrae:
    """Vertebrae of six slices, widest in the middle: areas of 1, 2, 4, 4, 2 and 1 rows."""
    inside = np.zeros((6, 4, 10), bool)
    for index, rows in enumerate((1, 2, 4, 4, 2, 1)):
        inside[index, :rows] = True
    return Vertebrae(
        named={
            level: Vertebra(
                box=(slice(start, start + 6), slice(8, 12), slice(8, 18)),
                inside=inside,
                sure=1.0,
                cut_off=False,
                fractured=0.0,
            )
            for level, start in starts.items()
        },
        notes=(),
    )


def answers(outlines: Vertebrae, slices: np.ndarray) -> dict[str, np.ndarray]:
    torch.manual_seed(2)
    levels = LevelNet(VertebraFracture(width=1, units=2).eval(), 16)
    volume = np.random.default_rng(3).normal(300, 200, (slices.shape[1], 24, 24)).astype(np.float32)
    return cervical_ct.level_answers(levels, volume, outlines, SPACING, slices)


def test_the_highest_slice_through_the_core_speaks_for_a_vertebra():
    slices = np.zeros((2, 20))
    slices[0, [4, 5, 9]] = 9.0, 1.0, 7.0  # of C3, from 4 on: its end, its core, its other end
    slices[1, 8] = 2.0
    both = answers(found(C3=4, C2=12), slices)
    assert list(both) == ["C2", "C3"]
    assert both["C3"].shape == (2, 2)
    assert both["C3"][:, 1].tolist() == [1.0, 2.0]
    assert both["C2"][:, 1].tolist() == [0.0, 0.0]


def test_the_views_of_its_own_network_are_as_acquired_and_mirrored():
    one = answers(found(C3=4), np.zeros((2, 20)))["C3"]
    assert one[0, 0] != one[1, 0]


def test_vertebrae_below_c7_are_not_judged():
    assert list(answers(found(C7=4, T1=0), np.zeros((2, 20)))) == ["C7"]


def test_both_answers_of_a_vertebra_are_weighed():
    fitted = {"bias": -1.0, "network": 0.5, "slices": 2.0}
    logits = cervical_ct.vertebra_logits(fitted, np.array([[2.0, 1.0], [4.0, 0.0]]))
    assert logits.tolist() == [2.0, 1.0]


def test_a_case_is_weighed_by_its_sequence_and_its_most_suspicious_vertebra():
    fitted = {"bias": 0.5, "sequence": 2.0, "vertebra": 3.0}
    assert cervical_ct.case_logit(fitted, 1.0, [-1.0, 0.5, 0.0]) == pytest.approx(0.5 + 2.0 + 1.5)
