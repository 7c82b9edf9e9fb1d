"""Runs a network with its experts over distorted images, once per condition, and makes the confidence cache of it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from offramp.environments.cache import SPLITS, Condition, ConfidenceCache, Profile
from offramp.environments.logits import LogitTable, codes_of
from offramp.environments.temperature import spread_of
from offramp.models.calibrate import temperature_tables
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion, Images
from offramp.models.experts import PRISTINE, Experts
from offramp.models.families import FAMILIES
from offramp.models.network import MultiExitNetwork
from offramp.models.router import Router
from offramp.models.weights import WeightsError, model_hash, read_tensors, write_tensors

PART = "offramp-extract-2"
FIELDS_APART = 1_000_000  # from the numbers of test images to those that validation images get their noise by
Progress = Callable[[str, int, int, float], None]  # condition, images done, images in all, images per second
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Extraction:
    """What the network, its experts and the router say about every image under every condition.

    Parameters
    ----------
    logits
        Relative to the largest of each answer, one array (N, E, L, K) float16 for each condition.
    router
        Probability of each expert, one array (N, E) float32 for each condition; None without a router.
    label, sample, split
        True class, index in the published split, 0 = validation or 1 = test, (N,) each.
    distortions, experts, profile, hashes
        Where the logits come from.

    """

    logits: Sequence[npt.NDArray[np.float16]]
    router: Sequence[npt.NDArray[np.float32]] | None
    label: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    split: npt.NDArray[np.int8]
    distortions: Sequence[Distortion]
    experts: Sequence[str]
    profile: Profile
    hashes: Mapping[str, str]

    def matched(self, expert: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Validation logits (n, L, K) of one expert under the distortions it is for, half of them pristine; and labels.

        Each sample comes twice: pristine, and at one of its family's levels in turn.  An expert whose family is not
        among the conditions is fitted on pristine samples alone.
        """
        rows = np.flatnonzero(self.split == SPLITS.index("validation"))
        families = [d.family for d in self.distortions]
        clean = self.logits[families.index(PRISTINE)][rows, expert]
        levels = [s for s, f in enumerate(families) if f == self.experts[expert] != PRISTINE]
        if not levels:
            return clean.astype(np.float64), self.label[rows]
        turn = np.arange(len(rows)) % len(levels)
        distorted = np.empty_like(clean)
        for k, s in enumerate(levels):
            distorted[turn == k] = self.logits[s][rows[turn == k], expert]
        return np.concatenate([clean, distorted]).astype(np.float64), np.tile(self.label[rows], 2)

    def temperatures(self) -> dict[str, Floats]:
        """Temperatures (E, L) by name, fitted on all validation samples under each expert's own distortions."""
        return temperature_tables((self.matched(e) for e in range(len(self.experts))), on="all")

    def cache(self, keep: npt.NDArray[np.bool_], *, notes: Mapping[str, Any]) -> ConfidenceCache:
        """The confidence cache of the samples that a mask (N,) picks."""
        confidence, prediction, spread = spoken(z[keep].transpose(1, 0, 2, 3) for z in self.logits)
        return ConfidenceCache.from_arrays(
            confidence=confidence,
            prediction=prediction,
            spread=spread,
            router=None if self.router is None else np.stack([r[keep] for r in self.router]),
            calibrations=self.temperatures(),
            label=self.label[keep],
            sample=self.sample[keep],
            split=self.split[keep],
            conditions=[
                Condition(d.name, d.family, {"corruption": d.corruption, **d.parameters, "seed": d.seed})
                for d in self.distortions
            ],
            experts=self.experts,
            exits=[f"exit {i + 1}" for i in range(self.logits[0].shape[2])],
            classes=self.logits[0].shape[3],
            profile=self.profile,
            hashes=self.hashes,
            notes=notes,
        )

    def table(self, keep: npt.NDArray[np.bool_]) -> LogitTable:
        """The coarse logits of the samples that a mask (N,) picks."""
        return LogitTable(
            codes=np.stack([codes_of(z[keep].astype(np.float32).transpose(1, 0, 2, 3)) for z in self.logits]),
            label=self.label[keep].astype(np.int16),
            sample=self.sample[keep],
            split=self.split[keep],
            conditions=tuple(d.name for d in self.distortions),
            experts=tuple(self.experts),
            hashes=self.hashes,
        )


