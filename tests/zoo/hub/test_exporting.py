"""What is exported runs without genzoo, says what the model says, and makes the model's samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from families import CODEBOOKS, CONDITIONAL, FIRST, OTHER_NETWORKS, Case, varied, with_few_layers
from torch import Tensor

import genzoo
from genzoo.cli import main
from genzoo.zoo import GAN, MADE, FlowMatching, LinearBetas, OptimalTransport, VariancePreserving
from genzoo.zoo.hub import exporting
from genzoo.zoo.hub.exporting import export
from genzoo.zoo.interface import HasParts


def by_onnx(path: Path, *inputs: Tensor) -> list[Tensor]:
    """What ONNX Runtime says."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]
    found = session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))
    return [torch.from_numpy(np.asarray(x)) for x in found]


@pytest.mark.parametrize("case", varied(FIRST + CONDITIONAL + CODEBOOKS + OTHER_NETWORKS), ids=str)
def test_every_family_can_leave(case: Case, tmp_path: Path) -> None:
    """By ONNX Runtime, of a batch size that was not seen, it is the model to 1e-4."""
    model = with_few_layers(case).build().eval()
    assert isinstance(model, HasParts)
    known = model.parts()
    written = export(model, tmp_path / "model.onnx")
    assert len(written) == len(known)
    assert [p.name for p in written] == ["model.onnx"] if len(known) == 1 else [f"model-{n}.onnx" for n in known]
    for path, part in zip(written, known.values(), strict=True):
        x = tuple(torch.cat([v.flip(0), v, v[:1]]) for v in part.example(3))
        with torch.no_grad():
            expected = part(*x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for name, ours, theirs in zip(part.outputs, expected, by_onnx(path, *x), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", varied(FIRST + CODEBOOKS + OTHER_NETWORKS), ids=str)
def test_every_family_is_a_program_of_pytorch_s(case: Case, tmp_path: Path) -> None:
    model = with_few_layers(case).build().eval()
    for path, part in zip(export(model, tmp_path / "model.pt2"), model.parts().values(), strict=True):
        extra = {"shape": ""}
        program = torch.export.load(path, extra_files=extra)
        assert json.loads(extra["shape"]) == list(part.model.shape)  # of a prior, that of codes
        with torch.no_grad():
            torch.testing.assert_close(program.module()(*part.example(4)), part(*part.example(4)))


def test_the_parts_are_the_model_s_own_answers() -> None:
    """Not functions that only agree with themselves: the public methods give the same."""
    x, z = torch.rand(3, 1, 8, 8), torch.randn(3, 8)
    with torch.no_grad():
        vae: Any = genzoo.load("digits/vae")
        mean, std = vae.parts()["encoder"](x)
        q = vae.encode(x)
        assert torch.equal(mean, q.mean) and torch.equal(std, q.stddev)
        z = mean[:, : vae.latent_dim]
        assert torch.equal(vae.parts()["decoder"](z), vae.decode(z).mean)
        pixelcnn: Any = genzoo.load("digits/pixelcnn")
        codes = (16 * x).round().long()
        logits = pixelcnn.parts()["logits"](codes)
        each = logits.log_softmax(1).gather(1, codes[:, None]).flatten(1).sum(1)
        torch.testing.assert_close(each, pixelcnn.log_prob(codes / 16))


def test_points_are_told_in_which_units_they_are() -> None:
    """Of a table: the density and the denoiser of standardised rows, and how to come back from there."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3e4, 0.1]) + 7
    for family in (MADE, FlowMatching):
        model: Any = family((2,), None, width=8).eval()
        model.standardise([7.0, 7.0], [3e4, 0.1])
        (part,) = model.parts().values()
        facts = {name: json.loads(value) for name, value in exporting.facts_of(part).items()}
        mean, std = (torch.tensor(facts[name]) for name in ("column_mean", "column_std"))
        torch.testing.assert_close((x - mean) / std, model.standardised(x))
        if family is MADE:
            y = (x - mean) / std
            weight, means, log_scale = part(y).detach().chunk(3, 1)
            normal = torch.distributions.Normal(means, log_scale.exp())
            log_prob = (weight.log_softmax(1) + normal.log_prob(y.unsqueeze(1))).logsumexp(1).sum(1) - std.log().sum()
            torch.testing.assert_close(log_prob, model.log_prob(x))


@pytest.mark.parametrize("schedule", [VariancePreserving(), LinearBetas(), OptimalTransport()], ids=repr)
def test_what_a_file_states_is_json_for_every_reader(schedule: Any) -> None:
    """Where there is no noise the derivative of σ may be infinite, for which JSON has no number."""
    model = FlowMatching((1, 8, 8), 17, schedule=schedule, prediction="velocity")
    for part in model.parts().values():
        stated = exporting.facts_of(part)
        for value in stated.values():
            json.loads(value, parse_constant=lambda name: pytest.fail(name))
        levels = [json.loads(stated[name]) for name in ("alpha", "sigma", "d_alpha", "d_sigma")]
        assert all(value is not None for level in levels for value in level[:-1]) and str(levels[1][-1]) == "0.0"


def test_ddim_by_onnx_draws_what_the_model_draws(tmp_path: Path) -> None:
    """The loop of the docs, from the same noise: the picture of `genzoo sample`."""
    model: Any = genzoo.load("digits/flow-matching")
    (path,) = export(model, tmp_path / "flow.onnx")
    session = onnxruntime.InferenceSession(str(path))
    facts = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    names = [argument.name for argument in session.get_inputs()][1:]
    noise = torch.randn(5, *model.shape, generator=torch.Generator().manual_seed(3))
    alpha, sigma = (np.array(facts[name], "float32") for name in ("alpha", "sigma"))
    x = sigma[0] * noise.numpy()
    for i in range(len(alpha) - 1):
        (x_0,) = session.run(None, {"x_t": x} | {n: np.full(5, facts[n][i], "float32") for n in names})
        x_0 = x_0.clip(-1, 1)
        x = alpha[i + 1] * x_0 + sigma[i + 1] * (x - alpha[i] * x_0) / sigma[i]
    drawn = model.sample(5, generator=torch.Generator().manual_seed(3), solver=genzoo.zoo.DDIM())
    off = np.abs(((x + 1) / 2).clip(0, 1) - drawn.numpy())
    assert off.max() <= 0.5 / 16 + 1e-3  # which is on the grid of levels


def test_a_file_that_says_something_else_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verification finds it out, and what was there before stays."""
    model: Any = genzoo.load("digits/gan")
    (path,) = export(model, tmp_path / "gan.onnx")
    before = path.read_bytes()
    run = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *a: [x + 2e-3 for x in run(*a)])
    with pytest.raises(ValueError, match=r"x of a batch of 1 is off by 0\.00\d+, more than 0\.0001"):
        export(model, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_bad_calls_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = GAN((2,), None, width=8)
    for to, part, says in [
        ("model.pt", None, r"must end in \.onnx or \.pt2"),
        ("model.onnx", "decoder", "a GAN has no 'decoder'; it has generator"),
    ]:
        with pytest.raises(ValueError, match=says):
            export(model, tmp_path / to, part)
    with pytest.raises(ValueError, match="of a Linear nothing can be exported"):
        export(torch.nn.Linear(1, 1), tmp_path / "model.onnx")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'genzoo\[onnx\]'"):
        export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_names_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", "digits/vae", "--to", str(tmp_path / "vae.onnx")])
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / f"vae-{part}.onnx") for part in ("encoder", "decoder")]
    main(["export", "digits/vae", "--to", str(tmp_path / "decoder.onnx"), "--part", "decoder"])
    assert capsys.readouterr().out.split() == [str(tmp_path / "decoder.onnx")]


def test_weights_that_lie_beside_a_large_network_are_put_in_their_place_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch writes them into a file of their own, which the network's names; nothing else is left there."""
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
    model = genzoo.load("digits/gan")
    written = export(model, tmp_path / "large.onnx")
    assert sorted(path.name for path in written) == ["large.onnx", "large.onnx.data"]
    assert sorted(written) == sorted(tmp_path.iterdir())
    (part,) = model.parts().values()
    x = part.example(3)
    (tmp_path / "large.onnx").rename(tmp_path / "moved.onnx")  # the other one stays
    with torch.no_grad():
        torch.testing.assert_close(by_onnx(tmp_path / "moved.onnx", *x)[0], part(*x), rtol=1e-4, atol=1e-4)
