"""Check command lines without running them: the tool, its options, the files that they name."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from argparse import ArgumentParser
from functools import cache
from pathlib import Path

from mmvanilla.models.published import PUBLISHED
from mmvanilla.utils.dependencies import TOOLBOXES
from projects.family.family import FAMILY
from tests.helpers import CONFIGS, ROOT

TOOLS = ROOT / "tools"
# Programs of others: that they can be read as a command line is all that is checked.
FOREIGN = {
    "apt-get",
    "cd",
    "cp",
    "docker",
    "git",
    "gunzip",
    "mim",
    "mkdir",
    "pytest",
    "source",
    "trtexec",
}
NO_TOOL = {"--help", "--version", "-h"}
# Subcommands that are not files in tools/.
BUILT_IN = {"configs"}


def split(code: str) -> list[list[str]]:
    """Split a block into commands, each a list of words; comments and variables are left out."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", line):
            words = shlex.split(part, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                commands.append(words)
    return commands


def tool_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the name of our tool in a command and its arguments; None for another program."""
    if words[0] == "mmvanilla":
        rest = words[1:]
    elif words[:3] == ["python", "-m", "mmvanilla"]:
        rest = words[3:]
    elif words[0] == "python" and len(words) > 1 and words[1].startswith("tools/"):
        rest = [words[1].removeprefix("tools/").removesuffix(".py"), *words[2:]]
    elif words[0].startswith("tools/"):
        rest = [words[0].removeprefix("tools/"), *words[1:]]
    else:
        return None
    if not rest:
        raise ValueError(f"{shlex.join(words)} names no tool")
    return rest[0], rest[1:]


@cache
def parser_of(tool: str) -> ArgumentParser:
    """Return the parser of a tool of ours, with the option that all tools have."""
    path = TOOLS / f"{tool}.py"
    if not path.is_file():
        raise ValueError(f"there is no tools/{tool}.py")
    alias = re.search(r'with_name\("(\w+)\.py"\)', path.read_text(encoding="utf-8"))
    if alias:  # an older name of that tool
        return parser_of(alias[1])
    spec = importlib.util.spec_from_file_location(f"documented_{tool}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = module.build_parser()
    parser.add_argument("--debug", action="store_true")
    return parser


def options_of(tool: str) -> set[str]:
    """Return all options that a tool takes."""
    return {name for action in parser_of(tool)._actions for name in action.option_strings}


def is_placeholder(word: str) -> bool:
    """Tell whether a word stands for one of the reader's: CONFIG, OUT.onnx, work_dirs/…."""
    return re.fullmatch(r"[A-Z][A-Z0-9_]*(\.\w+)?", word) is not None


def check_block(code: str, made: set[str]) -> None:
    """Check the commands of a block.

    Args:
        code: The block.
        made: Files that earlier commands of the page write; those of this block are added.

    Raises:
        ValueError: A command is wrong, or names a file that is nowhere.
    """
    commands = split(code)
    if not commands:
        raise ValueError("no command in this block")
    for words in commands:
        check_command(words, made)


def check_command(words: list[str], made: set[str]) -> None:
    """Check one command; the arguments are those of :func:`check_block`."""
    tool = tool_of(words)
    if tool is not None:
        _check_tool(*tool, made)
    elif words[0] == "make":
        _check_make(words[1:])
    elif words[0] == "pip":
        _check_pip(words[1:])
    elif words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
        # The runner is written beside an exported model.
        if words[1] != "predict.py" and not (ROOT / words[1]).is_file():
            raise ValueError(f"there is no {words[1]}")
    elif words[0] not in FOREIGN:
        raise ValueError(f"nobody checks the program {words[0]!r}; write its check")


def _check_tool(tool: str, arguments: list[str], made: set[str]) -> None:
    if tool in NO_TOOL or tool in BUILT_IN:
        return
    if tool.endswith(".sh"):
        _check_script(tool, arguments, made)
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            args = vars(parser_of(tool).parse_args([_as_argument(word) for word in arguments]))
    except SystemExit as ended:
        if ended.code:
            raise ValueError(f"{tool} does not take {arguments}: {said.getvalue()}") from None
        return
    for name in ("config", "configs"):
        for config in [args[name]] if isinstance(args.get(name), str) else args.get(name) or []:
            check_config(config, made)
    checkpoint = args.get("checkpoint")
    if isinstance(checkpoint, str) and "://" in checkpoint:
        check_address(checkpoint)
    if tool == "fuse_backbone":
        made.add(str(Path(args["out"]).with_suffix(".py")))


def _as_argument(word: str) -> str:
    # Placeholders of numbers have to be read as numbers.
    return "1" if word in ("N", "H", "W") else word


def check_config(name: str, made: set[str]) -> None:
    """Check that a config exists: packaged, in the clone, or written by an earlier command."""
    if is_placeholder(name) or name in made:
        return
    plain = name if name.endswith(".py") else f"{name}.py"
    if not (ROOT / plain).is_file() and not (CONFIGS / plain).is_file():
        if "/" not in plain and len([*CONFIGS.rglob(plain)]) == 1:
            return
        raise ValueError(f"there is no config {name}")


def check_address(text: str) -> None:
    """Check that a name of the authors' weights is one that we know."""
    name = text.removeprefix("vanillanet://").partition("?")[0]
    if text.startswith("vanillanet://") and name not in PUBLISHED and not name.startswith("/"):
        raise ValueError(f"no weights are called {text}")


def _check_script(tool: str, arguments: list[str], made: set[str]) -> None:
    path = TOOLS / tool
    if not path.is_file():
        raise ValueError(f"there is no tools/{tool}")
    usage = re.search(r'"usage: \S+ ((?:[A-Z_]+ )+)', path.read_text(encoding="utf-8"))
    assert usage is not None, tool
    names = usage[1].split()
    if len(arguments) < len(names):
        raise ValueError(f"{tool} takes {' '.join(names)}, found {arguments}")
    given = dict(zip(names, arguments, strict=False))
    check_config(given["CONFIG"], made)
    test_or_train = "test" if "test" in tool else "train"
    known = options_of(test_or_train)
    for word in arguments[len(names) :]:
        if word.startswith("--") and word not in known:
            raise ValueError(f"{tool} passes {word} to tools/{test_or_train}.py, which has none")


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split())
    for word in words:
        if "=" not in word and word not in targets:
            raise ValueError(f"the Makefile has no target {word}")


