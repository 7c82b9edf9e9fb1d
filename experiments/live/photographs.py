"""The photographs that are played live: read, checked against the cache, distorted as its conditions say."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.environments.cache import Condition
from offramp.models.data import Split
from offramp.models.distort import Distortion, Images
from offramp.models.image_folder import image_folder

KINDS = (".webp", ".png")


def photographs(folder: Path | None, cache: ConfidenceCache) -> Split:
    """The test images of a cache, all or some.

    Parameters
    ----------
    folder
        As `offramp.models.image_folder` reads it; or with image files in it whose names are their numbers in the cache.
    cache
        Its test images.

    Raises
    ------
    ValueError
        There is no such folder, or its images are not those of the cache.

    """
    if folder is None or not folder.is_dir():
        raise ValueError(
            f"photographs is {folder}, allowed is a folder with the images of the cache: for Imagenette, fetch "
            "imagenette2-160, scale and crop to 128 pixels into train/CLASS and val/CLASS, and say photographs=FOLDER"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix in KINDS)
    if not files:
        found = image_folder(folder, size=128)["test"]
        theirs = cache.hashes.get("test", found.hash)
        if found.hash != theirs:
            raise ValueError(f"images under {folder} have hash {found.hash}, allowed are those of the cache, {theirs}")
        return found
    odd = [path.name for path in files if not path.stem.isdecimal()]
    if odd:
        raise ValueError(f"{folder} holds {odd[:3]}, allowed are images named by their number in the cache")
    index = np.array([int(path.stem) for path in files], dtype=np.int64)
    known = np.isin(index, cache.sample)
    if not known.all():
        raise ValueError(f"{folder} holds images {index[~known][:3].tolist()}, allowed are numbers of the cache")
    pixels = np.stack([_pixels(path) for path in files])
    place = {int(sample): i for i, sample in enumerate(cache.sample)}
    labels = cache.label[[place[int(i)] for i in index]].astype(np.int64)
    return Split(images=pixels, labels=labels, index=index)


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def distorted(
    images: Split,
    conditions: Sequence[Condition],
    cache: ConfidenceCache,
    sample: npt.NDArray[np.int64],
    condition: npt.NDArray[np.int64],
) -> list[Images]:
    """One image for each request, (height, width, 3) uint8; an image that comes again is the same array.

    Parameters
    ----------
    images
        The photographs.
    conditions
        Of the stream, in its order.
    cache
        Which image a place in it is.
    sample, condition
        Of each request: its place in the cache and among the conditions, (n,) each.

    """
    place = {int(number): i for i, number in enumerate(images.index)}
    made: dict[tuple[int, int], Images] = {}
    for c, named in enumerate(conditions):
        wanted = np.unique(sample[condition == c])
        if not len(wanted):
            continue
        given = dict(named.parameters)
        corruption, seed = str(given.pop("corruption")), int(given.pop("seed", 0))
        how = Distortion(name=named.name, corruption=corruption, parameters=given, seed=seed)
        numbers = cache.sample[wanted].astype(np.int64)
        for start in range(0, len(wanted), 256):
            part = numbers[start : start + 256]
            done = how(images.images[[place[int(i)] for i in part]], part)
            made.update({(c, int(w)): done[k] for k, w in enumerate(wanted[start : start + 256])})
    return [made[int(c), int(s)] for c, s in zip(condition, sample, strict=True)]
