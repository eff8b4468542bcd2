"""Fetch files into torch's cache, under names that stand for their whole addresses."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from mmvanilla.checkpoints.writing import appearing_together

#: Seconds without a received byte after which a download fails.
TIME_LIMIT = 60.0


def cache_path(url: str) -> Path:
    """Return where the file of an address is kept, in torch's own cache of checkpoints.

    The name has a digest of the whole address, since ``epoch_12.pth`` is the end of many.
    """
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    name = Path(unquote(urlparse(url).path)).name or "checkpoint"
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{digest}-{name}"


def fetch(url: str, check: Callable[[Path], Any]) -> Path:
    """Fetch the file of an address, unless it is in the cache, and return its :func:`cache_path`.

    Of several processes the first one fetches the file, and the others wait.

    Args:
        url: Address of the file.
        check: Function that reads the new file before it enters the cache, and raises a ValueError
            if it is not what it should be: many servers answer with a page of text instead, or end
            early.

    Raises:
        RuntimeError: The file cannot be fetched, or ``check`` refuses what came.
    """
    path = cache_path(url)
    try:
        if get_rank() == 0 and not path.is_file():
            _fetch_now(url, path, check)
    finally:
        barrier()  # also after a failure, or the others would wait forever
    if not path.is_file():
        _fetch_now(url, path, check)
    return path


def _fetch_now(url: str, path: Path, check: Callable[[Path], Any]) -> None:
    print_log(f"fetching {url} to {path}", "current")
    try:
        # Another process may have put the same file there in the meantime.
        with appearing_together([path], overwrite=True) as (partial,):
            request = Request(url, headers={"User-Agent": "mmvanilla"})
            with urlopen(request, timeout=TIME_LIMIT) as answer, partial.open("wb") as file:
                shutil.copyfileobj(answer, file)
            try:
                check(partial)
            except ValueError as error:
                raise ValueError(str(error).replace(str(partial), "what came")) from error
    except (HTTPException, OSError, ValueError) as error:
        raise RuntimeError(
            f"cannot fetch {url} ({error}); try again, or fetch it by other means and put it at "
            f"{path}"
        ) from error
