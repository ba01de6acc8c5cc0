"""What is kept takes no more than it needs."""

import tracemalloc

import orjson

from trunkline.model.octets import fitted


def test_what_is_kept_takes_its_own_size():
    made = {"sid": "SM" + "0" * 32}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [fitted(orjson.dumps(made)) for _ in range(100)]
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept[0] == orjson.dumps(made)
    assert took < 100 * 400
