from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

import genzoo
from genzoo.callbacks import EMA, StartFrom
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import DDPM, VAE, LinearBetas, ScoreModel


def tiny(width: int = 8, **options) -> VAE:
    return VAE((1, 8, 8), 17, network="mlp", width=width, depth=1, latent_dim=2, **options)


@pytest.fixture
def entry(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return str(genzoo.publish(tiny(), "digits/tiny", to=tmp_path / "entry"))


def test_training_begins_at_the_entrys_weights_and_so_does_their_average(
    entry: str, trainer: Callable[..., Trainer]
) -> None:
    """With no step made, what comes back is what the entry holds: for another objective of the same networks, too."""
    torch.manual_seed(1)
    model, data = tiny(num_particles=3), DigitsDataModule(limit=32, batch_size=16)
    published = genzoo.load(entry).state_dict()
    assert any(not torch.equal(value, published[name]) for name, value in model.state_dict().items())
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)  # type: ignore[method-assign]
    trainer(StartFrom(entry), EMA(), max_steps=1).fit(model, data)
    assert all(torch.equal(value, published[name]) for name, value in model.state_dict().items())


def test_a_resumed_run_keeps_its_own_weights(entry: str, tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    data = DigitsDataModule(limit=32, batch_size=16)
    torch.manual_seed(1)
    first = trainer(max_epochs=1)
    first.fit(tiny(), data)
    first.save_checkpoint(tmp_path / "first.ckpt")
    saved = torch.load(tmp_path / "first.ckpt", weights_only=True)["state_dict"]
    model = tiny()
    trainer(StartFrom(entry), max_epochs=1).fit(model, data, ckpt_path=tmp_path / "first.ckpt")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_a_resumed_run_does_without_the_entry(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    data = DigitsDataModule(limit=32, batch_size=16)
    first = trainer(max_epochs=1)
    first.fit(tiny(), data)
    first.save_checkpoint(tmp_path / "first.ckpt")
    gone = StartFrom(str(tmp_path / "gone"))
    trainer(gone, max_epochs=2).fit(tiny(), data, ckpt_path=tmp_path / "first.ckpt")
    with pytest.raises(FileNotFoundError):
        trainer(gone, max_epochs=2).fit(tiny(), data)
    model, again = tiny(), trainer(gone, max_epochs=2)
    again.fit(model, data, ckpt_path=tmp_path / "first.ckpt")
    again.fit_loop.max_epochs = 3
    again.fit(model, data)  # goes on with what it has, too
    assert again.current_epoch == 3


def test_a_trainer_that_has_validated_a_checkpoint_begins_at_the_entry(
    entry: str, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    data = DigitsDataModule(limit=32, batch_size=16)
    first = trainer(max_epochs=1)
    first.fit(tiny(), data)
    first.save_checkpoint(tmp_path / "first.ckpt")
    model = tiny()
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)  # type: ignore[method-assign]
    again = trainer(StartFrom(entry), max_epochs=1)
    again.validate(model, data, ckpt_path=tmp_path / "first.ckpt", verbose=False)
    again.fit(model, data)
    published = genzoo.load(entry).state_dict()
    assert all(torch.equal(value, published[name]) for name, value in model.state_dict().items())


def test_weights_that_do_not_fit_are_refused_before_training(entry: str, trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match=r"do not fit this VAE.*bias: \(16,\) there, \(32,\) here"):
        trainer(StartFrom(entry)).fit(tiny(16), DigitsDataModule(limit=32, batch_size=16))
    with pytest.raises(FileNotFoundError):
        trainer(StartFrom("no/such")).fit(tiny(), DigitsDataModule(limit=32, batch_size=16))


@pytest.mark.parametrize(
    "model",
    [
        ScoreModel((1, 8, 8), 17, width=8),  # has no chain
        DDPM((1, 8, 8), 17, width=8, schedule=LinearBetas(100)),  # has another one
    ],
)
def test_what_training_finds_out_anew_need_not_fit(
    model: ScoreModel | DDPM, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    published = DDPM((1, 8, 8), 17, width=8)
    published.log_errors.fill_(-1)
    entry = genzoo.publish(published, "digits/chain", to=tmp_path / "entry")
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)  # type: ignore[method-assign]
    trainer(StartFrom(str(entry)), max_steps=1).fit(model, DigitsDataModule(limit=32, batch_size=16))
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, published.network.state_dict()[name])


def test_a_trainer_that_goes_on_keeps_what_it_has_trained(entry: str, trainer: Callable[..., Trainer]) -> None:
    data, model = DigitsDataModule(limit=32, batch_size=16), tiny()
    run = trainer(StartFrom(entry), max_epochs=1)
    run.fit(model, data)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)  # type: ignore[method-assign]
    run.fit_loop.max_epochs = 2
    run.fit(model, data)
    assert run.global_step == 4
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
