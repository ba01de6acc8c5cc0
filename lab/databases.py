"""The role and the databases that the nodes use, made once at the primary."""

import psycopg
from psycopg import sql

from lab import patroni
from lab.plan import Cluster, Plan
from lab.system import Failed

TIMEOUT_S = 5


def make(plan: Plan, cluster: Cluster) -> None:
    """Make them. Raises Failed."""
    zone = patroni.primary(plan, cluster)
    if zone is None:
        raise Failed(f"{cluster.name} has no primary")
    place = f"host={zone.store} port={cluster.port} user=postgres password=lab dbname=postgres"
    try:
        with psycopg.connect(place, autocommit=True, connect_timeout=TIMEOUT_S) as connection:
            connection.execute("CREATE ROLE trunkline LOGIN PASSWORD 'lab'")
            connection.execute("GRANT pg_read_all_stats TO trunkline")  # to see the standbys
            for name in cluster.databases:
                statement = sql.SQL("CREATE DATABASE {} OWNER trunkline").format(sql.Identifier(name))
                connection.execute(statement)
    except psycopg.Error as error:
        raise Failed(f"{cluster.name}: {error}") from None
