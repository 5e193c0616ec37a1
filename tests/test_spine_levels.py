"""Names on sagittal MR: counted from C2 or the sacrum, withheld otherwise, and trained by what CT is trained by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference import evaluation, spine_levels, training, weights
from inference.datasets import mr_store
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import DISC, VERTEBRAE
from inference.datasets.outlined_mr import outlined
from inference.evaluation import vertebrae
from inference.nets.unet import Maps
from inference.spine_levels import ANATOMY, LEVELS, VIEW, labels, sagittal, thousandths, upright
from inference.vertebrae import locate, named
from tests.cases import silent
from tests.miniatures import UNET
from tests.mr_studies import COLUMN, SHAPE, study, write
from tests.protocols import few_samples

MM = 2.0
SETTINGS = f"""
[data]
train = ["phantom_mr:cervical:standard@0+2", "phantom_mr:lumbar:standard@0+2"]
validation = ["phantom_mr:cervical:standard@900000+1", "phantom_mr:lumbar:standard@900000+1"]
test = ["phantom_mr:cervical:standard@950000+1", "phantom_mr:lumbar:standard@950000+1"]
{UNET}"""


def column(*levels: str, sure: float = 0.95, **odd: int) -> np.ndarray:
    """Blocks from head to feet on voxels of 2 mm, and discs between them; `odd` gives levels another first slice."""
    share = np.zeros((len(LEVELS), 130, 24, 24), np.float32)
    for place, level in enumerate(levels):
        first = odd.get(level.replace("/", "_"), 118 - 14 * place)
        share[LEVELS.index(level), first : first + 10, 4:20, 4:20] = sure
        disc = next((one for one in LEVELS if one.startswith(f"{level}/") and one.endswith(tuple(levels))), None)
        if disc:
            bottom = odd.get(disc.replace("/", "_"), first - 3)
            share[LEVELS.index(disc), bottom : bottom + 2, 4:20, 4:20] = sure
    return share


class Reader(torch.nn.Module):
    """Reads the value of a structure, with which the blocks of `mr_studies` are drawn, from its brightness."""

    def __init__(self, low: float, high: float, marks: bool = True) -> None:
        super().__init__()
        self.low, self.high, self.marks = low, high, marks
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> Maps:
        values = ((images[:, 1] * (self.high - self.low) + self.low - 300) / 4).round().clamp(0, 255).long()
        kind = torch.from_numpy(VIEW.outputs_of(labels(np.arange(256)))).long()[values if self.marks else values * 0]
        maps = torch.nn.functional.one_hot(kind, 1 + len(VIEW.outputs)).permute(0, 3, 1, 2) * 16.0 - 8
        return Maps(maps, maps[:, 0] * 0 - 8, maps.amax((2, 3))[:, 1:])


def stored(cache, one):
    write(cache, one)
    number = int(one.name.rsplit("-", 1)[1])
    text = f"phantom_mr:{one.region}:standard@{number}+1"
    return mr_store.prepare_mr(text, cache=cache, progress=silent)


def plain(region: str, number: int = 0, missing: tuple[str, ...] = ()):
    """Return a study of nothing but the blocks, in every slice: a value blended with its neighbour's reads wrong."""
    made = study(region, number, labels=(), missing=missing)
    t2 = made.series[1]
    structures = np.broadcast_to(t2.structures[2], SHAPE)
    values = np.where(structures > 0, 300 + 4.0 * structures, 0).astype(np.float32)
    return replace(made, series=(made.series[0], replace(t2, values=values, structures=structures)))


def test_labels_are_the_levels_from_c2_to_the_sacrum_and_the_discs_between_them():
    values = np.array([0, VERTEBRAE["C1"], VERTEBRAE["C2"], VERTEBRAE["S1"], DISC + VERTEBRAE["L5"], 60, 61])
    named_ones = [LEVELS[n - 1] if n else None for n in labels(values)]
    assert named_ones == [None, None, "C2", "S1", "L5/S1", None, None]
    assert len(set(LEVELS)) == len(LEVELS) == 24 + 23


