"""Runs a network over distorted images, codes the feature map of every split, and asks the last exit behind each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.environments.cache import ConfidenceCache
from offramp.environments.payloads import PayloadTable
from offramp.models.codecs import Codec, check_codecs
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion, Images
from offramp.models.extract import Extraction, Progress, spoken
from offramp.models.network import MultiExitNetwork
from offramp.models.plain_extract import own_extraction

PART = "offramp-payload-part-1"
TIMED = 50  # images whose coding is timed, beside one to warm up
Variant = tuple[int, Codec]  # where the network is split, and what codes there


def variants_of(network: MultiExitNetwork, codecs: Sequence[Codec]) -> tuple[Variant, ...]:
    """Every split with every codec that can be used there: images at split 0, feature maps at 1..L-1."""
    check_codecs(codecs)
    return tuple(
        (split, codec)
        for split in range(network.n_exits)
        for codec in codecs
        if codec.reads == ("features" if split else "image")
    )


def places(variants: Sequence[Variant]) -> list[int]:
    """For each variant the place of its values among those that differ: 0 = nothing is lost, then as they come up."""
    found: dict[tuple[int, str], int] = {}
    return [
        0 if codec.values == "exact" else found.setdefault((split, codec.values), len(found) + 1)
        for split, codec in variants
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class PayloadExtraction:
    """What the network says about every image under every condition, and behind every codec.

    Parameters
    ----------
    extraction
        What all exits say without a codec; its only expert is the network itself.
    variants
        V pairs of split and codec.
    bytes
        Payloads, one array (N, V) int32 for each condition.
    changed
        Logits of the last exit behind each variant that changes values, each of `places` from 1 on; relative to the
        largest of each answer, one array (N, W, K) float16 for each condition.
    encode_ms, decode_ms
        Median milliseconds of coding one image, (V,).

    """

    extraction: Extraction
    variants: Sequence[Variant]
    bytes: Sequence[npt.NDArray[np.int32]]
    changed: Sequence[npt.NDArray[np.float16]]
    encode_ms: npt.NDArray[np.float64]
    decode_ms: npt.NDArray[np.float64]

    def cache(self, keep: npt.NDArray[np.bool_], *, notes: Mapping[str, Any]) -> ConfidenceCache:
        """The confidence cache of the samples that a mask (N,) picks."""
        return self.extraction.cache(keep, notes=notes)

    def table(self, keep: npt.NDArray[np.bool_], *, notes: Mapping[str, Any]) -> PayloadTable:
        """The table of payloads that belongs to that cache."""
        found = self.extraction
        place = places(self.variants)
        confidence, prediction, spread = spoken(
            np.concatenate([z[keep, 0, -1:], changed[keep]], axis=1).transpose(1, 0, 2)
            for z, changed in zip(found.logits, self.changed, strict=True)
        )
        return PayloadTable.from_arrays(
            codecs=[codec.name for _, codec in self.variants],
            splits=[split for split, _ in self.variants],
            bytes=np.stack([b[keep].T for b in self.bytes]),
            confidence=confidence[:, place],
            prediction=prediction[:, place],
            spread=spread[:, place],
            conditions=[d.name for d in found.distortions],
            classes=found.logits[0].shape[3],
            sample=found.sample[keep],
            split_of_data=found.split[keep],
            hashes=found.hashes,
            encode_ms=self.encode_ms,
            decode_ms=self.decode_ms,
            notes=notes,
        )


@torch.no_grad()
def coded_answers(
    network: MultiExitNetwork, variants: Sequence[Variant], images: Images, batch: int = 50
) -> dict[str, Tensor]:
    """What all exits say about 8-bit images (n, height, width, 3), and the last one behind every variant.

    Returns "logits" (n, 1, L, K) and "changed" (n, W, K), float16 and relative to the largest of each answer, and
    "bytes" (n, V) int32.
    """
    network.eval()
    parts = [_coded(network, variants, images[start : start + batch]) for start in range(0, len(images), batch)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _coded(network: MultiExitNetwork, variants: Sequence[Variant], images: Images) -> dict[str, Tensor]:
    maps = list(network.maps(normalise(images)))
    logits = torch.stack([head(x) for head, x in zip(network.heads, maps, strict=True)], dim=1)
    inputs = [images, *(x.contiguous().numpy() for x in maps[:-1])]
    place = places(variants)
    sizes: list[Tensor] = []
    changed: list[Tensor] = []
    for v, (split, codec) in enumerate(variants):
        sent = [codec.encode(one) for one in inputs[split]]
        sizes.append(torch.tensor([len(payload) for payload in sent], dtype=torch.int32))
        if place[v] == len(changed) + 1:  # nobody before it has these values
            got = np.stack([codec.decode(payload) for payload in sent])
            x = torch.from_numpy(got).contiguous(memory_format=torch.channels_last) if split else normalise(got)
            changed.append(network.backbone(x, split))
    behind = torch.stack(changed, dim=1) if changed else logits.new_empty(len(images), 0, logits.shape[-1])
    return {
        "logits": _relative(logits)[:, None],
        "changed": _relative(behind),
        "bytes": torch.stack(sizes, dim=1),
    }


def _relative(logits: Tensor) -> Tensor:
    return (logits - logits.amax(-1, keepdim=True)).half()


@torch.no_grad()
def coding_times(
    network: MultiExitNetwork, variants: Sequence[Variant], images: Images
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Median milliseconds of encoding and of decoding one image's payload on this machine, (V,) each.

    One thread codes; the first image warms up and does not count, unless it is alone.
    """
    network.eval()
    took = np.zeros((len(images), 2, len(variants)))
    for n in range(len(images)):
        one = images[n : n + 1]
        inputs = [one, *(x.contiguous().numpy() for x in network.maps(normalise(one)))]
        for v, (split, codec) in enumerate(variants):
            start = time.perf_counter()
            payload = codec.encode(inputs[split][0])
            middle = time.perf_counter()
            codec.decode(payload)
            took[n, :, v] = middle - start, time.perf_counter() - middle
    encode, decode = 1e3 * np.median(took[1:] if len(took) > 1 else took, axis=0)
    return encode, decode


