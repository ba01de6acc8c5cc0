"""What the pipeline tells of itself: stages, traces, one event a flight (docs/design/telemetry.md).

Nothing in here waits, and nothing grows: figures are plain integers, spans and events go into bounded queues, and what
does not fit is dropped and counted.
"""
