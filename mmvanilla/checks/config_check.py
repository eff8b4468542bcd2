"""Check a whole config: all of it for `mmvanilla check`, the quick part before a training."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from mmengine.config import Config

from mmvanilla.apis.config import use_scope
from mmvanilla.apis.model import build_on_meta
from mmvanilla.checks.data import check_data
from mmvanilla.checks.findings import FAULT, Finding
from mmvanilla.checks.model_check import check_model
from mmvanilla.checks.training import (
    check_lambda,
    check_optimiser,
    check_topk,
    check_types,
    check_weights,
)


def check_config(
    cfg: Config,
    images: int = 50,
    show_dir: str | None = None,
    thorough: bool = True,
) -> list[Finding]:
    """Check a config: its model without weights, its training, and what the model will be fed.

    Looked at are so many ``images`` of each split, evenly spaced, and, if ``thorough``, the test
    split and whole annotation files. A picture of four training samples is drawn into ``show_dir``,
    if it is given. Returned are all findings, those that fit too.
    """
    with _quiet():
        use_scope(cfg)
        findings: list[Finding | None] = [*check_types(cfg), *check_topk(cfg)]
        try:
            model = build_on_meta(cfg)
        except ValueError as error:
            text = str(error).removeprefix(f"{cfg.filename}: ")
            remedy = (
                "correct it; types of ours have no toolbox in front, as type='VanillaNet', and "
            )
            remedy += "_delete_=True in a dict lets it inherit nothing"
            findings.append(Finding(FAULT, "model", text, remedy, certain=True))
        else:
            findings += check_model(cfg, model)
            findings += [*check_optimiser(cfg, model), check_lambda(cfg, model)]
            findings += check_weights(cfg, model)
        findings += check_data(cfg, images, show_dir, thorough)
        return [item for item in findings if item is not None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the toolboxes say while they build and run a model from the screen."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
