"""Offramp decides, image by image and without labels, how deep the edge computes and how sure an exit must be."""

__version__ = "0.1.0"
