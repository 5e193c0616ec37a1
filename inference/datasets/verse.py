"""VerSe 2019 and 2020: CT of the spine with a map of the vertebrae (Sekuboyina et al., 10.1016/j.media.2021.102166).

Layout of the subject based release (osf.io/923ap, osf.io/4skx2), at any depth below the place:
`rawdata/SUBJECT/NAME_ct.nii.gz`, `derivatives/SUBJECT/NAME_seg-vert_msk.nii.gz` and `NAME_seg-subreg_ctd.json`.
The axis order varies from case to case. A vertebra that is only partly in the image has no label. The gradings of
fractures (Genant) are separate tables and are not read: nothing is known about fractures here.
"""

from __future__ import annotations

import json
from pathlib import Path

from inference.datasets.labelled import CERVICAL, DataSet, UnusableData
from inference.datasets.nifti import NiftiPairs, Pair, without_suffix

SOURCE = "VerSe 2019/2020, vertebra labels"
LICENCE = "CC BY-SA 4.0"


def open_dataset(place: str) -> DataSet:
    """Every case below the folder `place` with a label from C1 to C7; lumbar scans are left out.

    Raises UnusableData where there is no such case, a scan has no map or no readable centroids, or one name occurs
    twice.
    """
    root = Path(place)
    scans: dict[str, Pair] = {}
    for raw in sorted(root.rglob("rawdata")):
        for ct in sorted(raw.rglob("sub-*_ct.nii*")):
            name = without_suffix(ct).removesuffix("_ct")
            if name in scans:
                raise UnusableData(f"{ct} and {scans[name].ct} have one name; give the folder of one release only")
            derived = raw.with_name("derivatives") / ct.parent.relative_to(raw)
            mask = derived / ct.name.replace("_ct.nii", "_seg-vert_msk.nii")
            if not mask.exists():
                raise UnusableData(f"{mask}: missing, the map of {ct}; fetch it or remove the scan")
            scans[name] = Pair(ct, mask, patient=name.split("_")[0])
    pairs = {name: pair for name, pair in scans.items() if _shows_cervical(name, pair)}
    if not pairs:
        raise UnusableData(
            f"{root}: none of {len(scans)} scan(s) rawdata/SUBJECT/NAME_ct.nii.gz shows C1 to C7; "
            "give the folder of the subject based release, not of the challenge files"
        )
    lumbar = len(scans) - len(pairs)
    left_out = f"{lumbar} of {len(scans)} scans show nothing of C1 to C7 and are left out" if lumbar else ""
    return NiftiPairs(source=SOURCE, licence=LICENCE, pairs=pairs, left_out=left_out)


def _shows_cervical(name: str, pair: Pair) -> bool:
    """By the centroids, which cost nothing to read."""
    centroids = pair.mask.with_name(f"{name}_seg-subreg_ctd.json")
    try:
        # The first entry names the axes instead of a vertebra.
        found = {int(entry["label"]) for entry in json.loads(centroids.read_text()) if "label" in entry}
    except (OSError, ValueError, TypeError) as error:
        raise UnusableData(f"{centroids}: not a list of centroids; fetch it again ({error})") from error
    return not found.isdisjoint(range(1, len(CERVICAL) + 1))
