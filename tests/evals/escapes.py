"""What a program that took over the evaluation child would try, as small pieces of Python.

Each piece is run as it stands, with `spot` (where things are) in its namespace; it has succeeded when it ends
without an error. The same pieces run free of confinement, where they must succeed: otherwise they would prove
nothing inside.
"""

from __future__ import annotations

OPEN = {
    # the network, and other programs' sockets
    "tcp": "socket.create_connection(('127.0.0.1', spot['port']), timeout=5)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', spot['port']))",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + spot['abstract'])",
    "socket file": "socket.socket(socket.AF_UNIX).connect(spot['socket'])",
    # reading
    "token": "open(spot['token']).read()",
    "token through /proc/self/root": "open('/proc/self/root' + spot['token']).read()",
    "token through a link": "open(spot['linked']).read()",
    "database": "open(spot['database'], 'rb').read()",
    "home": "os.listdir(spot['home'])",
    "parent's environment": "assert b'=' in open(f\"/proc/{spot['parent']}/environ\", 'rb').read()",
    "parent's memory": "open(f\"/proc/{spot['parent']}/mem\", 'rb')",
    "parent's files": "os.listdir(f\"/proc/{spot['parent']}/fd\")",
    "users": "open('/etc/passwd').read()",
    # writing
    "new file outside": "open(spot['home'] + '/new', 'w').write('x')",
    "overwriting": "open(spot['victim'], 'w').write('x')",
    "appending": "open(spot['victim'], 'a').write('x')",
    "truncating": "os.truncate(spot['victim'], 0)",
    "truncating what may be read": "os.close(os.open(spot['weights'], os.O_RDONLY | os.O_TRUNC))",
    "locking the weights": "fcntl.flock(os.open(spot['weights'], os.O_RDONLY), fcntl.LOCK_EX)",
    "lease on the weights": "f = os.open(spot['weights'], 0); [fcntl.fcntl(f, 1024, how) for how in (0, 2)]",
    "watching the home": "w = libc.inotify_init(); h = spot['home'].encode(); "
    "libc.inotify_add_watch(w, h, 256) > 0 or fail()",
    "renaming": "v = spot['victim']; os.rename(v, v + '2'); os.rename(v + '2', v)",
    "changing the mode": "os.chmod(spot['victim'], 0o644)",
    "changing the mode by descriptor": "os.fchmod(os.open(spot['weights'], os.O_RDONLY), 0o644)",
    "changing times": "os.utime(spot['victim'])",
    "changing owners": "os.chown(spot['victim'], os.getuid(), os.getgid())",
    "the weights": "open(spot['weights'], 'r+b').write(b'x')",
    "the weights through a link": "s = spot['scratch'] + '/w'; os.link(spot['weights'], s); open(s, 'r+b')",
    "shared memory folder": "s = '/dev/shm/' + spot['abstract']; open(s, 'w'); os.unlink(s)",
    "temporary folder": "s = '/tmp/' + spot['abstract']; open(s, 'w'); os.unlink(s)",
    # the scratch folder: nothing for the parent to stumble over, nothing that fills the disk
    "new file in scratch": "open(spot['scratch'] + '/new', 'w')",
    "new folder in scratch": "os.mkdir(spot['scratch'] + '/folder')",
    "link in scratch": "os.symlink(spot['token'], spot['scratch'] + '/link')",
    "pipe in scratch": "os.mkfifo(spot['scratch'] + '/pipe')",
    "log made a link": "s = spot['scratch'] + '/child.log'; os.unlink(s); os.symlink(spot['token'], s)",
    "answer file made a link": "s = spot['output']; os.rename(s, s + '2'); os.symlink(spot['token'], s)",
    # processes
    "fork": "os.waitpid(os.fork() or os._exit(0), 0)",
    "shell": "subprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "signalling the parent": "os.kill(spot['parent'], 0)",
    "handle of the parent": "os.pidfd_open(spot['parent'])",
    "limits of the parent": "resource.prlimit(spot['parent'], resource.RLIMIT_NOFILE)",
    "priority of the parent": "os.setpriority(0, spot['parent'], os.getpriority(0, 0))",
    "processors of the parent": "os.sched_setaffinity(spot['parent'], os.sched_getaffinity(0))",
    "outliving the parent": "libc.prctl(1, 0, 0, 0, 0) == 0 or fail()",
    "signals through a pipe": "fcntl.fcntl(0, fcntl.F_SETOWN, spot['parent'])",
    # memory that RLIMIT_DATA does and does not count
    "10 GB": "mmap.mmap(-1, 10 << 30, flags=0x4000 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
    "10 GB, shared": "mmap.mmap(-1, 10 << 30, flags=0x4000 | mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)",
    "10 GB of stack": "mmap.mmap(-1, 10 << 30, flags=0x4100 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
    "page tables of 4 GB": "mmap.mmap(-1, 2 << 40, flags=0x4002 | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)",
    "10 GB in a memory file": "os.truncate(os.memfd_create('x'), 10 << 30)",
}
"""Succeed when nothing is confined."""

