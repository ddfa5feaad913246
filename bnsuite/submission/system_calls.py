"""System calls that foreign code is refused on Linux: what neither namespaces nor limits hold.

Memory that nobody's resident size counts (memfd, System V), new namespaces with rights and file systems
of their own, kernel keyrings, sockets past the network namespace (vsock), tracing, io_uring. Threads, fork,
files and sockets of the Unix domain stay. The filter is a program of the kernel's BPF, for seccomp(2).
"""

import ctypes
import platform
import struct

_ALLOW, _KILL = 0x7FFF_0000, 0x8000_0000
_EPERM, _ENOSYS = 0x0005_0001, 0x0005_0026  # an error in place of the call
_NEW_NAMESPACES = 0x7E02_0000  # of clone's flags: mount, cgroup, UTS, IPC, user, PID, network
_X32 = 0x4000_0000
_CLONE3 = 435  # hides its flags; where it is not there, the C library takes clone
_UNIX = 1
_SECCOMP, _FILTER = 22, 2  # of prctl

# add_key request_key keyctl memfd_create memfd_secret shmget semget msgget unshare setns mount ptrace
# perf_event_open bpf userfaultfd io_uring_setup process_vm_readv process_vm_writev; socket; clone
_X86_64 = (248, 249, 250, 319, 447, 29, 64, 68, 272, 308, 165, 101, 298, 321, 323, 425, 310, 311)
_AARCH64 = (217, 218, 219, 279, 447, 194, 190, 186, 97, 268, 40, 117, 241, 280, 282, 425, 270, 271)
_MACHINES = {
    "x86_64": (0xC000_003E, _X86_64, 41, 56),
    "aarch64": (0xC000_00B7, _AARCH64, 198, 220),
}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _GIVE = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets of what a filter sees


def refuses_system_calls() -> bool:
    """Whether there is a filter for this machine."""
    return platform.system() == "Linux" and platform.machine() in _MACHINES


def refuse_system_calls(libc: ctypes.CDLL) -> None:
    """From now on, for this process and its children. Wants no_new_privs; raises OSError where it fails."""
    machine, refused, socket, clone = _MACHINES[platform.machine()]
    code = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, machine), (_GIVE, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    code += [(_AT_LEAST, 0, 1, _X32), (_GIVE, 0, 0, _EPERM)]
    for call in refused:
        code += [(_EQUAL, 0, 1, call), (_GIVE, 0, 0, _EPERM)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_GIVE, 0, 0, _ENOSYS)]
    code += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 0, 5, _NEW_NAMESPACES)]
    code += [(_GIVE, 0, 0, _EPERM)]
    code += [(_EQUAL, 0, 3, socket), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 1, 0, _UNIX)]
    code += [(_GIVE, 0, 0, _EPERM), (_GIVE, 0, 0, _ALLOW)]

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
    program = Program(len(code), ctypes.addressof(raw))
    if libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp refuses its filter")
