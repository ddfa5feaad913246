"""Filter of system calls for foreign code on Linux, against what neither namespaces nor limits cover.

Refused are: memory that no resident size counts (memfd, System V, shared anonymous pages, huge pages of the
pool, buffers of sockets, pages given to pipes, events of inotify, record locks, Landlock rules); sockets,
which reach services of the machine; new namespaces with rights and file systems of their own; kernel
keyrings; tracing; io_uring. Threads, fork, pipes and files stay allowed. The filter is a program of the
kernel's BPF, for seccomp(2).
"""

import ctypes
import platform
import struct

_ALLOW, _KILL = 0x7FFF_0000, 0x8000_0000
_EPERM, _ENOSYS = 0x0005_0001, 0x0005_0026  # an error in place of the call
_NEW_NAMESPACES = 0x7E02_0000  # of clone's flags: mount, cgroup, UTS, IPC, user, PID, network
_X32 = 0x4000_0000
_CLONE3 = 435  # hides its flags; without it the C library uses clone
_SHARED_AND_ANONYMOUS, _HUGE_PAGES = 0x21, 0x4_0000  # of mmap's flags
_RECORD_LOCKS = 6, 7, 37, 38  # of fcntl's commands: one lock per byte of a file, and each takes memory
_SECCOMP, _FILTER = 22, 2  # of prctl

# add_key request_key keyctl memfd_create memfd_secret shmget semget msgget unshare setns mount ptrace
# perf_event_open bpf userfaultfd io_uring_setup process_vm_readv process_vm_writev
# socket socketpair splice tee vmsplice inotify_init (x86-64 alone) inotify_init1 fanotify_init
# landlock_create_ruleset pidfd_getfd; clone; mmap; fcntl
_X86_64 = (
    *(248, 249, 250, 319, 447, 29, 64, 68, 272, 308, 165, 101, 298, 321, 323, 425, 310, 311),
    *(41, 53, 275, 276, 278, 253, 294, 300, 444, 438),
)
_AARCH64 = (
    *(217, 218, 219, 279, 447, 194, 190, 186, 97, 268, 40, 117, 241, 280, 282, 425, 270, 271),
    *(198, 199, 76, 77, 75, 26, 262, 444, 438),
)
_MACHINES = {
    "x86_64": (0xC000_003E, _X86_64, 56, 9, 72),
    "aarch64": (0xC000_00B7, _AARCH64, 220, 222, 25),
}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _GIVE = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets of what a filter sees; an argument has 8 bytes

Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if its test holds, instructions to skip if it does not, operand."""


def refuses_system_calls() -> bool:
    """Tell whether there is a filter for this machine."""
    return platform.system() == "Linux" and platform.machine() in _MACHINES


def refuse_system_calls(libc: ctypes.CDLL) -> None:
    """Install the filter for this process and its children; needs no_new_privs, and cannot be undone.

    Raises:
        OSError: the kernel refuses the filter.
    """
    machine, refused, clone, mmap, fcntl = _MACHINES[platform.machine()]
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine), (_GIVE, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    code += [(_AT_LEAST, 0, 1, _X32), (_GIVE, 0, 0, _EPERM)]
    for call in refused:
        code += [(_EQUAL, 0, 1, call), (_GIVE, 0, 0, _EPERM)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_GIVE, 0, 0, _ENOSYS)]
    code += _refuse_where(clone, 0, (_ANY_BIT, _NEW_NAMESPACES))
    both = _SHARED_AND_ANONYMOUS
    code += _refuse_where(mmap, 3, (_ANY_BIT, _HUGE_PAGES), (_AND, both), (_EQUAL, both))
    code += _refuse_where(fcntl, 1, *((_EQUAL, command) for command in _RECORD_LOCKS))
    code += [(_GIVE, 0, 0, _ALLOW)]

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in code))
    program = Program(len(code), ctypes.addressof(raw))
    if libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp refuses its filter")


def _refuse_where(call: int, argument: int, *tests: tuple[int, int]) -> list[Instruction]:
    """Refuse a call if one of the tests of an argument's lower 32 bits holds, and allow it otherwise."""
    steps = [
        (test, 0 if test == _AND else len(tests) - index, 0, value)
        for index, (test, value) in enumerate(tests)
    ]
    low_half = _ARGUMENTS + 8 * argument  # both machines are little-endian
    block = [(_LOAD, 0, 0, low_half), *steps, (_GIVE, 0, 0, _ALLOW), (_GIVE, 0, 0, _EPERM)]
    return [(_EQUAL, 0, len(block), call), *block]
