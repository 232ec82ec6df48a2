"""To every place and back: the same bytes, the same densities. The services are real protocols on loopback."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import TOKEN, HubServer, hub_server

import genzoo
from genzoo.cli import main
from genzoo.zoo import GAN, VAE, hub
from genzoo.zoo.likelihoods import DiscretisedLogistic


def made() -> VAE:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"latent_dim": 2, "network": "mlp", "width": 8, "depth": 1}
    return VAE((1, 8, 8), 17, **sizes, likelihood=DiscretisedLogistic()).eval()


def densities(model: Any) -> list[float]:
    x = torch.arange(128).view(2, 1, 8, 8).remainder(17) / 16
    return model.log_prob(x, generator=torch.Generator().manual_seed(0)).tolist()


def sha256(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # where what cannot be sent is kept


# ---- Hugging Face's Hub


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        yield running


def on_the_hub(server: HubServer, tmp_path: Path, script: str, token: str | None = TOKEN) -> Any:
    """What a script printed as JSON, in a process whose Hub is the server."""
    ours = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    hidden = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env = hidden | ours | ({"HF_TOKEN": token} if token else {})
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    begin = "import json, genzoo\nfrom genzoo.zoo import VAE, GAN\nfrom test_round_trips import made, densities\n"
    run = [sys.executable, "-c", begin + script]
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), env["PYTHONPATH"]])
    done = subprocess.run(run, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_to_the_hub_and_back(server: HubServer, tmp_path: Path) -> None:
    found = on_the_hub(
        server,
        tmp_path,
        """
address = made().push_to_hub("me/digits-vae", private=True, commit_message="the first", card={"spdx": "mit"})
back = VAE.from_pretrained("me/digits-vae")
first = densities(back), densities(genzoo.load(address))
import huggingface_hub
sha = huggingface_hub.HfApi().model_info("me/digits-vae").sha
genzoo.publish(GAN((2,), None, latent_dim=2, width=4, depth=1), "points/gan", to=address)
old = VAE.from_pretrained("me/digits-vae", revision=sha)
try:
    VAE.from_pretrained("me/digits-vae")
except ValueError as error:
    refused = str(error)
from genzoo.datamodules import DigitsDataModule
named, folder = [], {"class_path": "ImageFolderDataModule", "init_args": {"root": "/somewhere/My photos"}}
for data in (None, DigitsDataModule(), folder):
    made().push_to_hub("me/named", data=data)
    named.append(genzoo.zoo.hub.find("hf://me/named").config["name"])
made().push_to_hub("me/named", name="cats/vae")
named.append(genzoo.zoo.hub.find("hf://me/named").config["name"])
found = {"address": address, "first": first, "old": densities(old), "refused": refused, "sha": sha, "named": named}
print(json.dumps(found))
""",
    )
    expected = densities(made())
    assert found["address"] == "hf://me/digits-vae" and server.messages[:2] == ["the first", "genzoo publish"]
    assert found["first"] == [expected, expected] and found["old"] == expected
    assert found["named"] == ["me/named", "digits/named", "My-photos/named", "cats/vae"]
    assert found["refused"] == "me/digits-vae is a GAN, no VAE: take GAN.from_pretrained, or genzoo.load"
    assert server.repositories["me/digits-vae"]["private"]
    _, files = server.files("me/digits-vae", found["sha"])
    folder = Path(genzoo.publish(made(), "me/digits-vae", to=tmp_path / "entry"))
    assert sha256(files["model.safetensors"]) == sha256((folder / "model.safetensors").read_bytes())
    assert "license: mit" in files["README.md"].decode() and b'load("hf://me/digits-vae")' in files["README.md"]
    assert any(asked.startswith("PUT /lfs/") for asked in server.asked)  # the weights, as large files go


def test_a_private_repository_and_one_that_is_not_there_are_one_line_each(server: HubServer, tmp_path: Path) -> None:
    server.repositories["me/secret"] = {"private": True, "commits": {"0" * 40: {}}}
    said = on_the_hub(
        server,
        tmp_path,
        """
said = []
for name in ("me/secret", "me/nothing"):
    for act in (VAE.from_pretrained, made().push_to_hub):
        try:
            act(name)
        except OSError as error:
            said.append(str(error))
