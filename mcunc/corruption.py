"""Old address of `mcunc.data.corruption`."""

from mcunc._internal.deprecation import moved

__getattr__ = moved(__name__, {n: f"data.corruption.{n}" for n in ("STRENGTHS", "corrupt")})
