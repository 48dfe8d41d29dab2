"""Changes the limit of a drive of a running machine, over QMP, once it has read so much.

limit.py SOCKET DRIVE READS READS_PER_S BYTES_PER_S: waits until the drive has done READS reads, sets both
limits, and prints when that was as JSON: seconds since the drive's first read, and reads so far.
"""
import json
import socket
import sys
import time

WAIT_S = 240
# The guest's kernel reads fewer when it finds the disk, and lnp when it reads the index.
BEFORE = 50


class Machine:
    """The monitor of a machine."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 30
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.do("qmp_capabilities")

    def do(self, command, **arguments):
        """Runs a command and returns what it returns; events in between are passed over."""
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            line = self.lines.readline()
            if not line:
                sys.exit("the machine has ended")
            reply = json.loads(line)
            if "error" in reply:
                sys.exit(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def reads(self, drive):
        """Reads that a drive has done."""
        stats = [s["stats"] for s in self.do("query-blockstats") if s.get("device") == drive]
        return stats[0]["rd_operations"]


def main():
    path, drive, after, reads_per_s, bytes_per_s = sys.argv[1:]
    machine = Machine(path)
    start_s, end = None, time.monotonic() + WAIT_S
    while time.monotonic() < end:
        reads, now = machine.reads(drive), time.monotonic()
        if start_s is None and reads > BEFORE:
            start_s = now
        if start_s is not None and reads >= int(after):
            machine.do("block_set_io_throttle", device=drive, iops=0, iops_rd=int(reads_per_s), iops_wr=0,
                       bps=0, bps_rd=int(bytes_per_s), bps_wr=0)
            print(json.dumps({"seconds": round(now - start_s, 2), "reads": reads}))
            return
        time.sleep(0.02)
    sys.exit(f"drive {drive} has not done {after} reads in {WAIT_S} s")


try:
    main()
except OSError as error:
    sys.exit(f"the machine has ended: {error}")
