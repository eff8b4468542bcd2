"""Switch pictures of the predictions on in the config of a test, for all toolboxes."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config

# The options of the visualization hooks of the toolboxes. MMSegmentation's has no folder: it
# draws into that of the visualizer.
_OPTIONS: dict[str, dict[str, str]] = {
    "mmdet": dict(switch="draw", out_dir="test_out_dir"),
    "mmseg": dict(switch="draw"),
    "mmpretrain": dict(switch="enable", out_dir="out_dir"),
    "mmrotate": dict(switch="draw", out_dir="test_out_dir"),
    "mmyolo": dict(switch="draw", out_dir="test_out_dir"),
    "mmpose": dict(switch="enable", out_dir="out_dir"),
}
# A folder that is not absolute is inside of the run's own folder, whose name has the time of the
# start and is known only when the Runner is built.
_IN_RUN = "show_dir"


def switch_pictures_on(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Let a test draw its predictions.

    Args:
        cfg: Config with a visualization hook, which is changed.
        show: Whether to show each prediction in a window.
        show_dir: Folder for the pictures. A relative path is inside of the folder of this run,
            ``<work_dir>/<time>/``, as in MMDetection. None: none are saved.
        wait_time: Time in seconds for which each window is shown.

    Raises:
        ValueError: The config has no hook of a toolbox that draws.
    """
    options = _OPTIONS.get(cfg.get("default_scope", ""), {})
    hook = cfg.get("default_hooks", {}).get("visualization")
    if not options or hook is None:
        raise ValueError(
            f"{cfg.filename} has no default_hooks.visualization of {', '.join(_OPTIONS)}, so "
            "nothing can be shown; leave --show and --show-dir out"
        )
    hook.update({options["switch"]: True, "show": show, "wait_time": wait_time})
    if show_dir:
        cfg[_IN_RUN] = os.path.expanduser(show_dir)
        if "out_dir" in options:
            hook[options["out_dir"]] = cfg[_IN_RUN]
    if cfg.default_scope == "mmpretrain":
        hook.setdefault("interval", 1)  # as its own tool: every image, not one of 5000


class PicturesInRun:
    """A mixin for Runners that puts the pictures of ``--show-dir`` into the folder of the run.

    MMDetection's hook does so itself; the other two take a relative path from the working
    directory.
    """

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """See mmengine's Runner; this is where MMSegmentation draws into."""
        runner: Any = self
        folder = _folder_of(runner)
        if folder is not None and "out_dir" not in _OPTIONS[runner.cfg.default_scope]:
            visualizer = dict(visualizer or {}, save_dir=folder)
        return super().build_visualizer(visualizer)  # type: ignore[misc]

    def register_hooks(self, *args: Any, **kwargs: Any) -> None:
        """See mmengine's Runner; this is where MMPretrain draws into."""
        super().register_hooks(*args, **kwargs)  # type: ignore[misc]
        runner: Any = self
        folder = _folder_of(runner)
        for hook in runner.hooks if folder is not None else ():
            if getattr(hook, "out_dir", None) == runner.cfg[_IN_RUN]:
                hook.out_dir = folder


def _folder_of(runner: Any) -> str | None:
    folder = runner.cfg.get(_IN_RUN)
    return folder and os.path.join(runner.work_dir, runner.timestamp, folder)
