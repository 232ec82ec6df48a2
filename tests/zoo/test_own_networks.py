"""What a family takes in place of its own networks is a module, or refused in a line."""

import inspect

import pytest
import torch
from families import CASES, Case

OWN = ("network", "generator", "discriminator", "encoder", "decoder")


def takes(family: type, name: str) -> bool:
    """Whether it or a base of it has an argument of that name that is a module."""
    constructors = [vars(base)["__init__"] for base in family.__mro__ if "__init__" in vars(base)]
    stated = [
        inspect.signature(made).parameters[name]
        for made in constructors
        if name in inspect.signature(made).parameters
    ]
    return bool(stated) and "Module" in str(stated[0].annotation)


TAKEN = [
    (case, name)
    for case in {case.family: case for case in CASES}.values()
    for name in OWN
    if takes(case.family, name)
]


@pytest.mark.parametrize(("case", "name"), TAKEN, ids=[f"{case}-{name}" for case, name in TAKEN])
@pytest.mark.parametrize("given", ["dit2", 3, torch.zeros(3), torch.nn.Linear])
def test_what_is_no_module_is_refused(case: Case, name: str, given: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}=") as refusal:
        case.family(case.shape, case.levels, **{**case.options, name: given})
    assert "\n" not in str(refusal.value)
