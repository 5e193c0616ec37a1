"""Which pipeline wants which series, and why not: pure functions over a Study and the rules in config/."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydicom.uid import UID

from dicomnode.contrast import Contrast, contrast
from dicomnode.errors import ConfigError
from dicomnode.study import Series, Study

_TIMES = {"TR": "RepetitionTime", "TE": "EchoTime", "TI": "InversionTime"}
_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # index of the patient axis that the slice normal follows


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Never(_Table):
    """Series that no pipeline gets."""

    image_type: tuple[str, ...]
    description: tuple[Pattern, ...]


class Rule(_Table):
    """What one pipeline wants."""

    name: str
    modality: str
    plane: Literal["axial", "sagittal", "coronal"]
    max_angle: Annotated[float, Field(gt=0, lt=90)]
    min_slices: Annotated[int, Field(ge=2)]
    spacing: tuple[float, float]
    body_part: tuple[str, ...]
    description: tuple[Pattern, ...]
    prefer: tuple[Pattern, ...] = ()
    #: Of the series to analyse; without one, it does not matter.
    contrast: Contrast | None = None
    #: Contrasts of the same region and plane that go with it where the study has them.
    companions: tuple[Contrast, ...] = ()


class Rules(_Table):
    """config/selection.toml."""

    never: Never
    pipeline: tuple[Rule, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The verdict on one series."""

    series_uid: str
    pipeline: str | None
    reason: str
    #: Not analysed by itself: goes with the series that is, as this contrast.
    companion: Contrast | None = None


@dataclass(frozen=True, kw_only=True)
class Objection:
    """Why a pipeline does not get a series, and how many questions it had passed before."""

    passed: int
    reason: str


