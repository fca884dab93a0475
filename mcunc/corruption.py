"""Old address of `mcunc.data.corruption`."""

from mcunc._internal.deprecation import moved

__getattr__ = moved(
    __name__, {"STRENGTHS": "data.corruption.STRENGTHS", "corrupt": "data.corruption.corrupt"}
)
