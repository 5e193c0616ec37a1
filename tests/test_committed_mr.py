"""The MR models that are supplied answer as they did when they were trained."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from inference import disc_looks, pipeline, spine_levels, spine_mr
from inference.datasets.labelled_mr import LabelledMR, MRSeries
from inference.datasets.phantom_mr import open_dataset
from inference.geometry import spacing

CONFIG = Path(__file__).resolve().parents[1] / "config"


@cache
def referred(name: str) -> tuple[LabelledMR, MRSeries]:
    """Render the phantom that a manifest names, if the generator is still the same; and its sagittal T2 series."""
    region, _, _, profile, seed = name.split("-")
    dataset = open_dataset(f"{region}:{profile}@{seed}+1")
    assert dataset.names == [name], "the model was trained with another version of phantoms"
    study = dataset.load(name)
    return study, next(one for one in study.series if (one.sequence, one.plane) == ("T2", "sagittal"))


@pytest.mark.parametrize("task", spine_mr.SUBJECTS)
def test_a_detector_repeats_its_reference_study(task):
    folder, document = pipeline.pinned(task, CONFIG, "model")
    (reference,) = document["references"]
    _, t2 = referred(reference["case"])
    inplane, classes = spacing(t2.affine)[1:], spine_mr.SUBJECTS[task].classes
    net = spine_mr.detector_net(folder, document, "cpu")
    found = spine_mr.answers(net, t2.values, inplane, size=document["input"]["size"], classes=classes)
    found = disc_looks.look_again(disc_looks.look_net(folder, document, "cpu"), t2.values, inplane, found, classes)
    surest = [one.scores.max(initial=0) for one in found]
    np.testing.assert_allclose(surest, reference["surest"], atol=0.01)


def test_the_level_model_outlines_its_reference_study_as_it_did():
    folder, document = pipeline.pinned(spine_mr.CORD_INJURY, CONFIG, "levels")
    (reference,) = document["references"]
    _, t2 = referred(reference["case"])
    net = spine_levels.level_net(folder, document, "cpu")
    outlines = spine_levels.outline(net, t2.values, spacing(t2.affine), document["input"]["mm"])
    truth = spine_levels.labels(t2.structures)
    assert set(outlines.named) >= {level for level, dice in reference["dice"].items() if dice}
    for level, expected in reference["dice"].items():
        mine, theirs = outlines.mask(level), truth == 1 + spine_levels.LEVELS.index(level)
        assert 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()) == pytest.approx(expected, abs=0.02), level


def test_both_pipelines_name_levels_with_the_same_model():
    digests = {pipeline.pinned(task, CONFIG, "levels")[1]["sha256"] for task in spine_mr.SUBJECTS}
    assert len(digests) == 1


@pytest.mark.parametrize("task", spine_mr.SUBJECTS)
def test_every_answer_names_each_model_by_digest(task):
    identity = partial(pipeline.identity, config_dir=CONFIG)
    assert identity(task).name == task
    assert len({identity(one).sha256 for one in pipeline.names(CONFIG)}) == len(pipeline.names(CONFIG))
