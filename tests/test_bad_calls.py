"""A bad argument of any public method of any family is one clear line of ours; what is answered instead is sound.

A call has arguments that fit, but for one. Where that one cannot mean anything ("bad") the call is refused: by a
`raise` in our own code, TypeError or ValueError, in one line that names the argument, the model or the method. Where
it could be taken in good faith ("odd": a NumPy integer, another precision) it is refused likewise, or answered by
what the method promises: the shape, finite numbers, data of the model.
"""

import dis
import inspect
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import lightning
import numpy as np
import pytest
import torch
from families import CASES, CONDITIONAL, FIRST, Case, few_steps
from torch import Tensor

import genzoo.zoo
from genzoo.zoo import GPT, Autoencoder, MaskedDiffusion, ZooModule
from genzoo.zoo.diffusion.solvers import Heun
from genzoo.zoo.mixins import is_conditional
from genzoo.zoo.randomness import PerDatum

OURS = genzoo.zoo.__name__
BATCH = 3


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is one, however many steps it takes."""
    few_steps(monkeypatch, flow=2, steps=3, repeats=1)


#: the parts that a family's methods are made of: they take what was checked before, from each other
PARTS = """
    name_classes name_columns check_columns check_source columns_of take_names settle settle_after_epoch
    fit_to_seen as_seen from_seen count_seen says_nothing_at standardise checked_tokens read_by
    beta_at begin_in_own_units build_networks chain chain_times
    checked_labels choose choose_variance classes code components condition_on data decoded decoder
    default_optimizer denoise denoiser dequantised discriminator_loss corrupted discriminator_step draw
    draw_latents draw_turn draw_uncached elbo errors evaluation features fill_in flow flow_ratios from_model
    generator_loss generator_step in_own_units kl labels_to_sample about_log_prob_given log_joint log_likelihood
    log_prob_given log_prob_per_dim losses log_weights logits made masked_nats next_logits noise num_observed
    objective observed on_grid output output_in_own_units outputs parameter_groups parts place posterior predict
    present_classes prior reconstruction_error register_later_buffer render residual scaled shifted unmask
    standardised stated solver_times to_model to_networks unpack with_later_buffers GPT.begun GPT.generate
    GPT.in_windows GAN.generate GAN.score quantised seen vectors AutoregressiveMixin.codes MaskedDiffusion.codes
    LatentModel.begin_with LatentModel.kept_codes LatentModel.pixels
"""
#: the ways to the Hub, which `tests/zoo/hub` calls, well and badly
SHARED = "from_pretrained push_to_hub"

#: the capabilities' methods, and what single families offer besides
METHODS = """
    anomaly_score bits_per_dim check codes complete completion_kind count_classes decode decode_codes encode
    fit_density fit_variances generate interpolate invert log_prob reconstruct sample sample_path score
    surprisal text tokens traverse
"""

ALL = [
    *CASES,
    *CONDITIONAL,
    *(Case(family, (12,), 11, frozenset(), {"vocabulary": "abcdefghijk"}) for family in (GPT, MaskedDiffusion)),
]


class Call(NamedTuple):
    """A call of `method` with one argument that is not what it should be."""

    case: Case
    method: str
    argument: str
    fault: str
    #: whether it must be refused; else it may be taken in good faith
    bad: bool

    def __str__(self) -> str:
        return f"{self.case}.{self.method}({self.argument}: {self.fault})"


@cache
def numbered(place: int) -> Any:
    """The model of a case; an autoencoder that samples."""
    case = ALL[place]
    model = case.build().eval()
    if isinstance(model, Autoencoder):
        model.fit_density(case.data(20), 2)
    return model


def built(case: Case) -> Any:
    """The model of a case, built once."""
    return numbered(ALL.index(case))


def public_methods(model: Any) -> list[str]:
    """Those that are not Lightning's, nor `SHARED`, nor one of the `PARTS`."""
    names = [name for name in dir(model) if not name.startswith("_") and not hasattr(lightning.LightningModule, name)]
    called = [name for name in names if inspect.ismethod(getattr(model, name, None))]
    kinds = [type(model).__name__, *(kind.__name__ for kind in type(model).__mro__)]
    return [
        name
        for name in called
        if name not in [*PARTS.split(), *SHARED.split()]
        and not any(f"{kind}.{name}" in PARTS.split() for kind in kinds)
    ]


