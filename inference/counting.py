"""Names for vertebrae and discs that a network tells apart only by kind: counted from C2, or from the sacrum.

Discs lie apart, vertebrae touch at their joints. So discs are counted, and each vertebra is what belongs, through bone,
to the body between two discs. Arrays run from feet to head, front to back, and from the patient's right to left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

from inference.preprocess.sagittal import View

#: cm3; less is noise, or a fragment of a disc.
LEAST_CM3 = {"disc": 0.15, "landmark": 1.0}
#: Parts of discs whose middles are nearer in height belong to one: it is narrower than the lowest vertebra is high.
APART_MM = 6.0
#: Between a landmark and the disc beside it.
TOUCH_MM = 6.0
#: A distance of two discs so many times that of their neighbours hides a third.
GAP = 1.6
#: Around the line between two discs: surely in the body.
CORE_MM = 4.0
#: From the last disc in view to the middle of the body beyond it, of the distance to the next disc.
BEYOND = 0.5

Centres = list[np.ndarray]


def count(share: np.ndarray, mm: float, view: View, landmarks: Sequence[str]) -> tuple[np.ndarray, str]:
    """Probability of each level (levels, slices, rows, columns) from that of each kind; or why they were not counted.

    The landmarks are levels of a kind of their own, above the first disc and below the last one. Voxels are `mm` wide.
    """
    background = np.maximum(1 - share.sum(0), 0.0)[None]
    best = np.concatenate([background, share]).argmax(0)
    masks = {kind: best == number for number, kind in enumerate(view.outputs, start=1)}
    discs, centres = _discs(masks["disc"], mm)
    ends = [_landmark(masks[name], mm) for name in landmarks]
    names = [level for level in view.levels if "/" in level]
    first, problem = _first(discs, ends, (len(names), len(centres)), landmarks, mm)
    problem = problem or _gap(centres, names, first)
    levels = np.zeros((len(view.levels), *share.shape[1:]), np.float32)
    if problem:
        return levels, problem
    kinds = dict(zip(view.outputs, share, strict=True))
    chosen = names[first : first + len(centres)]
    chain = [chosen[0].split("/")[0], *(name.split("/")[1] for name in chosen)]
    bones = _nearest(kinds["vertebra"], _cores(masks["vertebra"], centres, mm))
    parts = [(chosen, "disc", _nearest(kinds["disc"], discs)), (chain, "vertebra", bones)]
    for some, kind, nearest in parts:
        for number, level in enumerate(some, start=1):
            if level not in landmarks:
                levels[view.levels.index(level)] = np.where(nearest == number, kinds[kind], 0.0)
    for level in landmarks:
        if level in chain:
            levels[view.levels.index(level)] = kinds[level]
    return levels, ""


def _discs(mask: np.ndarray, mm: float) -> tuple[np.ndarray, Centres]:
    """int32 numbers of the discs from head to feet, 0 elsewhere, and their middles in mm."""
    parts, many = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=many + 1)[1:] * mm**3 / 1000
    order = [int(n) for n in np.argsort(-sizes) if sizes[n] >= LEAST_CM3["disc"]]
    middles = np.array(ndimage.center_of_mass(mask, parts, [n + 1 for n in order])).reshape(-1, 3) * mm
    of: dict[int, int] = {}  # a part to the disc that it belongs to: the largest part of it
    for at, _ in enumerate(order):
        near = (one for one in dict.fromkeys(of.values()) if abs(middles[one][0] - middles[at][0]) < APART_MM)
        of[at] = next(near, at)
    largest = sorted(set(of.values()), key=lambda at: -middles[at][0])
    numbers = np.zeros(many + 1, np.int32)
    for at, part in enumerate(order):
        numbers[part + 1] = 1 + largest.index(of[at])
    return numbers[parts], [middles[at] for at in largest]


def _landmark(mask: np.ndarray, mm: float) -> np.ndarray | None:
    """Its largest part; None where there is none worth the name."""
    parts, many = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=many + 1)[1:] * mm**3 / 1000
    return parts == 1 + int(sizes.argmax()) if many and sizes.max() >= LEAST_CM3["landmark"] else None


def _first(
    discs: np.ndarray, ends: Sequence[np.ndarray | None], counts: tuple[int, int], landmarks: Sequence[str], mm: float
) -> tuple[int, str]:
    """The place among all discs of the uppermost one in view; or why nobody can tell. `counts`: of all, in view."""
    every, seen = counts
    if not seen:
        return 0, "no disc was recognised"
    upper, lower = (_touches(discs, end, number, mm) for end, number in zip(ends, (1, seen), strict=True))
    if seen > every or upper and lower and seen != every:
        return (
            0,
            f"{seen} discs between {landmarks[0]} and {landmarks[1]} would be too {'many' if seen > every else 'few'}",
        )
    if not upper and not lower:
        return (
            0,
            f"neither {landmarks[0]} nor {landmarks[1]}, from which to count, is in view beside the outermost disc",
        )
    return (0 if upper else every - seen), ""


def _touches(discs: np.ndarray, end: np.ndarray | None, number: int, mm: float) -> bool:
    """Whether a disc lies beside a landmark."""
    if end is None:
        return False
    away = ndimage.distance_transform_edt(~end, sampling=mm)
    return bool(away[discs == number].min() <= TOUCH_MM)


def _gap(centres: Centres, names: Sequence[str], first: int) -> str:
    """Between which discs another one was not recognised; empty if nowhere."""
    steps = [float(np.linalg.norm(b - a)) for a, b in pairwise(centres)]
    for at, step in enumerate(steps):
        beside = [*steps[max(at - 1, 0) : at], *steps[at + 1 : at + 2]]
        if beside and step > GAP * float(np.mean(beside)):
            return f"a disc between {names[first + at]} and {names[first + at + 1]} was not recognised"
    return ""


def _cores(bone: np.ndarray, centres: Centres, mm: float) -> np.ndarray:
    """int32: the middle of each body, numbered from the one above the first disc."""
    down = centres[1] - centres[0] if len(centres) > 1 else np.array([-20.0, 0.0, 0.0])
    up = centres[-2] - centres[-1] if len(centres) > 1 else -down
    middles = [centres[0] - BEYOND * down, *((a + b) / 2 for a, b in pairwise(centres)), centres[-1] - BEYOND * up]
    cores = np.zeros(bone.shape, np.int32)
    reach = int(np.ceil(CORE_MM / mm))
    for number, middle in enumerate(middles, start=1):
        at = np.rint(middle / mm).astype(int)
        box = tuple(slice(max(i - reach, 0), max(i + reach + 1, 0)) for i in at)
        cores[box] = np.where(bone[box], number, cores[box])
    return cores


def _nearest(share: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """uint8: to which marker each voxel belongs; the way there leads over probable voxels, and is short."""
    import SimpleITK  # a machine that only trains does without

    flooded = SimpleITK.MorphologicalWatershedFromMarkers(
        SimpleITK.GetImageFromArray((255 * (1 - share)).astype(np.uint8)),
        SimpleITK.GetImageFromArray(markers.astype(np.uint8)),
        markWatershedLine=False,
    )
    return np.asarray(SimpleITK.GetArrayFromImage(flooded))
