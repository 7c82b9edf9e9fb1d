"""Lets torchvision be imported beside a build of torch that its compiled operators were not built for.

torchvision's wheel on the package index is built for CUDA; next to a CPU build of torch its import stops at the missing
schema of `nms`.  Only detection models use these operators, so their schemas alone are enough here.
"""

import importlib.util
from pathlib import Path

import torch

_library: torch.library.Library | None = None  # its schemas live as long as this object


def ensure() -> None:
    """Define the schemas of torchvision's operators where its compiled library cannot be loaded; else do nothing."""
    global _library
    if _library is not None:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed: pip install 'offramp[models]'")
    try:
        for binary in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(binary))
    except OSError:
        pass
    if not hasattr(torch.ops.torchvision, "nms"):
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
