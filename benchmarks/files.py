"""Room for a crowd: as many open files and connections as the system lets a process have."""

from __future__ import annotations


def room_for(wanted: int) -> bool:
    """Raise this process's limit to `wanted` open files beyond the usual; whether they may be."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + 200
    if soft < needed and (hard == resource.RLIM_INFINITY or hard >= needed):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        soft = needed
    return soft >= needed
