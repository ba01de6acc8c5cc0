"""What lies in the segments' folder, by name."""

SUFFIX = ".parquet"
"""Of a segment."""
UNFINISHED = ".part"
"""Of a segment that is being written."""
SPILL = "spill-"
"""Folder of a process's spilled data: this and its process id. Those of dead processes are removed by roll-ups."""
