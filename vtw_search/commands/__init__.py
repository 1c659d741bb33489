"""Command line entry points, one thin file each."""
