"""Runs programs recorded on real kernels and compares every step with what they did.

Models the recorder of the traces (their README describes format and operations). Programs run under
the profile and default configuration of the kernel that recorded them.
"""

from .compare import Difference
from .report import FileReport, ProgramReport, replay_file, replay_program, run_cli
from .trace import Program, read_programs

__all__ = [
    "Difference",
    "FileReport",
    "Program",
    "ProgramReport",
    "read_programs",
    "replay_file",
    "replay_program",
    "run_cli",
]
