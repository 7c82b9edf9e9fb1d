"""Runs a network with exits over distorted images, once per condition, and makes the confidence cache of it."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offramp.environments.cache import SPLITS, Condition, ConfidenceCache, Profile
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion, Images
from offramp.models.network import MultiExitNetwork
from offramp.models.weights import WeightsError, half_precision, read_tensors, write_tensors

PART = "offramp-extract-1"
Progress = Callable[[str, int, int, float], None]  # condition, images done, images in all, images per second


@torch.no_grad()
def exits_of(network: MultiExitNetwork, images: Images, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Confidence (n, L) float32 and prediction (n, L) int16 of every exit for 8-bit images (n, height, width, 3)."""
    network.eval()
    confidence, prediction = [], []
    for start in range(0, len(images), batch):
        best, guess = network(normalise(images[start : start + batch])).softmax(-1).max(-1)
        confidence.append(best)
        prediction.append(guess.to(torch.int16))
    return torch.cat(confidence), torch.cat(prediction)


def model_hash(network: MultiExitNetwork) -> str:
    """SHA-256 over the half-precision weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(half_precision(network).items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def profile_of(network: MultiExitNetwork) -> Profile:
    """Count what one image costs: multiply-accumulates per segment and head, float32 bytes at each cut.

    The input is counted as the 8-bit image that it is on the device.
    """
    counted: dict[nn.Module, int] = {}

    def count(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        counted[module] = out[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    network.eval()
    x = torch.zeros(1, *network.input_shape)
    payload = [x.numel()]
    segments, heads, layers = [], [], []
    for segment, head in zip(network.segments, network.heads, strict=True):
        x = segment(x)
        head(x)
        payload.append(4 * x.numel())
        segments.append(sum(counted.get(m, 0) for m in segment.modules()))
        heads.append(sum(counted.get(m, 0) for m in head.modules()))
        layers.append(len(list(segment.children())) + (layers[-1] if layers else 0))
    for hook in hooks:
        hook.remove()
    payload[-1] = 0
    return Profile(segment_macs=segments, head_macs=heads, payload_bytes=payload, layers=layers)  # type: ignore[arg-type]


def extract(
    network: MultiExitNetwork,
    splits: Mapping[str, Split],
    distortions: Sequence[Distortion],
    folder: Path,
    progress: Progress,
    *,
    notes: Mapping[str, Any] | None = None,
    chunk: int = 1000,
) -> ConfidenceCache:
    """Pass every image of the validation and test split through the network under every condition.

    Parameters
    ----------
    network, splits, distortions
        What is run on what.
    folder
        Holds one file per finished condition; a second call goes on after the last of them.
    progress
        Called after every chunk of images.
    notes
        Go into the cache's manifest.
    chunk
        Images that are distorted and passed at once.

    Raises
    ------
    WeightsError
        A file in the folder belongs to other weights, images or parameters.

    """
    folder.mkdir(parents=True, exist_ok=True)
    used = {name: splits[name] for name in SPLITS}
    hashes = {"model": model_hash(network), **{name: split.hash for name, split in used.items()}}
    images = np.concatenate([s.images for s in used.values()])
    index = np.concatenate([s.index for s in used.values()])
    confidence, prediction = [], []
    for distortion in distortions:
        path = folder / f"{distortion.name.replace(' ', '_')}.safetensors"
        identity = {"distortion": asdict(distortion), "hashes": hashes}
        if path.exists():
            part, header = read_tensors(path, PART)
            if header != identity:
                raise WeightsError(f"{path} belongs to other weights, images or parameters; move it away")
            progress(distortion.name, len(images), len(images), float("nan"))
        else:
            start, done = time.perf_counter(), []
            for first in range(0, len(images), chunk):
                batch = slice(first, first + chunk)
                done.append(exits_of(network, distortion(images[batch], index[batch])))
                n = min(first + chunk, len(images))
                progress(distortion.name, n, len(images), n / (time.perf_counter() - start))
            part = {"confidence": torch.cat([c for c, _ in done]), "prediction": torch.cat([p for _, p in done])}
            write_tensors(path, part, identity, PART)
        confidence.append(part["confidence"].numpy())
        prediction.append(part["prediction"].numpy())
    return ConfidenceCache.from_arrays(
        confidence=np.stack(confidence),
        prediction=np.stack(prediction),
        label=np.concatenate([s.labels for s in used.values()]),
        sample=index,
        split=np.concatenate([np.full(len(s.labels), SPLITS.index(name)) for name, s in used.items()]),
        conditions=[Condition(d.name, d.family, {**d.parameters, "seed": d.seed}) for d in distortions],
        experts=["pristine"],
        exits=[f"exit {i + 1}" for i in range(network.n_exits)],
        classes=int(network.heads[0][-1].out_features),  # type: ignore[index]
        profile=profile_of(network),
        hashes=hashes,
        notes=notes,
    )