def _check_pip(words: list[str]) -> None:
    if words[0] not in ("install", "uninstall"):
        raise ValueError(f"nobody checks `pip {words[0]}`")
    locks = "\n".join(path.read_text() for path in (ROOT / "requirements").glob("*.txt")).lower()
    extras = set(re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.M))
    known = {entry.name for entries in TOOLBOXES.values() for entry in entries}
    known |= {"onedl-mim", "openmim", "mmdeploy", "aenum", "dill", "multiprocess"}
    # What the commands for the rest of the family install.
    commands = [line for one in FAMILY.values() for line in one.commands.values()]
    of_family = {word for line in commands for word in line.split()}
    known |= {word.split("==")[0] for word in of_family}
    for word in words[1:]:
        if word.startswith("-"):
            continue
        own = re.fullmatch(r"\.(?:\[([\w,]+)\])?", word)
        if own:
            unknown = set((own[1] or "").split(",")) - extras - {""}
            if unknown:
                raise ValueError(f"setup.py has no extra {', '.join(unknown)}")
            continue
        name, version = re.fullmatch(
            r"([\w-]+?)(?:\[\w+\])?((?:[=<>!]=?[\w.,<>=]+)?)", word
        ).groups()
        pinned = re.search(rf"^{re.escape(name.lower())}==", locks, flags=re.MULTILINE)
        if not pinned and name not in known:
            raise ValueError(f"nobody uses the package {name}: no lock file has it")
        if word in of_family:
            continue
        if pinned and version.startswith("==") and f"{name.lower()}{version}" not in locks:
            raise ValueError(f"{word} is not the version of any lock file")
