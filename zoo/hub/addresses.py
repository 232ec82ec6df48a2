"""Where models come from and go to: the zoo itself, a folder, Hugging Face, Weights & Biases, any URL of fsspec's.

Whoever asks for a model names it in one of these ways, which `find` tells apart: the name of an embedded entry; the
folder of an entry; `hf://owner/name[@revision]`, `wandb://entity/project/artifact:alias`, or any URL that fsspec
opens; the file of a checkpoint; the folder of a run.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from genzoo.zoo.files import at_home, cached, staged
from genzoo.zoo.hub import entries
from genzoo.zoo.hub.checkpoints import FOLDER, Checkpoint, checkpoint_of, is_distributed, newest_run
from genzoo.zoo.hub.entries import (
    CARD,
    CONFIG,
    FILES,
    METRICS,
    NAME,
    WEIGHTS,
    Entry,
    file_of,
    list_models,
    read_config,
)
from genzoo.zoo.hub.schema import CONFIG_BYTES, METRICS_BYTES
from genzoo.zoo.hub.weights import largest
from genzoo.zoo.hub.wording import masked, one_line

OTHER_BYTES = 2**28  # of a card, or of samples: the largest of ours is a thousandth of it
#: schemes of URLs that are there to be read
READ_ONLY = ("http", "https", "data", "github", "zip", "tar", "libarchive")


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
    path = at_home(source)
    if revision is None and "://" not in str(source) and _embedded(source) is None:
        if path.is_file() or is_distributed(path):
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
    elif (here := at_home(source)).is_dir():
        folder = here
    else:
        close = get_close_matches(address, [entry.name for entry in list_models()], n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ": `genzoo list` shows the entries."
        raise FileNotFoundError(
            f"{masked(address)!r} is neither an entry of the zoo nor a folder (of an entry, or of a run), nor a"
            f" checkpoint's file, nor an address (hf://owner/name, wandb://…, https://…){hint}"
        )
    if file_of(folder, CONFIG) is None or file_of(folder, WEIGHTS) is None:
        run = None if separator else newest_run(folder)
        raise FileNotFoundError(
            _no_entry(address)
            + ("" if separator else f", and no run's folder, which has checkpoints in {FOLDER}/")
            + ("" if run is None else f"; the newest run in it is {run}")
        )
    return folder


def _no_entry(address: str) -> str:
    return f"{masked(address)} is no entry of a zoo, which must hold {CONFIG} and {WEIGHTS}"


def _embedded(source: str | Path) -> Path | None:
    """The folder of the embedded entry of that name; None where there is none."""
    if not isinstance(source, str) or not NAME.fullmatch(source):
        return None
    folder = entries.EMBEDDED / source
    return folder if (folder / CONFIG).is_file() else None


def check_address(address: str, *, publishing: bool = False) -> None:
    """Looks at an address before anything is fetched from it, or measured to be sent there.

    Raises:
        ValueError: it is none that an entry can have; or, if `publishing`, none that can be written to, or one where
            there is anything but an entry.
        OSError: it is to be published to, and could not be reached.
    """
    scheme, _, rest = address.partition("://")
    forms = {"hf": (1, "hf://owner/name"), "wandb": (2, "wandb://entity/project/artifact")}
    if scheme in forms:
        place = rest.partition("@")[0] if scheme == "hf" else rest  # a revision may be called refs/pr/1
        if place.count("/") != forms[scheme][0] or not all(place.split("/")):
            raise ValueError(f"{masked(address)}: such an address has the form {forms[scheme][1]}")
        if publishing and scheme == "hf" and "@" in rest:
            raise ValueError(f"{masked(address)}: a revision cannot be written; name the repository alone")
        if publishing and scheme == "hf":
            _check_repository(rest)
    elif publishing:
        _check_writable(address, scheme)


def _check_repository(repository: str) -> None:
    """`check_address` of a repository of Hugging Face's that is to be published to, which takes an account."""
    from huggingface_hub import HfApi, get_token

    with _boundary(f"publish to hf://{repository}"):
        if get_token() is None:
            raise OSError("it takes an account: log in by `hf auth login`, or set HF_TOKEN")
        api = HfApi()
        inside = set(api.list_repo_files(repository)) if api.repo_exists(repository) else set()
    inside.discard(".gitattributes")  # which the service writes into each
    _check_entry(f"hf://{repository}", inside - {CARD} and inside)  # with a card alone it was made by hand, for this


