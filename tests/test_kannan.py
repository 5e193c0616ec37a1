"""The paper 001 protocol in miniature: labels, both tasks of the transfer, all answers, and no work done twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case, prepare
from inference.evaluation import kannan_report
from inference.evaluation import kannan_training as training
from inference.evaluation.kannan import ROWS, UNET, Settings, answer, build, read_settings
from inference.evaluation.kannan_images import Images, gather
from inference.nets.slice_classifiers import PUBLISHED, Widths
from inference.nets.unet import Maps, VertebraUNet
from inference.training.parts import divided
from tests.cases import silent, write_case
from tests.protocols import run_protocol, write_settings

ROOT = Path(__file__).resolve().parents[1]
NAME = "kannan"
SETTINGS = """
data = "phantom:standard@0+24"
size = 32
stride = 2
seed = 1

[shares]
train = 0.5
validation = 0.25
test = 0.25

[pretraining]
data = "phantom:standard@100+6"
epochs = 1

[training]
images = 12
epochs = 2
batch = 6
learning_rate = 1e-3
warmup_epochs = 0.5
dropout = 0.1
patience = 2

[widths]
cnn = [4, 8]
resnet = 2
vgg = 2
densenet = 2
inception = 0.0625
repeats = [1, 1, 1]
"""


def labelled_case(folder: Path, number: int, *, fractured: bool) -> Case:
    """Write a case whose block is T1 in the lowest slice, nothing in the next, then two slices each of C7 up to C1."""
    case = write_case(folder, number, fractured=fractured)
    vertebrae = np.zeros(case.hu.shape, np.uint8)
    vertebrae[0, 16:48, 16:48] = 8
    for n in range(2, 16):
        vertebrae[n, 16:48, 16:48] = 7 - (n - 2) // 2
    np.save(case.folder / "vertebrae.npy", vertebrae)
    return case


def write_all(folder: Path) -> None:
    for number in (*range(24), *range(100, 106)):
        labelled_case(folder, number, fractured=number % 2 == 0)


def small(folder: Path) -> Settings:
    return read_settings(write_settings(folder, NAME, SETTINGS))


def run(folder: Path, *, progress=silent, text: str = SETTINGS) -> list[Path]:
    return run_protocol(folder, NAME, text, progress)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[Path]]:
    """Return the folder and the result files of one whole run."""
    folder = tmp_path_factory.mktemp("finished")
    write_all(folder)
    return folder, run(folder)


def document(folder: Path) -> dict:
    found = json.loads((folder / "out" / f"{NAME}.json").read_text())
    for row in found["rows"].values():
        assert row.pop("seconds") > 0  # the only number that differs from run to run
    return found


def test_a_run_leaves_numbers_a_page_and_pictures(finished):
    _, paths = finished
    assert [path.name for path in paths] == [
        f"{NAME}.json", f"{NAME}.md", f"{NAME}-roc.png", f"{NAME}-precision-recall.png", f"{NAME}-examples.png"
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[2:])


def test_all_families_answer_for_the_same_images(finished):
    found = document(finished[0])
    assert [row["family"] for row in found["rows"].values()] == [
        "custom CNN", *["transfer learning"] * 5, "encoder-decoder", "encoder-decoder"
    ]  # fmt: skip
    test = found["parts"]["test"]
    for row in found["rows"].values():
        assert np.sum(row["vertebra"]["confusion"]) == test["images"] == 7 * test["cases"]
        assert sum(row["fracture"]["counts"].values()) == test["images"] - test["ambiguous_images"]
    assert sum(part["cases"] for part in found["parts"].values()) == 24


def test_the_numbers_of_a_row_follow_from_its_confusion_matrix(finished):
    for row in document(finished[0])["rows"].values():
        matrix, shown = np.array(row["vertebra"]["confusion"]), row["vertebra"]
        assert shown["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
        near = sum(np.trace(matrix, offset) for offset in (-1, 0, 1)) / matrix.sum()
        assert shown["within_one"] == pytest.approx(near)
        assert shown["accuracy"] <= shown["second_guess"]
        precision_and_recall = [
            (matrix[n, n] / max(matrix[:, n].sum(), 1), matrix[n, n] / matrix[n].sum()) for n in range(7)
        ]
        f1 = [2 * p * r / (p + r) if p + r else 0 for p, r in precision_and_recall]
        assert shown["macro_f1"] == pytest.approx(np.mean(f1))


def test_the_transfer_changes_the_answers_and_not_the_network(finished):
    rows = document(finished[0])["rows"]
    with_it, without = rows["ResNet-50"], rows["ResNet-50, from scratch"]
    assert (with_it["start"], without["start"]) == ("transfer", "random weights")
    assert with_it["weights"] == without["weights"]
    assert with_it["fracture"]["brier"] != without["fracture"]["brier"]


def test_only_the_networks_for_transfer_learn_the_first_task(finished):
    learned = {path.parent.name for path in (finished[0] / NAME).glob("*/first-task.checkpoint")}
    assert learned == {"ResNet-50", "VGG-16", "DenseNet-121", "Inception-ResNet-v2"}


def test_the_page_says_what_these_numbers_are_not(finished):
    page = finished[1][1].read_text()
    assert "numbers on synthetic phantoms" in page
    assert '"Transfer" is not the paper\'s' in page
    assert "a mask that is all background" in page
    assert "Always the most frequent vertebra: accuracy 0.1" in page
    assert '"an accuracy of 96% in cervical spine fracture segmentation"' in page
    assert "{" not in page
    assert len([line for line in page.splitlines() if line.startswith("| encoder-decoder | U-Net")]) == 2


def test_another_data_set_is_named_and_not_called_a_phantom(finished):
    shown = json.loads(finished[1][0].read_text()) | {"data": "rsna2022:/data", "source": "RSNA 2022"}
    page = kannan_report.markdown(shown, pictures=[])
    assert "rsna2022:/data (RSNA 2022)" in page
    assert "synthetic phantoms" not in page


def test_a_finished_run_trains_nothing_again_and_says_the_same(finished):
    folder, paths = finished
    before = {path: path.read_bytes() for path in paths}
    said: list[str] = []
    run(folder, progress=said.append)
    assert sum(line.endswith("finished before") for line in said) == len(ROWS)
    assert not [line for line in said if "epoch" in line]
    assert {path: path.read_bytes() for path in paths} == before


class PowerFailure(Exception):
    """What a test raises in the middle of a run."""


def test_an_interrupted_run_goes_on_in_its_network_and_ends_as_if_nothing_had_happened(finished, tmp_path):
    write_all(tmp_path)

    def fail(text: str) -> None:
        if text.startswith("VGG-16: epoch 1/2"):
            raise PowerFailure

    with pytest.raises(PowerFailure):
        run(tmp_path, progress=fail)
    said: list[str] = []
    run(tmp_path, progress=said.append)
    assert "ResNet-50: finished before" in said
    assert not [line for line in said if line.startswith("VGG-16: first task: epoch")]
    assert [line for line in said if line.startswith("VGG-16: going on after epoch 1")]
    assert document(tmp_path) == document(finished[0])


def test_other_pretraining_is_another_experiment_for_the_networks_that_have_it(tmp_path):
    images = gather([labelled_case(tmp_path, n, fractured=n % 2 == 0) for n in range(4)], size=32)
    parts = dict.fromkeys(("train", "validation", "test"), images)
    settings = small(tmp_path)
    said: dict[str, list[str]] = {}
    for number, changed in enumerate(
        (settings, replace(settings, pretraining=replace(settings.pretraining, epochs=2)))
    ):
        for row in (ROWS[0], ROWS[2]):
            progress = said.setdefault(f"{row.name} {number}", []).append
            device = torch.device("cpu")
            answer(row, parts, parts, changed, folder=tmp_path / row.name, device=device, progress=progress)
    assert said["custom CNN 1"] == ["finished before"]
    assert said["VGG-16 1"][0].endswith("is of a training with other data or settings: starting anew")
    assert [line for line in said["VGG-16 1"] if line.startswith("first task: epoch 2/2")]


def test_pretraining_on_tested_patients_is_refused(tmp_path):
    write_all(tmp_path)
    with pytest.raises(UnusableData, match="standard@2[+]6 shares 6 patients with phantom:standard@0[+]24"):
        run(tmp_path, text=SETTINGS.replace("@100+6", "@2+6"))


def test_a_part_without_a_fractured_image_is_refused(tmp_path):
    for number in (*range(24), *range(100, 106)):
        labelled_case(tmp_path, number, fractured=False)
    with pytest.raises(UnusableData, match="none of the .* images of the part train shows a fracture: add cases"):
        run(tmp_path)


def test_cases_without_a_map_of_vertebrae_are_refused(tmp_path):
    case = write_case(tmp_path, 0, fractured=True)
    with pytest.raises(UnusableData, match="has no map of vertebrae"):
        gather([case], size=32)


def test_an_image_has_the_vertebra_with_the_most_voxels_in_the_crop(tmp_path):
    case = labelled_case(tmp_path, 0, fractured=False)
    vertebrae = np.array(case.vertebrae)
    vertebrae[4, 16:30, 16:48] = 5  # fewer rows than C6 keeps
    vertebrae[5, 16:33, 16:48] = 5  # more
    vertebrae[6, :10, :] = 1  # outside the crop
    np.save(case.folder / "vertebrae.npy", vertebrae)
    assert case.crop.top > 10
    images = gather([case], size=32)
    # T1 alone, or nothing, is no image
    assert (images.vertebra + 1).tolist() == [7, 7, 6, 5, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert len(gather([case], size=32, stride=3)) == 5


def test_a_trace_of_a_fracture_has_no_label(tmp_path):
    case = labelled_case(tmp_path, 0, fractured=True)
    expected = np.where(case.clear, case.labels, -1)[2:]
    images = gather([case], size=32)
    assert images.fractured.tolist() == expected.tolist()
    assert (images.fractured == 1).sum() == 3
    assert images.fractures.flatten(1).any(1).tolist() == (expected == 1).tolist()


def test_masks_lie_on_the_image(tmp_path):
    case = labelled_case(tmp_path, 0, fractured=True)
    images = gather([case], size=64)
    block = images.hu[0] > 400  # bone without the noise
    assert torch.equal(images.levels[0] > 0, block) or ((images.levels[0] > 0) != block).float().mean() < 0.05
    broken = images.fractures[images.fractured == 1]
    assert (images.hu[images.fractured == 1][broken].float().median()) < 0


def test_the_u_net_answers_with_its_head_and_with_its_masks():
    class Fixed(VertebraUNet):
        def forward(self, images: torch.Tensor) -> Maps:
            vertebrae = torch.zeros(1, 8, 32, 32)
            vertebrae[:, 0] = 8
            vertebrae[:, 3, :8] = 20  # C3 on a quarter of the image
            vertebrae[:, 5, 8:10] = 20  # C5 on less
            fracture = torch.full((1, 32, 32), -5.0)
            fracture[0, 0, :12] = 3
            shown = torch.zeros(1, 7)
            shown[0, 6] = 4
            return Maps(vertebrae, fracture, shown)

    net = Fixed(levels=7, width=1 / 16, repeats=(1, 1, 1))
    found = training.logits(net, torch.zeros(1, 3, 32, 32))
    assert found.shape == (1, 2, 8)
    assert found[0, :, :7].argmax(1).tolist() == [6, 2]
    assert found[0, :, 7].tolist() == [3, 3]
    # C3 has 4 times the area of C5
    assert found[0, 1, :7].softmax(0)[2] / found[0, 1, :7].softmax(0)[4] == pytest.approx(4, rel=0.01)


def made_up(truth: torch.Tensor, fractures: torch.Tensor) -> Images:
    n = len(truth)
    return Images(
        hu=torch.zeros(n, 32, 32, dtype=torch.int16),
        levels=truth,
        fractures=fractures,
        vertebra=torch.zeros(n, dtype=torch.int64),
        fractured=fractures.flatten(1).any(1).long(),
        patients=[str(number) for number in range(n)],
    )


def perfect(truth: torch.Tensor, probability: torch.Tensor) -> VertebraUNet:
    """Return a U-Net that answers with these masks, whatever it is shown."""

    class Perfect(VertebraUNet):
        def forward(self, images: torch.Tensor) -> Maps:
            levels = torch.nn.functional.one_hot(truth.long(), 8).permute(0, 3, 1, 2).float()
            return Maps(levels, probability.logit(), torch.zeros(len(truth), 7))

    return Perfect(levels=7, width=1 / 16, repeats=(1, 1, 1))


def test_dice_and_pixel_accuracy_of_masks_that_are_known():
    truth, fractures = torch.zeros(2, 32, 32, dtype=torch.uint8), torch.zeros(2, 32, 32, dtype=torch.bool)
    truth[0, :8], truth[1, :4], fractures[0, 0, :10] = 1, 2, True
    found = truth.clone()
    found[0, 4:8] = 0  # half of C1 is missed
    probability = torch.full((2, 32, 32), 0.1)
    probability[0, 0, :20] = 0.8  # twice the fracture
    images, net = made_up(truth, fractures), perfect(found, probability)
    assert training.mask_threshold(net, images) == pytest.approx(0.46, abs=0.02)  # any from 0.11 to 0.8 is as good
    counts = training.overlaps(net, images, 0.5)
    masks = kannan_report.masks({"overlaps": counts, "mask threshold": 0.5}, images)
    assert masks["levels"] == {
        "C1": pytest.approx(2 / 3), "C2": 1, **{f"C{n}": None for n in range(3, 8)}
    }  # fmt: skip
    assert masks["dice"] == pytest.approx(5 / 6)
    assert masks["fracture_dice"] == pytest.approx(2 / 3)
    assert masks["pixel_accuracy"] == pytest.approx(1 - 4 * 32 / 2048)
    assert masks["pixel_accuracy_of_background"] == pytest.approx(1 - 12 * 32 / 2048)
    assert masks["fracture_pixel_accuracy"] == masks["fracture_pixel_accuracy_of_background"]


def test_the_seven_classes_are_sorted():
    logits = np.array([0, 0, 5, 4, 0, 0, 0, 9.0])
    assert kannan_report.sorted_classes(logits, 2) == "C3 0.71, C4 0.26"


def test_half_of_the_drawn_images_are_fractured_and_all_are_drawn_alike_where_none_is(tmp_path):
    images = gather([labelled_case(tmp_path, n, fractured=n < 2) for n in range(6)], size=32)
    rng = np.random.default_rng(0)
    assert (images.fractured[training.drawn(images, 4000, rng)] == 1).float().mean() == pytest.approx(0.5, abs=0.03)
    unknown = replace(images, fractured=torch.full_like(images.fractured, -1))
    counts = np.bincount(training.drawn(unknown, 40 * len(images), rng), minlength=len(images))
    assert counts.min() > 15


@pytest.mark.parametrize("net", ["custom CNN", UNET])
def test_the_networks_learn_which_vertebra_and_whether_it_is_fractured(net, tmp_path):
    cases = [labelled_case(tmp_path, n, fractured=n % 2 == 0) for n in range(8)]
    for case in cases:  # the block of a vertebra is the brighter, the higher it lies
        hu = np.array(case.hu)
        hu[np.array(case.vertebrae) > 0] -= 75 * np.array(case.vertebrae)[np.array(case.vertebrae) > 0].astype(np.int16)
        np.save(case.folder / "hu.npy", hu)
    images = gather(cases, size=32)
    settings = small(tmp_path)
    torch.manual_seed(0)
    made = build(net, replace(settings, widths=replace(settings.widths, cnn=(8, 16))))
    before = training.score(made.eval(), images)
    training.learn(
        made,
        {"train": images, "validation": images},
        replace(settings.training, images=96, epochs=4, batch=16, learning_rate=1e-2, patience=4, dropout=0.0),
        seed=1,
        checkpoint=training.checkpoint_of(tmp_path, "learn", {}),
        progress=silent,
    )
    assert training.score(made, images) > before + 0.1


def test_patients_decide_the_part(tmp_path):
    settings = small(tmp_path)
    write_all(tmp_path)
    parts = divided(settings.data, settings.shares, prepare, cache=tmp_path, progress=silent)
    patients = [{case.patient for case in chosen} for chosen in parts.values()]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 24


@pytest.mark.parametrize("name", ["kannan", "kannan-full"])
def test_the_committed_settings_have_the_paper_s_image_size(name):
    settings = read_settings(ROOT / "config" / "protocols" / f"{name}.toml")
    assert settings.size == 128
    assert isinstance(settings.widths, Widths)


def test_the_full_settings_have_the_published_widths():
    widths = read_settings(ROOT / "config" / "protocols" / "kannan-full.toml").widths
    assert replace(widths, cnn=tuple(widths.cnn), repeats=tuple(widths.repeats)) == PUBLISHED


def test_shares_of_other_parts_are_refused(tmp_path):
    path = write_settings(tmp_path, NAME, SETTINGS.replace("validation = 0.25\n", ""))
    with pytest.raises(ValueError, match=r"kannan.toml: \[shares\] needs train, validation and test, not train, test"):
        read_settings(path)
