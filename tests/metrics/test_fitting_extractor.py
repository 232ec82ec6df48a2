"""Which extractor fits which data, and that it is found before anything is trained or measured."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from genzoo.callbacks import FrechetDistance, Publish
from genzoo.datamodules import DigitsDataModule, EmojiDataModule, PointsDataModule
from genzoo.metrics import extractors
from genzoo.metrics.evaluation import protocol_for
from genzoo.metrics.extractors import FeatureExtractor, fitting
from genzoo.zoo import DDPM, VAE, Classifier

COLOUR = (3, 16, 16)


@pytest.mark.parametrize(
    ("protocol", "shape", "found"),
    [
        ({"extractor": "mnist/classifier"}, (1, 28, 28), "mnist/classifier"),
        ({}, (1, 28, 28), extractors.ANY_IMAGE),
        ({"num_odd": 3}, (3, 64, 48), extractors.ANY_IMAGE),
        ({}, (4, 32, 32), None),
        ({}, (1, 4096), None),
        ({}, (2,), None),
    ],
)
def test_what_fits(protocol: dict[str, object], shape: tuple[int, ...], found: str | None) -> None:
    assert fitting(protocol, shape) == found


def test_the_extractor_for_any_image_is_in_the_zoo_and_takes_any() -> None:
    extractor = FeatureExtractor(extractors.ANY_IMAGE)
    for shape in ((3, 32, 32), (3, 9, 70), (1, 28, 28), (3, 64, 64)):
        assert extractor(torch.rand(2, *shape)).shape == (2, extractor.module.feature_dim)
    with pytest.raises(ValueError, match=r"\(2, 8, 8\), but images are \(1 or 3, H, W\)"):
        extractor(torch.rand(2, 2, 8, 8))


def test_every_protocol_names_an_entry_of_the_zoo_that_takes_its_data() -> None:
    from genzoo import datamodules

    found = 0
    for name in datamodules.__all__:
        extractor = getattr(getattr(datamodules, name), "protocol", {}).get("extractor")
        if extractor is not None:
            shape = getattr(datamodules, name).shape
            assert len(FeatureExtractor(extractor)(torch.rand(2, *shape))) == 2
            found += 1
    assert found >= 3


def test_an_image_of_another_size_is_interpolated_with_antialiasing() -> None:
    torch.manual_seed(0)
    model = Classifier((3, 8, 8), 256, 10, width=4, any_image=True).eval()
    x = torch.rand(5, 3, 16, 16)
    smaller = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    assert torch.equal(model.features(x), model.features(smaller))
    grey = torch.rand(5, 1, 8, 8)
    assert torch.equal(model.features(grey), model.features(grey.repeat(1, 3, 1, 1)))
    constant = torch.full((1, 3, 40, 24), 0.25)  # keeps its value in any size
    torch.testing.assert_close(model.features(constant), model.features(constant[..., :8, :8]))


def test_the_protocol_of_an_evaluation_states_what_was_found() -> None:
    assert protocol_for(DigitsDataModule(), {})["extractor"] == "digits/classifier"
    assert protocol_for(PointsDataModule("ring"), {})["extractor"] is None
    assert protocol_for(EmojiDataModule(16), {})["extractor"] == extractors.ANY_IMAGE
    assert protocol_for(DigitsDataModule(), {"extractor": "inception"})["extractor"] == "inception"


def test_a_run_finds_it_and_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int]] = []
    for module in ("frechet", "publish"):
        monkeypatch.setattr(
            f"genzoo.callbacks.{module}.rank_zero_info", lambda line: said.append((line, run.global_step))
        )
    data = EmojiDataModule(16, limit=128)
    model = VAE(COLOUR, 256, latent_dim=2, network="mlp", width=8, depth=1)
    run = Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            FrechetDistance(num_samples=50, reference="val", cache_dir=str(tmp_path)),
            Publish("emoji/vae", str(tmp_path / "entry"), {"num_samples": 50, "only": ["closeness"]}),
        ],
    )
    run.fit(model, data)
    assert run.callback_metrics["val/frechet"] > 0
    assert [line for line, step in said if step == 0] == [
        "FrechetDistance: in the features of cifar10/classifier, which are for such data",
        "to be measured at the end, in the features of cifar10/classifier",
    ]


def test_data_that_none_fits_are_refused_before_training() -> None:
    class Rows(LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(torch.randn(8, 3), batch_size=4)

        val_dataloader = test_dataloader = train_dataloader

    run = Trainer(max_steps=1, accelerator="cpu", logger=False, callbacks=[FrechetDistance(num_samples=5)])
    said = re.escape("FrechetDistance: no extractor of the zoo is for data of shape (3,): give one of your own")
    with pytest.raises(ValueError, match=said):
        run.fit(DDPM((3,), None, width=8), Rows())
    assert run.global_step == 0


def test_inception_s_weights_are_not_passed_over_where_another_extractor_fits(tmp_path: Path) -> None:
    callback = FrechetDistance(num_samples=5, reference="val", weights_path=str(tmp_path / "inception.pth"))
    run = Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[callback])
    with pytest.raises(
        ValueError, match=f"weights_path goes with .* 'inception' alone, not with '{extractors.ANY_IMAGE}'"
    ):
        run.fit(VAE(COLOUR, 256, latent_dim=2, network="mlp", width=8, depth=1), EmojiDataModule(16, limit=128))
    assert run.global_step == 0


def test_data_go_where_the_extractor_is() -> None:
    """After a first use it is on the GPU of that, and a second begins with a look at data on the CPU."""
    extractor = FeatureExtractor(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))).to(torch.device("meta"))
    features = extractor.differentiable(torch.rand(3, 1, 2, 2))
    assert features.device.type == "meta" and features.shape == (3, 2)