def extract_payloads(
    network: MultiExitNetwork,
    codecs: Sequence[Codec],
    splits: Mapping[str, Split],
    distortions: Sequence[Distortion],
    folder: Path,
    progress: Progress,
    *,
    chunk: int = 500,
) -> PayloadExtraction:
    """Pass every image of the validation and test split through the network under every condition and every codec.

    Parameters
    ----------
    network
        With exits of its own: there are no experts.
    codecs
        Used wherever they can be: those that read images at split 0, the others at the splits after exits 1..L-1.
    splits, distortions
        What it is run on; one distortion must be of family "pristine": temperatures are fitted under it.
    folder
        Holds one file per finished condition; a second call goes on after the last of them.
    progress
        Called after every chunk of images.
    chunk
        Images that are distorted and passed at once.

    Raises
    ------
    WeightsError
        A file in the folder belongs to other weights, images, parameters or codecs.
    CodecError
        Two codecs have one name, or a feature map cannot be coded.
    ValueError
        No condition is pristine, or the images are not of the network's size.

    """
    variants = variants_of(network, codecs)
    found, extraction, rows = own_extraction(
        network,
        lambda images: coded_answers(network, variants, images),
        splits,
        distortions,
        folder,
        progress,
        chunk=chunk,
        schema=PART,
        asked={"variants": [[split, codec.name, asdict(codec)] for split, codec in variants]},
    )
    encode_ms, decode_ms = coding_times(network, variants, rows.images[-TIMED - 1 :])
    return PayloadExtraction(
        extraction=extraction,
        variants=variants,
        bytes=[part["bytes"].numpy() for part in found],
        changed=[part["changed"].numpy() for part in found],
        encode_ms=encode_ms,
        decode_ms=decode_ms,
    )
