"""Windows has no `fcntl` and fewer names in `os`: the package must import without them."""

import subprocess
import sys

IMPORT_TWICE = """
import importlib, os, pkgutil, signal, sys
import cifar_jax

names = [found.name for found in pkgutil.walk_packages(cifar_jax.__path__, "cifar_jax.")]
for name in names:  # With all that they import, which has its own ways on Windows.
    importlib.import_module(name)
for name in ["cifar_jax", *names]:
    del sys.modules[name]
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
UNIX = {
    os: "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown fchmod fchown fork"
    " getgid getloadavg getpgid getuid killpg mkfifo mknod nice posix_fallocate pread pwrite"
    " register_at_fork sched_getaffinity setsid statvfs sync sysconf uname",
    signal: "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGQUIT SIGSTOP SIGUSR1 alarm setitimer",
}
for module, only in UNIX.items():
    for name in only.split():
        delattr(module, name)
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_imports_without_what_only_unix_has() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_TWICE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