def load(path: Path) -> Rules:
    """Read the rules; raises ConfigError naming the file and the key."""
    try:
        return Rules(**tomllib.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:  # of the file, its UTF-8, its TOML, its values
        raise ConfigError(f"{path}: {error}") from error


def choose(study: Study, rules: Rules) -> list[Choice]:
    """Judge every series of a study; each pipeline gets at most one, and its companions.

    Of a series that fits none, the reason is the objection of the rule that it came nearest to.
    """
    choices: dict[str, Choice] = {}
    nearest = dict.fromkeys((series.uid for series in study.series), Objection(passed=-1, reason="there are no rules"))
    for rule in rules.pipeline:
        fitting = []
        for series in study.series:
            objection = why_not(series, rule, rules)
            if objection is None:
                fitting.append(series)
            elif objection.passed > nearest[series.uid].passed:
                nearest[series.uid] = objection
        fitting.sort(key=lambda series: _rank(series, rule))
        for place, series in enumerate(fitting):
            if place == 0:
                reason = f"fits {rule.name}: {_describe(series)}"
            else:
                reason = f"fits {rule.name}, but series {_number(fitting[0])} fits better"
            pipeline = rule.name if place == 0 else None
            choices[series.uid] = Choice(series_uid=series.uid, pipeline=pipeline, reason=reason)
        for choice in _companions(study, rule, rules, fitting[:1]):
            choices[choice.series_uid] = choice
    unwanted = {
        uid: Choice(series_uid=uid, pipeline=None, reason=objection.reason) for uid, objection in nearest.items()
    }
    return [choices.get(series.uid, unwanted[series.uid]) for series in study.series]


def _companions(study: Study, rule: Rule, rules: Rules, chosen: Sequence[Series]) -> list[Choice]:
    """The best series of each further contrast that lies in the coordinates of the chosen one."""
    found = []
    for main in chosen:
        beside = [s for s in study.series if s.value("FrameOfReferenceUID") == main.value("FrameOfReferenceUID")]
        for wanted in rule.companions:
            like = rule.model_copy(update={"contrast": wanted})
            fitting = [series for series in beside if why_not(series, like, rules) is None]
            for series in sorted(fitting, key=lambda series: _rank(series, rule))[:1]:
                reason = f"goes with series {_number(main)} to {rule.name} as {wanted}: {_describe(series)}"
                found.append(Choice(series_uid=series.uid, pipeline=rule.name, reason=reason, companion=wanted))
    return found


def why_not(series: Series, rule: Rule, rules: Rules) -> Objection | None:
    """The first objection to giving a series to a pipeline; None if there is none."""
    for passed, check in enumerate((_other_kind, _never, _wrong_region, _wrong_geometry, _wrong_contrast)):
        if reason := check(series, rule, rules):
            return Objection(passed=passed, reason=reason)
    return None


def _other_kind(series: Series, rule: Rule, _rules: Rules) -> str | None:
    if series.value("Modality") != rule.modality:
        return f"modality {series.value('Modality') or 'missing'}, {rule.name} wants {rule.modality}"
    name = UID(series.instances[0].sop_class_uid).name
    return None if name.endswith("Image Storage") else f"not images: {name}"


def _never(series: Series, _rule: Rule, rules: Rules) -> str | None:
    types = {str(word).upper() for i in series.instances for word in _as_list(i.header.get("ImageType"))}
    if unwanted := types & set(rules.never.image_type):
        return f"image type {', '.join(sorted(unwanted))}"
    if any(float(i.header.get("SamplesPerPixel", 1)) != 1 for i in series.instances):
        return "colour images: not a CT or MR acquisition"
    text = _text(series, "SeriesDescription", "ProtocolName")
    pattern = _first_match(rules.never.description, text)
    return f"description contains {pattern!r}" if pattern else None


def _wrong_region(series: Series, rule: Rule, rules: Rules) -> str | None:
    if _names_region(series, rule):
        return None
    body_part = _body_part(series)
    # A study of two regions names both: it does not overrule the series.
    elsewhere = any(_names_region(series, other) for other in rules.pipeline)
    if not elsewhere and _first_match(rule.description, _text(series, "StudyDescription")):
        return None
    return f"body part {body_part or 'not given'}, and no description names the region that {rule.name} wants"


def _names_region(series: Series, rule: Rule) -> bool:
    """Does the series itself say that it shows what the rule wants?"""
    text = _text(series, "SeriesDescription", "ProtocolName")
    return _body_part(series) in rule.body_part or _first_match(rule.description, text) is not None


def _wrong_geometry(series: Series, rule: Rule, _rules: Rules) -> str | None:
    frames = series.value("NumberOfFrames")
    if frames is not None and frames > 1:
        # Enhanced objects keep their geometry per frame; the volume gate judges it when the file is read.
        return None if frames >= rule.min_slices else f"{frames:.0f} frames, {rule.name} wants {rule.min_slices}"
    stack = _stack(series)
    if stack is None:
        return "images without a position or orientation"
    angle, count, spacing = stack[_AXES[rule.plane]], stack[3], stack[4]
    if angle > rule.max_angle:
        return f"not {rule.plane}: {angle:.0f} degrees off"
    if count < rule.min_slices:
        return f"{count:.0f} slice position(s), {rule.name} wants at least {rule.min_slices}"
    if not rule.spacing[0] <= spacing <= rule.spacing[1]:
        return f"slices {spacing:.1f} mm apart, {rule.name} wants {rule.spacing[0]} to {rule.spacing[1]} mm"
    return None


def _wrong_contrast(series: Series, rule: Rule, _rules: Rules) -> str | None:
    if rule.contrast is None or (found := contrast(series)) == rule.contrast:
        return None
    times = [f"{name} {value:g} ms" for name in ("TR", "TE", "TI") if (value := series.value(_TIMES[name])) is not None]
    said = found or f"not T1, T2 or STIR ({', '.join(times) or 'no times, and no words that tell'})"
    return f"contrast {said}, {rule.name} wants {rule.contrast}"


def _stack(series: Series) -> tuple[float, float, float, float, float] | None:
    """Angles of the slice normal to the three patient axes, number of positions, median spacing in mm."""
    headers = [i.header for i in series.instances]
    planes = [_as_list(h.get("ImageOrientationPatient")) for h in headers]
    positions = [_as_list(h.get("ImagePositionPatient")) for h in headers]
    if any(len(plane) != 6 for plane in planes) or any(len(position) != 3 for position in positions):
        return None
    normal = np.cross(planes[0][:3], planes[0][3:])
    angles = np.degrees(np.arccos(np.clip(np.abs(normal), 0, 1)))
    heights = np.unique((np.array(positions) @ normal).round(2))
    spacing = float(np.median(np.diff(heights))) if len(heights) > 1 else 0.0
    return float(angles[0]), float(angles[1]), float(angles[2]), float(len(heights)), spacing


def _rank(series: Series, rule: Rule) -> tuple[int, bool, float, bool, float, str]:
    """Sorts the best series first.

    Preferred words, the region named by the series itself, thin slices, no contrast agent, and the latest: a series is
    usually repeated because it was spoiled. The UID makes ties stable.
    """
    text = _text(series, "SeriesDescription", "ConvolutionKernel")
    preferred = sum(bool(re.search(pattern, text, re.IGNORECASE)) for pattern in rule.prefer)
    stack, number = _stack(series), series.value("SeriesNumber")
    return (
        -preferred,
        not _names_region(series, rule),
        round(stack[4], 1) if stack else 0.0,
        bool(series.value("ContrastBolusAgent")),
        -number if isinstance(number, float) else 0.0,
        series.uid,
    )


def _describe(series: Series) -> str:
    stack = _stack(series)
    if stack is None:
        return f"{series.value('NumberOfFrames') or 0:.0f} frames"
    return f"{stack[3]:.0f} slices, {stack[4]:.2f} mm apart"


def _number(series: Series) -> str:
    number = series.value("SeriesNumber")
    return f"{number:.0f}" if isinstance(number, float) else series.uid


def _first_match(patterns: Sequence[str], text: str) -> str | None:
    return next((pattern for pattern in patterns if re.search(pattern, text, re.IGNORECASE)), None)


def _body_part(series: Series) -> str:
    return str(series.value("BodyPartExamined") or "").upper()


def _text(series: Series, *keywords: str) -> str:
    return " | ".join(" ".join(map(str, _as_list(series.value(keyword)))) for keyword in keywords)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
