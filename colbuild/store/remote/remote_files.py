"""Files at an fsspec URL: read with limits, written completely or not at all, with timeouts.

Nothing else in colbuild touches fsspec. It is imported when a remote is opened, so that a plan without one stays light.
"""

from __future__ import annotations

import asyncio
import errno
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from colbuild.store.remote.remote_calls import Calls, MissingError, RejectedError, RemoteError, in_thread

READ_BLOCK: Final = 4 << 20
WRITE_BLOCK: Final = 5 << 20
"""What one operation moves at most. S3 takes no smaller parts than this, and at most 10,000 of them."""

_MOST_PARTS: Final = 9000
_AHEAD: Final = 2
_WHOLE_PUTS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
"""Protocols whose files appear when they are complete; elsewhere a file is written under another name and moved."""


@dataclass(frozen=True)
class RemoteFiles:
    """The files below a URL. Paths are relative to it, with forward slashes.

    Attributes:
        calls: How the URL is called.
        fs: The fsspec file system.
        base: The URL's path, as the file system spells it.
    """

    calls: Calls
    fs: Any = field(repr=False)
    base: str = field(repr=False)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, path: str, limit: int) -> bytes | None:
        """A small file's content; None if it is not there.

        Raises:
            RejectedError: It is larger than `limit` bytes.
            RemoteError: It cannot be read.
        """
        try:
            content: bytes = self.calls.attempt(f"read {path}", lambda: self._range(path, 0, limit + 1))
        except MissingError:
            return None
        except RemoteError as error:
            if not _is_empty_range(error.__cause__):
                raise
            content = b""
        if len(content) > limit:
            raise RejectedError(f"{self.calls.name}: {path} is larger than {limit:,} bytes, the limit")
        return content

    def blocks(self, path: str, size: int) -> Iterator[bytes]:
        """The content of a file that should have `size` bytes, block by block; several are asked for ahead.

        Raises:
            MissingError: It is not there.
            RejectedError: It is shorter or longer.
            RemoteError: It cannot be read.
        """
        starts = iter(range(0, size, READ_BLOCK))
        ahead: deque[tuple[int, Future[Any]]] = deque()
        depth = _AHEAD if self._is_async else 1
        try:
            while True:
                while len(ahead) < depth and (start := next(starts, None)) is not None:
                    ahead.append((start, self._block(path, start, size)))
                if not ahead:
                    return
                start, future = ahead.popleft()
                block = self.calls.attempt(f"read {path}", partial(self._block, path, start, size), future)
                expected = min(READ_BLOCK, size - start)
                if len(block) < expected:
                    raise RejectedError(
                        f"{self.calls.name}: {path} ends after {start + len(block):,} of {size:,} bytes"
                    )
                if len(block) > expected:
                    raise RejectedError(f"{self.calls.name}: {path} has more than its {size:,} bytes")
                yield block
        finally:
            for _, future in ahead:
                future.cancel()

    def sizes(self, folder: str) -> dict[str, int]:
        """Every file below a folder, by its path relative to it, with its size; none if there is no such folder."""
        root = self._path(folder)

        def find() -> Future[Any]:
            self.fs.invalidate_cache()
            return self._start("find", root, detail=True)

        try:
            found = self.calls.attempt(f"list {folder}", find)
        except MissingError:
            return {}
        prefix = root.strip("/") + "/"
        sizes = {}
        for path, info in found.items():
            if path.strip("/").startswith(prefix):
                sizes[path.strip("/").removeprefix(prefix)] = int(info.get("size") or 0)
        return sizes

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, path: str, size: int, content: Callable[[], Iterable[bytes]]) -> None:
        """Puts a file at its path, replacing what is there, when all of it has been sent.

        Args:
            path: Where to.
            size: How many bytes it has.
            content: Starts the content anew, for each attempt. What it raises leaves nothing at `path`.

        Raises:
            RemoteError: It cannot be written.
        """
        if not self._puts_whole:
            self._through_draft(path, content, self._move)
        elif size <= WRITE_BLOCK:
            data = b"".join(content())
            self.calls.attempt(f"write {path}", lambda: self._start("pipe_file", self._path(path), data))
        else:
            self.calls.again(lambda: self._send(self._path(path), path, _part_bytes(size), content))

    def create(self, path: str, data: bytes) -> bool:
        """Puts a small file where there is none; says whether it did. What is there stays.

        Raises:
            RemoteError: It cannot be written.
        """
        try:
            if self._puts_whole:
                self.calls.attempt(
                    f"write {path}", lambda: self._start("pipe_file", self._path(path), data, mode="create")
                )
            else:
                self._through_draft(path, lambda: [data], self._link)
        except RemoteError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            if not _is_unknown(error.__cause__):
                raise
            # An S3 server that knows no conditions: two who get here at once both write, and either record is as good.
            if self.read(path, len(data)) is not None:
                return False
            self.write(path, len(data), lambda: [data])
        return True

    def _through_draft(
        self, path: str, content: Callable[[], Iterable[bytes]], place: Callable[[str, str], None]
    ) -> None:
        """Writes a file under another name and brings it to its place."""
        target = self._path(path)
        folders = (self._path("tmp"), target.rpartition("/")[0])
        for folder in folders:
            self.calls.attempt(f"write {path}", partial(self._start, "makedirs", folder, exist_ok=True))
        draft = f"{folders[0]}/{uuid.uuid4().hex}"
        try:
            self.calls.again(lambda: self._send(draft, path, WRITE_BLOCK, content))
            self.calls.attempt(f"write {path}", lambda: in_thread(lambda: place(draft, target)))
        finally:
            # Gone if it was moved; left behind if the remote is.
            with suppress(RemoteError):
                self.calls.attempt(f"clean up {path}", lambda: self._start("rm_file", draft))

    def _send(self, target: str, path: str, block: int, content: Callable[[], Iterable[bytes]]) -> None:
        what = f"write {path}"
        options = {"autocommit": False, "block_size": block} if self._puts_whole else {}
        file = self.calls.once(what, lambda: in_thread(lambda: self.fs.open(target, "wb", **options)))
        try:
            for data in _joined(content(), block):
                self.calls.once(what, partial(in_thread, partial(file.write, data)))
            self.calls.once(what, partial(in_thread, file.close))
            if self._puts_whole:
                self.calls.once(what, partial(in_thread, file.commit))
        except BaseException:
            if self._puts_whole:
                # Else the garbage collector closes it, and closing completes it (fsspec 2026.9).
                file.closed = True
                with suppress(RemoteError):
                    self.calls.once(what, partial(in_thread, file.discard))
            raise

    def _move(self, draft: str, target: str) -> None:
        self.fs.mv(draft, target)

    def _link(self, draft: str, target: str) -> None:
        if hasattr(self.fs, "link"):
            self.fs.link(draft, target)
            return
        # Two who get here at once both write; what they write is as good.
        if self.fs.exists(target):
            raise FileExistsError(target)
        self.fs.mv(draft, target)

    # -- calls --------------------------------------------------------------------------------------------------------

    @property
    def _puts_whole(self) -> bool:
        protocol = self.fs.protocol
        return not _WHOLE_PUTS.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    @property
    def _is_async(self) -> bool:
        return bool(getattr(self.fs, "async_impl", False)) and not self.fs.asynchronous

    def _path(self, path: str) -> str:
        return f"{self.base}/{path}"

    def _block(self, path: str, start: int, size: int) -> Future[Any]:
        """Asks for a block; with the last one for a byte more, which tells a file that is longer than it should be."""
        end = min(start + READ_BLOCK, size)
        return self._range(path, start, end + 1 if end == size else end)

    def _range(self, path: str, start: int, end: int) -> Future[Any]:
        return self._start("cat_file", self._path(path), start=start, end=end)

    def _start(self, method: str, *arguments: Any, **options: Any) -> Future[Any]:
        """Starts an operation. One of an asynchronous file system can be cancelled, which closes its connection."""
        if self._is_async and hasattr(self.fs, f"_{method}"):
            return asyncio.run_coroutine_threadsafe(getattr(self.fs, f"_{method}")(*arguments, **options), self.fs.loop)
        return in_thread(lambda: getattr(self.fs, method)(*arguments, **options))


def _is_empty_range(error: BaseException | None) -> bool:
    """Returns whether a server refused to give a part of a file that has no bytes at all, as S3 does."""
    return isinstance(error, OSError) and error.errno == errno.EINVAL and "range" in str(error).lower()


def _is_unknown(error: BaseException | None) -> bool:
    return isinstance(error, NotImplementedError) or (isinstance(error, OSError) and error.errno == errno.ENOSYS)


def _joined(content: Iterable[bytes], block: int) -> Iterator[bytes]:
    """The same content in blocks of one size, the last one aside."""
    held = bytearray()
    for data in content:
        held += data
        while len(held) >= block:
            yield bytes(held[:block])
            del held[:block]
    if held:
        yield bytes(held)


def _part_bytes(size: int) -> int:
    return max(WRITE_BLOCK, -(-size // _MOST_PARTS // (1 << 20)) * (1 << 20))
