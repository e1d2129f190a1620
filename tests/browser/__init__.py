"""A package, so that its conftest and modules have names of their own beside those of the tests around it."""