FILES = (
    *("token", "token through /proc/self/root", "token through a link", "database", "home", "users"),
    *("parent's environment", "parent's memory", "parent's files"),
    *("new file outside", "overwriting", "appending", "renaming", "the weights"),
    *("the weights through a link", "shared memory folder", "temporary folder"),
    *("new file in scratch", "new folder in scratch", "link in scratch", "log made a link"),
    "answer file made a link",
)
"""Those of them that are about opening and making files."""

PRIVILEGED = {
    "10 GB of objects": "bytearray(10 << 30)",
    "10 GB on disk": "os.ftruncate(os.open(spot['output'], os.O_WRONLY), 10 << 30)",
    "higher limits": "resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)",
    "tracing the parent": "call(101, 117, 0x4206, spot['parent'], 0, 0)",
    "reading the parent's memory": "call(310, 270, spot['parent'], 0, 0, 0, 0, 0)",
    "user namespace": "libc.unshare(0x10000000) == 0 or fail()",
    "other namespace": "libc.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0) == 0 or fail()",
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 or fail()",
    "chroot": "os.chroot('/')",
    "io_uring": "call(425, 425, 8, (ctypes.c_char * 120)())",
    "bpf": "call(321, 280, 0, (ctypes.c_char * 120)(), 120)",
    "perf": "call(298, 241, (ctypes.c_char * 120)(), 0, -1, -1, 0)",
    "user faults": "call(323, 282, 1)",
    "keyring": "call(250, 219, 0, -3, 1)",
    "new mount interface": "call(430, 430, b'tmpfs', 0)",
    "system V memory": "call(29, 194, 0, 4096, 0o1600)",
    "clone3": "call(435, 435, (ctypes.c_char * 88)(), 88)",
    "shell in place": "os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "setuid program in place": "os.execv('/bin/su', ['su'])",
    "another user": "os.setresuid(65534, 65534, 65534)",
    "other program's queue": "call(241, 181, b'x')",
    "another label": "call(460, 460, 100, (ctypes.c_char * 64)(), 64, 0)",
    "unlimited stack": "resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)",
    "opening by a structure": "call(437, 437, -100, b'/dev/null', (ctypes.c_uint64 * 3)(), 24)",
    "capabilities": "call(126, 91, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())",
}
"""Would not come back, or need privileges that the tests may not have; looked at inside only."""

ALLOWED = {
    "threads": "t = threading.Thread(target=list); t.start(); t.join()",
    "the weights": "assert open(spot['weights'], 'rb').read() == b'weights'",
    "the answer file": "open(spot['output'], 'w').write('x')",
    "a library": "import decimal, sqlite3",
    "its own signals": "signal.raise_signal(signal.SIGCHLD)",
    "memory": "bytearray(64 << 20)",
    "randomness": "os.urandom(8); open('/dev/urandom', 'rb').read(8)",
    "no output": "open('/dev/null', 'w').write('x')",
}
"""What a child does need."""

PREAMBLE = """
import ctypes, errno, fcntl, json, mmap, os, platform, resource, signal, socket, subprocess, sys, threading
answer, progress = map(int, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
def fail():
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def call(x86, arm, *arguments):
    number = x86 if platform.machine() == "x86_64" else arm
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        fail()
from evals.child import guarded
from evals.confine import confine
from evals.plan import load_plan
plan = load_plan(sys.stdin.buffer.readline())
spot = json.loads(sys.stdin.buffer.read())
"""
CONFINE = "confinement = confine(plan)\n"
TRY_ALL = """
outcomes = {}
for name, code in spot["pieces"].items():
    try:
        exec(code)
        outcomes[name] = "done"
    except OSError as error:
        outcomes[name] = errno.errorcode[error.errno]
    except (MemoryError, ValueError) as error:
        outcomes[name] = type(error).__name__
os.write(answer, json.dumps(outcomes).encode() + b"\\n")
"""
