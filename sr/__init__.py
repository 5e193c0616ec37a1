"""Findings in, DICOM result objects out. Read results.py first."""
