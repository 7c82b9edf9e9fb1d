"""What every policy is: an immutable spec that names its arms, its first state and its kernels."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compile_here
from offramp.bandits.loop import (
    Block,
    Record,
    Select,
    Update,
    World,
    guarded_select,
    guarded_step,
    guarded_update,
    loop,
)
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import SEES_ALL

Forget = Callable[[FloatArray, float], None]


class Kernels(NamedTuple):
    """A policy's functions: three texts, and the four compiled entry points around them.

    `select(state, row)` reads the quote in a decision row and fills in the rest; `update(state, decision, observation)`
    learns; `forget(state, factor)` shrinks what was learnt to a share of its weight.
    """

    select: Select
    update: Update
    forget: Forget
    rollout: Callable[..., int]
    decide: Callable[[FloatArray, FloatArray], int]
    learn: Callable[[FloatArray, FloatArray, FloatArray], int]
    step: Callable[[FloatArray, FloatArray, FloatArray, FloatArray], int]

    @classmethod
    def of(cls, select: Select, update: Update, forget: Forget) -> "Kernels":
        """Entry points for kernels written outside the project, compiled once in each process.

        Policies inside the project write theirs down at the end of their file, so that compiled code is kept on disk.
        """

        def rollout(state: FloatArray, world: World, block: Block, record: Record) -> int:
            return loop(select, update, reveal, state, world, block, record)

        def decide(state: FloatArray, row: FloatArray) -> int:
            return guarded_select(select, state, row)

        def learn(state: FloatArray, decision: FloatArray, observation: FloatArray) -> int:
            return guarded_update(update, state, decision, observation)

        def step(state: FloatArray, decision: FloatArray, observation: FloatArray, row: FloatArray) -> int:
            return guarded_step(select, update, state, decision, observation, row)

        return cls(
            select, update, forget, compile_here(rollout), compile_here(decide), compile_here(learn), compile_here(step)
        )


@runtime_checkable
class Policy(Protocol):
    """An immutable spec: frozen, keyword-only; it validates itself, prints, compares and pickles."""

    @property
    def kernels(self) -> Kernels:
        """The functions that carry the policy out."""

    def plays(self, arms: Arms) -> list[Arm]:
        """The arms of the table that the policy chooses among."""

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """A fresh state for this table and so many context features, made by `offramp.bandits.state.pack`."""


def needs_oracle(policy: Policy) -> bool:
    """Does the policy read what its decisions do not reveal?  True for replicas of published code alone."""
    return bool(getattr(policy, "oracle_side_information", False))


def fresh(policy: Policy, arms: Arms, features: int) -> FloatArray:
    """A policy's first state as executors use it: its header says whether hidden confidences are shown on purpose."""
    state = policy.initial(arms, features)
    state[SEES_ALL] = needs_oracle(policy)
    return state


def positive(name: str, value: float, *, zero: bool = True) -> None:
    """Refuse a parameter that is not a finite number >= 0 (or > 0).

    Raises
    ------
    ValueError
        With the name, the value and what is allowed.

    """
    if not (0.0 <= value < float("inf")) or (value == 0.0 and not zero):
        raise ValueError(f"{name} is {value}, allowed is a finite number {'>= 0' if zero else '> 0'}")