def _check_writable(address: str, scheme: str) -> None:
    """`check_address` of a URL that is to be published to."""
    from fsspec import get_filesystem_class
    from fsspec.core import url_to_fs

    try:
        get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:  # there is none of that name, or what it needs is not installed
        raise ValueError(f"{masked(address)}: nothing is known that writes there ({one_line(str(error))})") from None
    if scheme in READ_ONLY:
        raise ValueError(
            f"{masked(address)} can only be read: publish to a folder, hf://owner/name,"
            " wandb://entity/project/artifact, or a URL that fsspec writes, like s3://bucket/name"
        )
    with _boundary(f"publish to {address}"):
        system, root = url_to_fs(address.rstrip("/"))
        inside = {path.rpartition("/")[2] for path in system.ls(root, detail=False)} if system.isdir(root) else set()
        half = CARD in inside and b"genzoo.load(" in _head(system, f"{root}/{CARD}", METRICS_BYTES)
    _check_entry(address, inside, needs=() if half else (CONFIG, WEIGHTS))


def _check_entry(address: str, inside: set[str], needs: Collection[str] = (CONFIG, WEIGHTS)) -> None:
    """Raises ValueError if files at an address are there, and are not those of an entry, or what it needs is not."""
    if inside and (foreign := sorted(inside - set(FILES)) or sorted(set(needs) - inside)):
        lacks = "it has also" if foreign[0] in inside else "it lacks"
        raise ValueError(
            f"{masked(address)} exists and is no entry of a zoo, so it is not replaced; choose another"
            f" ({lacks}: {', '.join(foreign[:3])})"
        )


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


def upload(folder: Path, address: str, **sending: Any) -> str:
    """Sends an entry to an address; returns the one to load it from.

    Args:
        folder: of the entry.
        address: `hf://owner/name`, `wandb://entity/project/artifact`, or any URL that fsspec writes.
        sending: `private` and `commit_message` of Hugging Face's alone.

    Raises:
        OSError: the service could not be reached, or refused.
    """
    scheme, _, rest = address.partition("://")
    with _boundary(f"publish to {address}"):
        if scheme == "hf":
            return _upload_hugging_face(folder, rest, **sending)
        return _upload_wandb(folder, rest) if scheme == "wandb" else _upload_url(folder, address)


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
    from huggingface_hub import HfApi, snapshot_download

    address = f"hf://{rest}"
    which: dict[str, Any] = {"repo_id": repository, "revision": revision or at or None}
    everything = {**which, "allow_patterns": list(FILES)}
    with _boundary(f"fetch {address}"):
        try:
            files = HfApi().model_info(**which, files_metadata=True).siblings or []
        except Exception as error:  # of what cannot be reached there may be a copy
            try:
                return Path(snapshot_download(**everything, local_files_only=True))
            except Exception:
                raise error from None
    sizes = {file.rfilename: file.size for file in files}
    _check_sizes(address, sizes)
    with _boundary(f"fetch {address}"):
        folder = Path(snapshot_download(**which, allow_patterns=[CONFIG]))
    _check_sizes(address, sizes, folder)
    with _boundary(f"fetch {address}"):
        return Path(snapshot_download(**everything))


def _fetch_wandb(rest: str) -> Path:
    import wandb

    address = f"wandb://{rest}"
    with _boundary(f"fetch {address}"):
        artifact = wandb.Api().artifact(rest if ":" in rest else f"{rest}:latest")
        # an alias moves, a digest does not: what was fetched once is complete and stays right
        folder = _cached(f"wandb://{artifact.qualified_name}#{artifact.digest}")
        if folder.is_dir():
            return folder
        for path, file in artifact.manifest.entries.items():
            if file.ref is not None or path not in FILES:  # it may only refer to a file, wherever that is
                raise ValueError(f"{path} in it is no file of an entry's own")
    sizes = {path: file.size for path, file in artifact.manifest.entries.items()}
    _check_sizes(address, sizes)
    with staged(folder) as staging:
        with _boundary(f"fetch {address}"):
            artifact.download(root=str(staging), path_prefix=CONFIG)
        _check_sizes(address, sizes, staging)
        with _boundary(f"fetch {address}"):
            artifact.download(root=str(staging))
    return folder


