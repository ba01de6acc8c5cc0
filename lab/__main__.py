"""`python -m lab cluster|chaos|report|stop`, see the package."""

import argparse
import signal
import sys
from pathlib import Path

from lab.plan import HOME, RESULTS, Plan
from lab.system import ENDINGS, Failed, need_root


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description="A whole cluster on this machine.")
    parser.add_argument("what", choices=("cluster", "chaos", "report", "stop"))
    parser.add_argument("--name", default="tl", help="of this lab: two of different names do not meet")
    parser.add_argument("--home", type=Path, default=HOME, help="where data, logs and Patroni's environment lie")
    parser.add_argument("--queues", type=int, default=2, choices=(1, 2, 3), help="PostgreSQL clusters for the queue")
    parser.add_argument("--small", action="store_true", help="one PostgreSQL cluster for everything")
    parser.add_argument("--nodes", type=int, default=3, choices=(0, 1, 2, 3))
    parser.add_argument("--edge", action="store_true", help="two Kamailios with one address in front of the nodes' SIP")
    parser.add_argument("--disks", action="store_true", help="a file system of its own for each host")
    parser.add_argument("--lease", type=float, default=1.0, help="seconds after which a silent node is lost")
    parser.add_argument("--rate", type=float, default=12.0, help="chaos: messages a second")
    parser.add_argument("--calls", type=int, default=12, help="chaos: calls that are up while the fault comes")
    parser.add_argument("--faults", default="", help="chaos: names, separated by commas; empty: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="chaos, report: folder of the results")
    parser.add_argument("--runs", type=int, default=5, help="chaos: runs of each fault")
    parser.add_argument(
        "--since", type=int, default=0, help="report: older runs (Unix s) only where there are no newer"
    )
    parser.add_argument("--once", action="store_true", help="cluster: start, print the table once, stop")
    return parser.parse_args()


def plan_of(given: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    return Plan(
        name=given.name, home=given.home, queues=1 if given.small else given.queues,
        own_database=not given.small, nodes=given.nodes, lease_s=given.lease, disks=given.disks,
        edge=given.edge,
    )  # fmt: skip


def faults(plan: Plan, given: argparse.Namespace) -> int:
    """Chaos: those of whole regions have labs of their own. Raises Failed."""
    from lab.chaos import Burden, chaos
    from lab.faults import APART
    from lab.region_rounds import rounds

    names = given.faults.replace(",", " ").split()
    apart = [name for name in APART if name in names or not names]
    others = [name for name in names if name not in APART]
    code = 0
    if others or not names:
        code = chaos(plan, ",".join(others), given.runs, Burden(given.rate, given.calls), given.results)
    return max(code, rounds(plan, apart, given.runs, given.rate, given.calls, given.results)) if apart else code


def _ended(*_: object) -> None:
    for number in ENDINGS:  # once is enough, and a second one must not stop the stopping
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """The command line."""
    given = arguments()
    for number in ENDINGS:  # a shell lets what it starts in the background ignore SIGINT
        signal.signal(number, _ended)
    try:
        if given.what == "report":
            from lab import region_rounds, report

            runs = report.update(folder=given.results, since=given.since), region_rounds.update(folder=given.results)
            print(f"{sum(runs)} runs")
            return 0
        need_root()
        plan = plan_of(given)
        if given.what == "stop":
            from lab.cluster import stop

            print("\n".join(stop(plan)) or "nothing was left")
        elif given.what == "cluster":
            from lab.table import show

            show(plan, once=given.once)
        else:
            return faults(plan, given)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
