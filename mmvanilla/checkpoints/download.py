"""Fetching files, with a time limit, whole or not at all, and checked when they are read again."""

from __future__ import annotations

import hashlib
import logging
import re
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

#: Seconds without a single byte after which a download is given up.
TIME_LIMIT = 60.0

_CHUNK = 1 << 20  # bytes
# By custom the name of a published checkpoint ends in the first digits of its SHA-256.
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def cache_folder() -> Path:
    """Return torch's own cache of checkpoints (``TORCH_HOME`` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def digest_path(path: Path) -> Path:
    """Where the SHA-256 of a fetched file is kept."""
    return path.with_name(f"{path.name}.sha256")


def fetch(url: str, path: Path, check: Callable[[Path], Any] = lambda path: None) -> Path:
    """Have a file on disk as it was once fetched; fetch it where it is missing.

    Of several processes the first one fetches; the others follow, and fetch for themselves only
    if they do not see its file.

    Args:
        url: Address of the file.
        path: Where it is kept. A file that somebody put there is taken as it is.
        check: Looks at what came, before it appears at ``path``; raises if it is wrong.

    Raises:
        OSError: Nothing came, too little came, or nothing more came for :data:`TIME_LIMIT`.
        ValueError: It is not the file whose digest was kept, or ``check`` says so.
    """
    try:
        if get_rank() == 0 and not path.is_file():
            _download(url, path, check)
    finally:
        barrier()  # also when it failed, or the others would wait for ever
    if not path.is_file():
        _download(url, path, check)
    check_digest(path)
    return path


def fetch_address(url: str) -> Path:
    """Have the file of any address in the cache, under the name that it has there.

    Raises:
        ValueError: The address names no file, or as in :func:`fetch`.
        RuntimeError: It cannot be fetched.
    """
    name = Path(unquote(urlparse(url).path)).name
    if not name:
        raise ValueError(f"{url} names no file; give the address of a checkpoint")
    path = cache_folder() / name
    try:
        return fetch(url, path)
    except (HTTPException, OSError) as error:
        raise RuntimeError(
            f"cannot fetch {url} ({error}); try again, or fetch it by other means and name the file"
        ) from error


def check_digest(path: Path) -> None:
    """Compare a fetched file with the digest that was kept beside it, if there is one.

    Raises:
        ValueError: They differ.
    """
    kept = digest_path(path)
    if not kept.is_file():
        return
    expected = kept.read_text().split()[:1]
    if expected != [_sha256(path)]:
        raise ValueError(
            f"{path} is not what was fetched: its SHA-256 is not the one in {kept}; delete both, "
            "and it is fetched again"
        )


def _download(url: str, path: Path, check: Callable[[Path], Any]) -> None:
    print_log(f"fetching {url} to {path}", "current")
    digits = _DIGITS_IN_NAME.search(path.name)
    if digits is None and urlparse(url).scheme != "https":
        print_log(
            f"{url} is unverified: neither its address nor its name says who made the content",
            "current",
            logging.WARNING,
        )
    # Somebody may have put the file there meanwhile, which is as good.
    with appearing_together([path, digest_path(path)], overwrite=True) as (partial, kept):
        _copy(url, partial)
        digest = _sha256(partial)
        if digits is not None and not digest.startswith(digits[1]):
            raise ValueError(
                f"what came from {url} has the SHA-256 {digest}, which its name does not begin "
                "with; try again, or ask its keeper"
            )
        try:
            check(partial)
        except ValueError as error:
            raise ValueError(str(error).replace(str(partial), "what came")) from error
        kept.write_text(f"{digest}  {path.name}\n")


def _copy(url: str, path: Path) -> None:
    request = Request(url, headers={"User-Agent": "mmvanilla"})
    with urlopen(request, timeout=TIME_LIMIT) as answer, path.open("wb") as file:
        expected = answer.headers.get("Content-Length")
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
        if expected is not None and file.tell() != int(expected):
            raise OSError(f"the connection ended after {file.tell()} of {expected} bytes")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