def test_upright_is_the_order_of_ct_and_goes_back():
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)  # right to left, head to feet, front to back
    turned = upright(values)
    assert turned.shape == (SHAPE[1], SHAPE[2], SHAPE[0])
    assert turned[0, 0, 0] == values[0, -1, 0]  # feet first
    np.testing.assert_array_equal(sagittal(turned), values)


def test_values_become_thousandths_of_their_range():
    values = np.linspace(-50, 250, 3001)
    found = thousandths(values)
    assert found.dtype == np.int16
    assert (found[30], found[1500], found[2970]) == (0, 500, 1000)
    np.testing.assert_array_equal(found, thousandths(7 * values + 3))
    values[-1] = 1e6
    assert thousandths(values).max() == spine_levels.BRIGHTEST
    assert not thousandths(np.full(9, 4.0)).any()


@pytest.mark.parametrize("levels", [("C2", "C3", "C4", "C5"), ("L3", "L4", "L5", "S1")])
def test_levels_are_named_from_either_landmark_with_their_discs(levels):
    found, notes = named(column(*levels), MM, ANATOMY)
    discs = {f"{a}/{b}" for a, b in zip(levels[:-1], levels[1:], strict=True)}
    assert set(found) == {*levels, *discs}
    assert notes == ()


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (column("C4", "C5", "C6"), "none of C2 and S1, from which to count, is in view"),
        (column("L2", "L3", "L4"), "none of C2 and S1"),
        (column("L3", "L5", "S1"), "L4 between L3 and S1 was not recognised"),
        (column("C2", "S1"), "between C2 and S1 was not recognised"),
    ],
)
def test_names_that_anatomy_contradicts_are_withheld(share, why):
    found, (note,) = named(share, MM, ANATOMY)
    assert found == {}
    assert why in note


@pytest.mark.parametrize("region", ["cervical", "lumbar"])
def test_a_series_is_named_and_measured_in_its_own_pixels(region, tmp_path, monkeypatch):
    few_samples(monkeypatch)
    (one,) = outlined(stored(tmp_path, plain(region)))
    low, high = np.percentile(one.series.values, (1, 99))
    scored = vertebrae.score(Reader(low, high), one, 2.0, ANATOMY)
    levels = COLUMN[region]
    assert {answer.level for answer in scored} >= set(levels)
    assert all(answer.identified and answer.dice > 0.9 for answer in scored if "/" not in answer.level)
    (line, *_, last) = vertebrae.metric_lines(vertebrae.measure([scored], ANATOMY))
    assert "vertebrae and discs in view" in line
    assert last.startswith(f"| {levels[0]} to {levels[-1]} |")
    odd = vertebrae.unusual([scored, scored], [False, True])
    assert (odd["cases"], odd["vertebrae"], odd["wrongly_named"]) == (1, len(scored), 0)
    nothing = vertebrae.score(Reader(low, high, marks=False), one, 2.0, ANATOMY)
    assert not any(answer.named for answer in nothing)


def test_a_neck_without_c2_in_view_is_left_without_names(tmp_path):
    (one,) = outlined(stored(tmp_path, plain("cervical", missing=("C2",))))
    low, high = np.percentile(one.series.values, (1, 99))
    found = locate(Reader(low, high), one.hu.astype(np.float32), one.spacing, 2.0, ANATOMY)
    assert found.named == {}
    assert "neither C2 nor S1" in found.notes[0]