def arguments_of(model: Any, method: str) -> list[str]:
    """The names of a method's arguments; of `bits_per_dim` also those that it hands on."""
    parameters = inspect.signature(getattr(model, method)).parameters.values()
    names = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
    if len(names) < len(parameters) and method != "sample":  # what a prior's takes is looked at there
        names += [name for name in arguments_of(model, "log_prob") if name not in names]
    return [name for name in names if name not in ("on_grid", "in_range")]


# ---------------------------------------------------------------------------------------------- arguments that fit


def fitting(case: Case, method: str) -> dict[str, Any]:
    """Arguments that are as they should be, for every name of one."""
    model = built(case)
    x, conditional = case.data(BATCH), is_conditional(model)
    known = torch.zeros(case.shape, dtype=torch.bool)
    known[..., : case.shape[-1] // 2] = True
    sampled = 2 if method.startswith("sample") else BATCH
    good = {
        "x": x,
        "a": x,
        "b": case.data(BATCH),
        "z": torch.randn(BATCH, getattr(model, "code_dim", 1)) if method == "decode" else torch.randn(x.shape),
        "codes": torch.zeros(BATCH, *getattr(model, "grid", ()), dtype=torch.int64),
        "known": known,
        "num_samples": 2,
        "num_frames": 2,
        "num_particles": 1,
        "num_components": 2,
        "steps": 2 if method == "sample" else 3,
        "labels": torch.arange(sampled) % 3 if conditional else None,
        "generator": torch.Generator().manual_seed(0),
        "scorer": None,
        "solver": None,
        "sampler": None,
        "spacing": None,
        "guidance": 1.0,
        "dim": 0,
        "values": [-1.0, 1.0],
        "t": torch.tensor(0.5, dtype=torch.float64),
        "batches": [(x, torch.arange(BATCH) % 3)] * 8,
        "seed": 0,
        "tokens": x[0],
        "text": "abc",
        "stride": None,
        "batch_size": 32,
        "temperature": 1.0,
        "top_k": None,
        "top_p": None,
        "prompt": None,
        "length": 6,
    }
    if method == "fit_density":
        good["x"] = case.data(20)
    return {name: good[name] for name in arguments_of(model, method)}


# ---------------------------------------------------------------------------------------------- arguments that do not

Fault = Callable[[Any, Case], Any]
#: by name, from the argument that fits
NO_TENSOR: dict[str, Fault] = {
    "none": lambda x, case: None,
    "a string": lambda x, case: "three",
    "a list": lambda x, case: x.tolist(),
    "an array": lambda x, case: x.numpy(),
    "a number": lambda x, case: 3,
}
OF_DATA: dict[str, Fault] = NO_TENSOR | {
    "booleans": lambda x, case: x > 0,
    "complex": lambda x, case: x.to(torch.complex64),
    "bytes": lambda x, case: x.to(torch.uint8),
    "of the other kind of number": lambda x, case: x.float() + 0.0 if x.dtype == torch.int64 else x.long(),
    "one dimension less": lambda x, case: x[0],
    "one dimension more": lambda x, case: x[None],
    "a number too few": lambda x, case: x[..., :-1],
    "flat": lambda x, case: x.flatten(),
    "a scalar": lambda x, case: x.flatten()[0],
    "empty": lambda x, case: x[:0],
}
OF_VALUES: dict[str, Fault] = {
    "nan": lambda x, case: with_value(x, math.nan),
    "infinite": lambda x, case: with_value(x, -math.inf),
}
OF_RANGE: dict[str, Fault] = {
    "above the range": lambda x, case: with_value(x, max(case.levels or 0, 2)),
    "below the range": lambda x, case: with_value(x, -2),
}
OFF_GRID: dict[str, Fault] = {"off the grid": lambda x, case: x * 0.98 + 0.01 / case.levels}
OF_COUNTS: dict[str, Fault] = {
    "none": lambda n, case: None,
    "a string": lambda n, case: "3",
    "zero": lambda n, case: 0,
    "negative": lambda n, case: -2,
    "a fraction": lambda n, case: 2.5,
    "a float": lambda n, case: 2.0,
    "a boolean": lambda n, case: True,
    "nan": lambda n, case: math.nan,
    "huge": lambda n, case: 2**40,
    "beyond 64 bits": lambda n, case: 10**30,
    "a list": lambda n, case: [2],
    "a vector": lambda n, case: torch.tensor([2, 3]),
}
OF_NUMBERS: dict[str, Fault] = {
    "a string": lambda n, case: "0.9",
    "nan": lambda n, case: math.nan,
    "infinite": lambda n, case: math.inf,
    "complex": lambda n, case: 1j,
    "a list": lambda n, case: [0.9],
    "a vector": lambda n, case: torch.tensor([0.9, 0.8]),
    "a boolean": lambda n, case: True,
}
OF_LABELS: dict[str, Fault] = {
    "a string": lambda y, case: "two",
    "a number": lambda y, case: 1,
    "a list": lambda y, case: [0] * len(given(y)),
    "an array": lambda y, case: given(y).numpy(),
    "floats": lambda y, case: given(y).float(),
    "int32": lambda y, case: given(y).int(),
    "one too many": lambda y, case: torch.zeros(len(given(y)) + 1, dtype=torch.int64),
    "a column": lambda y, case: given(y)[:, None],
    "one-hot": lambda y, case: torch.eye(3, dtype=torch.int64)[given(y)],
    "a scalar": lambda y, case: torch.tensor(1),
    "too high": lambda y, case: given(y) + 3,
    "negative": lambda y, case: given(y) - 4,
    "empty": lambda y, case: given(y)[:0],
}
OF_NAMES: dict[str, Fault] = {
    "an unknown name": lambda s, case: "nonsense",
    "an empty name": lambda s, case: "",
    "a number": lambda s, case: 3,
    "a list": lambda s, case: ["nll"],
}
OF_GENERATORS: dict[str, Fault] = {
    "a seed": lambda g, case: 3,
    "a string": lambda g, case: "cpu",
    "NumPy's": lambda g, case: np.random.default_rng(0),
}
OF_TOKENS: dict[str, Fault] = {
    "a string in a list": lambda x, case: ["a"],
    "floats": lambda x, case: [0.5, 1.0],
    "a number": lambda x, case: 3,
    "too high": lambda x, case: [1, 11],
    "negative": lambda x, case: [-1, 1],
    "nested": lambda x, case: [[1, 2], [3, 4]],
    "ragged": lambda x, case: [[1, 2], [3]],
    "a dictionary": lambda x, case: {"a": 1},
}
BAD: dict[str, dict[str, Fault]] = {
    **dict.fromkeys(("x", "a", "b"), OF_DATA | OF_VALUES),
    "z": OF_DATA | OF_VALUES,
    "codes": OF_DATA
    | {"too high": lambda c, case: with_value(c, 2**20), "negative": lambda c, case: with_value(c, -1)},
    "known": NO_TENSOR
    | {
        "floats": lambda m, case: m.float(),
        "integers": lambda m, case: m.long(),
        "of another shape": lambda m, case: m.repeat_interleave(2, -1).expand(5, *m.shape[:-1], 2 * m.shape[-1]),
        "one dimension more": lambda m, case: m.expand(4, BATCH, *m.shape),
        "empty": lambda m, case: m[..., :0],
    },
    **dict.fromkeys(("num_samples", "num_frames", "num_particles", "batch_size"), OF_COUNTS),
    **{name: {k: f for k, f in OF_COUNTS.items() if k != "none"} for name in ("num_components", "stride", "top_k")},
    "length": {k: f for k, f in OF_COUNTS.items() if k != "none"},
    "steps": OF_COUNTS,
    "labels": OF_LABELS,
    "generator": OF_GENERATORS,
    "scorer": OF_NAMES,
    "spacing": OF_NAMES,
    "sampler": OF_NAMES,
    "solver": OF_NAMES | {"a class": lambda s, case: Heun},
    "guidance": {"none": lambda g, case: None} | OF_NUMBERS,
    "temperature": {"none": lambda g, case: None, "negative": lambda g, case: -1.0} | OF_NUMBERS,
    "top_p": {"zero": lambda g, case: 0, "negative": lambda g, case: -0.5, "above one": lambda g, case: 1.5}
    | OF_NUMBERS,
    "dim": {
        "none": lambda d, case: None,
        "a string": lambda d, case: "0",
        "a fraction": lambda d, case: 0.5,
        "too high": lambda d, case: 1000,
        "too low": lambda d, case: -1000,
        "a boolean": lambda d, case: True,
        "a vector": lambda d, case: torch.tensor([0, 1]),
    },
    "values": {
        "none": lambda v, case: None,
        "a string": lambda v, case: "abc",
        "strings": lambda v, case: ["a"],
        "empty": lambda v, case: [],
        "nan": lambda v, case: [0.0, math.nan],
        "nested": lambda v, case: [[0.0, 1.0]],
        "a number": lambda v, case: 0.5,
        "complex": lambda v, case: [1j],
        "booleans": lambda v, case: [True, False],
    },
    "t": NO_TENSOR
    | {
        "a float": lambda t, case: 0.5,
        "zero": lambda t, case: t * 0,
        "above one": lambda t, case: t * 3,
        "nan": lambda t, case: t * math.nan,
        "of other data": lambda t, case: t.expand(5),
        "an integer": lambda t, case: torch.tensor(1),
        "complex": lambda t, case: t + 1j,
    },
    "batches": {
        "none": lambda b, case: None,
        "a number": lambda b, case: 3,
        "empty": lambda b, case: [],
        "strings": lambda b, case: ["abc"],
        "nones": lambda b, case: [None],
        "of nan": lambda b, case: [(with_value(b[0][0].float(), math.nan), b[0][1])],
        "of another shape": lambda b, case: [(b[0][0][..., :-1], b[0][1])],
        "one datum": lambda b, case: b[0][0][0],
    },
    "seed": {
        "a string": lambda s, case: "0",
        "a fraction": lambda s, case: 0.5,
        "negative": lambda s, case: -1,
        "huge": lambda s, case: 2**40,
        "a boolean": lambda s, case: True,
        "none": lambda s, case: None,
    },
    "tokens": OF_TOKENS | {"none": lambda x, case: None, "a string": lambda x, case: "abc"},
    "prompt": OF_TOKENS | {"foreign letters": lambda x, case: "äöü", "too long": lambda x, case: [1] * 20},
    "text": {
        "none": lambda s, case: None,
        "a number": lambda s, case: 3,
        "a list": lambda s, case: [1, 2],
        "foreign letters": lambda s, case: "äöü",
        "bytes": lambda s, case: b"abc",
    },
}
ODD_DATA: dict[str, Fault] = {
    "float64": lambda x, case: x.double(),
    "half": lambda x, case: x.half(),
    "bfloat16": lambda x, case: x.bfloat16(),
    "int32": lambda x, case: x.int(),
    "one datum": lambda x, case: x[:1],
    "not contiguous": lambda x, case: x.flip(0).transpose(-1, -2).contiguous().transpose(-1, -2),
    "with a gradient": lambda x, case: x.clone().requires_grad_() if x.is_floating_point() else x,
}
ODD_COUNTS: dict[str, Fault] = {"NumPy's": lambda n, case: np.int64(3), "a tensor": lambda n, case: torch.tensor(3)}
ODD: dict[str, dict[str, Fault]] = {
    **dict.fromkeys(("x", "a", "b", "z"), ODD_DATA),
    "known": {
        "all": lambda m, case: torch.ones_like(m),
        "nothing": lambda m, case: torch.zeros_like(m),
        "a scalar": lambda m, case: torch.tensor(True),
    },
    **dict.fromkeys(
        ("num_samples", "num_frames", "num_particles", "num_components", "steps", "batch_size", "stride", "top_k"),
        ODD_COUNTS,
    ),
    "length": {"NumPy's": lambda n, case: np.int64(5), "beyond T": lambda n, case: 15},
    "labels": {"none": lambda y, case: None},
    "generator": {
        "none": lambda g, case: None,
        "of another batch": lambda g, case: PerDatum(case.data(5)),
        "of this batch": lambda g, case: PerDatum(case.data(BATCH)),
    },
    "scorer": {"nll": lambda s, case: "nll", "reconstruction": lambda s, case: "reconstruction"},
    "spacing": {"karras": lambda s, case: "karras"},
    "sampler": {name: lambda s, case, name=name: name for name in ("ancestral", "confidence")},
    "guidance": {"two": lambda g, case: 2, "NumPy's": lambda g, case: np.float32(1.5)},
    "temperature": {"zero": lambda g, case: 0, "tiny": lambda g, case: 1e-300},
    "top_p": {"one": lambda g, case: 1, "tiny": lambda g, case: 1e-300},
    "dim": {"the last": lambda d, case: -1, "NumPy's": lambda d, case: np.int64(0)},
    "values": {"a vector": lambda v, case: torch.tensor(v), "an array": lambda v, case: np.array(v)},
    "t": {"of each datum": lambda t, case: t.expand(BATCH), "float32": lambda t, case: t.float()},
    "prompt": {
        "letters": lambda x, case: "abc",
        "an array": lambda x, case: np.array([1, 2]),
        "empty": lambda x, case: [],
    },
    "tokens": {
        "an array": lambda x, case: x.numpy(),
        "a list": lambda x, case: x.tolist(),
        "empty": lambda x, case: x[:0],
    },
    "text": {"empty": lambda s, case: ""},
    "batches": {"of data alone": lambda b, case: [pair[0] for pair in b]},
    "seed": {"NumPy's": lambda s, case: np.int64(3)},
}


#: what is bad elsewhere, and good here
FINE = {
    ("sample", "steps"): "none",
    ("sample", "guidance"): "none",
    ("surprisal", "batch_size"): "none",
    ("count_classes", "labels"): "one too many",
    ("completion_kind", "known"): "one dimension more",
}


def with_value(x: Tensor, value: float) -> Tensor:
    """x, whose first number is another: one that is known, where a part is."""
    x = x.clone()
    x.view(-1)[0] = value
    return x


def given(labels: Tensor | None) -> Tensor:
    """Labels, also where the model takes none."""
    return torch.arange(BATCH) % 3 if labels is None else labels


def faults(case: Case, method: str, argument: str) -> Iterator[tuple[str, bool]]:
    """The names of what can be wrong with an argument, and whether it is bad or but odd."""
    bad = dict(BAD[argument])
    odd = dict(ODD.get(argument, {}))
    data = argument in ("x", "a", "b")
    model = built(case)
    if data and model.levels is not None and method != "score":
        bad |= OF_RANGE
        if model.modality == "image" and method not in (
            "encode",
            "codes",
            "fit_density",
            "reconstruct",
            "interpolate",
            "traverse",
        ):
            bad |= OFF_GRID
        elif model.modality == "image":
            odd |= OFF_GRID
    if case.levels is not None and len(case.shape) == 1 and argument == "x":  # no integer is NaN
        bad = {name: fault for name, fault in bad.items() if name not in OF_VALUES}
        if isinstance(model, GPT):  # a text may be as short as it is
            bad.pop("a number too few")
    if argument == "x" and method == "fit_density":
        odd.pop("one datum")
    if argument == "labels" and not is_conditional(model):
        odd.pop("none")
    if argument == "prompt" and model.vocabulary is None:
        bad["letters"] = odd.pop("letters")
    if (method, argument) in FINE:
        bad.pop(FINE[method, argument])
    yield from ((name, True) for name in bad)
    yield from ((name, False) for name in odd if name not in bad)


def every_call() -> list[Call]:
    """All that there are: each fault of each argument of each method of each family on each kind of data."""
    return [
        Call(case, method, argument, fault, bad)
        for case in ALL
        for method in public_methods(built(case))
        for argument in arguments_of(built(case), method)
        for fault, bad in faults(case, method, argument)
    ]


# ----------------------------------------------------------------------------------------------- what comes of a call


def outcome(call: Call) -> str:
    """ "refused" or "answered", or in a line what is wrong with the refusal or the answer."""
    torch.manual_seed(0)
    model, arguments = built(call.case), fitting(call.case, call.method)
    known_faults = BAD[call.argument] | ODD.get(call.argument, {}) | OF_RANGE | OFF_GRID
    arguments[call.argument] = known_faults[call.fault](arguments[call.argument], call.case)
    try:
        answer = getattr(model, call.method)(**arguments)
        answer = answer.mean if call.method in ("encode", "decode") else answer
    except Exception as error:
        return refusal(error, call, type(model).__name__)
    if call.bad:
        return f"garbage: {call} is answered"
    wrong = unsound(model, call.method, arguments, answer)
    return f"garbage: {call} gives {wrong}" if wrong else "answered"


def refusal(error: Exception, call: Call, family: str) -> str:
    """ "refused", or what is wrong with an error: not raised by a statement of ours, or not clear."""
    *_, last = iterate(error.__traceback__)
    raised = last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    ours = str(last.tb_frame.f_globals.get("__name__")).startswith(OURS)
    said = f"{type(error).__name__}: {error}"
    if not (raised and ours and isinstance(error, TypeError | ValueError)):
        return f"raw: {call} {said[:150]!r} in {last.tb_frame.f_code.co_qualname}:{last.tb_lineno}"
    names = [
        call.argument,
        call.method,
        family,
        *(["batch"] if call.argument in ("x", "a", "b", "z", "batches") else []),
    ]
    if not call.bad:  # it may fit by itself, but not the labels beside it
        names.append("labels")
    clear = any(re.search(rf"(?<![a-z_]){name}(?![a-z_])", str(error), re.IGNORECASE) for name in names)
    return "refused" if clear and "\n" not in said and len(said) < 400 else f"unclear: {call} {said!r}"


def iterate(traceback: Any) -> Iterator[Any]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def unsound(model: ZooModule, method: str, given: dict[str, Any], answer: Any) -> str | None:
    """What an answer has that the method does not promise; None where it is what it should be."""
    if method in ("fit_density", "fit_variances", "count_classes"):
        state = [t for t in model.state_dict().values() if t.is_floating_point()]
        return (
            None if answer is None and all(bool(t.isfinite().all()) for t in state) else "weights that are no numbers"
        )
    if method in ("completion_kind", "text"):
        return None if isinstance(answer, str) else f"a {type(answer).__name__}"
    if not isinstance(answer, Tensor) or not bool(answer.isfinite().all()):
        return "values that are no numbers"
    size, shape = len(given.get("x", given.get("a", given.get("z", given.get("codes", ()))))), model.shape
    expected: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("log_prob", "bits_per_dim", "anomaly_score"), (size,)),
        "codes": (size, *getattr(model, "grid", ())),
        **dict.fromkeys(("decode", "decode_codes", "reconstruct", "generate", "score", "check"), (size, *shape)),
        "sample": (int(given.get("num_samples", 0)), *((given["length"],) if "length" in given else shape)),
        "sample_path": (int(given.get("num_frames", 0)), int(given.get("num_samples", 0)), *shape),
        "complete": (int(given.get("num_samples", 0)), size, *shape),
        "interpolate": (int(given.get("steps", 0)), size, *shape),
        "traverse": (len(given.get("values", ())), size, *shape),
        "surprisal": (len(given.get("tokens", ())),),
        "tokens": (len(given.get("text", "")),),
        "encode": (size, answer.shape[-1]),
        "invert": (size, *answer.shape[1:]),
    }
    if tuple(answer.shape) != tuple(expected[method]):
        return f"the shape {tuple(answer.shape)} instead of {expected[method]}"
    rows = answer.flatten(0, -len(shape) - 1) if answer.ndim > len(shape) + 1 else answer
    if method in ("sample", "complete", "generate", "check") and tuple(rows.shape[1:]) == shape:
        model.check(rows, on_grid=method != "check")
    if method in ("decode", "decode_codes", "reconstruct", "interpolate", "traverse"):
        model.check(rows, on_grid=False)
    if method == "complete":
        x, known = model.check(given["x"]), given["known"].expand(given["x"].shape)
        return None if bool((answer == x)[:, known].all()) else "something else where x is known"
    return None


