"""Every test sees pydicom as the node sets it up: lenient with what it reads (dicomnode/header.py)."""

import dicomnode.header  # noqa: F401 - for its setting
