"""DICOM series in, findings out. Knows no network, no queue and no result objects.

Start with `findings.py` (the answer), `volume.py` (the input) and `pipeline.py` (what lies between).
"""