print(json.dumps(said))
""",
        token=None,
    )
    assert len(said) == 4 and all("\n" not in line for line in said)
    assert all(line.startswith(("could not fetch hf://me/", "could not publish to hf://me/")) for line in said)


def test_a_repository_of_something_else_is_not_replaced(server: HubServer, tmp_path: Path) -> None:
    """Before anything is measured; one that was made by hand for this has a card, or nothing."""
    foreign = {".gitattributes": b"", "README.md": b"", "config.json": b"{}", "pytorch_model.bin": b"weights"}
    server.repositories["me/other"] = {"private": False, "commits": {"0" * 40: foreign}}
    fresh = {".gitattributes": b"", "README.md": b"# To be"}
    server.repositories["me/fresh"] = {"private": False, "commits": {"1" * 40: fresh}}
    said, address = on_the_hub(
        server,
        tmp_path,
        """
try:
    made().push_to_hub("me/other")
except ValueError as error:
    said = str(error)
print(json.dumps([said, made().push_to_hub("me/fresh")]))
""",
    )
    assert said.startswith("hf://me/other exists and is no entry of a zoo")
    assert said.endswith("(it has also: config.json, pytorch_model.bin)")
    assert address == "hf://me/fresh" and server.files("me/other")[1] == foreign


def test_what_is_here_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    genzoo.publish(made(), "my/own", to="my/own")
    assert densities(VAE.from_pretrained("my/own")) == densities(made())
    assert type(VAE.from_pretrained("digits/vae")) is VAE


def test_a_base_class_takes_every_model(tmp_path: Path) -> None:
    from genzoo.zoo.module import ZooModule

    genzoo.publish(made(), "x", to=tmp_path / "x")
    assert type(ZooModule.from_pretrained(tmp_path / "x")) is VAE
    with pytest.raises(ValueError, match=r"is a VAE, no GAN: take VAE\.from_pretrained"):
        GAN.from_pretrained(tmp_path / "x")


# ---- S3, and whatever else fsspec writes


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    own = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "ours",
        "AWS_SECRET_ACCESS_KEY": "ours",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in own.items():
            patch.setenv(key, value)
        boto3.client("s3").create_bucket(Bucket="zoo")
        yield "s3://zoo"
    server.stop()


@pytest.mark.parametrize("place", ["s3", "memory", "file", "folder"])
def test_to_any_place_and_back(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    places = {"memory": "memory://zoo", "file": f"file://{tmp_path}", "folder": str(tmp_path)}
    to = f"{request.getfixturevalue('bucket') if place == 's3' else places[place]}/digits/vae"
    figure = {"name": "nll", "value": 1.0, "unit": "nats"}
    address = genzoo.publish(made(), "digits/vae", to=to, metrics={"figures": [figure]})
    entry = hub.find(address)
    weights = (entry.path / "model.safetensors").read_bytes()
    assert entry.config["weights"]["sha256"] == sha256(weights) and entry.metrics["figures"] == [figure]
    assert densities(genzoo.load(address)) == densities(made())

    other = made()
    other.load_state_dict({key: value + 1 if value.dim() else value for key, value in other.state_dict().items()})
    genzoo.publish(other, "digits/vae", to=to)  # an entry is replaced, and a copy in the cache is not taken for it
    assert densities(genzoo.load(address)) == densities(other) != densities(made())


def test_what_is_no_entry_is_not_replaced_before_anything_is_sent(bucket: str) -> None:
    import fsspec

    for file in ("notes.txt", "deep/notes.txt"):
        fsspec.open(f"{bucket}/mine/{file}", "w").open().close()
    with pytest.raises(
        ValueError, match=r"s3://zoo/mine exists and is no entry .* \(it has also: deep, notes\.txt\)"
    ):
        hub.publishing.checked_target("x", f"{bucket}/mine")
    fsspec.open(f"{bucket}/half/config.yaml", "w").open().close()
    with pytest.raises(ValueError, match=r"it lacks: model\.safetensors"):
        genzoo.publish(made(), "x", to=f"{bucket}/half")
    with pytest.raises(OSError, match="could not publish to s3://no-such-bucket/x"):
        genzoo.publish(made(), "x", to="s3://no-such-bucket/x")


def test_what_could_not_be_sent_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: Any, **__: Any) -> None:
        raise OSError("could not publish to memory://kept/vae (ConnectionError: cut)")

    with monkeypatch.context() as patch:
        patch.setattr(hub.publishing, "upload", cut)
        with pytest.raises(OSError, match=r"Nothing is lost: `.*` sends the entry again") as raised:
            genzoo.publish(made(), "digits/vae", to="memory://kept/vae", metrics={"figures": []})
    (kept,) = Path().glob("digits-vae-unsent-*")
    assert densities(genzoo.load(kept)) == densities(made())
    command = re.findall("`genzoo (.*?)`", str(raised.value))[0]
    main(shlex.split(command))
    assert densities(genzoo.load("memory://kept/vae")) == densities(made())


def test_what_was_to_be_private_is_when_it_is_sent_again(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was not logged in logs in, and runs the command that is said."""
    monkeypatch.chdir(tmp_path)
    said = on_the_hub(
        server,
        tmp_path,
        """
try:
    made().push_to_hub("me/secret", private=True)
except OSError as error:
    print(json.dumps(str(error)))
""",
        token=None,
    )
    command = shlex.split(re.findall("`genzoo (.*?)`", said)[0])
    assert "--private" in command and not server.repositories
    on_the_hub(server, tmp_path, f"from genzoo.cli import main\nmain({command!r})\nprint(json.dumps(None))")
    assert server.repositories["me/secret"]["private"]
    with pytest.raises(SystemExit):
        main([*command[:-3], "--to", str(tmp_path / "folder"), "--private"])


