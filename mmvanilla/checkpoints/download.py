"""Fetch files completely or not at all, with a time limit, and verify them when they are used."""

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

#: Seconds without a received byte after which a download fails.
TIME_LIMIT = 60.0

_CHUNK = 1 << 20  # bytes
# By convention the name of a published checkpoint ends with the first digits of its SHA-256.
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def cache_folder() -> Path:
    """Return torch's own cache of checkpoints (``TORCH_HOME`` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def digest_path(path: Path) -> Path:
    """Return the path of the file that keeps the SHA-256 of a fetched file."""
    return path.with_name(f"{path.name}.sha256")


def fetch(url: str, path: Path, check: Callable[[Path], Any] = lambda path: None) -> Path:
    """Fetch a file unless it exists, and verify it against the digest that was kept for it.

    Of several processes the first one fetches the file and the others wait. They fetch it
    themselves only if they do not see its file.

    Args:
        url: Address of the file.
        path: Path at which the file is kept. A file that the user put there is used without a
            check.
        check: Function that checks the new file before it appears at ``path``, and raises an error
            if it is wrong.

    Raises:
        OSError: The download failed, was incomplete, or stalled for :data:`TIME_LIMIT`.
        ValueError: The file does not have the digest that was kept, or ``check`` refuses it.
    """
    try:
        if get_rank() == 0 and not path.is_file():
            _download(url, path, check)
    finally:
        barrier()  # also after a failure, or the others would wait forever
    if not path.is_file():
        _download(url, path, check)
    check_digest(path)
    return path


def fetch_address(url: str) -> Path:
    """Fetch the file of any address into the cache, under the last part of the address.

    Raises:
        ValueError: The address names no file, or :func:`fetch` refuses the file.
        RuntimeError: The file cannot be fetched.
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
        ValueError: The file has another digest.
    """
    kept = digest_path(path)
    if not kept.is_file():
        return
    expected = kept.read_text().split()[:1]
    if expected != [_sha256(path)]:
        raise ValueError(
            f"{path} has changed since it was fetched: its SHA-256 is not that in {kept}; delete "
            "both, and it will be fetched again"
        )


def _download(url: str, path: Path, check: Callable[[Path], Any]) -> None:
    print_log(f"fetching {url} to {path}", "current")
    digits = _DIGITS_IN_NAME.search(path.name)
    if digits is None and urlparse(url).scheme != "https":
        print_log(
            f"{url} is unverified: it was not fetched by https, and its name has no digest",
            "current",
            logging.WARNING,
        )
    # Another process may have put the same file there in the meantime.
    with appearing_together([path, digest_path(path)], overwrite=True) as (partial, kept):
        _copy(url, partial)
        digest = _sha256(partial)
        if digits is not None and not digest.startswith(digits[1]):
            raise ValueError(
                f"the file from {url} has the SHA-256 {digest}, but by its name it should begin "
                f"with {digits[1]}; try again, or ask the provider to check the file"
            )
        try:
            check(partial)
        except ValueError as error:
            raise ValueError(str(error).replace(str(partial), "the fetched file")) from error
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
