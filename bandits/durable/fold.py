"""The fold over the feedback log: what a learner knows, as a function of the log and of nothing else."""

import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from offramp.bandits import sealed
from offramp.bandits.arms import Arms
from offramp.bandits.contract import Decision, Observation
from offramp.bandits.durable.follower import Follower, Mark
from offramp.bandits.durable.specs import arms_from_json, arms_to_json, policy_from_json, policy_to_json
from offramp.bandits.durable.store import Entry
from offramp.bandits.durable.tickets import IDENTITY, LONGEST, longest_token
from offramp.bandits.policy import Policy, needs_oracle
from offramp.bandits.rows import context_at
from offramp.bandits.sealed import SealedError

SCHEMA = "offramp-snapshot-1"
NAME = 255  # bytes of a stream's name at most
# What can happen besides feedback, as the log names it; each is carried out by the method of this name.
EVENTS = ("start", "forget", "change", "shadow", "stop_shadow", "take_over")
START, FORGET, CHANGE, SHADOW, STOP_SHADOW, TAKE_OVER = EVENTS


class Fold:
    """The learner's knowledge, and the candidate's where one shadows.

    Parameters
    ----------
    policy, arms, features, seed
        As for `offramp.bandits.Engine`.
    streams
        Names of the streams.
    compiled
        Run the kernels compiled.
    known
        Classes of policies besides those of `offramp.bandits` that a log may name.

    Raises
    ------
    ValueError
        The policy reads what its decisions do not reveal, or cannot be kept as text.

    """

    def __init__(
        self,
        policy: Policy,
        *,
        arms: Arms,
        features: int,
        seed: int,
        streams: Iterable[str],
        compiled: bool = True,
        known: tuple[type, ...] = (),
    ) -> None:
        self.known, self.compiled = known, compiled
        self.identity = secrets.token_bytes(IDENTITY)  # of the store: tickets of another one are none here
        self.cursor = 0  # pieces of feedback and events, so far
        self.generation = 0  # drawn anew when policy or table change: tickets say which they were made with
        self.learner = self._follower(policy, arms, features, seed, streams)
        self.candidate: Follower | None = None
        self.share = 0.0
        self.shadowed_from = 0

    def _follower(self, policy: Policy, arms: Arms, features: int, seed: int, streams: Iterable[str]) -> Follower:
        if not isinstance(policy, Policy):
            raise ValueError(f"policy is {policy!r}, allowed is a policy of offramp.bandits or one that you wrote")
        if needs_oracle(policy):
            raise ValueError(f"{policy!r} reads what its decisions do not reveal, allowed is a policy that does not")
        policy_from_json(policy_to_json(policy), self.known)
        longest = longest_token(context_at(arms.exits) + features, NAME)
        if longest > LONGEST:
            raise ValueError(f"features is {features}: tokens of {longest} characters, allowed are {LONGEST}")
        made = Follower(policy, arms=arms, seed=seed, features=features, open_decisions=1, compiled=self.compiled)
        for name in streams:
            if name not in made.streams:
                made.start(_named(name))
        return made

    def marks(self, stream: str) -> list[Mark]:
        """The stream as it is now, in learner and candidate; the cursor is the caller's to set back."""
        kept = [self.learner.mark(stream)]
        if self.candidate is not None:
            kept.append(self.candidate.mark(stream))
        return kept

    def take(self, decision: Decision, observation: Observation, generation: int) -> bool:
        """Take the next piece of feedback; False where its arm is played no more, and it taught nothing.

        Raises
        ------
        ContractError
            The observation cannot have come from this decision; undo to the `marks`.

        """
        taught = self.learner.follow(decision, observation, made_here=generation == self.generation)
        if self.candidate is not None:
            self.candidate.follow(decision, observation, made_here=False)
        self.cursor += 1
        return taught

    def apply(self, entry: Entry) -> None:
        """Take the next line of the log, be it feedback or an event; errors as of `take` and `happen`."""
        if entry.kind is not None:
            self.happen(entry.kind, entry.detail)
        else:
            decision = Decision(entry.decision, entry.number, entry.stream)
            self.take(decision, Observation.of(entry.observation), entry.generation)

    def happen(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Carry out the next event of the log.

        Raises
        ------
        ValueError
            It is not possible, or none of `EVENTS`; nothing has changed.

        """
        if kind not in EVENTS:
            raise ValueError(f"event is {kind!r}, allowed are {EVENTS}")
        getattr(self, f"_{kind}")(**detail)
        self.cursor += 1

    def _start(self, stream: str, like: str | None) -> None:
        for engine in (self.learner, self.candidate):
            if engine is not None:
                engine.start(_named(stream), like=like)

    def _forget(self, factor: float, stream: str) -> None:
        self.learner.forget(factor, stream=stream)

    def _change(self, arms: str, generation: int) -> None:
        table = arms_from_json(arms)
        if self.candidate is not None:
            raise ValueError("a candidate is shadowing, allowed is a change of arms without one: let it go first")
        self.learner.change(table)
        self.generation = generation

    def _shadow(self, policy: str, share: float) -> None:
        if self.candidate is not None:
            raise ValueError(f"{self.candidate.policy!r} is shadowing already, allowed is one candidate at a time")
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share is {share}, allowed is (0, 1]")
        mine = self.learner
        spec = policy_from_json(policy, self.known)
        self.candidate = self._follower(spec, mine.arms, mine.features, mine.seed, mine.streams)
        self.share, self.shadowed_from = share, self.cursor

    def _stop_shadow(self) -> None:
        self._candidate_or_refuse()
        self.candidate, self.share = None, 0.0

    def _take_over(self, generation: int) -> None:
        self.learner = self._candidate_or_refuse()
        self.candidate, self.share = None, 0.0
        self.generation = generation

    def _candidate_or_refuse(self) -> Follower:
        if self.candidate is None:
            raise ValueError("no candidate is shadowing: start one with `shadow` first")
        return self.candidate

    def packed(self) -> bytes:
        """A snapshot: all of it, as a sealed file."""
        tensors: dict[str, Any] = {}
        manifest: dict[str, Any] = {
            "arms": arms_to_json(self.learner.arms),
            "features": self.learner.features,
            "seed": self.learner.seed,
            "identity": self.identity.hex(),
            "cursor": self.cursor,
            "generation": self.generation,
            "streams": list(self.learner.streams),
            "share": self.share,
            "shadowed_from": self.shadowed_from,
        }
        for role, engine in (("learner", self.learner), ("candidate", self.candidate)):
            if engine is not None:
                manifest[role] = policy_to_json(engine.policy)
                manifest[f"{role}_random"] = [_plain(engine.randomness(name)) for name in engine.streams]
                tensors |= {f"{role}.{i}": engine.state(name) for i, name in enumerate(engine.streams)}
        return sealed.packed(tensors, manifest, SCHEMA)

    @classmethod
    def unpacked(cls, raw: bytes, where: str, *, compiled: bool = True, known: tuple[type, ...] = ()) -> "Fold":
        """The fold that a snapshot holds.

        Raises
        ------
        SealedError
            It is damaged, truncated, or of another schema, or its policy is not known here.

        """
        tensors, kept = sealed.parse(raw, where, SCHEMA)
        try:
            arms, streams = arms_from_json(kept["arms"]), list(kept["streams"])
            _count(cursor=kept["cursor"], generation=kept["generation"], shadowed_from=kept["shadowed_from"])
            fold = cls(
                policy_from_json(kept["learner"], known),
                arms=arms,
                features=kept["features"],
                seed=kept["seed"],
                streams=streams,
                compiled=compiled,
                known=known,
            )
            fold.identity = bytes.fromhex(kept["identity"])
            fold.cursor, fold.generation = kept["cursor"], kept["generation"]
            fold.share, fold.shadowed_from = float(kept["share"]), kept["shadowed_from"]
            if "candidate" in kept:
                policy = policy_from_json(kept["candidate"], known)
                fold.candidate = fold._follower(policy, arms, kept["features"], kept["seed"], streams)
            for role, engine in (("learner", fold.learner), ("candidate", fold.candidate)):
                if engine is not None:
                    for i, name in enumerate(streams):
                        random = _whole(kept[f"{role}_random"][i])
                        engine.resume(name, tensors[f"{role}.{i}"].astype(np.float64), random)
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, ValueError) as error:
            raise SealedError(f"{where} is no snapshot that can be gone on from ({error})") from error
        return fold

    def __eq__(self, other: object) -> bool:
        """Equal bit for bit: states, random generators, policies, tables, cursor."""
        return isinstance(other, Fold) and json.dumps(self._content()) == json.dumps(other._content())

    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> list[Any]:
        content: list[Any] = [self.identity.hex(), self.cursor, self.generation, self.share, self.shadowed_from]
        for engine in (self.learner, self.candidate):
            if engine is not None:
                content += [repr(engine.policy), repr(engine.arms)]
                content += [
                    [name, engine.state(name).tobytes().hex(), _plain(engine.randomness(name))]
                    for name in engine.streams
                ]
        return content


def _count(**found: Any) -> None:
    """Refuse what cannot be a place in a log."""
    for name, value in found.items():
        if not isinstance(value, int) or not 0 <= value < (1 << (31 if name == "generation" else 62)):
            raise ValueError(f"{name} is {value!r}, allowed is a whole number >= 0")


def _named(stream: str) -> str:
    """Refuse names of streams that are empty or too long for a ticket."""
    if not isinstance(stream, str) or not 0 < len(stream.encode()) <= NAME:
        raise ValueError(f"stream is {stream!r}, allowed is a name of 1 to {NAME} bytes")
    return stream


def _plain(random: Mapping[str, Any]) -> dict[str, Any]:
    """A generator's state as JSON: its whole numbers are longer than other readers of JSON can hold, so as texts."""
    return {k: _plain(v) if isinstance(v, Mapping) else str(v) for k, v in random.items()}


def _whole(random: Mapping[str, Any]) -> dict[str, Any]:
    """What `_plain` made it from."""
    name = random.get("bit_generator")
    return {k: _whole(v) if isinstance(v, Mapping) else v if v == name else int(v) for k, v in random.items()}
