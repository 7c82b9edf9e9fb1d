"""Reads what others have published: per-sample confidences and answers in the ten layouts of this literature."""

from offramp.environments.published.layouts import LAYOUTS, Layout, recognise
from offramp.environments.published.read import Published, joined, layers_profile, read_published
from offramp.environments.published.report import ReadReport

__all__ = ["LAYOUTS", "Layout", "Published", "ReadReport", "joined", "layers_profile", "read_published"]
__all__ += ["recognise"]
