"""Say what happened, and what to do, for errors that mmengine and torch word badly.

To add one, put an :class:`_Error` into :data:`_ERRORS`; the first that matches is taken.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from typing import NamedTuple

# Our registered names, and the module whose import registers each. Those of the package need no
# toolbox; a module of its own needs one.
OUR_MODULES: dict[str, str] = {
    "BFloat16OptimWrapper": "mmvanilla",
    "ChannelsLastHook": "mmvanilla",
    "ConvPair": "mmvanilla",
    "DeepTrainingHook": "mmvanilla",
    "LayerDecayOptimWrapperConstructor": "mmvanilla",
    "PlainCheckpointHook": "mmvanilla",
    "ReseedHook": "mmvanilla",
    "SqrtLRRunner": "mmvanilla",
    "VanillaNet": "mmvanilla",
    "AlexNetOfPairs": "projects.studies.alexnet",
    "ExportedModel": "mmvanilla.deploy.exported_model",
    "MaskTTAModel": "mmvanilla.models.mask_tta",
    "VanillaNetClsHead": "mmvanilla.cls_head",
}
# What the configs of other backbones say, and ours do not take.
_OF_OTHER_BACKBONES = (
    "base_channels",
    "conv_cfg",
    "dcn",
    "deepen_factor",
    "depth",
    "depths",
    "dilations",
    "embed_dims",
    "num_heads",
    "num_stages",
    "stage_with_dcn",
    "strides",
    "style",
    "widen_factor",
    "window_size",
)


class Explanation(NamedTuple):
    """An error in plain words.

    Attributes:
        what: What happened.
        remedy: What to do about it.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        """Return both as one line."""
        return f"{self.what}; {self.remedy}"


class _Error(NamedTuple):
    pattern: re.Pattern[str]
    explain: Callable[[re.Match[str]], Explanation]


class ChannelMismatch(NamedTuple):
    """A layer that was built for another number of channels than it gets; None if unknown."""

    expected: int | None
    found: int | None


_CHANNELS = (
    re.compile(r"to have (?P<expected>\d+) channels, but got (?P<found>\d+) channels"),
    re.compile(
        r"mat1 and mat2 shapes cannot be multiplied \(\d+x(?P<found>\d+) and (?P<expected>\d+)x"
    ),
    re.compile(r"same reduction dim, but got \[\d+, (?P<found>\d+)\] X \[(?P<expected>\d+),"),
    re.compile(r"running_mean should contain (?P<found>\d+) elements not (?P<expected>\d+)"),
    re.compile(
        r"got weight of shape \[(?P<expected>\d+)\] and input of shape \[\d+, (?P<found>\d+)[,\]]"
    ),
    re.compile(
        r"value tensor of shape \[\d+, (?P<found>\d+), .*indexing result of shape "
        r"\[\d+, (?P<expected>\d+),"
    ),
    re.compile(r"Invalid channel dimensions"),  # convolution on torch's meta device
)


def find_channel_mismatch(message: str) -> ChannelMismatch | None:
    """Read from an error's message how channels do not fit; None if it is another error.

    Args:
        message: The text of the exception, as torch words it.
    """
    for pattern in _CHANNELS:
        match = pattern.search(message)
        if match:
            groups = match.groupdict()
            expected, found = groups.get("expected"), groups.get("found")
            return ChannelMismatch(expected and int(expected), found and int(found))  # type: ignore[arg-type]
    return None


def custom_imports_line(modules: list[str]) -> str:
    """Return the line of a config that registers modules.

    Args:
        modules: Names of the modules to import.
    """
    names = ", ".join(f"'{name}'" for name in modules)
    return f"custom_imports = dict(imports=[{names}], allow_failed_imports=False)"


def _channels(match: re.Match[str]) -> Explanation:
    mismatch = find_channel_mismatch(match.string)
    assert mismatch is not None
    what = "a layer gets another number of channels than it was built for"
    number = "the number of channels that arrives there"
    if mismatch.found is not None:
        what = f"a layer was built for {mismatch.expected} channels, and gets {mismatch.found}"
        number = str(mismatch.found)
    return Explanation(
        what,
        f"correct the in_channels of the neck or head that has {mismatch.expected} to {number}"
        if mismatch.found is not None
        else f"correct the in_channels of the neck or head to {number}",
    )