def test_files_that_no_entry_has_are_not_fetched_from_the_hub(server: HubServer, tmp_path: Path) -> None:
    """Their sizes are asked for first; of the weights, against what the entry says of them."""
    folder = Path(genzoo.publish(made(), "me/big", to=tmp_path / "entry"))
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    changes = {"model.safetensors": 2**27, "metrics.json": 2**21, "config.yaml": 2**24}
    for number, (name, size) in enumerate(changes.items()):
        files = {**good, name: bytes(size)}
        server.repositories[f"me/big{number}"] = {"private": False, "commits": {f"{number}" * 40: files}}
    other = {"model.safetensors": bytes(2**20), "config.json": b"{}"}  # somebody else's model
    server.repositories["me/big3"] = {"private": False, "commits": {"3" * 40: other}}
    said = on_the_hub(
        server,
        tmp_path,
        """
said = []
for number in range(4):
    try:
        genzoo.load(f"hf://me/big{number}")
    except (ValueError, FileNotFoundError) as error:
        said.append(str(error))
print(json.dumps(said))
""",
    )
    assert "its weights are 134,217,728 bytes, too many for" in said[0]
    assert said[3].startswith("hf://me/big3 is no entry of a zoo")
    assert "its metrics.json is 2,097,152 bytes" in said[1] and "its config.yaml is 16,777,216 bytes" in said[2]
    fetched = [asked for asked in server.asked if "/resolve/" in asked]
    assert fetched and all(asked.endswith("/config.yaml") and "big0" in asked for asked in fetched)


def test_an_upload_that_breaks_off_is_never_taken_for_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml goes last: before, there is nothing to load, or the former configuration with another hash."""
    from fsspec.implementations.memory import MemoryFileSystem

    put = MemoryFileSystem.put_file

    def cut(self: Any, source: str, target: str, **options: Any) -> None:
        if target.endswith("config.yaml"):
            raise ConnectionError("cut")
        put(self, source, target, **options)

    for before in (False, True):
        to = f"memory://cut/{before}"
        if before:
            genzoo.publish(made(), "x", to=to)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="could not publish"):
            patch.setattr(MemoryFileSystem, "put_file", cut)
            other = made()
            other.load_state_dict({key: value + 1 for key, value in other.state_dict().items()})
            genzoo.publish(other, "x", to=to)
        with pytest.raises((OSError, ValueError), match=r"config\.yaml|SHA-256"):
            genzoo.load(to)
        genzoo.publish(other, "x", to=to)  # as the message says: what has arrived is no reason to refuse it
        assert densities(genzoo.load(to)) == densities(other)


@pytest.mark.parametrize(
    "files", [["model.safetensors"], ["README.md", "model.safetensors", "metrics.json"]], ids=str
)
def test_somebody_s_own_weights_are_no_half_of_an_entry(files: list[str]) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    system, to = MemoryFileSystem(), f"memory://own{len(files)}/weights"
    for file in files:
        system.pipe(f"/own{len(files)}/weights/{file}", b"# Mine")
    with pytest.raises(ValueError, match=r"is no entry of a zoo, so it is not replaced.*it lacks: config\.yaml"):
        genzoo.publish(made(), "x", to=to)
    assert system.cat(f"/own{len(files)}/weights/model.safetensors") == b"# Mine"
