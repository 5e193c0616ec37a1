"""The result files of the paper 001 protocol: JSON for programs, Markdown and PNG for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from inference import engine
from inference.datasets.labelled import CERVICAL
from inference.datasets.store import POSITIVE_MM2, Case
from inference.evaluation import binary, plots
from inference.evaluation.bootstrap import interval
from inference.evaluation.kannan import ENCODER_DECODER, ROWS, UNET, Answers, Settings
from inference.evaluation.kannan_images import Images
from inference.evaluation.markdown_tables import table
from inference.evaluation.protocol import Request
from inference.evaluation.statistics import confusion
from inference.nets.slice_classifiers import VERTEBRAE
from inference.training.calibration import fit_temperature, operating_points

#: The answers of `kannan_training.logits`, by their position.
WAYS = {ENCODER_DECODER: ("class head", "masks")}
FRACTURE = 1 + VERTEBRAE  # of the regions of `kannan_training.overlaps`


def write(
    request: Request,
    settings: Settings,
    cases: Mapping[str, Sequence[Case]],
    parts: Mapping[str, Images],
    answers: Mapping[str, Answers],
) -> list[Path]:
    """Write NAME.json, NAME.md, ROC and precision-recall plots and examples of the U-Net; return the paths."""
    rows, curves = {}, {}
    for row in ROWS:
        found = answers[row.name]
        for number, way in enumerate(WAYS.get(row.family, ("",))):
            name = f"{row.name}: {way}" if way else row.name
            start = "transfer" if row.transferred else "random weights"
            about = {"family": row.family, "start": start, "weights": found["weights"], "seconds": found["seconds"]}
            fracture, calibrated = _fracture(found, number, parts)
            rows[name] = {**about, "vertebra": _vertebra(found, number, parts["test"]), "fracture": fracture}
            curves[row.name] = calibrated
    document = {
        "protocol": request.name,
        "command": f"dicomnode evaluate {request.name}" + (f" --data {request.data}" if request.data else ""),
        "data": settings.data,
        "source": cases["test"][0].source,
        "parts": {part: _counts(cases[part], parts[part]) for part in parts},
        "settings": asdict(settings),
        "torch": torch.__version__,
        "machine": engine.machine(request.device),
        "rows": rows,
        "trivial": _trivial(parts["test"]),
        "masks": masks(answers[UNET], parts["test"]),
    }
    numbers, text = request.out / f"{request.name}.json", request.out / f"{request.name}.md"
    request.out.mkdir(parents=True, exist_ok=True)
    numbers.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    pictures = _draw(request, rows, curves, answers[UNET], parts["test"])
    text.write_text(markdown(document, [path.name for path in pictures]))
    return [numbers, text, *pictures]


def _counts(cases: Sequence[Case], images: Images) -> dict[str, Any]:
    names = "\n".join(sorted(case.name for case in cases))
    return {
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "fractured_cases": sum(bool(case.fractured) for case in cases),
        "images": len(images),
        "fractured_images": int((images.fractured == 1).sum()),
        "ambiguous_images": int((images.fractured < 0).sum()),
        "sha256_of_names": hashlib.sha256(names.encode()).hexdigest(),
    }


def _trivial(images: Images) -> dict[str, float]:
    """What answers that never look at the image get right."""
    counts = np.bincount(images.vertebra.numpy(), minlength=VERTEBRAE)
    known = images.fractured[images.fractured >= 0]
    return {
        "most frequent vertebra": float(counts.max() / counts.sum()),
        "always no fracture": float((known == 0).double().mean()),
    }


def _vertebra(found: Answers, way: int, images: Images) -> dict[str, Any]:
    """The confusion matrix has a row for each true vertebra."""
    order = np.argsort(-found["test"][:, way, :VERTEBRAE].numpy(), axis=1, kind="stable")
    truth = images.vertebra.numpy()
    matrix = np.zeros((VERTEBRAE, VERTEBRAE), int)
    np.add.at(matrix, (truth, order[:, 0]), 1)
    shown, called, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    each = [_by_patient(values, images.patients) for values in (order[:, 0], truth)]
    return {
        "accuracy": float(right.sum() / len(truth)),
        "accuracy_ci95": list(interval(lambda answer, label: float((answer == label).mean()), *each)),
        "within_one": float((abs(order[:, 0] - truth) <= 1).mean()),
        "second_guess": float((order[:, :2] == truth[:, None]).any(1).mean()),
        # Of the vertebrae that occur: without any, F1 is not defined.
        "macro_f1": float((2 * right / np.maximum(shown + called, 1))[shown > 0].mean()),
        "confusion": matrix.tolist(),
    }


def _fracture(found: Answers, way: int, parts: Mapping[str, Images]) -> tuple[dict[str, Any], plots.Answers]:
    """Numbers, and the calibrated probabilities with their labels: temperature and threshold from the validation."""
    scores, labels = {}, {}
    for part in ("validation", "test"):
        known = parts[part].fractured >= 0
        scores[part] = found[part][known, way, VERTEBRAE].double().numpy()
        labels[part] = parts[part].fractured[known].numpy() == 1
    temperature = fit_temperature(scores["validation"], labels["validation"])
    balanced, *_ = operating_points(expit(scores["validation"] / temperature), labels["validation"])
    calibrated = scores["test"] / temperature
    test = parts["test"]
    patients = [patient for patient, label in zip(test.patients, test.fractured.tolist(), strict=True) if label >= 0]
    by_patient = _by_patient(calibrated, patients), _by_patient(labels["test"], patients)
    counts = confusion(expit(calibrated), labels["test"], balanced.threshold)
    return (
        {
            "temperature": temperature,
            **binary.ranking(*by_patient),
            **binary.at(*by_patient, balanced.threshold),
            **binary.calibration(*by_patient),
            "accuracy": counts.accuracy,
            "balanced_accuracy": counts.balanced_accuracy,
            "counts": asdict(counts),
        },
        (expit(calibrated), labels["test"]),
    )


def masks(found: Answers, images: Images) -> dict[str, Any]:
    """Dice and pixel accuracy of the U-Net over all pixels of the test images, with intervals over patients."""
    counts, known = found["overlaps"].numpy(), images.fractured.numpy() >= 0
    pixels = images.hu[0].numel()
    both, called, shown = counts.sum(0)
    fracture = counts[known, :, FRACTURE].sum(0)
    dice = 2 * both / np.maximum(called + shown, 1)
    each = _by_patient(counts[:, :, 1:FRACTURE], images.patients)
    broken = _by_patient(counts[known, :, FRACTURE:], [p for p, k in zip(images.patients, known, strict=True) if k])
    unused = [np.zeros(len(one)) for one in each]
    return {
        "levels": {level: float(dice[1 + n]) if shown[1 + n] else None for n, level in enumerate(CERVICAL)},
        "dice": _mean_dice(counts[:, :, 1:FRACTURE], unused),
        "dice_ci95": list(interval(_mean_dice, each, unused)),
        "fracture_dice": _mean_dice(counts[known, :, FRACTURE:], unused),
        "fracture_dice_ci95": list(interval(_mean_dice, broken, [np.zeros(len(one)) for one in broken])),
        "fracture_threshold": found["mask threshold"],
        "pixel_accuracy": float(both[:FRACTURE].sum() / pixels / len(counts)),
        "pixel_accuracy_of_background": float(shown[0] / pixels / len(counts)),
        "fracture_pixel_accuracy": float(1 - (fracture[1] + fracture[2] - 2 * fracture[0]) / pixels / known.sum()),
        "fracture_pixel_accuracy_of_background": float(1 - fracture[2] / pixels / known.sum()),
    }


def _mean_dice(counts: np.ndarray, _: Any) -> float:
    """Mean over the regions of (n, 3, regions) pixels that occur; NaN without any."""
    both, called, shown = counts.sum(0)
    occurs = shown > 0
    return float((2 * both / np.maximum(called + shown, 1))[occurs].mean()) if occurs.any() else float("nan")


def _by_patient(values: np.ndarray, patients: Sequence[str]) -> list[np.ndarray]:
    """One array per patient; the images of a case lie together, those of a patient need not."""
    owner = np.unique(np.asarray(patients), return_inverse=True)[1]
    order = np.argsort(owner, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(owner))[:-1])


def _draw(
    request: Request,
    rows: Mapping[str, Any],
    curves: Mapping[str, plots.Answers],
    unet: Answers,
    images: Images,
) -> list[Path]:
    areas = {name.partition(":")[0]: tuple(row["fracture"]["auc_ci95"]) for name, row in rows.items()}
    title = f"{request.name}: does the image show a fracture?"
    threshold = next(row["fracture"] for row in rows.values() if row["family"] == ENCODER_DECODER)
    figures = {
        "roc": plots.roc(curves, title=title, intervals=areas),
        "precision-recall": plots.precision_recall(curves, title=title),
        "examples": _examples(unet, images, threshold),
    }
    return [plots.save(figure, request.out / f"{request.name}-{kind}.png") for kind, figure in figures.items()]


def _examples(unet: Answers, images: Images, fracture: Mapping[str, float]) -> Any:
    """The paper's figures 4 to 6: image, mask, the sorted classes, and whether a fracture is detected."""
    from matplotlib.figure import Figure

    shown, at = unet["pictures"], unet["examples"]
    figure = Figure(figsize=(2.7 * len(at), 6.2), layout="constrained")
    for number, position in enumerate(at):
        answer = unet["test"][position, 0].double().numpy()
        detected = expit(answer[VERTEBRAE] / fracture["temperature"]) >= fracture["threshold"]
        for row, (kind, levels, broken) in enumerate(
            (
                ("truth", shown["true levels"], shown["true fractures"]),
                ("found", shown["found levels"], shown["fracture probability"] >= unet["mask threshold"]),
            )
        ):
            axes = figure.add_subplot(2, len(at), row * len(at) + number + 1)
            axes.imshow(shown["hu"][number].numpy(), cmap="gray", vmin=-400, vmax=1400)
            vertebrae = levels[number].numpy()
            axes.imshow(
                np.ma.masked_equal(vertebrae, 0), cmap="Set1", vmin=0, vmax=9, alpha=0.4, interpolation="nearest"
            )
            if broken[number].any():
                axes.contour(broken[number].numpy(), [0.5], colors="yellow", linewidths=1)
            axes.set_axis_off()
            truth = f"{CERVICAL[images.vertebra[position]]}, fracture: {'no' if number >= len(at) // 2 else 'yes'}"
            found = f"{sorted_classes(answer)}\n{'Fracture is detected' if detected else 'No fracture'}"
            axes.set_title(f"{kind}: {truth if kind == 'truth' else found}", fontsize="small")
    return figure


