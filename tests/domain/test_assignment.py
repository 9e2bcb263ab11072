"""Which release analyses a study."""

from __future__ import annotations

import itertools

import pytest

from dicom_node.domain.assignment import ImageOrigin, Rule, Scope, choose

SCOPES = {
    "default": Scope(),
    "sender": Scope(sender="MR1"),
    "station": Scope(station="SKYRA"),
    "protocol": Scope(protocol="prostate*"),
    "longer protocol": Scope(protocol="prostate?fast*"),
    "sender and protocol": Scope(sender="MR1", protocol="*prostate*"),
    "station and protocol": Scope(station="SKYRA", protocol="*"),
    "sender and station": Scope(sender="MR1", station="SKYRA"),
    "all": Scope("MR1", "SKYRA", "prostate*"),
}
EVERYTHING = [Rule(n, scope, n) for n, scope in enumerate(SCOPES.values())]
NAMES = list(SCOPES)

# (origins of the images, rules that are there, the rule that holds)
TABLE = [
    ([("MR1", "SKYRA", "Prostate fast")], NAMES, "all"),
    ([("MR1", "SKYRA", "knee")], NAMES, "sender and station"),
    ([("MR1", "AERA", "a PROSTATE")], NAMES, "sender and protocol"),
    ([("PACS", "SKYRA", "knee")], NAMES, "station and protocol"),
    ([("PACS", "AERA", "prostate fast")], NAMES, "longer protocol"),
    ([("PACS", "AERA", "prostate")], NAMES, "protocol"),
    ([("PACS", "AERA", "knee")], NAMES, "default"),
    ([("MR1", "AERA", "knee")], NAMES, "sender"),
    ([], NAMES, "default"),
    # at equal number of criteria: station before sender before protocol
    ([("MR1", "SKYRA", "prostate")], ["sender", "station", "protocol"], "station"),
    ([("MR1", "AERA", "prostate")], ["protocol", "sender"], "sender"),
    # all criteria hold for one image, not each for another
    ([("MR1", "AERA", "x"), ("PACS", "SKYRA", "x")], ["default", "sender and station"], "default"),
    ([("PACS", "AERA", "x"), (" MR1 ", "SKYRA ", "x")], ["sender and station"],
     "sender and station"),
    # AE titles and stations: letter by letter; no rule, no release
    ([("mr1", "skyra", "x")], ["sender", "station"], None),
    ([("MR1", "SKYRA", "")], ["protocol"], None),
]  # fmt: skip


@pytest.mark.parametrize(("origins", "there", "expected"), TABLE)
def test_the_most_specific_rule_holds(
    origins: list[tuple[str, str, str]], there: list[str], expected: str | None
) -> None:
    rules = [rule for rule in EVERYTHING if NAMES[rule.id] in there]
    images = [ImageOrigin(*origin) for origin in origins]
    for order in (rules, rules[::-1]):
        held = choose(order, images)
        assert (None if held is None else NAMES[held.id]) == expected


def test_the_order_is_total_and_does_not_depend_on_the_order_of_rules() -> None:
    twins = [Rule(1, Scope(protocol="a*c"), 1), Rule(2, Scope(protocol="ac*"), 2)]
    for order in itertools.permutations(twins):
        held = choose(order, [ImageOrigin(protocol="ac c")])
        assert held is not None
        assert held.id == 1, "the older of two that are equally specific"


def test_a_scope_reads_as_words() -> None:
    assert str(Scope()) == "default"
    assert str(Scope("MR1", "", "p*")) == "sender MR1, protocol p*"
