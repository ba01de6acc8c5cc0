"""`python -m trunkline.supervisor PLAN`, with the plan as JSON (see trunkline.supervisor.plan)."""

import sys

from trunkline.supervisor.plan import Plan
from trunkline.supervisor.run import CannotBind, Supervisor

if __name__ == "__main__":
    try:
        sys.exit(Supervisor(Plan.from_json(sys.argv[1])).run())
    except CannotBind as error:
        sys.exit(f"trunkline: {error}")
