"""A ROUTER with scripted answers, for answers that a real controller cannot be made to give."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import msgspec
import zmq

__all__ = ["CONTROLLER_ID", "FakeRouter", "reply"]

CONTROLLER_ID = "TQ_CONTROLLER_fake"

Answer = Callable[[dict[str, Any]], Sequence[bytes] | None]
"""Maps a request to the frames of its reply; None for no reply."""


def reply(request_type: str, body: Any, sender_id: str = CONTROLLER_ID) -> list[bytes]:
    """Return the frames of a reply as TransferQueue builds it."""
    message = {
        "request_type": request_type,
        "sender_id": sender_id,
        "receiver_id": "someone",
        "request_id": "deadbeef",
        "timestamp": 1.0,
        "body": body,
    }
    return [msgspec.msgpack.encode(message)]


class FakeRouter:
    """Serves ``answer`` in a thread until it is closed. A context manager.

    Attributes:
        address: Where it listens.
        answer: Makes the replies; may be replaced at any time.
        requests: The requests, decoded, in order.
        identities: The identity frame of each request.
    """

    def __init__(self, answer: Answer, address: str = "tcp://127.0.0.1:*") -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.identities: list[bytes] = []
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(address)
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._later: list[list[bytes]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            while self._later:
                self._router.send_multipart(self._later.pop(0))
            if not self._router.poll(5):
                continue
            identity, frame = self._router.recv_multipart()
            request = msgspec.msgpack.decode(frame)
            self.requests.append(request)
            self.identities.append(identity)
            frames = self.answer(request)
            if frames is not None:
                self._router.send_multipart([identity, *frames])

    def send(self, number: int, frames: Sequence[bytes]) -> None:
        """Send a reply to the sender of request *number* now."""
        self._later.append([self.identities[number], *frames])

    def close(self) -> None:
        """Stop and free the address."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join()
            self._router.close()
            self._context.term()

    def __enter__(self) -> FakeRouter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
