"""CTSpine1K: 1005 CT volumes of four public sources with a map of the vertebrae (Deng et al., arXiv 2105.14711).

`data_split.txt` (github.com/MIRACLE-Center/CTSpine1K) names the volumes. The volume NAME.nii.gz and its map
NAME_seg.nii.gz may lie anywhere below the place. Each volume counts as one patient: the set took one scan of each.
Most show the trunk and no cervical vertebra; HN_* (HNSCC-3DCT-RT) show the neck.
"""

from __future__ import annotations

import re
from pathlib import Path

from inference.datasets.labelled import DataSet, UnusableData
from inference.datasets.nifti import NiftiPairs, Pair, without_suffix

SOURCE = "CTSpine1K, vertebra labels"
LICENCE = "CC BY-NC-SA"


def open_dataset(place: str) -> DataSet:
    """The volumes that the split lists and the folder has.

    Raises UnusableData where the split cannot be read, a file occurs twice, a volume has no map, or none is here.
    """
    root = Path(place)
    found: dict[str, Path] = {}
    names = _listed(root / "data_split.txt")
    wanted = {*names, *(f"{name}_seg" for name in names)}
    for path in sorted(root.rglob("*.nii.gz")):
        name = without_suffix(path)
        # The liver masks of the Decathlon are named as its images.
        if name in wanted and name in found:
            raise UnusableData(f"{found[name]} and {path} have one name; leave only the file of CTSpine1K")
        found[name] = path
    here = [name for name in names if name in found]
    for name in here:
        if f"{name}_seg" not in found:
            raise UnusableData(f"{found[name]}: no map {name}_seg.nii.gz below {root}; fetch it or remove the volume")
    if not here:
        raise UnusableData(f"{root}: none of the {len(names)} volumes of data_split.txt is here as NAME.nii.gz")
    pairs = {name: Pair(found[name], found[f"{name}_seg"], patient=name) for name in here}
    absent = len(names) - len(here)
    left_out = f"{absent} of the {len(names)} volumes of data_split.txt are not in {root}" if absent else ""
    return NiftiPairs(source=SOURCE, licence=LICENCE, pairs=pairs, left_out=left_out)


def _listed(split: Path) -> list[str]:
    """Names without their suffix, each once, from all sections."""
    try:
        text = split.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableData(f"{split}: cannot be read ({error}); it comes with CTSpine1K on GitHub") from error
    # The published file ends in one name written twice without a break.
    return list(dict.fromkeys(re.findall(r"(\S+?)\.nii\.gz", text)))
