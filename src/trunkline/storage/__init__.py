"""The storage primitives and their engines (DESIGN: "Three storage primitives").

`queue` and `database` say what is promised; `engines/` keeps the promise on SQLite. Only `trunkline.bootstrap` names
an engine.
"""