def explain_unknown_type(name: str, known: Collection[str] = ()) -> Explanation:
    """Say what to do about a type that nobody registered.

    Args:
        name: The type, as the config has it: with the toolbox in front, or without.
        known: Registered names, one of which may have been meant. Default: none.
    """
    module = OUR_MODULES.get(name.rpartition(".")[2])
    remedy = "correct its spelling, or name the module that registers it in custom_imports"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        remedy = f"did you mean {near[0]!r}? Else {remedy}"
    if module is not None:
        modules = list(dict.fromkeys(["mmvanilla", module]))
        remedy = f"it is one of mmvanilla's: add {custom_imports_line(modules)} to the config"
    return Explanation(f"unknown type {name!r}", remedy)


def _unknown_type(match: re.Match[str]) -> Explanation:
    return explain_unknown_type(match["name"])


def _unexpected_argument(match: re.Match[str]) -> Explanation:
    owner, name = match["owner"], match["name"]
    remedy = (
        f"correct its spelling, or remove it; if it comes from the config that is inherited, add "
        f"_delete_=True to the dict with type={owner!r}"
    )
    if name == "pretrained":
        remedy = (
            "set model.pretrained=None if it is inherited from a segmenter's config; weights are "
            "named by init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')"
        )
    elif name in _OF_OTHER_BACKBONES:
        remedy = (
            f"it is left from the config that is inherited: add _delete_=True to the dict with "
            f"type={owner!r}, so that nothing is inherited into it"
        )
    return Explanation(f"{owner} does not take {name!r}", remedy)


def _fixed(what: str, remedy: str) -> Callable[[re.Match[str]], Explanation]:
    return lambda match: Explanation(what, remedy)


_ERRORS: tuple[_Error, ...] = (
    _Error(re.compile(r"'?(?P<name>[\w.]+) is not in the \S+ registry"), _unknown_type),
    _Error(
        re.compile(
            r"(?P<owner>\w+)(\.__init__)?\(\) got an unexpected keyword argument '(?P<name>\w+)'"
        ),
        _unexpected_argument,
    ),
    _Error(
        re.compile(
            r"(?P<owner>\w+)(\.__init__)?\(\) missing \d+ required (positional|keyword-only) "
            r"arguments?: (?P<names>'.*')"
        ),
        lambda match: Explanation(
            f"{match['owner']} needs {match['names']}", f"set it in the dict of {match['owner']}"
        ),
    ),
    _Error(
        re.compile(r"must contain the key \"type\", but got (?P<keys>\{.{0,80})"),
        lambda match: Explanation(
            f"a dict has no type: {match['keys']}",
            "add type=..., or correct the key under which it overrides the inherited one",
        ),
    ),
    *(_Error(pattern, _channels) for pattern in _CHANNELS),
    _Error(
        re.compile(r"Output size is too small|Kernel size can't be greater than actual input size"),
        _fixed(
            "the image is too small: nothing of it is left for the last layers",
            "take larger images or crops, or fewer levels (out_indices)",
        ),
    ),
    _Error(
        re.compile(r"Expected more than 1 value per channel when training"),
        _fixed(
            "batch norm cannot train on one value: a map of 1x1 pixels in a batch of one image",
            "set train_dataloader.batch_size to at least 2 (and drop_last=True for the last "
            "batch), or take norm_cfg=dict(type='GN', num_groups=32) in the head that pools to 1x1",
        ),
    ),
    _Error(
        re.compile(r"SyncBatchNorm expected input tensor to be on|Default process group has not"),
        _fixed(
            "SyncBN works in several processes with a GPU each only",
            "set norm_cfg=dict(type='BN'), or train with mmvanilla's own tool, which replaces it",
        ),
    ),
)


def explain_known(message: str) -> Explanation | None:
    """Explain an error that mmengine or torch words badly; None if it is not one of those.

    Args:
        message: The text of the exception.
    """
    text = " ".join(message.split())
    for pattern, explain in _ERRORS:
        match = pattern.search(text)
        if match:
            return explain(match)
    return None
