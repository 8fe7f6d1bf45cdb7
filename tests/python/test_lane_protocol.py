# SPDX-License-Identifier: Apache-2.0
"""Every rule of the lane protocol is enough with the others, and needed."""

from __future__ import annotations

import os
from dataclasses import fields, replace

import pytest

from lane_protocol import Rules, explore

HISTORIES = int(os.environ.get("NVM_PROTOCOL_HISTORIES", "150"))


def test_the_rules_are_enough() -> None:
    for seed in range(HISTORIES):
        assert explore(Rules(), seed) is None


@pytest.mark.parametrize("rule", [rule.name for rule in fields(Rules)])
def test_each_rule_is_needed(rule: str) -> None:
    rules = replace(Rules(), **{rule: False})
    assert any(explore(rules, seed) for seed in range(1500)), f"without {rule} all goes well"
