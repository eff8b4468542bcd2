"""mmvanilla: VanillaNet (arXiv 2305.12972) as a backbone for OpenMMLab.

Importing the package registers its modules; ``custom_imports = dict(imports=['mmvanilla'])`` in a
config does the same. It needs torch, mmengine and either mmcv or mmcv-lite, but no toolbox and no
compiled op.
"""

from mmvanilla.utils.dependencies import require_installed

# Before anything imports them, so that the user reads which command installs them.
require_installed("mmengine", "mmcv")

from mmvanilla.checkpoints.zoo import load_from_vanillanet
from mmvanilla.engine.channels_last import ChannelsLastHook
from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mmvanilla.engine.optim import BFloat16OptimWrapper, SqrtLRRunner
from mmvanilla.engine.plain_checkpoints import PlainCheckpointHook
from mmvanilla.engine.reseed_hook import ReseedHook
from mmvanilla.models.act_lambda import get_act_lambda, set_act_lambda
from mmvanilla.models.archs import ARCHS, Arch, resolve_arch
from mmvanilla.models.conv_pair import ConvPair
from mmvanilla.models.equalise import equalise
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.models.vanillanet import VanillaNet
from mmvanilla.utils.paths import config_path
from mmvanilla.version import __version__

__all__ = [
    "ARCHS",
    "Arch",
    "BFloat16OptimWrapper",
    "ChannelsLastHook",
    "ConvPair",
    "DeepTrainingHook",
    "LayerDecayOptimWrapperConstructor",
    "PlainCheckpointHook",
    "ReseedHook",
    "SqrtLRRunner",
    "VanillaNet",
    "__version__",
    "config_path",
    "count_fusable",
    "equalise",
    "fuse_model",
    "get_act_lambda",
    "load_from_vanillanet",
    "resolve_arch",
    "set_act_lambda",
]
