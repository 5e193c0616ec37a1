"""No attribute of the analysed series tells whether a phantom is fractured: a classifier that tries must guess."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import VR
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from inference.phantom import dicom
from inference.phantom.cervical_ct import sample_spec
from inference.phantom.mr import dicom as mr_dicom
from inference.phantom.mr import sampling
from inference.phantom.mr.rendering import Image, RenderedMR
from inference.phantom.mr.series import series
from inference.phantom.mr.specification import REGIONS, MRPhantomSpec
from inference.phantom.series import axial
from inference.phantom.specification import PhantomSpec
from inference.phantom.vendors import VENDORS

#: Chance alone moves the area under the curve of so many by 0.017: the limits are six standard errors away.
SEEDS = range(1200)
MR_SEEDS = range(400)  # by chance 0.03: the limits are three standard errors away
FOLDS = 5
RIDGE = 1.0
TEXT = (VR.SH, VR.LO, VR.ST, VR.LT, VR.CS, VR.DA, VR.TM, VR.DT)
NUMBERS = (VR.DS, VR.IS, VR.US, VR.SS, VR.UL, VR.SL, VR.FL, VR.FD)


def numbers(dataset: Dataset, prefix: str) -> dict[str, float]:
    """Return every value of a header that is a number, or text that reads as one, by keyword and place."""
    found = {}
    for element in dataset:
        values = element.value if isinstance(element.value, MultiValue) else [element.value]
        if element.VR not in (*NUMBERS, *TEXT):
            continue
        for place, value in enumerate(values):
            try:
                found[f"{prefix}/{element.keyword}/{place}"] = float(value)
            except (TypeError, ValueError):
                assert element.VR in TEXT, element
    return found


def features(spec: PhantomSpec) -> dict[str, float]:
    """Return what anyone can read without looking at the image: headers as they are written, size, noise, couch."""
    scan = spec.scan
    series = axial(np.broadcast_to(np.int16(0), scan.shape), scan)
    first, last = (dicom.image(spec, series, number) for number in (1, len(series.images)))
    row = numbers(first, "first") | numbers(last, "last") | {"noise": scan.noise_hu}
    for name, values in {"shape": scan.shape, "spacing": scan.spacing, "table": scan.table}.items():
        row |= {f"{name}/{axis}": float(value) for axis, value in enumerate(values)}
    return row | {f"vendor/{name}": float(scan.vendor == name) for name in VENDORS}


@cache
def sampled(profile: str) -> tuple[list[dict[str, float]], np.ndarray]:
    """Return features and labels of the phantoms that the seeds give by themselves."""
    specs = [sample_spec(seed, profile) for seed in SEEDS]
    return [features(spec) for spec in specs], np.array([bool(spec.acute) for spec in specs])


def mr_features(spec: MRPhantomSpec) -> dict[str, float]:
    """Return the same for the sagittal T2 and the axial series of an MR phantom, and what degrades each series."""
    row = {f"vendor/{name}": float(spec.scan.vendor == name) for name in VENDORS}
    for acquisition in spec.scan.acquisitions[1::2]:
        stack = spec.scan.sagittal if acquisition.plane == "sagittal" else spec.scan.axial
        blank = Image(acquisition, np.broadcast_to(np.int16(0), stack.shape))
        files = series(RenderedMR(spec, {}, (blank,)), acquisition.kind)
        for place, number in (("first", 1), ("last", len(files.images))):
            row |= numbers(mr_dicom.image(spec, files, number), f"{acquisition.kind}/{place}")
    for one in spec.scan.acquisitions:
        flaws = {"noise": one.noise, "ghost": one.ghost, "fold": one.fold, "motion": float(one.motion is not None)}
        row |= {f"{one.kind}/{name}": value for name, value in flaws.items()}
    return row | {"flow": spec.scan.flow, "implant": float(spec.implant is not None)}


@cache
def mr_sampled(region: str) -> tuple[list[dict[str, float]], np.ndarray]:
    """Return features and labels of MR phantoms that the seeds give by themselves."""
    specs = [sampling.sample_spec(seed, region) for seed in MR_SEEDS]
    positive = [
        sampling.sample_spec(seed, region, positive=True) == spec for seed, spec in zip(MR_SEEDS, specs, strict=True)
    ]
    return [mr_features(spec) for spec in specs], np.array(positive)


def table(rows: Sequence[dict[str, float]]) -> np.ndarray:
    """Return (phantoms, features), each feature with mean 0 and standard deviation 1, without constant ones."""
    names = sorted({name for row in rows for name in row})
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    values = values[:, values.std(0) > 1e-9]
    return (values - values.mean(0)) / values.std(0)


def fitted(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights of a ridge logistic regression, the intercept first."""
    design = np.column_stack([np.ones(len(values)), values])
    sign = np.where(labels, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (design @ weights)
        shrink = RIDGE * np.r_[0.0, weights[1:]]
        value = np.logaddexp(0, -margin).sum() + shrink @ weights / 2
        return float(value), shrink - design.T @ (sign * expit(-margin))

    return minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the chance that a positive scores higher than a negative, ties counting half."""
    positives = labels.sum()
    above = rankdata(scores)[labels].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(labels) - positives)))


def cross_validated_auc(rows: Sequence[dict[str, float]], labels: np.ndarray) -> float:
    """Return the area under the curve of predictions for phantoms that the regression was not fitted on."""
    values, fold = table(rows), np.arange(len(labels)) % FOLDS
    areas = []
    for number in range(FOLDS):
        held = fold == number
        weights = fitted(values[~held], labels[~held])
        areas.append(area_under_curve(weights[0] + values[held] @ weights[1:], labels[held]))
    return float(np.mean(areas))


@pytest.mark.parametrize("profile", ["standard", "hard"])
def test_no_header_tells_the_label(profile):
    rows, labels = sampled(profile)
    assert 0.4 < labels.mean() < 0.6
    assert 0.40 <= cross_validated_auc(rows, labels) <= 0.60


@pytest.mark.parametrize("region", REGIONS)
def test_no_header_of_an_mr_phantom_tells_the_label(region):
    rows, labels = mr_sampled(region)
    assert 0.4 < labels.mean() < 0.6
    assert {"sagittal T2/first/RepetitionTime/0", "axial T2/last/ImagePositionPatient/2"} <= set(rows[0])
    assert 0.40 <= cross_validated_auc(rows, labels) <= 0.60
    leaky = [
        row | {"sagittal T2/first/EchoTime/0": row["sagittal T2/first/EchoTime/0"] + 60 * label}
        for row, label in zip(rows, labels, strict=True)
    ]
    assert cross_validated_auc(leaky, labels) > 0.85


def test_the_probe_sees_every_number_of_a_header_and_each_vendor():
    rows, _ = sampled("standard")
    assert {f"first/{word}/0" for word in ("SliceThickness", "KVP", "TableHeight", "SeriesNumber", "Rows")} <= set(
        rows[0]
    )
    assert {f"last/ImagePositionPatient/{axis}" for axis in range(3)} <= set(rows[0])
    for name in VENDORS:
        assert 0.1 < np.mean([row[f"vendor/{name}"] for row in rows]) < 0.4


def test_the_probe_finds_a_planted_leak():
    rows, labels = sampled("standard")
    leaky = [
        row | {"first/SliceThickness/0": row["first/SliceThickness/0"] + 0.4 * label}
        for row, label in zip(rows, labels, strict=True)
    ]
    assert cross_validated_auc(leaky, labels) > 0.9
