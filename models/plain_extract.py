"""Runs a network with its own exits over distorted images, once per condition: no experts, no router, no codecs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion, Images
from offramp.models.experts import PRISTINE
from offramp.models.extract import Extraction, Progress, Rows, each_condition, profile_of
from offramp.models.network import MultiExitNetwork
from offramp.models.weights import model_hash

PART = "offramp-plain-part-1"


@torch.no_grad()
def own_answers(network: MultiExitNetwork, images: Images, batch: int = 500) -> dict[str, Tensor]:
    """What all exits say about 8-bit images (n, height, width, 3).

    Returns "logits" (n, 1, L, K) float16, relative to the largest of each answer.
    """
    network.eval()
    logits = torch.cat([network(normalise(images[i : i + batch])) for i in range(0, len(images), batch)])
    return {"logits": (logits - logits.amax(-1, keepdim=True)).half()[:, None]}


def extract_plain(
    network: MultiExitNetwork,
    splits: Mapping[str, Split],
    distortions: Sequence[Distortion],
    folder: Path,
    progress: Progress,
    *,
    chunk: int = 1000,
) -> Extraction:
    """Pass every image of the validation and test split through the network under every condition.

    Parameters
    ----------
    network
        With exits of its own, which become the cache's only expert.
    splits, distortions, folder, progress, chunk
        As for `offramp.models.extract.extract`.

    Raises
    ------
    WeightsError
        A file in the folder belongs to other weights, images or parameters.
    ValueError
        No condition is pristine, or the images are not of the network's size.

    """
    _, made, _ = own_extraction(
        network,
        lambda images: own_answers(network, images),
        splits,
        distortions,
        folder,
        progress,
        chunk=chunk,
        schema=PART,
    )
    return made


def own_extraction(
    network: MultiExitNetwork,
    answer: Callable[[Images], dict[str, Tensor]],
    splits: Mapping[str, Split],
    distortions: Sequence[Distortion],
    folder: Path,
    progress: Progress,
    *,
    chunk: int,
    schema: str,
    asked: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Tensor]], Extraction, Rows]:
    """What a network without experts answers under each condition: the parts, what a cache is made of, and the images.

    Parameters
    ----------
    answer
        Gives at least "logits" as `own_answers` does, for a chunk of images.
    network, splits, distortions, folder, progress, chunk, schema, asked
        As for `extract_plain` and `offramp.models.extract.each_condition`.

    """
    rows = Rows.of(splits)
    channels, height, width = network.input_shape
    if rows.images.shape[1:] != (height, width, channels):
        raise ValueError(
            f"images have shape {rows.images.shape[1:]}, allowed is {(height, width, channels)} as the network's input"
        )
    hashes = {"model": model_hash(network)}
    found = each_condition(
        answer,
        rows,
        distortions,
        folder,
        progress,
        hashes=hashes,
        chunk=chunk,
        schema=schema,
        asked=asked,
    )
    made = Extraction(
        logits=[part["logits"].numpy() for part in found],
        router=None,
        label=rows.label,
        sample=rows.sample,
        split=rows.split,
        distortions=distortions,
        experts=(PRISTINE,),
        profile=profile_of(network),
        hashes={**hashes, **rows.hashes},
    )
    return found, made, rows
