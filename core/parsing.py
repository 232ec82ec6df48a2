"""What a recipe or a command line may say, and one plain line for what it may not.

jsonargparse checks keys, classes and types, and answers a mistake with a tree of everything that it tried. Here the
one branch that matters is found and said in a line, with the name that was perhaps meant. What jsonargparse passes
over in silence is refused: a key given twice, a misspelt `class_path` or `init_args`, a null where a value belongs.
"""

import inspect
import re
import textwrap
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from importlib import import_module
from itertools import chain
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints, is_typeddict

import torch.optim
import yaml
from jsonargparse import Namespace
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import lr_scheduler

import genzoo.callbacks
import genzoo.datamodules
import genzoo.zoo
from genzoo.errors import debugging, did_you_mean, refuse

LONGEST = 199 - len("genzoo: error: ")  # characters of what is said of a recipe or of an argument
BLOCK = ("class_path", "init_args", "dict_kwargs")  # what states an object in a recipe

# ------------------------------------------------------------------------------------------------ the file


def parsable(path: Path) -> Path:
    """The path of a recipe's file, once it is known to be YAML in which each key stands once and as it is spelt.

    Raises:
        ValueError: it is not; the message names the file and the line.
    """
    try:
        loader = yaml.SafeLoader(path.read_text("utf-8"))
        root = loader.get_single_node()
        if root is not None:
            loader.construct_document(root)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date, a number or a character that is none
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path} is no recipe: it does not hold `key: value`, as of model, data and trainer")
    for mapping in mappings(root):
        check_keys(mapping, path)
    return path


def mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Every mapping in a document, each once, also where an alias repeats it."""
    seen: set[yaml.Node] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(node)
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [value for _, value in node.value]
        else:
            waiting += node.value


def check_keys(mapping: yaml.MappingNode, path: Path) -> None:
    """Refuses a key that stands twice, of which YAML takes the last; and what states an object, but not as it is."""
    keys = [key.value for key, _ in mapping.value]
    for i, (key, value) in enumerate(mapping.value):
        where = f"{path}, line {key.start_mark.line + 1}: {key.value!r}"
        if key.value in keys[:i]:
            raise ValueError(f"{where} is given twice in one place")
        meant = get_close_matches(key.value, set(BLOCK) - set(keys), n=1, cutoff=0.85)  # `init` may be an argument
        if key.value not in BLOCK and ("class_path" in keys or meant):
            hint = did_you_mean(key.value, BLOCK)
            raise ValueError(f"{where} is not accepted beside class_path and init_args{hint}")
        if key.value == "class_path" and value.tag != "tag:yaml.org,2002:str":
            raise ValueError(f"{where} must be a class's name")
        if key.value in ("init_args", "dict_kwargs") and not isinstance(value, yaml.MappingNode):
            raise ValueError(f"{where} must be a mapping of the class's arguments; leave it out where there are none")


# ------------------------------------------------------------------------------------- what a class takes


def taken(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class by name, with those of its bases as far as **arguments hand them on.

    Each has its annotation resolved; one that cannot be resolved says nothing.
    """
    found: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else ():  # jsonargparse calls a Union a class, too
        constructor = base.__init__  # type: ignore[misc]
        try:
            hints = get_type_hints(constructor)
        except (NameError, TypeError):
            hints = {}
        parameters = inspect.signature(constructor).parameters
        for name, parameter in parameters.items():
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(name, parameter.replace(annotation=hints.get(name, Any)))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def refuse_nulls(config: Any, key: str, cls: type | None = None, linked: Collection[str] = ()) -> None:
    """Refuses `null` where the type has no None: jsonargparse lets it through to the constructor.

    Args:
        config: What was parsed for `key`: the arguments of `cls`; or, where that is None, whatever a recipe holds.
        key: Where it stands.
        cls: Whose arguments they are.
        linked: The names of arguments that the data will state.
    """
    if cls is not None and config is not None and not isinstance(config, Namespace):
        refuse(f"{key} is {shortened(str(config))}, but a mapping of arguments is expected")
    if isinstance(config, list):
        for i, element in enumerate(config):
            refuse_nulls(element, f"{key}[{i}]", linked=linked)
        return
    if not isinstance(config, Namespace):
        return
    if cls is None:
        if "class_path" in config and inspect.isclass(named := resolve_name(config.class_path)):
            refuse_nulls(config.get("init_args"), f"{key}.init_args", named, linked)
        return
    parameters = taken(cls)
    for name, value in vars(config).items():
        hint = parameters[name].annotation if name in parameters else Any
        nothing = hint in (Any, None) or type(None) in get_args(hint) or parameters[name].default is None
        if value is None and name not in linked and not nothing:
            refuse(f"{key}.{name} is null, but {bare(inspect.formatannotation(hint))} is expected; leave it out")
        refuse_nulls(value, f"{key}.{name}", linked=linked)


