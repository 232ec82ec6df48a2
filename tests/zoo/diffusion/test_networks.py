"""Which network a diffusion model has: by name, in what size, for what data; through the command line, too."""

import pytest
import torch
from running import QUIET, last_run
from torch import nn

from genzoo.cli import main
from genzoo.zoo import DDPM, FlowMatching, ScoreModel
from genzoo.zoo.diffusion import networks
from genzoo.zoo.modality import modality
from genzoo.zoo.networks import DiT, TimedMLP, UNet

FAMILIES = [DDPM, ScoreModel, FlowMatching]
TRANSFORMER = {"network": "dit", "patch": 2, "width": 32, "depth": 2, "heads": 4}


@pytest.mark.parametrize(
    ("shape", "levels", "network", "built"),
    [
        ((1, 8, 8), 17, None, UNet),
        ((1, 8, 8), 17, "unet", UNet),
        ((1, 8, 8), 17, "dit", DiT),
        ((4, 8, 8), None, "dit", DiT),
        ((2,), None, None, TimedMLP),
        ((2,), None, "mlp", TimedMLP),
        ((3, 12), None, None, DiT),
        ((1, 12), None, "dit", DiT),
    ],
)
def test_each_kind_of_data_has_its_networks(shape, levels, network, built):
    for family in FAMILIES:
        assert type(family(shape, levels, network=network, width=16).network) is built


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_has_the_sizes_that_are_stated(family):
    model = family((1, 28, 28), 256, checkpointing=True, dropout=0.25, num_classes=3, conditional=True, **TRANSFORMER)
    net = model.network
    assert (net.patch, net.inlet.out_features, len(net.blocks), net.blocks[0].heads) == (2, 32, 2, 4)
    assert (net.checkpointing, net.blocks[0].dropout, net.conditioning.num_classes) == (True, 0.25, 3)
    assert model.unstated == [] and {k: model.hparams[k] for k in TRANSFORMER} == TRANSFORMER


def test_a_u_net_folds_the_patch_that_is_stated():
    assert DDPM((1, 28, 28), 256, patch=4).network.patch == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"network": "dit", "multipliers": [1, 2]}, r"multipliers=\[1, 2\]: network='dit' has no such size.*'depth'"),
        ({"network": "dit", "blocks": 2, "attention": False}, "attention=False, blocks=2: network='dit'"),
        ({"depth": 2}, "depth=2: network='unet' has no such size"),
        ({"network": "unet", "heads": 2}, "heads=2: network='unet'"),
        ({"checkpointing": True}, "checkpointing=True: network='unet'"),
        ({"network": nn.Linear(2, 2), "depth": 3}, "depth=3: a network of your own has no such size; leave it out"),
        ({"network": "mlp"}, "network='mlp': for image data choose 'unet' or 'dit'"),
        ({"network": "DiT"}, "network='DiT': for image data choose"),
        ({"shape": (2,), "levels": None, "network": "dit"}, "network='dit': for points data choose 'mlp'"),
        ({"shape": (2,), "levels": None, "patch": 2}, "patch=2: network='mlp' has no such size"),
        ({"shape": (2,), "levels": None, "network": "mlp", "dropout": 0.1}, "dropout=0.1: network='mlp'"),
        ({"shape": (1, 40), "levels": 256}, r"series \(C, T\) of levels=None, but the data are waveform"),
        ({"shape": (12,), "levels": 9}, "but the data are tokens"),
    ],
)
def test_what_is_no_network_for_the_data_or_has_no_such_size_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        DDPM(**{"shape": (1, 8, 8), "levels": 17} | arguments)


def test_a_network_too_large_for_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr("genzoo.zoo.memory.memory_at_hand", lambda needed: 2**20)
    with pytest.raises(ValueError, match="choose a smaller width or depth"):
        DDPM((1, 8, 8), 17, network="dit")


def test_what_earlier_versions_ignored_loads_as_it_did():
    model = FlowMatching((2,), None, width=16, multipliers=[1], attention=True, dropout=0.1)
    assert type(model.network) is TimedMLP and model.network.inlet.out_features == 16
    own = TimedMLP(2)
    assert DDPM((2,), None, network=own, width=16).network is own


def test_series_are_continuous_data_of_a_time():
    assert modality((3, 12), None) == "series"
    with pytest.raises(ValueError, match="series"):
        modality((3, 12), 256)


def test_every_size_is_an_argument_of_its_network():
    for name, build in (("unet", UNet), ("mlp", TimedMLP), ("dit", DiT)):
        own = {k for k, v in build.__init__.__annotations__.items()} - {"return", "shape", "num_dims", "num_classes"}
        assert networks.SIZES[name] == own


def test_a_transformer_forecasts_the_series_whose_beginning_it_knows():
    """Of constant series ±1 with some noise the beginning tells the end."""
    torch.manual_seed(0)
    model = FlowMatching((1, 8), None, patch=1, width=32, depth=2, heads=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)

    def draw(n):
        return torch.randn(n, 1, 1).sign() + 0.1 * torch.randn(n, 1, 8)

    for _ in range(120):
        loss = model.objective(draw(64), None)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, known = draw(16), torch.arange(8) < 4
    out = model.eval().complete(x, known.expand(1, 8), num_samples=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out[..., :4], x[..., :4].expand(4, -1, -1, -1))
    assert float((out[..., 4:].mean(-1).sign() == x[..., :4].mean(-1).sign()).double().mean()) > 0.9


def test_a_recipe_trains_one_by_its_name(tmp_path, monkeypatch):
    """The other families' transformers are trained by the contract."""
    monkeypatch.chdir(tmp_path)
    sizes = "".join(f"    {key}: {value}\n" for key, value in TRANSFORMER.items())
    (tmp_path / "mine.yaml").write_text(
        f"# A transformer.\nmodel:\n  class_path: ScoreModel\n  init_args:\n{sizes}"
        "    conditional: true\n    checkpointing: true\n"
        "    optimizer: {class_path: genzoo.zoo.Muon}\n"
        "data: {class_path: DigitsDataModule, init_args: {limit: 64, batch_size: 16}}\n"
        "trainer: {max_steps: 2, accelerator: cpu}\n"
    )
    main(["fit", "--config", "mine.yaml", *QUIET])
    run = last_run(tmp_path)
    model = ScoreModel.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert type(model.network) is DiT and model.network.patch == 2 and model.network.checkpointing
    assert model.sample(2, steps=2).shape == (2, 1, 8, 8)
    fresh = DiT((1, 8, 8), num_classes=10, **{k: v for k, v in TRANSFORMER.items() if k != "network"})
    assert model.network.state_dict().keys() == fresh.state_dict().keys()
