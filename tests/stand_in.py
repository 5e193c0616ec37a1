"""`python -m tests.stand_in serve`: the node with a model that answers at once, so that a kill can hit every step.

Everything else is the node's own. Its processes import their parent's main module (multiprocessing's "spawn"), which
is how the stand-in reaches the worker. A few studies take the model down (tests/misfortunes.py).
"""

from __future__ import annotations

from typing import Any

import inference.pipeline
from inference.pipeline import Pipeline


def load(name: str, **_: Any) -> Pipeline:
    """One finding in the middle of any volume."""
    from tests.misfortunes import befall
    from tests.test_node import MODEL, analysis

    def analyse(volume: Any, _: Any) -> Any:
        befall(volume.headers[0].StudyInstanceUID)
        return analysis(volume)

    return Pipeline(name=name, identity=MODEL, configuration_sha256="1" * 64, analyse=analyse)


inference.pipeline.load = load

if __name__ == "__main__":
    from dicomnode.cli import main

    main()
