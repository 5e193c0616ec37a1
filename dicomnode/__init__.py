"""A DICOM node that listens for spine studies and returns structured reports and segmentations.

Read `node.py` first: assemble, infer, deliver, and what keeps them going.
"""