def outcomes(calls: list[Call]) -> tuple[Counter[str], list[str]]:
    """How often each kind of outcome came, and what was wrong."""
    found = [outcome(call) for call in calls]
    return Counter(kind.split(":")[0] for kind in found), [line for line in found if ":" in line]


def drawn(num: int, seed: int) -> list[Call]:
    return random.Random(seed).sample(every_call(), num)


def test_every_public_method_is_called_badly_or_is_a_part() -> None:
    for case in ALL:
        assert set(public_methods(built(case))) <= set(METHODS.split()), case


@pytest.mark.parametrize("case", FIRST + CONDITIONAL, ids=str)
def test_arguments_that_fit_are_answered(case: Case) -> None:
    model = built(case)
    for method in public_methods(model):
        if method == "bits_per_dim" and case.levels is None:
            continue
        if method == "count_classes" and not is_conditional(model):
            continue
        if method == "tokens" and model.vocabulary is None:
            continue
        arguments = fitting(case, method)
        answer = getattr(model, method)(**arguments)
        answer = answer.mean if method in ("encode", "decode") else answer
        assert unsound(model, method, arguments, answer) is None, method


def test_some_bad_calls() -> None:
    counts, wrong = outcomes(drawn(250, seed=0))
    assert not wrong, "\n".join([str(counts), *wrong])
    assert counts["refused"] > 150


@pytest.mark.slow
def test_three_thousand_bad_calls() -> None:
    counts, wrong = outcomes(drawn(3000, seed=1))
    assert not wrong, "\n".join([str(counts), *wrong])
    assert counts["refused"] > 2000 and counts["answered"] > 100
