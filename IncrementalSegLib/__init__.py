"""IncrementalSeg: add an organ to a multi-organ CT segmentation model without forgetting the old ones."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["add_organ", "distill", "evaluate", "import_model", "load_model", "predict", "synthesize", "train"]


def __getattr__(name: str) -> Any:
    """The verbs, loaded when first used: importing the package loads neither torch nor monai."""
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
