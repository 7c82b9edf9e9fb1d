"""The durable engine: decides and learns in one process, and has in its store whatever it has said it learnt."""

import os
import secrets
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from offramp.bandits.arms import Arms
from offramp.bandits.contract import ContractError, Observation, Quote
from offramp.bandits.durable import fold as folds
from offramp.bandits.durable.deciders import Ahead
from offramp.bandits.durable.fold import Fold
from offramp.bandits.durable.ledger import Ledger, Outcome
from offramp.bandits.durable.shadowing import Score, score
from offramp.bandits.durable.specs import arms_to_json, policy_to_json
from offramp.bandits.durable.store import Entry, StoreError
from offramp.bandits.durable.tickets import IDENTITY, KEY, Signer, Ticket, signing_key
from offramp.bandits.engine import DEFAULT
from offramp.bandits.policy import Policy
from offramp.bandits.rows import FloatArray
from offramp.bandits.sealed import read, replace

BOARD = ".board"  # ending of the file that deciders in other processes read


class DurableEngine:
    """An engine whose feedback, knowledge and place in the log are written in one transaction.

    Its knowledge is a fold over the feedback log, and each piece of feedback is in it once: however often feedback is
    sent, and whenever the process is killed, what is in the store is the state after the log, bit for bit.

    Parameters
    ----------
    path
        The store, a file on a local disk; made where it is missing.
    policy, arms, features, seed, streams
        As for `offramp.bandits.Engine`, for a store that is made.  An existing store knows them; what is given all the
        same must agree with it.
    synchronous
        What a power loss may cost, see `offramp.bandits.durable.Store`.
    lateness
        Feedback may be late by so many other pieces of feedback, >= 1; older is refused.  Policies that forget or watch
        for changes count its age from when it is learnt: keep this below their memory where order matters.
    keep
        Pieces of feedback that stay in the log at least, never fewer than `lateness`; None = all of them.
    key
        Secret of the tickets, 32 bytes; None = `signing_key(path)`.
    compiled, known
        As for `Engine`; classes of policies besides those of `offramp.bandits`.

    Raises
    ------
    StoreError
        Another learner has the store open, or it is damaged or none.
    ValueError
        What was given does not agree with what the store holds.

    Examples
    --------
    >>> import tempfile
    >>> from offramp.bandits import Arms, Observation, Quote, SplitEE
    >>> quote = Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)
    >>> seen = Observation(confidence=[0.93, float("nan")], answered_at=1, offloaded=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with DurableEngine(f"{folder}/store", SplitEE(threshold=0.8), arms=Arms.grid(exits=2)) as engine:
    ...         token = engine.decide(quote).token
    ...     with DurableEngine(f"{folder}/store") as engine:  # another process, another day
    ...         print(engine.update(token, seen), engine.update(token, seen), engine.cursor)
    counted duplicate 1

    Notes
    -----
    Decisions are made on a copy of the knowledge that also counts what was decided and not answered yet, as `Engine`
    does; a restart forgets those counts, and nothing else.  If feedback always comes before the next decision, the
    choices are those of an `Engine` with the same seed, bit for bit.

    """

    def __init__(
        self,
        path: str | Path,
        policy: Policy | None = None,
        *,
        arms: Arms | None = None,
        features: int | None = None,
        seed: int | None = None,
        streams: Sequence[str] = (DEFAULT,),
        synchronous: str = "NORMAL",
        lateness: int = 65_536,
        keep: int | None = None,
        key: bytes | None = None,
        compiled: bool = True,
        known: tuple[type, ...] = (),
    ) -> None:
        def first() -> Fold:
            if policy is None or arms is None:
                raise ValueError(f"store {path} is new, allowed is to open it with a policy and its table of arms")
            names = (DEFAULT, *streams)
            return Fold(
                policy, arms=arms, features=features or 0, seed=seed or 0, streams=names, compiled=compiled, known=known
            )

        if not Path(path).exists():
            first()  # what is refused leaves nothing
        self._lock = threading.RLock()
        self._ledger = Ledger(path, synchronous, lateness=lateness, keep=keep, compiled=compiled, known=known)
        try:
            key = signing_key(path) if key is None else key
            if self._ledger.new:
                self._ledger.begin_with(first().packed(), 0)
            self._ledger.load()
            self._signer = Signer(key, self._ledger.fold.identity)
            self._ahead = Ahead(self._ledger.fold, self._signer)
            self._agree({"policy": policy, "arms": arms, "features": features, "seed": seed})
            for name in streams:
                if name not in self.streams:
                    self.start(name)
        except BaseException:
            self._ledger.store.close()
            raise

    @classmethod
    def imported(cls, path: str | Path, snapshot: str | Path, **options: Any) -> "DurableEngine":
        """A new store that goes on from a snapshot which `export` wrote; options as for the class.

        Tickets of the store that the snapshot was taken of are none of the new one's: what they lead to belongs there.

        Raises
        ------
        SealedError
            The snapshot is damaged, truncated or of another schema.
        StoreError
            There is something at the path already.

        """
        known = options.get("known", ())
        fold = Fold.unpacked(read(snapshot), f"file {snapshot}", known=known)
        fold.identity = secrets.token_bytes(IDENTITY)
        if Path(path).exists():
            raise StoreError(f"store {path} exists, allowed is a path where nothing is")
        with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=f"{Path(path).name}.") as folder:
            partial = Path(folder) / "store"
            ledger = Ledger(partial, "FULL", lateness=1, keep=None, compiled=True, known=known)
            try:
                ledger.begin_with(fold.packed(), fold.cursor)
            finally:
                ledger.store.close()
            cls(partial, **(options | {"key": options.get("key") or bytes(KEY)})).close()  # would it open?
            os.link(partial, path)
        return cls(path, **options)

    @property
    def policy(self) -> Policy:
        """The policy that plays."""
        return self._ledger.fold.learner.policy

    @property
    def candidate(self) -> Policy | None:
        """The policy that shadows it, or None."""
        return None if self._ledger.fold.candidate is None else self._ledger.fold.candidate.policy

    @property
    def arms(self) -> Arms:
        """The table of arms."""
        return self._ledger.fold.learner.arms

    @property
    def features(self) -> int:
        """Context features."""
        return self._ledger.fold.learner.features

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams."""
        return self._ledger.fold.learner.streams

    @property
    def cursor(self) -> int:
        """Lines of the log: pieces of feedback taken, and events."""
        return self._ledger.fold.cursor

    def state(self, stream: str = DEFAULT) -> FloatArray:
        """A copy of what was learnt, laid out as in `offramp.bandits.state`."""
        return self._ledger.fold.learner.state(stream)

    def decide(
        self, quote: Quote, context: Sequence[float] | FloatArray | None = None, *, stream: str = DEFAULT
    ) -> Ticket:
        """Decide on one request; as `Engine.decide`."""
        if not isinstance(quote, Quote):
            raise ContractError(f"quote is {type(quote).__name__}, allowed is a Quote")
        with self._lock:
            if self._ledger.store.closed:
                raise StoreError(f"store {self._ledger.path} is closed, allowed is to open it again")
            return self._ahead.decide(quote, context, stream)

    def read(self, token: str) -> Ticket:
        """The ticket behind a token.

        Raises
        ------
        TicketError
            It was not signed with this store's key.

        """
        return self._signer.read(token)

    def update(self, decision: Ticket | str, observation: Observation) -> Outcome:
        """Learn from what a decision revealed; it is in the store when this returns.

        Parameters
        ----------
        decision
            The ticket, or its token, of any process that has the key.
        observation
            What it revealed.

        Raises
        ------
        ContractError
            The observation cannot have come from this decision, or the token was not signed here; nothing was learnt.
        StoreError
            The store cannot be written (a full disk); nothing was learnt, and the same feedback may come again.

        """
        return self.update_many(((decision, observation),))[0]

    def update_many(self, feedback: Iterable[tuple[Ticket | str, Observation]]) -> list[Outcome]:
        """Learn from a batch in one transaction: all of it or, where something is refused, nothing.

        Raises
        ------
        ContractError
            As `update`, with the place in the batch.
        StoreError
            As `update`.

        """
        given = [(self._ticket(d), _observed(o)) for d, o in feedback]
        with self._lock:
            try:
                outcomes = self._ledger.take(given)
                for (ticket, observation), outcome in zip(given, outcomes, strict=True):
                    if outcome is Outcome.COUNTED:
                        self._ahead.learn(ticket, observation)
            except (ContractError, StoreError):
                raise
            except BaseException:
                # Interrupted: the ledger has read anew what the store says, and what is decided on must follow it.
                self._ahead = Ahead(self._ledger.fold, self._signer)
                raise
            finally:
                self._ahead.cursor = self._ledger.fold.cursor
        return outcomes

    def start(self, stream: str, *, like: str | None = None) -> None:
        """Open a stream, from nothing or from what another one has learnt so far; it stays open in the store."""
        self._happen(folds.START, stream=stream, like=like)

    def forget(self, factor: float, *, stream: str = DEFAULT) -> None:
        """Shrink what a stream has learnt to a share of its weight, in (0, 1]."""
        self._happen(folds.FORGET, factor=factor, stream=stream)

    def change(self, arms: Arms) -> None:
        """Go on with another table of arms, as `Engine.change`; earlier decisions still teach the arms that stay."""
        self._happen(folds.CHANGE, arms=arms_to_json(arms), generation=_drawn())

    def shadow(self, policy: Policy, *, share: float) -> None:
        """Let a candidate learn from all feedback, and say on a share of the requests what it would have decided.

        Parameters
        ----------
        policy
            The candidate; it plays the same table of arms.
        share
            Share of requests, in (0, 1].

        """
        self._happen(folds.SHADOW, policy=policy_to_json(policy), share=share)

    def stop_shadow(self) -> None:
        """Let the candidate go."""
        self._happen(folds.STOP_SHADOW)

    def take_over(self) -> None:
        """Let the candidate play, with all that it has learnt; the policy that played so far is let go."""
        self._happen(folds.TAKE_OVER, generation=_drawn())

    def score(self) -> Score:
        """How the candidate would have done, by the log."""
        with self._lock:
            if self._ledger.fold.candidate is None:
                raise ValueError("no candidate is shadowing: start one with `shadow` first")
            entries = self._ledger.store.entries(self._ledger.fold.shadowed_from)
            return score((e.decision, e.observation, e.shadow) for e in entries if e.shadow is not None)

    def export(self, path: str | Path) -> None:
        """Write a snapshot for `imported`: a safetensors file with schema and hash, whole or not at all."""
        with self._lock:
            replace(path, self._ledger.fold.packed(), lasting=True)

    def publish(self) -> None:
        """Write the board, `<path>.board`, on which deciders in other processes decide."""
        with self._lock:
            replace(f"{self._ledger.path}{BOARD}", self._ledger.fold.packed())

    def log(self) -> Iterable[Entry]:
        """The log from its beginning, or from where it was trimmed."""
        with self._lock:
            return list(self._ledger.store.entries(0))

    def verify(self) -> None:
        """Fold the log anew, and compare.

        Raises
        ------
        StoreError
            It does not give what this engine knows, bit for bit.

        """
        with self._lock:
            self._ledger.verify()

    def close(self) -> None:
        """Write what the next start would fold anew, and let go of the store."""
        with self._lock:
            self._ledger.close()

    def __enter__(self) -> "DurableEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _happen(self, kind: str, **detail: Any) -> None:
        with self._lock:
            try:
                self._ledger.happen(kind, **detail)
            finally:
                self._ahead = Ahead(self._ledger.fold, self._signer)

    def _ticket(self, decision: Ticket | str) -> Ticket:
        if isinstance(decision, Ticket):
            return decision
        if not isinstance(decision, str):
            raise ContractError(f"decision is {type(decision).__name__}, allowed is a Ticket or its token")
        return self.read(decision)

    def _agree(self, given: dict[str, Any]) -> None:
        mine = {
            "policy": self.policy,
            "arms": self.arms,
            "features": self.features,
            "seed": self._ledger.fold.learner.seed,
        }
        for name, value in given.items():
            if value is not None and value != mine[name]:
                raise ValueError(
                    f"{name} is {value!r}, allowed in store {self._ledger.path} is {mine[name]!r}, as it was left"
                )


def _observed(observation: Observation) -> Observation:
    """Refuse what is none."""
    if not isinstance(observation, Observation):
        raise ContractError(f"observation is {type(observation).__name__}, allowed is an Observation")
    return observation


def _drawn() -> int:
    """A number for a generation: one that is not met again where a store goes on from an older copy of itself."""
    return secrets.randbits(31)
