"""The reader study of paper 004 (table 3): readers and a network against a consensus, from folders of Pascal VOC XML.

`PATH/truth/CASE.xml`, a folder for each reader with the same cases, and `PATH/times.csv` (reader, case, seconds) where
the time was taken. The paper says neither what is counted nor how a reader's boxes find the true ones. Here a true box
and a reader's are of one finding where they overlap by an IoU of at least 0.5, those of one class first, then the
rest; a reader's box without a true one counts as a finding that is not there. For each class every finding is a yes or
no: sensitivity over the true boxes of the class, specificity over the true boxes of the others and the findings that
are not there, accuracy over all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency, wilcoxon

from inference.datasets import voc
from inference.datasets.annotation import Annotation, read_folder
from inference.datasets.labelled import UnusableData
from inference.datasets.table import number as number_in
from inference.datasets.table import rows as table_rows
from inference.evaluation import bootstrap, detection, markdown_tables
from inference.evaluation.markdown_tables import estimate, number
from inference.evaluation.statistics import Confusion, holm, mcnemar

TRUTH, TIMES = "truth", "times.csv"
CLASSES = ("disc", "herniation", "slip")
OVERLAP = 0.5
NOTHING = -1  # the class of a finding that is not there, or was not seen
#: Property of Confusion to heading.
MEASURES = {"tpr": "sensitivity", "tnr": "specificity", "accuracy": "accuracy"}


def study(root: Path, *, reference: str, seed: int = 0) -> dict[str, Any]:
    """Compare every reader with the truth and with the reader `reference`, as plain values for JSON.

    Raises UnusableData where a folder is missing, a reader did not read every case or another one, or drew in an image
    of another size.
    """
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = [name for name in folders if name != TRUTH]
    if TRUTH not in folders or reference not in names:
        raise UnusableData(f"{root}: it needs the folders {TRUTH} and {reference}, and has {', '.join(folders)}")
    drawn = {name: read_folder(root / name, voc.read, CLASSES) for name in folders}
    for name in names:
        _check(root / name, drawn[name], drawn[TRUTH])
    findings = {name: [_findings(drawn[TRUTH][case], drawn[name][case]) for case in drawn[TRUTH]] for name in names}
    times = _times(root / TIMES, names, list(drawn[TRUTH])) if (root / TIMES).exists() else None
    return markdown_tables.plain({  # type: ignore[no-any-return]
        "cases": len(drawn[TRUTH]),
        "true_boxes": {
            label: sum(box.label == label for one in drawn[TRUTH].values() for box in one.boxes) for label in CLASSES
        },
        "reference": reference,
        "readers": {name: _reader(findings[name], seed) for name in names},
        "chi_square": {label: _chi_square(position, findings) for position, label in enumerate(CLASSES)},
        "against_reference": _against(findings, reference),
        "seconds": None if times is None else _seconds(times, reference),
    })  # fmt: skip


def write(root: Path, out: Path, *, reference: str, seed: int = 0) -> list[Path]:
    """Write `readers.json` and `readers.md` into `out` and return both paths. Raises UnusableData."""
    found = study(root, reference=reference, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    document, text = out / "readers.json", out / "readers.md"
    document.write_text(json.dumps(found, indent=2) + "\n")
    text.write_text("\n".join(lines(found)) + "\n")
    return [document, text]


def lines(found: Mapping[str, Any]) -> list[str]:
    """Table 3 of paper 004 as Markdown, then the tests that its design asks for."""
    boxes = ", ".join(f"{count} {label}" for label, count in found["true_boxes"].items())
    rows = []
    for name, reader in found["readers"].items():
        for label, values in reader.items():
            shown = (estimate(values[key], values[f"{key}_ci95"]) for key in MEASURES)
            rows.append([name, label, *shown, _taken(found["seconds"], name)])
    against = [
        [name, label, *(number(tests[key], 4) for key in ("sensitivity_p", "specificity_p"))]
        for name, classes in found["against_reference"].items()
        for label, tests in classes.items()
    ]
    paired = ["reader", "class", "sensitivity, p (Holm)", "specificity, p (Holm)"]
    text = [
        "# Readers against the consensus (paper 004, table 3)",
        "",
        f"{found['cases']} cases with {boxes}. A reader's box is of a true one from an IoU of {OVERLAP:g}. Intervals: "
        "95 %, BCa bootstrap over cases.",
        "",
        markdown_tables.table(["reader", "class", *MEASURES.values(), "mean (median) s per case"], rows),
        "",
        "Chi-square test of the share of right answers over all readers, which is the paper's test. It takes readers "
        "for independent although they read the same images:",
        "",
        markdown_tables.table(["class", "p"], [[label, number(p, 4)] for label, p in found["chi_square"].items()]),
        "",
        f"Against {found['reference']}, over the same true boxes: McNemar, exact, with Holm's correction for the "
        f"{2 * len(against)} tests. Findings that are not there have no pair and are left out. Boxes of one image are "
        "taken for independent.",
        "",
        markdown_tables.table(paired, against),
    ]
    if found["seconds"] is not None:
        tests = [[name, number(one["p"], 4)] for name, one in found["seconds"].items() if one["p"] is not None]
        text += ["", f"Seconds per case against {found['reference']}: Wilcoxon's signed ranks, with Holm's correction.",
                 "", markdown_tables.table(["reader", "p (Holm)"], tests)]  # fmt: skip
    return text


def _check(folder: Path, read: Mapping[str, Annotation], truth: Mapping[str, Annotation]) -> None:
    for names, what in ((set(truth) - set(read), "did not read"), (set(read) - set(truth), "read, without a truth,")):
        if names:
            raise UnusableData(f"{folder}: this reader {what} {', '.join(sorted(names)[:5])}")
    for case, one in read.items():
        if (one.columns, one.rows) != (truth[case].columns, truth[case].rows):
            raise UnusableData(f"{folder / case}.xml: drawn in an image of another size than the truth")


def _findings(truth: Annotation, read: Annotation) -> np.ndarray:
    """(n, 2) true and read class of every finding in an image: the true boxes, then what is not there."""
    true_boxes, boxes = detection.drawn(truth.boxes), detection.drawn(read.boxes)
    found = np.full(len(true_boxes.labels), NOTHING)
    left = np.arange(len(boxes.labels))
    for agreement in (detection.same_label, detection.any_label):
        free = np.flatnonzero(found == NOTHING)
        image = detection.Image(patient="", truth=true_boxes.at(free), found=boxes.at(left), scores=np.zeros(len(left)))
        chosen = detection.match(image, OVERLAP, agreement)
        paired = chosen >= 0
        found[free[chosen[paired]]] = [CLASSES.index(label) for label in boxes.labels[left[paired]]]
        left = left[~paired]
    invented = [CLASSES.index(label) for label in boxes.labels[left]]
    classes = [*(CLASSES.index(label) for label in true_boxes.labels), *(NOTHING for _ in invented)]
    return np.array([classes, [*found, *invented]], int).T


def _reader(cases: Sequence[np.ndarray], seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    truth, read = [one[:, 0] for one in cases], [one[:, 1] for one in cases]
    for position, label in enumerate(CLASSES):
        counts = _counted(position, np.concatenate(read), np.concatenate(truth))
        found[label] = {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn}
        for key in MEASURES:

            def statistic(read: np.ndarray, truth: np.ndarray, position: int = position, key: str = key) -> float:
                return float(getattr(_counted(position, read, truth), key))

            found[label][key] = getattr(counts, key)
            found[label][f"{key}_ci95"] = bootstrap.interval(statistic, read, truth, seed=seed, method="bca")
    return found


def _counted(position: int, read: np.ndarray, truth: np.ndarray) -> Confusion:
    said, true = read == position, truth == position
    return Confusion(
        tp=int((said & true).sum()),
        fp=int((said & ~true).sum()),
        tn=int((~said & ~true).sum()),
        fn=int((~said & true).sum()),
    )


def _right(position: int, cases: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) of every finding: did the reader answer rightly whether it is of this class?"""
    findings = np.concatenate(cases)
    return np.asarray((findings[:, 0] == position) == (findings[:, 1] == position))