def _fetch_url(address: str) -> Path:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    with _boundary(f"fetch {address}"):
        system, root = url_to_fs(address.rstrip("/"))
        if isinstance(system, LocalFileSystem):
            return Path(root)
        stated = {CONFIG: _head(system, f"{root}/{CONFIG}", CONFIG_BYTES)}
        if system.exists(f"{root}/{METRICS}"):
            stated[METRICS] = _head(system, f"{root}/{METRICS}", METRICS_BYTES)
        folder = _cached(address.rstrip("/"))
        # config.yaml states the hash of the weights: the cached copy is good while that and the figures are the same
        kept = {name: folder / name for name in (CONFIG, METRICS)}
        if {name: path.read_bytes() for name, path in kept.items() if path.is_file()} != stated:
            with staged(folder) as staging:
                (staging / CONFIG).write_bytes(stated[CONFIG])
                weights = read_config(staging)["weights"]
                there = [name for name in FILES if name in (CONFIG, WEIGHTS) or system.exists(f"{root}/{name}")]
                _check_sizes(address, {name: system.size(f"{root}/{name}") for name in there}, staging)
                system.get_file(f"{root}/{WEIGHTS}", str(staging / WEIGHTS))
                with (staging / WEIGHTS).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != weights["sha256"]:
                        raise ValueError(f"its {WEIGHTS} is not what its {CONFIG} states: damaged, or half there")
                for optional in set(there) - {CONFIG, WEIGHTS}:
                    system.get_file(f"{root}/{optional}", str(staging / optional))
        return folder


def _check_sizes(address: str, sizes: Mapping[str, int | None], folder: Path | None = None) -> None:
    """Looks at the files of an entry before they are fetched.

    Args:
        address: of the entry.
        sizes: of the files that are there, by name, in bytes, as far as they are known.
        folder: where its config.yaml is by now, which says how many weights there are; None: not yet.

    Raises:
        FileNotFoundError: they are no entry's.
        ValueError: one of them is larger than an entry's can be; or its config.yaml is damaged.
    """
    if not {CONFIG, WEIGHTS} <= sizes.keys():
        raise FileNotFoundError(_no_entry(address))
    most = dict.fromkeys(FILES, OTHER_BYTES) | {CONFIG: CONFIG_BYTES, METRICS: METRICS_BYTES}
    parameters = None if folder is None else read_config(folder)["weights"]["parameters"]
    for name, size in sizes.items():
        if name == WEIGHTS:
            if size is not None and parameters is not None and size > largest(parameters):
                raise ValueError(
                    f"{masked(address)}: its weights are {size:,} bytes, too many for {parameters:,} parameters"
                )
        elif size is not None and size > most.get(name, math.inf):
            raise ValueError(f"{masked(address)}: its {name} is {size:,} bytes, more than an entry's is")


def _head(system: Any, path: str, most: int) -> bytes:
    """A small file; of a larger one as much as is refused when it is read."""
    with system.open(path, "rb") as file:
        return bytes(file.read(most + 1))


def _cached(address: str) -> Path:
    # keyed by the whole address: every entry has a file called model.safetensors
    return cached(f"entries/{hashlib.sha256(address.encode()).hexdigest()[:32]}")


def _upload_hugging_face(
    folder: Path, repository: str, *, private: bool | None = None, commit_message: str = "genzoo publish"
) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    former = sorted(set(FILES) - {path.name for path in folder.iterdir()})  # of an entry that is replaced
    api.upload_folder(
        repo_id=repository, folder_path=str(folder), commit_message=commit_message, delete_patterns=former
    )
    return f"hf://{repository}"


def _upload_url(folder: Path, address: str) -> str:
    """config.yaml goes last: it states the hash of the weights, so a half that has arrived is never taken for all.

    The card goes first: by it the half of an entry is known for one, where it is sent again.
    """
    from fsspec.core import url_to_fs

    system, root = url_to_fs(address.rstrip("/"))
    if root.startswith("/"):  # a store of objects has no folders, and a bucket is not made by mistake
        system.makedirs(root, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == CONFIG, path.name != CARD)):
        system.put_file(str(path), f"{root}/{path.name}")
    for former in set(FILES) - {path.name for path in folder.iterdir()}:  # of an entry that was replaced
        if system.exists(f"{root}/{former}"):
            system.rm_file(f"{root}/{former}")
    return address.rstrip("/")


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
