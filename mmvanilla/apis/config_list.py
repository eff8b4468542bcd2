"""List the configs that come with this package, with what each of them is."""

from __future__ import annotations

import fnmatch

from mmvanilla.utils.paths import config_names, configs_dir


def list_configs(pattern: str = "") -> dict[str, str]:
    """List the configs and their first lines that have this in them; with ``*``, names like it."""
    pattern, found = pattern.lower(), {}
    for name in sorted(config_names(), key=lambda name: ("/" in name, name)):
        text = (configs_dir() / name).read_text(encoding="utf-8")
        about = text.partition("\n")[0].lstrip("# ").removesuffix(".")
        is_named = fnmatch.fnmatch(name.removesuffix(".py").lower(), pattern.removesuffix(".py"))
        if is_named or pattern in f"{name}\n{about}".lower():
            found[name] = about
    return found