# ------------------------------------------------------------------------------------------- what is said


class Parser(LightningArgumentParser):
    """A parser that answers a mistake with one readable error instead of five hundred lines of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)  # or `max_epoch` would pass for `max_epochs`
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: D102
        if not self.exit_on_error:  # a parser that jsonargparse nests in ours, whose error ours completes
            super().error(message, ex)
        if debugging() and ex is not None:
            raise ex
        hint = f" (`{self.prog.replace(' [options]', '')} --help` lists what is accepted)"
        line = textwrap.shorten(readable(message, self.options()), LONGEST, placeholder=" …")
        refuse(line + ("" if "did you mean" in line or len(line + hint) > LONGEST else hint))

    def options(self) -> set[str]:
        """What can be given, `trainer.max_epochs` and so on; to the subcommands, too, where there are any."""
        nested = [action.choices.values() for action in self._actions if isinstance(action.choices, dict)]
        return {action.dest for parser in chain([self], *nested) for action in parser._actions}


class Complaint(NamedTuple):
    """One leaf of the tree in which jsonargparse says what it tried."""

    what: str
    depth: int
    keys: list[str]  # where it stands
    cls: str | None  # the innermost class whose arguments were read
    given: str = ""


def readable(message: str, options: Collection[str] = ()) -> str:
    """What an error of jsonargparse's comes to, in a line: where, what, and what was perhaps meant.

    Args:
        message: The tree of everything that was tried; or any other error, whose lines are joined.
        options: What the command takes.
    """
    found = complaints(message)
    leaf = next((leaf for leaf in found if not leaf.what.startswith(DULL)), found[0] if found else None)
    if leaf and message.startswith(("Parser key", "Does not validate", "Problem with given class_path")):
        return unknown_key(leaf, options) or unknown_class(leaf) or wrong_value(leaf, found)
    if leaf and options and (line := unknown_key(leaf, options)):
        return line
    return re.sub(r"(\d{20})\d{20,}", r"\1…", "; ".join(filter(None, message.splitlines())))


def complaints(message: str) -> list[Complaint]:
    """The leaves of the tree, in which a line that is indented belongs to the one above it."""
    leaves: list[Complaint] = []
    above: list[tuple[int, str, str]] = []  # depth, what the branch is of, its name
    for raw in filter(None, message.splitlines()):
        line = raw.lstrip(" -")
        depth = len(raw) - len(line)
        while above and above[-1][0] >= depth:
            above.pop()
        line = re.sub(r"^Type .* expects a function or a callable class: ", "", line)
        while branch := re.match(r"(Parser key|Problem with given class_path) ['\"](.*?)['\"]:\s*(.*)", line):
            above.append((depth, branch[1], branch[2]))
            line = branch[3]
        if value := re.match(r"Given value: (.*?)(?:\. Got value: .*)?$", line):
            leaves = [leaf._replace(given=leaf.given or value[1]) if leaf.depth > depth else leaf for leaf in leaves]
        elif line and not line.startswith(NOISE):
            what, *given = line.split(". Got value: ")
            keys = [name for _, kind, name in above if kind == "Parser key"]
            classes = [name for _, kind, name in above if kind != "Parser key"]
            classes += re.findall(r"Namespace\(class_path='(.*?)'", "".join(given[-1:]))[:1]
            leaves.append(Complaint(what, depth, keys, classes[-1] if classes else None, "".join(given[:1])))
    return leaves


#: lines that say nothing to a person
NOISE = (
    "Subtypes:",
    "Errors:",
    "Does not validate",
    "Given value type",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Subclass types expect",
    "a class path (str)",
    "a dict with",
)
#: said of a text, a list or an object that was not meant to be one (which kind is tried first is not settled: Python
#: keeps one Union of the same members, in the order of whoever named them first)
DULL = (
    "Expected a <class 'str'>",
    "Expected a <class 'list'>",
    "Expected a <class 'collections.abc.Iterable'>",
    "Not a valid subclass of",
)


def unknown_key(leaf: Complaint, options: Collection[str]) -> str | None:
    """A line on a key that nothing takes, if that is the complaint."""
    if key := re.match(r"Unexpected keys: {'(.*?)'", leaf.what):
        return f"{at(leaf)}{key[1]!r} is not accepted{did_you_mean(key[1], keys_of(leaf))}"
    if leaf.cls and (option := re.match(r"(?:Option '|unrecognized arguments: --)([^'.=\s]*)", leaf.what)):
        near = did_you_mean(option[1], {*taken(resolve_name(leaf.cls)), *BLOCK})
        return f"{at(leaf)}{option[1]!r} is not accepted by {leaf.cls.rpartition('.')[2]}{near}"
    if member := re.match(r"Group '(.*)' does not accept option '(.*)'", leaf.what):
        shown = path = f"{member[1]}.{member[2]}"
    elif option := re.match(r"(?:Option|Subcommand .* option) '(.*)'|unrecognized arguments: --([^\s=]*)", leaf.what):
        path = option[1] or option[2]
        shown = option[1] or f"--{path}"
    else:
        return None
    group, _, name = path.partition(".")
    members = {option.partition(".")[2] for option in options if option.startswith(f"{group}.")}
    if not name or not members:
        name, members = group, {option.partition(".")[0] for option in options}
    return f"{shown} is not accepted{did_you_mean(name, members)}"


def keys_of(leaf: Complaint) -> Collection[str]:
    """The keys of the mapping that is complained about, where its type names them (a TypedDict)."""
    if not leaf.cls or not leaf.keys or leaf.keys[-1] not in (parameters := taken(resolve_name(leaf.cls))):
        return ()
    hint = parameters[leaf.keys[-1]].annotation
    return {key for kind in (hint, *get_args(hint)) if is_typeddict(kind) for key in kind.__annotations__}


def unknown_class(leaf: Complaint) -> str | None:
    """A line on a class that is not there, if that is the complaint."""
    if name := re.match(r"Expected a dot import path string: (.*)", leaf.what):
        packages = (genzoo.callbacks, genzoo.datamodules, genzoo.zoo, callbacks, loggers, torch.optim, lr_scheduler)
        known = set(chain(*map(dir, packages)))
        if name[1] in known:
            return f"{at(leaf)}{name[1]} is of another kind than the classes that can stand here"
        return f"{at(leaf)}no class is called {shortened(name[1])}{did_you_mean(name[1], known)}"
    if name := re.match(r"module '(.*)' has no attribute '(.*)'", leaf.what):
        near = did_you_mean(name[2], dir(resolve_name(name[1])))
        return f"{at(leaf)}no class is called {name[1]}.{name[2]}{near}"
    if name := re.match(r"No module named '([^']*)'", leaf.what):
        *parent, last = name[1].split(".")
        beside = getattr(import_module(".".join(parent)), "__path__", []) if parent else None
        near = did_you_mean(last, (module.name for module in iter_modules(beside)))
        return f"{at(leaf)}no module is called {name[1]}{near}"
    return None


def wrong_value(leaf: Complaint, found: list[Complaint]) -> str:
    """A line on a value of another type than those that are accepted, each of which has its own complaint of it."""
    choices: list[str] = []
    kinds: list[str] = []
    for other in found:
        if (other.keys, other.depth) != (leaf.keys, leaf.depth):
            continue
        if other.what.startswith("Expected a dot import path"):  # of text where an object could stand, too
            continue
        if literal := re.match(r"Expected a typing.Literal\[(.*)\]", other.what):
            choices += [choice.strip(" '") for choice in literal[1].split(",")]
        elif kind := re.match(r"(?:Expected an? |Not a valid subclass of )(.*?)(?:, but got .*)?$", other.what):
            kinds.append(bare(kind[1]).replace("import path or a subclass spec", "a class"))
        else:
            return at(leaf) + re.sub(r"<class '(.*?)'>", r"\1", other.what)
    given = re.sub(r"^NestedArg\(key=.*, val='?(.*?)'?\)$", r"\1", leaf.given).replace("Namespace(", "(")
    expected = " or ".join(dict.fromkeys([*choices, *kinds]))
    return f"{at(leaf)}expected {shortened(expected)}, but given {shortened(given)}{did_you_mean(given, choices)}"


def shortened(text: str) -> str:
    """What has room in a line."""
    return text if len(text) <= 60 else f"{text[:59]}…"


def at(leaf: Complaint) -> str:
    """`model.likelihood: `."""
    return f"{'.'.join(leaf.keys)}: " if leaf.keys else ""


def bare(kind: str) -> str:
    """`int` for `<class 'int'>`, `list[Callback]` for that with its module's name."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", re.sub(r"<class '(.*?)'>", r"\1", kind))