def sorted_classes(logits: np.ndarray, count: int = 3) -> str:
    """The likeliest of the 7 vertebrae, the likeliest first."""
    share = softmax(logits[:VERTEBRAE])
    return ", ".join(f"{CERVICAL[n]} {share[n]:.2f}" for n in np.argsort(-share, kind="stable")[:count])


def markdown(document: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The content of NAME.json for people, with the pictures of these names."""
    lines = [_introduction(document), "## Which vertebra does the image show?", _vertebra_table(document)]
    lines += ["## Does it show a fracture?", _fracture_table(document)]
    lines += [f"![{name}]({name})" for name in pictures if not name.endswith("-examples.png")]
    lines += ["## Masks of the U-Net", _mask_table(document["masks"])]
    lines += [f"![{name}]({name})" for name in pictures if name.endswith("-examples.png")]
    return "\n\n".join([*lines, "## The paper's own numbers, on patients", _PAPER]) + "\n"


def _introduction(document: Mapping[str, Any]) -> str:
    settings = document["settings"]
    parts = [
        f"{name} {part['images']} images of {part['patients']} patients ({part['fractured_images']} fractured images, "
        f"{part['fractured_cases']} fractured cases of {part['cases']})"
        for name, part in document["parts"].items()
    ]
    return _INTRODUCTION.format(
        **{**settings, **document},
        about=_PHANTOMS if document["data"].startswith("phantom:") else _PATIENTS,
        judged="; ".join(parts),
        positive=POSITIVE_MM2,
        epochs=settings["training"]["epochs"],
        images=settings["training"]["images"],
        first=settings["pretraining"]["epochs"],
        other=settings["pretraining"]["data"],
    )


def _vertebra_table(document: Mapping[str, Any]) -> str:
    head = ["family", "network", "start", "weights", "accuracy (95 % CI)", "first or second class",
            "right or next vertebra", "macro-F1", "s/image"]  # fmt: skip
    rows = []
    for name, row in document["rows"].items():
        shown = row["vertebra"]
        rows.append([
            row["family"], name, row["start"], f"{row['weights']:,}", binary.with_interval(shown, "accuracy"),
            *(f"{shown[key]:.3f}" for key in ("second_guess", "within_one", "macro_f1")), f"{row['seconds']:.4f}",
        ])  # fmt: skip
    trivial = document["trivial"]["most frequent vertebra"]
    return (
        f"Always the most frequent vertebra: accuracy {trivial:.3f}. Seconds: one image at a time, median, on "
        f"{document['machine']}.\n\n{table(head, rows)}"
    )


def _fracture_table(document: Mapping[str, Any]) -> str:
    head = ["network", "start", "ROC-AUC (95 % CI)", "average precision", "accuracy", "sensitivity (95 % CI)",
            "specificity (95 % CI)", "Brier"]  # fmt: skip
    rows = []
    for name, row in document["rows"].items():
        shown = row["fracture"]
        rows.append([
            name.partition(":")[0], row["start"], binary.with_interval(shown, "auc"),
            *(f"{shown[key]:.3f}" for key in ("average_precision", "accuracy")),
            *(binary.with_interval(shown, key) for key in ("sensitivity", "specificity")), f"{shown['brier']:.3f}",
        ])  # fmt: skip
    rows = [row for number, row in enumerate(rows) if row not in rows[:number]]  # both ways read the same mask
    trivial = document["trivial"]["always no fracture"]
    return (
        f'Always "No fracture": accuracy {trivial:.3f}, sensitivity 0. The threshold of each network is that with the '
        f"largest Youden index on the validation images.\n\n{table(head, rows)}"
    )


def _mask_table(found: Mapping[str, Any]) -> str:
    dice = ["n/a" if value is None else f"{value:.3f}" for value in found["levels"].values()]
    overlap = table(
        [*found["levels"], "mean of C1 to C7 (95 % CI)", "fracture region (95 % CI)"],
        [[*dice, binary.with_interval(found, "dice"), binary.with_interval(found, "fracture_dice")]],
    )
    accuracy = [
        [kind, *(f"{100 * found[f'{key}{trivial}']:.2f} %" for trivial in ("", "_of_background"))]
        for kind, key in (("C1 to C7", "pixel_accuracy"), ("fracture region", "fracture_pixel_accuracy"))
    ]
    compared = table(["pixel accuracy", "U-Net", "a mask that is all background"], accuracy)
    return (
        f"Dice over all pixels of the test images; intervals over patients.\n\n{overlap}\n\nThe paper's accuracy "
        f"counts pixels, most of which are background: a mask without anything in it is nearly as accurate.\n\n"
        f"{compared}"
    )


_PHANTOMS = (
    "**These are numbers on synthetic phantoms. They say nothing about patients and cannot be compared with the "
    "paper's, which are quoted at the end.**"
)
_PATIENTS = "Other cases than the paper's, whose numbers are quoted at the end."
_INTRODUCTION = """# {protocol}: the three model families of Kannan et al. on axial CT images

Made by `{command}`. {about}

- Data: {data} ({source}), divided by patient: {judged}.
- Images: axial slices in the crop of the case, {size} x {size} pixels, three windows as channels, 0 to 1. Its \
vertebra is the one of C1 to C7 with the most voxels in the slice; slices without any are left out. It is fractured \
from {positive:g} mm2 of fracture; less than that, but some, has no label. Of validation and test, one slice in \
{stride} is judged.
- Training: every network learns for at most {epochs} epochs of {images} random images, half of them fractured, and \
ends as it was best on the validation images.
- "Transfer" is not the paper's, which fine-tunes networks trained on photographs: no such weights are used here. \
These networks first learn to name the vertebrae of other phantoms ({other}; epochs: {first}, of {images} images), and \
then all their weights learn on. So the transfer brings more images and steps for the first question, and another \
task for the second. ResNet-50 is also trained from random weights, without the additional epochs.
- The U-Net answers the first question twice: with its class head, and by the vertebra with the largest area in its \
masks; a fracture is as likely as its most suspicious pixels. It starts from random weights too; in the paper its \
encoder is pretrained."""
_PAPER = (
    "Quoted from M. K. Jayanthi Kannan et al., Cervical Spine Fracture Detection Using Deep Neural Networks, section "
    'IV: "an accuracy of 96% in cervical spine fracture segmentation" for the U-Net with the Inception-ResNet-v2 '
    "encoder. Figure 4 prints 315 ms for one image and its seven classes in ascending order of probability. The paper "
    "names neither its data (its listing reads 100 image files), nor its patients, nor the share of background, and "
    "has no numbers for the custom CNN and the other networks: there is nothing to set beside the rest of these tables."
)
