from hypothesis import HealthCheck, settings

# Timing is not what the fuzz tests are about, and a busy machine must not fail them.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
