"""The embedded `MemoryStore` that outlives its process: a dictionary and an unsynced journal."""
