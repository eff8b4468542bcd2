"""The old name of :mod:`mmvanilla.models.cls_head`; configs have it in ``custom_imports``."""

from mmvanilla.models.cls_head import VanillaNetClsHead

__all__ = ["VanillaNetClsHead"]
