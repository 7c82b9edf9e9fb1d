"""Every fixed rule (where to cut, from which confidence to answer, how to send), and what it does on average."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments import ConfidenceCache
from offramp.environments.devices import DeviceProfile
from offramp.environments.links import BYTES_PER_MS, Energy
from offramp.environments.payloads import PayloadTable

Mask = npt.NDArray[np.bool_]
KINDS = ("edge alone", "image sent", "map sent", "exit, else map", "exit, else image")
OFFERED = KINDS[:4]
CODECS = {"raw": "raw image", "png": "PNG", "float32": "float32", "float16": "float16", "uint8": "uint8"}


def spelled(codec: str) -> str:
    """A codec's name as a reader knows it."""
    return CODECS.get(codec) or codec.replace("jpeg_", "JPEG ").replace("_zlib", " + zlib")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule that never changes.

    Parameters
    ----------
    cut
        Where the edge stops computing, 0..L.
    threshold
        Confidence from which the exit at the cut answers; -inf = always, +inf = never.
    codec
        What is sent with where it does not; "" = nothing is ever sent.
    split
        What is sent: 0 = the image, i = the feature map of cut i.

    """

    cut: int
    threshold: float
    codec: str = ""
    split: int = 0

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if not self.codec:
            return "edge alone"
        if self.threshold == math.inf:
            return "map sent" if self.cut else "image sent"
        return "exit, else map" if self.split else "exit, else image"

    @property
    def area(self) -> str:
        """Its name without the threshold: what a region of the diagram is called."""
        how = spelled(self.codec)
        return {
            "edge alone": f"exit {self.cut} on the edge",
            "image sent": how,
            "map sent": f"map {self.cut}, {how}",
            "exit, else map": f"exit {self.cut}, else map, {how}",
            "exit, else image": f"exit {self.cut}, else {how}",
        }[self.kind]

    @property
    def name(self) -> str:
        """Its full name."""
        own = self.codec and math.isfinite(self.threshold)
        return f"{self.area} (from {self.threshold:g})" if own else self.area


@dataclass(frozen=True, eq=False)
class Means:
    """What C rules do on average under each of S conditions; all arrays (S, C) unless said otherwise.

    Parameters
    ----------
    rules
        The rules, C of them.
    sent
        Share of the images that are sent.
    bytes
        Bytes sent per image, those that were not sent included.
    accuracy, confidence
        Of the answers.
    whole
        Accuracy of the whole network, (S,).
    lost
        Of each image whether the whole network is right less whether the rule is, (C, S, N) in -1..1; None = not kept.

    """

    rules: tuple[Rule, ...]
    sent: FloatArray
    bytes: FloatArray
    accuracy: FloatArray
    confidence: FloatArray
    whole: FloatArray
    lost: npt.NDArray[np.int8] | None = None

    def doubt(self, weights: FloatArray) -> FloatArray:
        """Standard error of the accuracy that each rule loses under a mixture of conditions, (C,)."""
        if self.lost is None:
            raise ValueError("lost is None, allowed are the images of each rule: without them there is no error")
        images = np.array([weights @ one for one in self.lost])
        found: FloatArray = images.std(axis=1, ddof=1) / np.sqrt(images.shape[1])
        return found


@dataclass(frozen=True, eq=False)
class Clock:
    """Milliseconds of everything at an edge as fast as the machine that was measured; L exits, V variants."""

    edge: FloatArray  # (L + 1,) up to each cut, all heads on the way evaluated
    cloud: FloatArray  # (L + 1,) from each cut to the end
    encode: FloatArray  # (V,)
    decode: FloatArray  # (V,)

    @classmethod
    def of(cls, device: DeviceProfile, table: PayloadTable) -> "Clock":
        """From a device profile, whose machine is the cloud too, and a table of payloads."""
        return cls(device.edge_ms("prefix"), np.asarray(device.cloud_ms), table.encode_ms, table.decode_ms)


def rules_of(table: PayloadTable, exits: int, thresholds: Sequence[float]) -> tuple[Rule, ...]:
    """All rules: what a world in time offers first, then exits that are backed by an image in place of a map."""
    image = [table.codecs[v] for v in table.variants(0)]
    offered = [Rule(cut=0, threshold=math.inf, codec=codec) for codec in image]
    offered += [Rule(cut=cut, threshold=-math.inf) for cut in range(1, exits + 1)]
    beyond = []
    for cut in range(1, exits):
        for threshold in thresholds:
            if threshold == -math.inf:
                continue
            codecs = [table.codecs[v] for v in table.variants(cut)]
            offered += [Rule(cut=cut, threshold=threshold, codec=codec, split=cut) for codec in codecs]
            if threshold < math.inf:
                beyond += [Rule(cut=cut, threshold=threshold, codec=codec) for codec in image]
    return (*offered, *beyond)


def answers(rule: Rule, cache: ConfidenceCache, table: PayloadTable) -> tuple[Mask, FloatArray, Mask, FloatArray]:
    """What a rule does with each image: is it sent, its bytes, is the answer right, how sure is it; (S, N) each."""
    confidence, prediction = cache.confidence[:, 0], cache.prediction[:, 0]
    if not rule.codec:
        right = prediction[:, :, rule.cut - 1] == cache.label
        return np.zeros(right.shape, dtype=bool), np.zeros(right.shape), right, confidence[:, :, rule.cut - 1]
    v = table.variant(rule.split, rule.codec)
    size, right, sure = table.bytes[:, v], table.prediction[:, v] == cache.label, table.confidence[:, v]
    if rule.threshold == math.inf:
        return np.ones(right.shape, dtype=bool), size.astype(np.float64), right, sure
    here = confidence[:, :, rule.cut - 1]
    sent = here < rule.threshold
    own = prediction[:, :, rule.cut - 1] == cache.label
    return sent, np.where(sent, size, 0.0), np.where(sent, right, own), np.where(sent, sure, here)


def means(rules: Sequence[Rule], cache: ConfidenceCache, table: PayloadTable, *, keep: bool = False) -> Means:
    """Average all rules over the images of a cache, which are those of the table; `keep` what each image loses."""
    last = cache.prediction[:, 0, :, -1] == cache.label
    averages, lost = [], []
    for rule in rules:
        made = answers(rule, cache, table)
        averages.append([x.mean(axis=1) for x in made])
        if keep:
            lost.append(last.astype(np.int8) - made[2])
    sent, size, right, sure = np.array(averages).transpose(1, 2, 0)
    whole: FloatArray = last.mean(axis=1)
    return Means(tuple(rules), sent, size, right, sure, whole, np.array(lost, dtype=np.int8) if keep else None)


@dataclass(frozen=True, eq=False)
class Terms:
    """Mean latency and energy of C rules under one mixture of conditions, as sums of what the diagram varies."""

    means: Means
    weights: FloatArray  # (S,) how often each condition comes
    per_factor: FloatArray  # (C,) ms, times how many times slower the edge is: computing and encoding
    constant: FloatArray  # (C,) ms of decoding and of the cloud
    sent: FloatArray  # (C,)
    bytes: FloatArray  # (C,)

    def only(self, some: Mask) -> "Terms":
        """Those rules alone that a mask (C,) picks; `means` stays that of all."""
        names = ("per_factor", "constant", "sent", "bytes")
        return replace(self, **{name: getattr(self, name)[some] for name in names})

    def latency(self, factor: npt.ArrayLike, mbit_s: npt.ArrayLike, round_trip_ms: float) -> FloatArray:
        """Milliseconds to the answer where nothing waits; factor and rate broadcast, the rules are the last axis."""
        k, rate = np.asarray(factor)[..., None], np.asarray(mbit_s)[..., None] * BYTES_PER_MS
        found: FloatArray = k * self.per_factor + self.constant + round_trip_ms * self.sent + self.bytes / rate
        return found

    def energy(self, factor: npt.ArrayLike, mbit_s: npt.ArrayLike, radio: Energy, power_w: float) -> FloatArray:
        """Millijoules on the edge, for computing, encoding and sending; waiting is not counted."""
        k, rate = np.asarray(factor)[..., None], np.asarray(mbit_s)[..., None]
        sending = (radio.per_mbit_s_mw + radio.base_mw / rate) * (self.bytes / BYTES_PER_MS) / 1e3
        found: FloatArray = power_w * k * self.per_factor + sending + radio.tail_mj * self.sent
        return found

    @property
    def confidence(self) -> FloatArray:
        """Mean confidence of the answers, (C,)."""
        return np.asarray(self.weights @ self.means.confidence)

    @property
    def accuracy(self) -> FloatArray:
        """Share of right answers, (C,)."""
        return np.asarray(self.weights @ self.means.accuracy)

    def accurate(self, slack: float, sure: float = 0.0) -> Mask:
        """Which rules are right as often as the whole network, less the slack, by so many standard errors; (C,)."""
        doubt = sure * self.means.doubt(self.weights) if sure > 0.0 else 0.0
        enough: Mask = self.accuracy - doubt >= float(self.weights @ self.means.whole) - slack
        return enough


def terms(found: Means, clock: Clock, table: PayloadTable, weights: FloatArray) -> Terms:
    """Weigh the conditions."""
    variant = [table.variant(rule.split, rule.codec) if rule.codec else 0 for rule in found.rules]
    cut = np.array([rule.cut for rule in found.rules])
    start = np.array([rule.split for rule in found.rules])
    sent, size = weights @ found.sent, weights @ found.bytes
    coding, computing = sent * clock.encode[variant], clock.edge[cut]
    cloud = sent * (clock.decode[variant] + clock.cloud[start])
    return Terms(found, weights, computing + coding, cloud, sent, size)
