"""`KVStoreServer`, the process that serves a store spanning machines. Not built: running one says so."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["KVStoreServer"]


class KVStoreServer:
    """Holds the store that a server process would serve."""

    def __init__(self, kvstore: Any) -> None:
        self.kvstore = kvstore

    def run(self) -> NoReturn:
        """Serve until told to stop: not built yet (NotImplementedError)."""
        raise NotImplementedError("KVStoreServer.run: stores that span machines are not built yet in mxrs")
