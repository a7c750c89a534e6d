"""Properties in this directory are about values, so hypothesis measures no time here."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
