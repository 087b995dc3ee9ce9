"""One thread for the model, and a limit on how many requests may be in the house.

Usable without BentoML. Requests are served one after another in order of arrival; an answer
depends on its own request only, so it is the same whatever the load.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, TypeVar

from service.problems import Problem

T = TypeVar("T")
N_DECODING_THREADS = 2
MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Generic[T]):
    """What the model thread made, and how long it waited and worked."""

    value: T
    queue_time_ms: float
    compute_time_ms: float


class Engine:
    """The model thread, a few threads that decode images, and the count of those inside."""

    def __init__(self, *, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.n_inside = 0
        self._mean_compute_s = 0.0
        self._model = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._decoding = ThreadPoolExecutor(N_DECODING_THREADS, thread_name_prefix="decoding")

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place in the house for one request.

        Raises:
            Problem: 429 if the house is full, with a guess at when it will not be.
        """
        if self.n_inside >= self.max_waiting:
            wait_s = math.ceil(self.n_inside * self._mean_compute_s)
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "queue_full",
                f"{self.n_inside} requests are waiting, which is the most; come back later.",
                retry_after_s=min(max(wait_s, 1), MAX_RETRY_AFTER_S),
            )
        self.n_inside += 1
        try:
            yield
        finally:
            self.n_inside -= 1

    async def prepare(self, work: Callable[[], T]) -> T:
        """Run work that needs no model, beside it and off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, work)

    async def compute(self, work: Callable[[], T]) -> Finished[T]:
        """Run work on the model thread, after all that came before."""
        submitted = time.perf_counter()

        def timed() -> Finished[T]:
            started = time.perf_counter()
            value = work()
            worked_s = time.perf_counter() - started
            self._mean_compute_s += 0.2 * (worked_s - self._mean_compute_s)
            return Finished(
                value=value,
                queue_time_ms=1000 * (started - submitted),
                compute_time_ms=1000 * worked_s,
            )

        return await asyncio.get_running_loop().run_in_executor(self._model, timed)

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Give the model thread its first work, loading, without waiting for it."""
        return self._model.submit(work)

    def close(self) -> None:
        """Let what runs end, and drop what waits."""
        self._decoding.shutdown(wait=True, cancel_futures=True)
        self._model.shutdown(wait=True, cancel_futures=True)
