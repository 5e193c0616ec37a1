"""The cervical fracture pipeline on a small untrained model, and the committed model on its reference cases."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import cervical_ct, pipeline
from inference.datasets.labelled import CERVICAL
from inference.datasets.phantom import open_dataset
from inference.findings import Analysis
from inference.nets.cervical_fracture import Scores
from inference.phantom.cervical_ct import Rendered, render, sample_spec
from inference.pipeline import UnknownPipeline
from inference.pipelines.cervical_ct_fracture import calibrate
from inference.preprocess.crop import case_crop
from inference.volume import Volume
from tests.models import NAME, TABLE, bare_headers, manifest, neck_volume, networks, write_config

CONFIG = Path(__file__).resolve().parents[1] / "config"


def analyse(
    folder: Path, volume: Volume, *, case_bias: float = 5.0, slice_bias: float = 5.0, **model: object
) -> Analysis:
    """Analyse with an untrained model that says yes to everything, or what the biases say."""
    nets = networks(case_bias=case_bias, slice_bias=slice_bias)
    return pipeline.load(NAME, write_config(folder, nets=nets, **model), "cpu").run(volume)


def flipped(volume: Volume, *axes: int) -> Volume:
    """Return the same patient scanned the other way along these axes."""
    affine = volume.affine.copy()
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (volume.array.shape[axis] - 1)
        affine[:3, axis] *= -1
    return neck_volume(array=np.flip(volume.array, axes), affine=affine)


def as_volume(phantom: Rendered) -> Volume:
    step, row, column = phantom.spec.scan.spacing
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = step, row, column, 1
    affine[:3, 3] = phantom.spec.scan.origin
    slices = len(phantom.volume)
    return Volume(
        array=phantom.volume.astype(np.float32), affine=affine, headers=bare_headers(slices), frames=(None,) * slices
    )


def test_a_positive_case_has_findings_with_masks_on_the_volume(tmp_path):
    volume = neck_volume()
    analysis = analyse(tmp_path, volume)
    assert (analysis.state, analysis.reason, analysis.positive) == ("done", "", True)
    assert (analysis.pipeline, analysis.target.value, analysis.site.value) == (NAME, "72704001", "122494005")
    assert len(analysis.slice_probabilities) == len(volume.array)
    assert 1 <= len(analysis.findings) <= 3
    assert [f.tracking_id for f in analysis.findings] == [m.tracking_id for m in analysis.masks]
    for finding, mask in zip(analysis.findings, analysis.masks, strict=True):
        assert mask.array.shape == volume.array.shape
        found = np.argwhere(mask.array)
        assert finding.box == (tuple(found.min(0)), tuple(found.max(0) + 1))
        assert finding.probability == pytest.approx(analysis.slice_probabilities[finding.key_slice])
        assert mask.array[finding.key_slice].any()
        volume_cm3 = mask.array.sum() * 2.0 * 0.7 * 0.7 / 1000
        assert finding.measurements[0].value == pytest.approx(volume_cm3, abs=6e-4)
    assert analysis.heat_map.shape == volume.array.shape
    assert not analysis.heat_map[np.array(analysis.slice_probabilities) < 0.5].any()


def test_a_negative_case_has_no_findings_whatever_its_slices_say(tmp_path):
    analysis = analyse(tmp_path, neck_volume(), case_bias=-5)
    assert (analysis.state, analysis.positive) == ("done", False)
    assert analysis.case_probability < 0.5 < min(analysis.slice_probabilities)
    assert analysis.findings == analysis.masks == ()
    assert analysis.heat_map is None


def test_a_positive_case_without_a_suspicious_slice_shows_its_most_suspicious_one(tmp_path):
    analysis = analyse(tmp_path, neck_volume(), slice_bias=-5)
    best = int(np.argmax(analysis.slice_probabilities))
    assert max(analysis.slice_probabilities) < 0.5
    assert {finding.key_slice for finding in analysis.findings} == {best}


def test_a_probability_at_the_threshold_is_positive(tmp_path):
    reference = analyse(tmp_path / "a", neck_volume()).case_probability
    for threshold, positive in ((reference, True), (np.nextafter(reference, 1), False)):
        points = [{"name": "balanced", "threshold": threshold, "slice_threshold": 0.5}]
        analysis = analyse(tmp_path / f"{positive}", neck_volume(), operating_points=points)
        assert analysis.threshold == threshold
        assert bool(analysis.findings) is analysis.positive is positive


def test_a_probability_in_the_indeterminate_zone_is_said_to_be_one(tmp_path):
    reference = analyse(tmp_path / "a", neck_volume())
    assert not [text for text in reference.quality if "indeterminate" in text]
    fitted = {"case_temperature": 2.0, "slice_temperature": 0.5}
    for number, (low, high, said) in enumerate(((-0.1, 0.1, 1), (0, 0.1, 1), (0.01, 0.1, 0), (-0.1, -0.01, 0))):
        zone = [reference.case_probability + low, reference.case_probability + high]
        analysis = analyse(tmp_path / str(number), neck_volume(), calibration={**fitted, "indeterminate": zone})
        assert len([text for text in analysis.quality if text.startswith("indeterminate: from probability")]) == said


def test_the_operating_point_of_the_table_decides(tmp_path):
    config = write_config(tmp_path, table=TABLE.replace('"balanced"', '"screen"'))
    assert pipeline.load(NAME, config, "cpu").run(neck_volume()).threshold == 0.1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"balanced"', '"best"', "operating_point 'best': .* has balanced, screen"),
        ('operating_point = "balanced"', "", "operating_point None"),
        ("cam_share = 0.5", "", "cam_share"),
        ("cam_share = 0.5", "cam_share = 0.5\ncam_shape = 1", "cam_shape"),
    ],
)
def test_a_wrong_key_of_the_table_is_named(old, new, said, tmp_path):
    with pytest.raises(UnknownPipeline, match=said):
        pipeline.load(NAME, write_config(tmp_path, table=TABLE.replace(old, new)), "cpu")


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_the_way_the_patient_lies_does_not_change_the_answer(axes, tmp_path):
    straight = analyse(tmp_path / "a", neck_volume(), slice_bias=0)
    other = analyse(tmp_path / "b", flipped(neck_volume(), *axes), slice_bias=0)
    ends = straight.slice_probabilities[0], straight.slice_probabilities[-1]
    assert abs(ends[0] - ends[1]) > 1e-3  # the order of the slices can be seen
    assert other.case_probability == pytest.approx(straight.case_probability, abs=1e-5)
    slices = other.slice_probabilities[::-1] if 0 in axes else other.slice_probabilities
    assert slices == pytest.approx(straight.slice_probabilities, abs=1e-5)
    assert len(other.masks) == len(straight.masks)
    for mask, expected in zip(other.masks, straight.masks, strict=True):
        assert np.array_equal(np.flip(mask.array, axes), expected.array)
    assert np.allclose(np.flip(other.heat_map, axes), straight.heat_map, atol=1e-4)


def test_the_same_volume_gets_the_same_answer_twice(tmp_path):
    run = pipeline.load(NAME, write_config(tmp_path), "cpu").run
    first, second = run(neck_volume()), run(neck_volume())
    assert first.slice_probabilities == second.slice_probabilities
    assert first.case_probability == second.case_probability


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slices": 3}, "3 slices: the model needs at least 4"),
        (
            {"array": np.full((12, 48, 56), -1000, np.float32)},
            "no bone was found in this series: no voxel above 300 HU",
        ),
        ({"affine": neck_volume().affine[[0, 2, 1, 3]]}, "slices are tilted 90 degrees from axial"),
        ({"affine": neck_volume().affine[[1, 0, 2, 3]]}, "slices are turned 90 degrees in their plane"),
    ],
)
def test_a_volume_that_the_model_cannot_judge_gets_a_reason_and_no_probability(changes, reason, tmp_path):
    analysis = analyse(tmp_path, neck_volume(**changes))
    assert analysis.state == "not_applicable"
    assert reason in analysis.reason
    assert analysis.case_probability is None
    assert not analysis.positive
    assert analysis.findings == analysis.slice_probabilities == ()


def test_single_bright_voxels_are_no_bone(tmp_path):
    array = np.full((12, 48, 56), 40, np.float32)
    array[:, :4] = -1000
    array[:, 6::4, ::4] = 2000
    assert analyse(tmp_path, neck_volume(array=array)).reason == "no bone was found in this series"


def test_remarks_about_the_input_are_handed_on(tmp_path):
    analysis = analyse(tmp_path, neck_volume(spacing=(3.0, 0.7, 0.7), quality=("seen before",)))
    assert analysis.quality[0] == "seen before"
    assert analysis.quality[1].startswith("outside the validated range: slice spacing 3.00 mm")


def test_the_stages_and_their_sum_are_timed(tmp_path):
    timings = dict(analyse(tmp_path, neck_volume()).timings)
    assert timings.pop("total") == pytest.approx(sum(timings.values()))
    assert list(timings) == ["preprocess", "slices", "vertebrae", "explain"]


def test_probabilities_are_sigmoids_of_the_mean_logit_over_the_temperature():
    scores = Scores(slices=torch.tensor([[1.0, -2.0], [3.0, 0.0]]), case=torch.tensor([1.0, 2.0]))
    result = calibrate(scores, {"case_temperature": 0.5, "slice_temperature": 2.0})
    assert result.case == pytest.approx(1 / (1 + np.exp(-3)))
    assert result.slices == pytest.approx(1 / (1 + np.exp([-1.0, 0.5])))
    assert result.raw_slices == pytest.approx(1 / (1 + np.exp([-2.0, 1.0])))
    one, two = 1 / (1 + np.exp([-2.0, -4.0]))
    assert result.case_spread == pytest.approx((two - one) / 2)
    assert result.slice_spread[1] == pytest.approx((1 / (1 + np.exp(0)) - 1 / (1 + np.exp(1))) / 2)


def test_views_that_agree_have_no_spread():
    scores = Scores(slices=torch.zeros(2, 3), case=torch.ones(2))
    result = calibrate(scores, manifest()["calibration"])
    assert result.case_spread == 0
    assert result.slice_spread.tolist() == [0, 0, 0]


def referred(name: str) -> Rendered:
    """Render the phantom that a manifest names, if the generator is still the same."""
    _, profile, seed = name.rsplit("-", 2)
    assert open_dataset(f"{profile}@{seed}+1").names == [name], "the model was trained with another version of phantoms"
    return render(sample_spec(int(seed), profile))


@cache
def answered(name: str) -> Analysis:
    """The answer of the committed pipeline about a phantom."""
    return pipeline.load(NAME, CONFIG, "cpu").run(as_volume(referred(name)))


@pytest.mark.parametrize("number", [0, 1])
def test_the_committed_fracture_model_repeats_its_reference_cases(number):
    folder, document = pipeline.pinned(NAME, CONFIG, "model")
    reference = document["references"][number]
    phantom = referred(reference["case"])
    crop = case_crop(phantom.volume)
    assert crop is not None
    hu = crop.cut(torch.from_numpy(phantom.volume), document["input"]["size"])
    scores = cervical_ct.fracture_nets(folder, document, "cpu").score(hu)
    probability = calibrate(scores, document["calibration"]).case
    assert probability == pytest.approx(reference["case_probability"], abs=0.01)
    assert bool(phantom.fractures.any()) is reference["fractured"]


def test_the_committed_pipeline_outlines_and_names_the_reference_case_as_it_did():
    _, document = pipeline.pinned(NAME, CONFIG, "vertebrae")
    (reference,) = document["references"]
    phantom, analysis = referred(reference["case"]), answered(reference["case"])
    outlines = {mask.label: mask.array for mask in analysis.masks if mask.tracking_id is None}
    assert list(outlines) == [level for level in CERVICAL if reference["dice"].get(level)]
    for level, outline in outlines.items():
        truth = phantom.vertebrae == 1 + CERVICAL.index(level)
        dice = 2 * (outline & truth).sum() / (outline.sum() + truth.sum())
        assert dice == pytest.approx(reference["dice"][level], abs=0.02)
    assert bool(analysis.findings) is analysis.positive


def test_the_committed_pipeline_gives_each_vertebra_of_the_reference_case_its_probability_again():
    _, document = pipeline.pinned(NAME, CONFIG, "levels")
    (reference,) = document["references"]
    assert answered(reference["case"]).level_probabilities == pytest.approx(reference["probabilities"], abs=0.02)


def test_all_committed_models_together_stay_small():
    sizes = [path.stat().st_size for path in (CONFIG / "models").rglob("*.safetensors")]
    assert 0 < sum(sizes) <= 25_000_000


def test_the_committed_models_say_that_they_are_for_research_and_synthetic():
    documents = [
        document
        for name in pipeline.names(CONFIG)
        for document in pipeline.manifests(pipeline.read_table(name, CONFIG), CONFIG).values()
    ]
    assert {path.name for path in (CONFIG / "models").iterdir()} == {document["id"] for document in documents}
    for document in documents:
        assert "Research use only. Trained on synthetic phantoms" in document["notice"]
        assert "no patient data" in document["trained_on"]
