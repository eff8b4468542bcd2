"""Store a config in a checkpoint, where the toolboxes' inferencers look for one."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmvanilla.apis.model import build_model


def store_config(checkpoint: dict[str, Any], cfg: Config) -> None:
    """Store the text of a config in ``meta['cfg']``, if its model takes all of the weights.

    Then ``DetInferencer(weights=FILE)`` needs no config beside the file.

    Args:
        checkpoint: Dict with ``state_dict`` and ``meta``, to which the text is added.
        cfg: Config of the model that the weights are for.

    Raises:
        ValueError: The model cannot be built.
        RuntimeError: The weights do not fit it, or some are missing or left over.
    """
    try:
        build_model(cfg).load_state_dict(checkpoint["state_dict"], strict=True)
    except RuntimeError as error:
        raise RuntimeError(
            f"these weights do not fit the model of {cfg.filename}: {error}; take the config of "
            "this network, or store none"
        ) from error
    checkpoint["meta"]["cfg"] = cfg.pretty_text
