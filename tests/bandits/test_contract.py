"""Every policy that the package exports, in every variant that has a configuration, passes the contract suite."""

from dataclasses import is_dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

import offramp.bandits
from offramp.bandits import Policy
from offramp.bandits.checks import CHECKS, policy_checks

NAMES = sorted(p.stem for p in (Path(__file__).parents[2] / "conf" / "policy").glob("*.yaml") if p.stem != "standard")


def load(name: str) -> Policy:
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return instantiate(compose("compare", overrides=[f"policy={name}"]).policy)


POLICIES = {name: load(name) for name in NAMES}


@pytest.mark.parametrize("check", [c for p in POLICIES.values() for c in policy_checks(p)], ids=str)
def test_contract(check):
    assert check() is None


def test_every_exported_policy_has_a_configuration_and_is_checked():
    exported = {
        name
        for name in offramp.bandits.__all__
        if is_dataclass(kind := getattr(offramp.bandits, name)) and hasattr(kind, "kernels") and hasattr(kind, "plays")
    }
    assert exported == {type(p).__name__ for p in POLICIES.values()}
    assert len(CHECKS) >= 14


def test_compositions_of_the_standard_table():
    with initialize_config_module("offramp.conf", version_base="1.3"):
        table = compose("compare").policy
    assert {name: instantiate(part) for name, part in table.items()} == {name: POLICIES[name] for name in table}
    assert len(table) >= 10
