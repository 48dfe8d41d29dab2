"""One program at a time on this machine: in a cgroup, after the page cache was dropped, with what it took counted."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path


def one_line(text):
    """What a program died of: the line that says so, else its last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"(lnp|error|llama_tokens|to_gguf): ", line)]
    return re.sub(r"^(lnp|llama_tokens|to_gguf): ", "", told[-1] if told else lines[-1] if lines else "no message")[:400]


class Cgroup:
    """A cgroup for one run at a time: memory limit, swap off, reads counted and, where asked for, held back."""

    def __init__(self):
        self.memory, self.io, self.v2 = None, None, False
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        v1 = {option: Path(mount[1]) for mount in mounts if mount[2] == "cgroup" for option in mount[3].split(",")}
        v2 = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
        self.why = "no cgroup controller for memory here"
        if os.geteuid() != 0:
            self.why = "a cgroup takes root"
        elif "memory" in v1:
            self.memory, self.io = v1["memory"], v1.get("blkio")
        elif v2 and "memory" in (v2[0] / "cgroup.controllers").read_text().split():
            self.memory, self.io, self.v2 = v2[0], v2[0], True
            for controller in ("memory", "io"):
                try:
                    (v2[0] / "cgroup.subtree_control").write_text(f"+{controller}")
                except OSError as error:
                    self.why = f"the {controller} controller of {v2[0]} cannot be had: {error.strerror}"
                    self.io = None
                    if controller == "memory":
                        self.memory = None
        self.folders = []

    def open(self, limit, disk, held):
        """Makes the group anew; `limit` bytes or none; `held` (reads/s, bytes/s) of the disk, or none."""
        if not self.memory:
            return
        name = f"lnp-sidebyside.{os.getpid()}"
        self.folders = [folder / name for folder in dict.fromkeys([self.memory, self.io]) if folder]
        for folder in self.folders:
            folder.mkdir()
        memory, io = self.folders[0], self.folders[-1]
        if limit and self.v2:
            (memory / "memory.max").write_text(str(limit))
            if (memory / "memory.swap.max").exists():
                (memory / "memory.swap.max").write_text("0")
        elif limit:
            (memory / "memory.swappiness").write_text("0")
            (memory / "memory.limit_in_bytes").write_text(str(limit))
            if (memory / "memory.memsw.limit_in_bytes").exists():
                (memory / "memory.memsw.limit_in_bytes").write_text(str(limit))
        if self.v2 and held:
            (io / "io.max").write_text(f"{disk} riops={held[0]} rbps={held[1]}")
        elif self.io and disk:
            # Reads are only counted where some limit stands: one that no disk reaches.
            (io / "blkio.throttle.read_bps_device").write_text(f"{disk} {held[1] if held else 10**15}")
            if held:
                (io / "blkio.throttle.read_iops_device").write_text(f"{disk} {held[0]}")

    def command(self, command):
        """The command, run by a shell that enters the group first."""
        enter = "".join(f"echo $$ >'{folder}/cgroup.procs' && " for folder in self.folders)
        return ["sh", "-c", enter + 'exec "$@"', "sh", *command]

    def told(self):
        """Peak memory in all, times that the kernel killed, reads of devices so far; none where not counted."""
        if not self.folders:
            return {}
        memory, io = self.folders[0], self.folders[-1]
        number = lambda path: int(path.read_text()) if path.exists() else None
        if self.v2:
            events = dict(line.split() for line in (memory / "memory.events").read_text().splitlines())
            told = {"peak": number(memory / "memory.peak"), "killed": int(events.get("oom_kill", 0))}
            counts, stat = [], io / "io.stat"
            if stat.exists():
                counts = [int(found) for found in re.findall(r"\brios=(\d+)", stat.read_text())]
        else:
            events = dict(line.split() for line in (memory / "memory.oom_control").read_text().splitlines())
            told = {"peak": number(memory / "memory.max_usage_in_bytes"), "killed": int(events.get("oom_kill", 0))}
            counts, stat = [], io / "blkio.throttle.io_serviced"
            if stat.exists():
                counts = [int(found) for found in re.findall(r"^\d+:\d+ Read (\d+)", stat.read_text(), re.MULTILINE)]
        told["reads"] = sum(counts) if stat.exists() else None
        return told

    def close(self):
        for folder in self.folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    # The last process leaves the group a little after it was waited for.
                    time.sleep(0.02)
        self.folders = []


