"""A write under way: told once, in order, awaited like a future."""

import asyncio

import pytest

from trunkline.storage.written import Written, when_done


async def test_callbacks_are_called_in_order_and_at_once_when_it_is_done() -> None:
    written: Written[int] = Written()
    told: list[str] = []
    for name in "abc":
        written.add_done_callback(lambda w, name=name: told.append(f"{name}{w.result()}"))
    assert (told, written.done(), written.cancelled()) == ([], False, False)
    written.settle(7, None)
    written.add_done_callback(lambda w: told.append("late"))
    assert told == ["a7", "b7", "c7", "late"]


async def test_its_outcome_is_unknown_before_it_is_done() -> None:
    written: Written[int] = Written()
    for ask in (written.result, written.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()


async def test_several_may_wait_for_it_and_one_may_give_up() -> None:
    written: Written[str] = Written()

    async def wait() -> str:
        return await written

    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    written.settle("kept", None)
    assert await asyncio.gather(*tasks[1:]) == ["kept", "kept"]
    assert tasks[0].cancelled()
    assert await written == "kept"


async def test_a_failure_is_raised_where_it_is_awaited() -> None:
    written: Written[None] = Written()
    written.settle(None, OSError("disk"))
    assert isinstance(written.exception(), OSError)
    with pytest.raises(OSError, match="disk"):
        await written


async def test_a_faulty_callback_keeps_nobody_from_being_told() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context["exception"]))
    written: Written[None] = Written()
    told: list[int] = []
    fault = RuntimeError("mine")

    def fail(_: object) -> None:
        raise fault

    for callback in (fail, lambda _: told.append(1), fail, lambda _: told.append(2)):
        written.add_done_callback(callback)
    written.settle(None, None)
    assert (told, faults) == ([1, 2], [fault, fault])


async def test_when_done_takes_futures_and_coroutines_too() -> None:
    done = asyncio.Event()
    results: list[int] = []

    async def work() -> int:
        return 2

    def note(finished: "asyncio.Future[int]") -> None:
        results.append(finished.result())
        if len(results) == 3:
            done.set()

    written: Written[int] = Written()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for awaitable in (written, future, work()):
        when_done(awaitable, note)
    written.settle(1, None)
    future.set_result(3)
    await done.wait()
    assert sorted(results) == [1, 2, 3]
