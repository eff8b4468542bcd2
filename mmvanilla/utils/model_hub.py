"""Tell MMPretrain which classifiers come with this package, as soon as it is imported.

``import mmvanilla`` makes ``mmpretrain.list_models("*vanilla*")`` and
``mmpretrain.get_model("vanillanet-9_in1k", pretrained=True)`` work, in either order of the imports.
It does not import MMPretrain itself, which takes seconds.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from mmvanilla.utils.paths import configs_dir

_HUB = "mmpretrain.apis.model"
_METAFILE = "imagenet/metafile.yml"


def register_classifiers() -> None:
    """Add our classifiers to MMPretrain's list of models, now or when MMPretrain is imported."""
    if _HUB in sys.modules:
        _register(sys.modules[_HUB])
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(MetaPathFinder):
    """Registers after the module of MMPretrain's list was executed; finds nothing by itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _HUB:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(module)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register(module: ModuleType) -> None:
    metafile = configs_dir() / _METAFILE
    hub = getattr(module, "ModelHub", None)
    if hub is not None and metafile.is_file() and not hub.has("vanillanet-5_in1k"):
        hub.register_model_index(metafile, config_prefix=configs_dir().parent)