def spoken(
    logits: Iterable[npt.NDArray[np.float16]],
) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Confidence, prediction and spread of the logits (..., K) of each condition in turn, conditions first."""
    confidence, prediction, spread = [], [], []
    for z in logits:
        values = z.astype(np.float64)
        confidence.append(1.0 / np.exp(values - values.max(axis=-1, keepdims=True)).sum(axis=-1))
        prediction.append(values.argmax(axis=-1))
        spread.append(spread_of(values))
    return np.stack(confidence), np.stack(prediction), np.stack(spread)


@torch.no_grad()
def answers(experts: Experts, router: Router, images: Images, batch: int = 500) -> dict[str, Tensor]:
    """What all exits of all experts and the router say about 8-bit images (n, height, width, 3).

    Returns "logits" (n, E, L, K) float16, relative to the largest of each answer, and "router" (n, E) float32.
    """
    experts.eval()
    experts.network.eval()
    logits, probability = [], []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        z = experts(normalise(part))
        logits.append((z - z.amax(-1, keepdim=True)).half())
        probability.append(router(part).float())
    return {"logits": torch.cat(logits), "router": torch.cat(probability)}


@torch.no_grad()
def profile_of(network: MultiExitNetwork, experts: Experts | None = None, router_macs: int = 0) -> Profile:
    """Count what one image costs: multiply-accumulates per segment and head, float32 bytes at each cut.

    Convolutions, matrix products and attention count, whoever calls them.  The input is counted as the 8-bit image that
    it is on the device; with experts, heads are those of an expert, which are all of one form.
    """
    exits = list(network.heads if experts is None else experts[PRISTINE])
    network.eval()
    x = torch.zeros(1, *network.input_shape)
    payload = [x.numel()]
    segments, heads, layers = [], [], []
    for segment, head in zip(network.segments, exits, strict=True):
        macs, x = _counted(segment, x)
        segments.append(macs)
        heads.append(_counted(head.eval(), x)[0])
        payload.append(4 * x.numel())
        layers.append(len(list(segment.children())) + (layers[-1] if layers else 0))
    payload[-1] = 0
    return Profile(
        segment_macs=tuple(segments),
        head_macs=tuple(heads),
        payload_bytes=tuple(payload),
        layers=tuple(layers),
        router_macs=router_macs,
    )


def _counted(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Multiply-accumulates of one pass, and what it gives."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused operators are of unknown work, so attention goes unfused
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            out: Tensor = module(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2, out


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """The images of the validation and the test split, one after the other, N in all.

    Parameters
    ----------
    images
        (N, height, width, 3) uint8.
    label, sample, split
        True class, index in the published split, 0 = validation or 1 = test, (N,) each.
    noise
        The number that an image gets its noise by, (N,).
    hashes
        SHA-256 of each split.

    """

    images: Images
    label: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    split: npt.NDArray[np.int8]
    noise: npt.NDArray[np.int64]
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, splits: Mapping[str, Split]) -> "Rows":
        """The rows of these splits."""
        used = {name: splits[name] for name in SPLITS}
        # Numbers start at 0 in each data set: without this a validation image would share its noise with a test image.
        apart = {name: place * FIELDS_APART for place, name in enumerate(reversed(SPLITS))}
        return cls(
            images=np.concatenate([s.images for s in used.values()]),
            label=np.concatenate([s.labels for s in used.values()]),
            sample=np.concatenate([s.index for s in used.values()]),
            split=np.concatenate([np.full(len(s.labels), SPLITS.index(n), dtype=np.int8) for n, s in used.items()]),
            noise=np.concatenate([s.index + apart[n] for n, s in used.items()]),
            hashes={name: split.hash for name, split in used.items()},
        )


def each_condition(
    answer: Callable[[Images], dict[str, Tensor]],
    rows: Rows,
    distortions: Sequence[Distortion],
    folder: Path,
    progress: Progress,
    *,
    hashes: Mapping[str, str],
    chunk: int,
    schema: str = PART,
    asked: Mapping[str, Any] | None = None,
) -> list[dict[str, Tensor]]:
    """What is answered to all images under each condition, from the folder where a call before this one left it there.

    Parameters
    ----------
    answer
        Turns images (n, height, width, 3) into tensors, n first.
    rows, distortions, folder, progress, chunk
        See `extract`.
    hashes
        SHA-256 of the weights that answer.
    schema, asked
        Kind of the files in the folder, and whatever else their content depends on.

    Raises
    ------
    WeightsError
        A file in the folder belongs to other weights, images or parameters.
    ValueError
        No condition is pristine.

    """
    if PRISTINE not in [d.family for d in distortions]:
        raise ValueError(f"conditions are {[d.name for d in distortions]}, allowed is a list with a pristine one")
    folder.mkdir(parents=True, exist_ok=True)
    total, found = len(rows.images), []
    for distortion in distortions:
        path = folder / f"{distortion.name.replace(' ', '_')}.safetensors"
        identity = {"distortion": asdict(distortion), "hashes": {**hashes, **rows.hashes}, **(asked or {})}
        if path.exists():
            part, header = read_tensors(path, schema)
            if header != identity:
                raise WeightsError(f"{path} belongs to other weights, images or parameters; move it away")
            progress(distortion.name, total, total, float("nan"))
        else:
            start, done = time.perf_counter(), []
            for first in range(0, total, chunk):
                batch = slice(first, first + chunk)
                done.append(answer(distortion(rows.images[batch], rows.noise[batch])))
                n = min(first + chunk, total)
                progress(distortion.name, n, total, n / (time.perf_counter() - start))
            part = {name: torch.cat([d[name] for d in done]) for name in done[0]}
            write_tensors(path, part, identity, schema)
        found.append(part)
    return found


def extract(
    experts: Experts,
    router: Router,
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
    experts, router, splits, distortions
        What is run on what; the first distortion of family "pristine" is what the experts' calibration starts from.
    folder
        Holds one file per finished condition; a second call goes on after the last of them.
    progress
        Called after every chunk of images.
    chunk
        Images that are distorted and passed at once.

    Raises
    ------
    WeightsError
        A file in the folder belongs to other weights, images or parameters.
    ValueError
        No condition is pristine, or the experts are not those that the router speaks of.

    """
    if tuple(experts.families) != FAMILIES:
        raise ValueError(f"experts are {experts.families}, allowed with a router are {FAMILIES}, in this order")
    hashes = {"model": model_hash(experts.network), "experts": model_hash(experts), "router": model_hash(router)}
    rows = Rows.of(splits)
    found = each_condition(
        lambda images: answers(experts, router, images), rows, distortions, folder, progress, hashes=hashes, chunk=chunk
    )
    return Extraction(
        logits=[part["logits"].numpy() for part in found],
        router=[part["router"].numpy() for part in found],
        label=rows.label,
        sample=rows.sample,
        split=rows.split,
        distortions=distortions,
        experts=experts.families,
        profile=profile_of(experts.network, experts, router.macs),
        hashes={**hashes, **rows.hashes},
    )
