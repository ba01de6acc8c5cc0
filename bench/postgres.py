"""Messages end to end with queue and database in PostgreSQL, beside the embedded engine.

    python -m bench.postgres [ROUNDS [MESSAGES]]

The server is Debian's, on this machine, on a Unix socket, with fsync on; it is made for the run and removed after it.
"""

import sys

from tests.postgres import PostgresServer

from bench.node import Trunkline
from bench.sms import CONCURRENCY, perform, say, system, tell

ROUNDS, MESSAGES = 2, 6000


def main(rounds: int = ROUNDS, messages: int = MESSAGES) -> None:
    """A B A B, then the ratio of what was accepted and of what was told a second."""
    server = PostgresServer({"shared_buffers": "256MB"}).create().start()
    rates: dict[str, list[tuple[float, float, float]]] = {"sqlite": [], "postgres": []}
    try:
        for _ in range(rounds):
            for engine, found in rates.items():
                storage = {}
                if engine == "postgres":
                    storage = {"engine": engine, "queue": server.database(), "database": server.database()}
                with system(Trunkline, storage=storage) as run:
                    result = perform(run.measure(lambda load: load.closed(messages, CONCURRENCY, 60)))
                say(engine)
                tell(result)
                found.append((result.accepted_per_s, result.delivered_per_s, result.cpu_s_per_1000))
    finally:
        server.close()
    means = {name: [sum(one) / len(one) for one in zip(*found, strict=True)] for name, found in rates.items()}
    for index, what in enumerate(("accepted/s", "told/s", "CPU of the node, s/1000")):
        ours, embedded = means["postgres"][index], means["sqlite"][index]
        print(f"{what}\tpostgres {ours:.3g}\tembedded {embedded:.3g}\tratio {ours / embedded:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
