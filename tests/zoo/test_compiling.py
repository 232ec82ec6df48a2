"""Compiled networks say what they said, under the names that they had."""

from pathlib import Path

import pytest
import torch
from families import FIRST, Case, varied, with_few_layers
from running import VAE_OF_DIGITS, genzoo, last_run, refused
from torch import nn

from genzoo.zoo import GAN, VAE, FlowMatching, Packing, PixelCNN, ScoreModel
from genzoo.zoo.compiling import compile_networks, networks
from genzoo.zoo.hub import load_checkpoint
from genzoo.zoo.interface import Samples

#: what each family calls as a whole; a PixelCNN goes through its layers by rows and by pixels
NETWORKS = {
    "MADE": ["network"],
    "PixelCNN": [],
    "GPT": ["transformer"],
    "VAE": ["encoder", "decoder"],
    "Autoencoder": ["encoder", "decoder"],
    "DenoisingAutoencoder": ["encoder", "decoder"],
    "QuantisedAutoencoder": ["encoder", "decoder"],
    "GAN": ["generator"],  # the default penalty is on the discriminator's gradient
    "DDPM": ["network"],
    "ScoreModel": ["network"],
    "FlowMatching": ["network"],
    "MaskedDiffusion": ["network"],
    "LatentModel": ["autoencoder.encoder", "autoencoder.decoder", "prior.transformer"],
}


@pytest.fixture(autouse=True)
def _forget():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_what_is_compiled(case: Case) -> None:
    model = case.build()
    found = list(networks(model))
    expected = NETWORKS.get(case.family.__name__)
    if expected is None:  # WaveNet: each of its layers, and what follows them
        expected = [f"layers.{i}" for i in range(len(model.layers))] + ["outlet"]
    assert sorted(found) == sorted(expected)


def test_a_discriminator_without_a_penalty_on_its_gradient_is_compiled() -> None:
    model = GAN((1, 8, 8), 17, regularisers=[Packing(2)])
    assert list(networks(model)) == ["generator", "discriminator"]


@pytest.mark.parametrize("case", varied(case for case in FIRST if NETWORKS.get(case.family.__name__) != []), ids=str)
def test_every_family_is_what_it_was(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as by inductor, whose kernels would take minutes for all of them."""
    in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network: in_place(network, backend="aot_eager"))
    case = with_few_layers(case)
    ours, theirs, x = case.build(), case.build(), case.data(4)
    compile_networks(ours)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    gradients = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        model.objective(x, None)["loss"].mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    if Samples in case.claimed:
        drawn = [model.eval().sample(2, generator=torch.Generator().manual_seed(0)) for model in (ours, theirs)]
        torch.testing.assert_close(*drawn, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [FlowMatching, ScoreModel])
def test_a_likelihood_by_derivatives_is_what_it_was(family: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exact divergence takes the gradient of one pass in each dimension."""
    in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network: in_place(network, backend="aot_eager"))
    torch.manual_seed(0)
    ours, theirs = (family((2,), None, width=8).eval() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    compile_networks(ours)
    x = torch.randn(4, 2)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-4, atol=1e-4)


def test_compiled_kernels_say_what_the_network_says() -> None:
    ours, theirs = (VAE((2,), None, latent_dim=2, width=8, depth=1) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    assert compile_networks(ours) == ["encoder", "decoder"]
    x = torch.randn(16, 2)
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        losses.append(model.objective(x, None)["loss"])
        losses[-1].mean().backward()
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_a_compiled_run_leaves_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(VAE_OF_DIGITS)
    found = []
    for options in ([], ["--compile"]):
        genzoo("fit", "--config", "small.yaml", "--trainer.max_steps", "4", *options, cwd=tmp_path)
        found.append(load_checkpoint(last_run(tmp_path) / "checkpoints" / "last.ckpt").state_dict())
    plain, compiled = found
    assert list(plain) == list(compiled)
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, rtol=1e-4, atol=1e-4)


# ---- what cannot be


def test_a_model_without_such_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^compile: .*PixelCNN has no network that can be"):
        compile_networks(PixelCNN((1, 8, 8), 2))


def test_where_nothing_can_be_compiled_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def no_compiler(function):
        def run(x):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    for command in ("sample", "evaluate"):
        out = [] if command == "evaluate" else ["--out", str(tmp_path / "x.png")]
        error = refused([command, "digits/vae", "--compile", *out], capsys)
        assert error.endswith("torch.compile does not work here: InvalidCxxCompiler: No working C++ compiler found")
