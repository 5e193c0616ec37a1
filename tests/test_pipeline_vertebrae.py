"""The cervical pipeline with all three models: levels named and judged, one finding per vertebra, or none and why."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference import cervical_ct, fracture_regions, pipeline, weights
from inference.datasets.labelled import CERVICAL
from inference.findings import Analysis
from inference.nets.unet import VertebraUNet
from inference.nets.vertebra_fracture import VertebraFracture
from inference.pipeline import UnknownPipeline
from inference.volume import Volume
from tests import blocks
from tests.models import NAME, TABLE, bare_headers, manifest, networks, write_config

FITTED = {
    "vertebra": {"bias": 0.0, "network": 0.5, "slices": 0.01},
    "case": {"bias": 0.5, "sequence": 0.25, "vertebra": 1.0},
    "indeterminate": [0.0, 0.0],
}
PIN = '\n[{part}]\ndirectory = "models/{part}"\nmanifest_sha256 = "{digest}"\n'


def write_part(config: Path, part: str, net: torch.nn.Module, **changes: Any) -> None:
    """Write a model into a configuration folder, and pin it."""
    folder = config / "models" / part
    folder.mkdir(parents=True, exist_ok=True)
    digest = weights.save(folder / "weights.safetensors", {"unet" if part == "vertebrae" else part: net})
    document = manifest(id=part, sha256=digest, operating_points=[], calibration={}) | changes
    content = json.dumps(document).encode()
    (folder / weights.MANIFEST).write_bytes(content)
    table = config / "pipelines" / f"{NAME}.toml"
    table.write_text(table.read_text() + PIN.format(part=part, digest=hashlib.sha256(content).hexdigest()))


def write_all(config: Path, *, level_bias: float = 2.0, case_bias: float = 1.0, **changes: Any) -> Path:
    """Write a configuration with three untrained models; the biases decide what they answer."""
    torch.manual_seed(3)
    write_config(config, nets=networks(case_bias=case_bias, slice_bias=0.0), table=TABLE)
    sizes = {"width": 1 / 16, "repeats": [1, 1, 1]}
    unet = {"unet": {"architecture": "unet", "arguments": sizes}}
    write_part(config, "vertebrae", VertebraUNet(**sizes), networks=unet, input={"mm": 1.5})
    arguments = {"width": 1, "units": 2}
    net = VertebraFracture(**arguments)
    with torch.no_grad():
        net.sequence.case_head.bias.fill_(level_bias)
    behind = {
        part: json.loads((config / "models" / folder / weights.MANIFEST).read_text())["sha256"]
        for part, folder in (("model", NAME), ("vertebrae", "vertebrae"))
    }
    levels = {
        "networks": {"levels": {"architecture": "levels", "arguments": arguments}},
        "input": {"size": 24},
        "behind": behind,
        "calibration": FITTED,
        "operating_points": [
            {"name": "balanced", "threshold": 0.6, "level_threshold": 0.6},
            {"name": "screen", "threshold": 0.1, "level_threshold": 0.2},
        ],
    }
    write_part(config, "levels", net, **levels | changes)
    return config


def neck(*, levels: slice = slice(None), **changes: Any) -> Volume:
    """Blocks of bone in soft tissue, with air around; `levels` chooses some of C1 to T1."""
    labels = blocks.labels()
    hu = np.full(labels.shape, 40, np.float32)
    hu[np.isin(labels, np.arange(1, 9)[levels])] = blocks.BONE
    hu[:, :, 52:] = -1000
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *blocks.SPACING, 1
    values = {"array": hu, "affine": affine, "headers": bare_headers(len(hu)), "frames": (None,) * len(hu)}
    return Volume(**values | changes)


@pytest.fixture
def analyse(tmp_path, monkeypatch):
    """Analyse a volume with untrained models, but for the one that outlines, which knows the blocks."""
    monkeypatch.setattr(cervical_ct, "vertebra_net", lambda folder, manifest, device: blocks.Painter(1.5))

    def run(volume: Volume, **model: Any) -> Analysis:
        return pipeline.load(NAME, write_all(tmp_path, **model), "cpu").run(volume)

    return run


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_every_cervical_vertebra_gets_a_probability_and_an_outline(analyse):
    volume = neck()
    analysis = analyse(volume)
    assert tuple(analysis.level_probabilities) == CERVICAL
    outlines = {mask.label: mask for mask in analysis.masks if mask.tracking_id is None}
    assert tuple(outlines) == CERVICAL
    labels = blocks.labels()
    for number, (level, mask) in enumerate(outlines.items(), start=1):
        assert mask.kind.meaning == f"{level} vertebra"
        truth = labels == number
        suspected = [one.array for one in analysis.masks if one.label.startswith(f"{level} suspected fracture")]
        whole = np.any([mask.array, *suspected], axis=0)
        assert 2 * (whole & truth).sum() / (whole.sum() + truth.sum()) > 0.85


def test_no_voxel_belongs_to_two_segments(analyse):
    analysis = analyse(neck())
    assert analysis.findings
    assert np.sum([mask.array for mask in analysis.masks], axis=0).max() == 1


def test_the_case_is_made_of_the_slices_and_the_most_suspicious_vertebra(analyse):
    analysis = analyse(neck())
    alone = analyse(neck(levels=slice(2, 6))).case_probability  # temperature 2
    highest = max(logit(p) for p in analysis.level_probabilities.values())
    assert logit(analysis.case_probability) == pytest.approx(0.5 + 0.25 * 2 * logit(alone) + highest, abs=0.2)
    assert analysis.threshold == 0.6
    assert analysis.positive


def test_one_finding_per_suspicious_vertebra_most_probable_first_with_its_place(analyse):
    analysis = analyse(neck())
    assert len(analysis.findings) == 3  # as many as the table allows
    found = [analysis.level_probabilities[finding.level] for finding in analysis.findings]
    assert found == [finding.probability for finding in analysis.findings] == sorted(found, reverse=True)
    labels = blocks.labels()
    for finding in analysis.findings:
        assert finding.site.meaning == f"{finding.level} vertebra"
        (mask,) = [mask for mask in analysis.masks if mask.tracking_id == finding.tracking_id]
        assert mask.label.startswith(f"{finding.level} suspected fracture")
        inside = labels[mask.array]
        assert (inside == CERVICAL.index(finding.level) + 1).mean() > 0.8
        assert mask.array[finding.key_slice].any()


def test_a_positive_case_without_a_suspicious_vertebra_shows_the_most_suspicious_one(analyse):
    analysis = analyse(neck(), level_bias=0.0)
    assert analysis.positive
    assert max(analysis.level_probabilities.values()) < 0.6
    (finding,) = analysis.findings
    assert finding.probability == max(analysis.level_probabilities.values())


def test_a_negative_case_has_outlines_but_no_finding(analyse):
    analysis = analyse(neck(), level_bias=-9.0)
    assert not analysis.positive
    assert analysis.findings == ()
    assert [mask.label for mask in analysis.masks] == [*CERVICAL]


def test_the_indeterminate_zone_is_that_of_the_probability_that_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(cervical_ct, "vertebra_net", lambda folder, manifest, device: blocks.Painter(1.5))
    config = write_all(tmp_path, calibration={**FITTED, "indeterminate": [0.0, 1.0]})
    run = pipeline.load(NAME, config, "cpu").run
    for volume, said in ((neck(), 1), (neck(levels=slice(2, 6)), 0)):  # the second one has no names
        assert len([text for text in run(volume).quality if text.startswith("indeterminate")]) == said


def test_without_names_the_slices_answer_alone_and_it_is_said(analyse):
    analysis = analyse(neck(levels=slice(2, 6)))
    assert analysis.level_probabilities == {}
    assert analysis.quality[-2:] == (
        "vertebrae are not named: none of C1, C2 and T1, from which to count, is in view",
        "the probability of the case is that of the slices alone",
    )
    assert analysis.threshold == 0.5
    assert all(finding.level is None for finding in analysis.findings)
    assert all(mask.tracking_id for mask in analysis.masks)


def test_the_way_the_patient_lies_does_not_change_names_and_outlines(analyse):
    volume = neck()
    affine = volume.affine.copy()
    for axis in (0, 1, 2):
        affine[:3, 3] += affine[:3, axis] * (volume.array.shape[axis] - 1)
        affine[:3, axis] *= -1
    straight, other = analyse(volume), analyse(replace(volume, array=np.flip(volume.array), affine=affine))
    assert other.level_probabilities == pytest.approx(straight.level_probabilities, abs=1e-4)
    for mask, expected in zip(other.masks[-7:], straight.masks[-7:], strict=True):
        assert mask.label == expected.label
        assert np.array_equal(np.flip(mask.array), expected.array)


def test_the_stages_are_timed(analyse):
    assert list(analyse(neck()).timings) == ["preprocess", "slices", "vertebrae", "explain", "total"]


def test_the_identity_stands_for_all_models(tmp_path):
    one = pipeline.identity(NAME, write_config(tmp_path / "a"))
    three = pipeline.identity(NAME, write_all(tmp_path / "b"))
    other = pipeline.identity(NAME, write_all(tmp_path / "c", version="9"))
    assert len({model.sha256 for model in (one, three)}) == 2
    assert three.sha256 == other.sha256  # the weights are the same
    assert (three.name, three.version) == (one.name, one.version)


def test_levels_calibrated_behind_other_weights_are_refused(tmp_path):
    config = write_all(tmp_path, behind={"model": "0" * 64, "vertebrae": "0" * 64})
    with pytest.raises(weights.UntrustedWeights, match=r"\[levels\] was calibrated behind weights 0000"):
        pipeline.load(NAME, config, "cpu")


def test_levels_without_outlines_are_refused(tmp_path):
    config = write_all(tmp_path)
    path = config / "pipelines" / f"{NAME}.toml"
    first, _, rest = path.read_text().partition("[vertebrae]")
    path.write_text(first + "[levels]" + rest.partition("[levels]")[2])
    with pytest.raises(UnknownPipeline, match=r"\[levels\] needs the outlines of \[vertebrae\]"):
        pipeline.load(NAME, config, "cpu")


def test_with_outlines_alone_the_slices_answer_and_findings_have_the_level_in_which_they_lie(tmp_path, monkeypatch):
    def looked_at(net, scene, suspicious, settings):
        hot = blocks.labels() == CERVICAL.index("C4") + 1
        hot[:4, :8, :8] = True  # beside the spine
        return hot

    monkeypatch.setattr(cervical_ct, "vertebra_net", lambda folder, manifest, device: blocks.Painter(1.5))
    monkeypatch.setattr(fracture_regions, "suspicious_places", looked_at)
    config = write_all(tmp_path, case_bias=5.0)
    path = config / "pipelines" / f"{NAME}.toml"
    path.write_text(path.read_text().partition("[levels]")[0])
    analysis = pipeline.load(NAME, config, "cpu").run(neck())
    assert analysis.level_probabilities == {}
    assert not [text for text in analysis.quality if "slices alone" in text]
    assert [mask.label for mask in analysis.masks if mask.tracking_id is None] == [*CERVICAL]
    sites = {finding.level: finding.site.meaning for finding in analysis.findings}
    assert sites == {"C4": "C4 vertebra", None: "Cervical spine"}


def test_a_model_without_its_gate_is_refused(tmp_path):
    config = write_config(tmp_path, table=TABLE)
    table = config / "pipelines" / f"{NAME}.toml"
    document = {key: value for key, value in manifest().items() if key not in ("content", "novelty")}
    path = config / "models" / NAME / weights.MANIFEST
    document["sha256"] = json.loads(path.read_text())["sha256"]
    path.write_text(json.dumps(document))
    table.write_text(TABLE.format(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(weights.UntrustedWeights, match="lacks content and novelty; retrain"):
        pipeline.load(NAME, config, "cpu")


def test_voxels_that_no_patient_has_and_features_far_away_are_not_analysed(analyse, tmp_path):
    inverted = neck()
    assert "no air was found" in analyse(replace(inverted, array=inverted.array + 1100)).reason
    config = write_config(tmp_path / "strict", novelty={"threshold": 1e-6})
    analysis = pipeline.load(NAME, config, "cpu").run(neck())
    assert analysis.state == "not_applicable"
    assert "no images like those that the model was validated with" in analysis.reason


def test_content_outside_the_validated_range_is_said_in_a_negative_answer_too(tmp_path):
    nets = networks(case_bias=-9.0)
    config = write_config(tmp_path, nets=nets, content={"noise_hu": [5.0, 30.0]}, novelty={"threshold": 1e6})
    analysis = pipeline.load(NAME, config, "cpu").run(neck())
    assert not analysis.positive
    assert any(text.startswith("outside the validated range: noise") for text in analysis.quality)
