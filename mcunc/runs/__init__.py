"""The recorded runs, one in a file: ``python -m mcunc run NAME`` makes it again."""