def test_a_sixth_lumbar_vertebra_is_seen(tmp_path):
    made = plain("lumbar")
    (usual,) = outlined(stored(tmp_path, made))
    t2 = made.series[1]
    six = np.where(t2.structures == VERTEBRAE["L5"], VERTEBRAE["L6"], t2.structures).astype(np.uint8)
    changed = replace(made, series=(replace(t2, structures=six),))
    (unusual,) = outlined(stored(tmp_path / "other", changed))
    assert [(one.has_sixth, one.is_unusual) for one in (usual, unusual)] == [(False, False), (True, True)]
    four = np.where(t2.structures == VERTEBRAE["L5"], 0, t2.structures).astype(np.uint8)
    (fewer,) = outlined(stored(tmp_path / "four", replace(made, series=(replace(t2, structures=four),))))
    assert (fewer.has_sixth, fewer.is_unusual) == (False, True)
    with pytest.raises(ValueError, match="no map of fractures"):
        _ = usual.fractures


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration whose pipeline of lumbar discs pins a level model that was trained in miniature."""
    folder = tmp_path_factory.mktemp("levels")
    for name in ("training", "pipelines"):
        (folder / name).mkdir()
    (folder / "training" / "spine-mr-levels.toml").write_text(SETTINGS)
    for region in COLUMN:
        for seed in (0, 1, 900_000, 950_000):
            write(folder / "cases", study(region, seed))
    out = folder / "models" / "levels"
    training.run("spine-mr-levels", config_dir=folder, out=out, cache=folder / "cases", device="cpu", progress=silent)
    digest = hashlib.sha256((out / weights.MANIFEST).read_bytes()).hexdigest()
    pin = f'directory = "models/levels"\nmanifest_sha256 = "{digest}"\n'
    (folder / "pipelines" / "lumbar-disc-mr.toml").write_text(f"[model]\n{pin}\n[levels]\n{pin}")
    return folder


def test_the_level_model_has_weights_card_curves_and_its_measurements(place):
    folder = place / "models" / "levels"
    manifest = json.loads((folder / weights.MANIFEST).read_text())
    assert {path.name for path in folder.iterdir()} >= {"weights.safetensors", "MODEL_CARD.md", "unet-curves.png"}
    assert manifest["metrics"]["cases"] == 2
    assert set(manifest["metrics"]["levels"]) >= {*COLUMN["cervical"], *COLUMN["lumbar"]}
    assert "phantom_mr:cervical:standard@0+2, phantom_mr:lumbar:standard@0+2;" in manifest["trained_on"]
    assert "Counts from C2 or from the sacrum" in (folder / "MODEL_CARD.md").read_text()
    spine_levels.level_net(folder, manifest, "cpu")


def test_the_pinned_level_model_is_measured_again_with_the_same_numbers(place, tmp_path, monkeypatch):
    few_samples(monkeypatch)
    document, table = evaluation.run(
        "spine-mr-levels", config_dir=place, out=tmp_path, cache=place / "cases", device="cpu", progress=silent
    )
    found = json.loads(document.read_text())
    manifest = json.loads((place / "models" / "levels" / weights.MANIFEST).read_text())
    assert found["data"] == ["phantom_mr:cervical:standard@950000+1", "phantom_mr:lumbar:standard@950000+1"]
    assert {key: found[key] for key in manifest["metrics"]} == manifest["metrics"]
    assert table.read_text().startswith("# spine-mr-levels: phantom_mr:cervical:standard@950000+1, phantom_mr:lumbar")


def test_a_part_without_outlines_is_refused(place, tmp_path):
    for region in COLUMN:
        for seed in (0, 1, 900_000, 950_000):
            made = study(region, seed)
            write(tmp_path, replace(made, series=made.series[:1]))
    with pytest.raises(UnusableData, match="the part train has no sagittal T2 series with outlined vertebrae"):
        training.run(
            "spine-mr-levels", config_dir=place, out=tmp_path / "out", cache=tmp_path, device="cpu", progress=silent
        )


def test_other_data_without_outlines_are_refused(place, tmp_path):
    made = study("lumbar", 7)
    write(tmp_path, replace(made, series=made.series[:1]))
    with pytest.raises(UnusableData, match="none of the 1 studies has a sagittal T2 series with outlined vertebrae"):
        evaluation.run(
            "spine-mr-levels",
            config_dir=place,
            out=tmp_path,
            data="phantom_mr:lumbar:standard@7+1",
            cache=tmp_path,
            device="cpu",
            progress=silent,
        )
