import asyncio
import threading

import pytest

from service.engine import Engine
from service.problems import Problem


@pytest.fixture
def engine():
    engine = Engine(max_waiting=2)
    yield engine
    engine.close()


def test_the_model_works_on_one_request_at_a_time_in_order_of_arrival(engine):
    seen = []

    def work(number):
        seen.append((number, threading.current_thread().name))

    async def many():
        await asyncio.gather(*(engine.compute(lambda n=n: work(n)) for n in range(8)))

    asyncio.run(many())
    assert [number for number, _ in seen] == list(range(8))
    assert len({thread for _, thread in seen}) == 1


def test_waiting_and_working_are_timed_apart(engine):
    first_started, may_end = threading.Event(), threading.Event()

    def first():
        first_started.set()
        may_end.wait()

    async def two():
        waiting = asyncio.gather(engine.compute(first), engine.compute(lambda: None))
        await asyncio.to_thread(first_started.wait)
        await asyncio.sleep(0.1)
        may_end.set()
        return await waiting

    one, two = asyncio.run(two())
    assert one.compute_time_ms >= 100
    assert two.queue_time_ms >= 100 > two.compute_time_ms


def test_a_full_house_is_said_at_once_with_a_time_to_come_back(engine):
    with engine.admitted(), engine.admitted():
        with pytest.raises(Problem, match="2 requests are waiting, which is the most") as caught:
            engine.admitted().__enter__()
        assert caught.value.code == "queue_full"
        assert caught.value.response().status_code == 429
        assert int(caught.value.response().headers["Retry-After"]) >= 1
    with engine.admitted():
        assert engine.n_inside == 1


def test_a_request_that_fails_leaves_its_place(engine):
    with pytest.raises(ZeroDivisionError), engine.admitted():
        1 / 0  # noqa: B018
    assert engine.n_inside == 0


def test_a_failing_request_reaches_its_sender_and_nobody_else(engine):
    async def both():
        return await asyncio.gather(
            engine.compute(lambda: 1 / 0), engine.compute(lambda: "well"), return_exceptions=True
        )

    failed, well = asyncio.run(both())
    assert isinstance(failed, ZeroDivisionError)
    assert well.value == "well"