def _chi_square(position: int, findings: Mapping[str, Sequence[np.ndarray]]) -> float:
    """p; NaN where all answers are right or all wrong, or there is one reader only."""
    right = [_right(position, cases) for cases in findings.values()]
    counts = np.array([[one.sum(), (~one).sum()] for one in right])
    if len(counts) < 2 or (counts.sum(axis=0) == 0).any():
        return float("nan")
    return float(chi2_contingency(counts, correction=False).pvalue)


def _against(findings: Mapping[str, Sequence[np.ndarray]], reference: str) -> dict[str, dict[str, dict[str, float]]]:
    """p of every other reader and class, adjusted together; NaN where there is no true box to compare on."""
    there = {name: [one[one[:, 0] != NOTHING] for one in cases] for name, cases in findings.items()}
    true = np.concatenate(there[reference])[:, 0]
    others = [name for name in findings if name != reference]
    p = []
    for name in others:
        for position in range(len(CLASSES)):
            a, b = _right(position, there[reference]), _right(position, there[name])
            for members in (true == position, true != position):
                p.append(mcnemar(a[members], b[members]) if members.any() else float("nan"))
    adjusted = iter(holm(np.array(p)).tolist())
    return {
        name: {label: {"sensitivity_p": next(adjusted), "specificity_p": next(adjusted)} for label in CLASSES}
        for name in others
    }


def _times(table: Path, readers: Sequence[str], cases: Sequence[str]) -> dict[str, np.ndarray]:
    """Seconds by reader, in the order of the cases."""
    seconds: dict[tuple[str, str], float] = {}
    for where, row in table_rows(table, ("reader", "case", "seconds")):
        seconds[row["reader"], row["case"]] = number_in(row, "seconds", where)
    missing = [f"{reader}, {case}" for reader in readers for case in cases if (reader, case) not in seconds]
    if missing:
        raise UnusableData(f"{table}: no time of {missing[0]}, and {len(missing) - 1} more are missing")
    return {reader: np.array([seconds[reader, case] for case in cases]) for reader in readers}


def _seconds(times: Mapping[str, np.ndarray], reference: str) -> dict[str, dict[str, float]]:
    others = [name for name in times if name != reference]
    p = [
        float(wilcoxon(times[name], times[reference]).pvalue) if (times[name] != times[reference]).any() else 1.0
        for name in others
    ]
    adjusted = dict(zip(others, holm(np.array(p)).tolist(), strict=True))
    return {
        name: {"mean": float(one.mean()), "median": float(np.median(one)), "p": adjusted.get(name, float("nan"))}
        for name, one in times.items()
    }


def _taken(seconds: Mapping[str, Any] | None, name: str) -> str:
    return "n/a" if seconds is None else f"{seconds[name]['mean']:.1f} ({seconds[name]['median']:.1f})"