def busy_s():
    """Seconds that all processors of this machine have worked so far."""
    user, nice, system, _, _, *interrupts = (int(word) for word in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def drop_cache(files):
    """Drops these files from the page cache, and with root everything else: pages of another group would be free."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        pass


def measured(command, group, limit, disk, held, seconds):
    """Runs a program in the group, for so many seconds at most: what it told as JSON, what it took, how it ended."""
    process = None
    try:
        group.open(limit, disk, held)
        with tempfile.TemporaryFile("w+") as said:
            begin, busy = time.monotonic(), busy_s()
            process = subprocess.Popen(group.command([str(part) for part in command]), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=said, text=True)
            late = threading.Event()

            def end():
                late.set()
                # It may have ended by itself just now.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

            timer = threading.Timer(seconds, end)
            timer.start()
            lines, first = [], {}
            for line in process.stdout:
                # llama_tokens says when its first token is there: reads after that are of tokens.
                if line.startswith('{"first_token"'):
                    first = group.told()
                else:
                    lines.append(line)
            # Not Popen's wait, which does not tell what the process took.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            timer.cancel()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall_s, cpu_s = time.monotonic() - begin, usage.ru_utime + usage.ru_stime
            others_s = max(0.0, busy_s() - busy - cpu_s)
            said.seek(0)
            last = group.told()
            told, failure = outcome(process.returncode, "".join(lines), said.read(), late.is_set(), seconds, last.get("killed"))
            return {
                "exit": process.returncode, "failure": failure, "wall_s": wall_s,
                "others_cpu_share": others_s / wall_s / os.cpu_count(),
                "cpu_user_s": usage.ru_utime, "cpu_system_s": usage.ru_stime, "major_faults": usage.ru_majflt,
                "process_peak_bytes": usage.ru_maxrss * 1024, "group_peak_bytes": last.get("peak"),
                "device_bytes_read": usage.ru_inblock * 512, "device_reads": last.get("reads"),
                "device_reads_before_first": first.get("reads"), "told": told,
            }
    finally:
        # Where this script is ended, the program ends too.
        if process and process.returncode is None:
            process.kill()
            process.wait()
        group.close()


def outcome(code, printed, said, late, seconds, killed):
    """What a program told, or how it failed."""
    if code == -signal.SIGKILL:
        return None, f"killed: not done after {seconds:.0f} s" if late else "killed: out of memory" if killed else "killed"
    if code < 0:
        return None, f"died of {signal.Signals(-code).name}"
    if code:
        return None, one_line(said)
    try:
        return json.loads(printed), None
    except ValueError:
        return None, "printed no JSON"


def disk_of(path):
    """MAJOR:MINOR of the whole disk that a file lies on; none under an overlay."""
    number = os.stat(path).st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not place.exists():
        return None
    if (place / "partition").exists():
        place = place.resolve().parent
    return (place / "dev").read_text().strip()


def disk_rate(path):
    """Bytes a second of direct reads of 16 MiB, one after the other; none where the file system has no direct reads."""
    size = 16 << 20
    count = max(1, min(64, path.stat().st_size // size))
    done = subprocess.run(["dd", f"if={path}", "of=/dev/null", f"bs={size}", f"count={count}", "iflag=direct"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"})
    told = re.search(r"^(\d+) bytes.* copied, ([\d.e-]+) s", done.stderr, re.MULTILINE)
    return int(told[1]) / float(told[2]) if done.returncode == 0 and told else None
