"""Names for vertebrae and discs that a network tells apart only by kind: counted from C2, or from the sacrum.

Discs lie apart, vertebrae touch at their joints. So discs are counted, and each vertebra is what lies between two of
them. Arrays run from feet to head, front to back, and from the patient's right to left.
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
#: A distance of two discs so many times the next one hides a third disc, or one of the three is none.
UNEVEN = 1.35
#: What parts two arches falls by so much per mm, from so far behind the middle of the disc on: chosen on phantoms of
#: both regions, where less than a twentieth of the voxels is wrong.
FALL, BODY_MM = 0.3, 8.0
#: Voxels that are less probable belong to nothing.
LEAST_SHARE = 0.05
DOWN = np.array([-1.0, 0.0, 0.0])

Centres = list[np.ndarray]


def count(share: np.ndarray, mm: float, view: View, landmarks: Sequence[str]) -> tuple[np.ndarray, str]:
    """Probability of each level (levels, slices, rows, columns) from that of each kind; or why they were not counted.

    The landmarks are levels of a kind of their own, above the first disc and below the last one. Voxels are `mm` wide.
    """
    levels = np.zeros((len(view.levels), *share.shape[1:]), np.float32)
    background = np.maximum(1 - share.sum(0), 0.0)[None]
    best = np.concatenate([background, share]).argmax(0)
    kinds = dict(zip(view.outputs, share, strict=True))
    masks = {kind: best == number for number, kind in enumerate(view.outputs, start=1)}
    discs, centres = _discs(masks["disc"], mm)
    ends = [_landmark(masks[name], mm) for name in landmarks]
    names = [level for level in view.levels if "/" in level]
    first, problem = _first(discs, ends, (len(names), len(centres)), landmarks, mm)
    problem = problem or _uneven(discs, centres, names[first:])
    if problem:
        return levels, problem
    chosen = names[first : first + len(centres)]
    chain = [chosen[0].split("/")[0], *(name.split("/")[1] for name in chosen)]
    for some, kind, belongs in ((chosen, "disc", _nearest), (chain, "vertebra", _discs_above)):
        voxels = np.nonzero(kinds[kind] >= LEAST_SHARE)
        places = np.array([view.levels.index(level) for level in some])
        of = places[belongs(np.stack(voxels, 1) * mm, np.array(centres))]
        levels[(of, *voxels)] = kinds[kind][voxels]
    for level in landmarks:
        levels[view.levels.index(level)] = kinds[level] if level in chain else 0.0
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
    head, foot = landmarks
    if seen > every or upper and lower and seen != every:
        return 0, f"{seen} discs between {head} and {foot} would be too {'many' if seen > every else 'few'}"
    if not upper and not lower:
        return 0, f"neither {head} nor {foot}, from which to count, is in view beside the outermost disc"
    return (0 if upper else every - seen), ""


def _touches(discs: np.ndarray, end: np.ndarray | None, number: int, mm: float) -> bool:
    """Whether a disc lies beside a landmark."""
    if end is None:
        return False
    away = ndimage.distance_transform_edt(~end, sampling=mm)
    return bool(away[discs == number].min() <= TOUCH_MM)


def _uneven(discs: np.ndarray, centres: Centres, names: Sequence[str]) -> str:
    """Around which disc the distances are uneven; empty if nowhere. Discs that the image cuts do not count."""
    cut = set(np.unique(discs[[0, -1]]).tolist())
    whole = [at for at in range(len(centres)) if at + 1 not in cut]
    steps = [float(np.linalg.norm(centres[b] - centres[a])) for a, b in pairwise(whole)]
    for at, (one, other) in zip(whole[1:], pairwise(steps), strict=False):
        if max(one, other) > UNEVEN * min(one, other):
            return f"the discs above and below {names[at]} would be {one:.0f} and {other:.0f} mm away"
    return ""


def _nearest(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) the position of the disc whose middle is nearest to each place (n, 3), mm."""
    return np.asarray(np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(1))


def _discs_above(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) how many discs lie above each place (n, 3), mm: in front, bodies are parted by discs.

    Behind, arches hang down: what parts them begins at the disc and falls off towards the back.
    """
    count = np.zeros(len(places), np.intp)
    for number, centre in enumerate(centres):
        beside = centres[max(number - 1, 0)], centres[min(number + 1, len(centres) - 1)]
        along = beside[1] - beside[0] if len(centres) > 1 else DOWN
        down = along / np.linalg.norm(along)
        back = np.array([down[1], -down[0], 0.0])
        back /= np.linalg.norm(back)
        away = places - centre
        count += away @ down > FALL * np.maximum(away @ back - BODY_MM, 0.0)
    return count
