"""Find data sets that would read other images than their split says."""

from __future__ import annotations

from mmengine.config import Config

from mmvanilla.apis.data_checks import class_of_dataset, find_datasets
from mmvanilla.checks.findings import Finding, fault

SUBJECT = "split"


def check_splits(cfg: Config) -> list[Finding]:
    """Compare ``split`` with ``test_mode`` where MMPretrain's class looks at the second alone.

    MMPretrain's ``MNIST`` and ``FashionMNIST`` take both, and read the training images for
    ``split='test'`` unless ``test_mode`` is True: a validation on what was trained.

    Args:
        cfg: The config.
    """
    findings = []
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for node in find_datasets(cfg.get(loader)):
            kind = class_of_dataset(node) or object
            split, test_mode = node.get("split"), bool(node.get("test_mode", False))
            is_mnist = any(base.__name__ == "MNIST" for base in kind.__mro__)
            if not is_mnist or split is None or (split == "test") == test_mode:
                continue
            read = "test" if test_mode else "training"
            findings.append(
                fault(
                    SUBJECT,
                    f"{loader}: {kind.__name__} reads the {read} images, whatever its split is, "
                    f"with test_mode={test_mode}; found split={split!r}",
                    f"set test_mode={split == 'test'} there",
                )
            )
    return findings
