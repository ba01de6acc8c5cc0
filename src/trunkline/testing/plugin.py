"""The pytest plugin that this package ships (entry point `trunkline`): fixtures for tests that talk to a Trunkline.

It is loaded by every pytest run in an environment that has the package, so it imports nothing heavy.
"""
