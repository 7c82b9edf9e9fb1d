"""Losses of compression on 8-bit images: JPEG, and fewer pixels."""

import io

import numpy as np
from PIL import Image

from offramp.models.corruption import Images, corruption, number, whole


@corruption("compression", quality=whole(1, 95))
def jpeg(images: Images, *, quality: int) -> Images:
    """Compress and decompress with Pillow's JPEG at `quality` 1..95."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="JPEG", quality=int(quality))
        out[i] = np.asarray(Image.open(buffer))
    return out


@corruption("compression", scale=number(above=0.0, most=1.0))
def pixelation(images: Images, *, scale: float) -> Images:
    """Shrink each image to `scale` of its sides, rounded down, and enlarge it again, both by averaging over boxes.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    scale
        In (0, 1], and so that at least one pixel is left; 1 = unchanged.

    """
    height, width = images.shape[1:3]
    small = (int(width * scale), int(height * scale))
    if min(small) < 1:
        raise ValueError(f"scale is {scale}, allowed is {1 / min(height, width):.3g} or more for this image size")
    out = np.empty_like(images)
    for i, image in enumerate(images):
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        out[i] = np.asarray(shrunk.resize((width, height), Image.Resampling.BOX))
    return out
