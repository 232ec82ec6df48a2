"""Where models come from and go to: the zoo itself, a folder, Hugging Face, Weights & Biases, any URL of fsspec's.

Whoever asks for a model names it in one of these ways, which `find` tells apart: the name of an embedded entry; the
folder of an entry; `hf://owner/name[@revision]`, `wandb://entity/project/artifact:alias`, or any URL that fsspec
opens; the file of a checkpoint; the folder of a run.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from genzoo.zoo.files import cached, staged
from genzoo.zoo.hub import entries
from genzoo.zoo.hub.checkpoints import FOLDER, Checkpoint, checkpoint_of
from genzoo.zoo.hub.entries import CONFIG, FILES, NAME, WEIGHTS, Entry, file_of, list_models, read_config
from genzoo.zoo.hub.schema import CONFIG_BYTES
from genzoo.zoo.hub.weights import largest
from genzoo.zoo.hub.wording import masked, one_line


def find(source: str | Path, *, revision: str | None = None) -> Entry:
    """The entry that `source` names, which is fetched first where it is remote; or the checkpoint.

    Args:
        source: A name, a folder or an address; the file of a checkpoint; the folder of a run, which stands for its
            best checkpoint, or its last where no figure was monitored.
        revision: The branch, tag or commit of a Hugging Face repository.

    Raises:
        FileNotFoundError: there is nothing of the kind.
        OSError: the address could not be reached.
        ValueError: the address is malformed, or a revision was given for what has none; or a run's last
            checkpoint is damaged.
    """
    path = Path(source).expanduser()
    if revision is None and "://" not in str(source) and _embedded(source) is None:
        if path.is_file():
            return Checkpoint(str(source), path)
        if path.is_dir() and not (path / WEIGHTS).exists() and (found := checkpoint_of(path)):
            return Checkpoint(str(source), found)
    return Entry(str(source), resolve(source, revision=revision))


def resolve(source: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of an entry, which is fetched first where `source` is remote.

    Args:
        source: A name, a folder or an address.
        revision: The branch, tag or commit of a Hugging Face repository.

    Raises:
        FileNotFoundError: no entry has that name, or the folder holds none.
        OSError: the address could not be reached.
        ValueError: the address is malformed, or a revision was given for what has none.
    """
    address = str(source)
    scheme, separator, _ = address.partition("://")
    if revision is not None and scheme != "hf":
        raise ValueError(f"revision={revision!r} goes with hf:// addresses only, not with {masked(address)}")
    if separator:
        folder = fetch(address, revision)
    elif (embedded := _embedded(source)) is not None:
        folder = embedded
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
    else:
        close = get_close_matches(address, [entry.name for entry in list_models()], n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ": `genzoo list` shows the entries."
        raise FileNotFoundError(
            f"{masked(address)!r} is neither an entry of the zoo nor a folder (of an entry, or of a run), nor a"
            f" checkpoint's file, nor an address (hf://owner/name, wandb://…, https://…){hint}"
        )
    if file_of(folder, CONFIG) is None or file_of(folder, WEIGHTS) is None:
        raise FileNotFoundError(
            f"{masked(address)} is no entry of a zoo, which must hold {CONFIG} and {WEIGHTS}"
            + ("" if separator else f", and no run's folder, which has checkpoints in {FOLDER}/")
        )
    return folder


def _embedded(source: str | Path) -> Path | None:
    """The folder of the embedded entry of that name; None where there is none."""
    if not isinstance(source, str) or not NAME.fullmatch(source):
        return None
    folder = entries.EMBEDDED / source
    return folder if (folder / CONFIG).is_file() else None


def check_address(address: str, *, publishing: bool = False) -> None:
    """Raises ValueError for an address that no entry can have, or to which none can be published."""
    scheme, _, rest = address.partition("://")
    forms = {"hf": (1, "hf://owner/name"), "wandb": (2, "wandb://entity/project/artifact")}
    if scheme not in forms and publishing:
        raise ValueError(f"{masked(address)}: publish to a folder, {forms['hf'][1]} or {forms['wandb'][1]}")
    if scheme in forms and (rest.count("/") != forms[scheme][0] or not all(rest.split("/"))):
        raise ValueError(f"{masked(address)}: such an address has the form {forms[scheme][1]}")


def fetch(address: str, revision: str | None = None) -> Path:
    """The local folder of the entry at `address`, downloaded unless a complete copy is in the cache.

    Raises:
        ValueError: the address is malformed.
        OSError: it could not be reached, or refers to files that lie elsewhere.
    """
    check_address(address)
    scheme, _, rest = address.partition("://")
    if scheme == "hf":
        return _fetch_hugging_face(rest, revision)
    return _fetch_wandb(rest) if scheme == "wandb" else _fetch_url(address)


def upload(folder: Path, address: str) -> str:
    """Sends an entry to `hf://owner/name` or `wandb://entity/project/artifact`; returns the address to load.

    Raises:
        OSError: the service could not be reached, or refused.
    """
    scheme, _, rest = address.partition("://")
    with _boundary(f"publish to {address}"):
        return _upload_hugging_face(folder, rest) if scheme == "hf" else _upload_wandb(folder, rest)


@contextmanager
def _boundary(action: str) -> Iterator[None]:
    """One sentence for whatever goes wrong at a service; these libraries raise a dozen kinds of error."""
    try:
        yield
    except Exception as error:
        reason = one_line(next(iter(masked(str(error), action).strip().splitlines()), ""))
        said = f"could not {masked(action)} ({type(error).__name__}: {reason}); check the address and the network"
        raise OSError(said) from (error if masked(action) == action else None)


def _fetch_hugging_face(rest: str, revision: str | None) -> Path:
    repository, _, at = rest.partition("@")
    if at and revision:
        raise ValueError(f"hf://{rest} states a revision, and revision={revision!r} was given as well")
    from huggingface_hub import snapshot_download

    with _boundary(f"fetch hf://{rest}"):
        return Path(snapshot_download(repository, revision=revision or at or None, allow_patterns=list(FILES)))


def _fetch_wandb(rest: str) -> Path:
    import wandb

    with _boundary(f"fetch wandb://{rest}"):
        artifact = wandb.Api().artifact(rest if ":" in rest else f"{rest}:latest")
        # an alias moves, a digest does not: what was fetched once is complete and stays right
        folder = _cached(f"wandb://{artifact.qualified_name}#{artifact.digest}")
        if not folder.is_dir():
            for path, file in artifact.manifest.entries.items():
                if file.ref is not None or path not in FILES:  # it may only refer to a file, wherever that is
                    raise ValueError(f"{path} in it is no file of an entry's own")
            with staged(folder) as staging:
                artifact.download(root=str(staging))
        return folder


def _fetch_url(address: str) -> Path:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    with _boundary(f"fetch {address}"):
        system, root = url_to_fs(address.rstrip("/"))
        if isinstance(system, LocalFileSystem):
            return Path(root)
        with system.open(f"{root}/{CONFIG}", "rb") as file:
            config = file.read(CONFIG_BYTES + 1)  # one too many is refused when it is read
        folder = _cached(address.rstrip("/"))
        # config.yaml states the hash of the weights, so the cached copy is good while that file is the same
        if not (folder / CONFIG).is_file() or (folder / CONFIG).read_bytes() != config:
            with staged(folder) as staging:
                (staging / CONFIG).write_bytes(config)
                stated, size = read_config(staging)["weights"]["parameters"], system.size(f"{root}/{WEIGHTS}")
                if size is not None and size > largest(stated):
                    raise ValueError(f"its weights are {size:,} bytes, too many for {stated:,} parameters")
                system.get_file(f"{root}/{WEIGHTS}", str(staging / WEIGHTS))
                for optional in set(FILES) - {CONFIG, WEIGHTS}:
                    if system.exists(f"{root}/{optional}"):
                        system.get_file(f"{root}/{optional}", str(staging / optional))
        return folder


def _cached(address: str) -> Path:
    # keyed by the whole address: every entry has a file called model.safetensors
    return cached(f"entries/{hashlib.sha256(address.encode()).hexdigest()[:32]}")


def _upload_hugging_face(folder: Path, repository: str) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="genzoo publish")
    return f"hf://{repository}"


def _upload_wandb(folder: Path, rest: str) -> str:
    import wandb

    entity, project, name = rest.split("/")
    name, _, alias = name.partition(":")
    # a run of its own: the training run that may be open belongs to its logger
    with wandb.init(entity=entity, project=project, job_type="publish", reinit="create_new") as run:
        artifact = wandb.Artifact(name, type="model")
        artifact.add_dir(str(folder))
        logged = run.log_artifact(artifact, aliases=[alias] if alias else None)
        if not run.offline:
            logged.wait()
    return f"wandb://{entity}/{project}/{name}:{alias or 'latest'}"
