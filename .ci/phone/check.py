"""Judges what the machines of `.ci/ufs` left: a line for each thing that has to hold, with its numbers.

check.py WORK READS_PER_S BEFORE_READS_PER_S BEFORE_BYTES_PER_S AFTER_READS_PER_S AFTER_BYTES_PER_S
Exit code 1 where something does not hold.
"""
import json
import pathlib
import sys

MIB = 1 << 20
failed = []


def tell(holds, line):
    """One line of the report."""
    print(("holds   " if holds else "FAILED  ") + line)
    if not holds:
        failed.append(line)


class Phone:
    """What one machine left."""

    def __init__(self, folder):
        self.folder = folder
        self.kernel = self.text("kernel")
        self.page_kib = int(self.text("page_kib").split()[1])

    def text(self, name):
        """A file's text, empty where there is none."""
        path = self.folder / name
        return path.read_text(errors="replace").strip() if path.exists() else ""

    def exit(self, name):
        """The exit code of a command; nothing where it was not run."""
        return int(self.text(name + ".exit") or -1)

    def json(self, name):
        """What a command printed with --json; nothing where it printed none."""
        try:
            return json.loads(self.text(name + ".json"))
        except json.JSONDecodeError:
            return None

    def said(self, name):
        """The lines on stderr."""
        return self.text(name + ".err").splitlines()

    def counted(self, name):
        """Reads and bytes that the kernel counted for the unit while a command ran."""
        before, after = (
            [int(word) for word in self.text(f"{name}.{when}").split()] for when in ("before", "after")
        )
        return after[0] - before[0], (after[2] - before[2]) * 512


def everything(phone, place, host):
    """probe, verify, replay and run on one pack."""
    about = f"{phone.page_kib} KiB pages, {place}: "
    commands = [f"{place}.{command}" for command in ("probe", "verify", "replay", "run")]
    codes = [phone.exit(command) for command in commands]
    tell(codes == [0] * 4, f"{about}probe, verify, replay, run end with exit codes {codes}")
    if codes != [0] * 4:
        for command in commands:
            print("        " + "; ".join(phone.said(command)))
        return
    probe, verify, replay, run = (phone.json(command) for command in commands)
    streams = {stream["depth"]: stream for stream in probe["streams"]}
    told = ", ".join(f"{s['reads_per_s']:.0f} reads/s of 4 KiB at depth {d}" for d, s in streams.items())
    tell(probe["measured"]["direct"], f"{about}probe reads directly: {told}")
    tell(verify["bundles"] > 0, f"{about}verify: {verify['bundles']} bundles sound, {verify['bytes']} bytes")
    counted = phone.counted(f"{place}.replay")
    rows = replay["rows"]
    asked = [sum(row[key] * row["tokens"] for row in rows) for key in
             ("reads_per_token", "bytes_read_per_token")]
    off = [counted / asked - 1 for counted, asked in zip(counted, asked)]
    tell(all(-0.001 < share < 0.1 for share in off),
         f"{about}replay: {asked[0]:.0f} reads of {asked[1]:.0f} bytes by lnp, {counted[0]} of {counted[1]} "
         "by the kernel, which counts the index too")
    through = run["engine"]["reads_through"]
    tell(through == "io_uring (crate io-uring) with registered file and buffer", f"{about}run reads through {through}")
    same = run["token_ids"] == host["token_ids"] and run["text"] == host["text"]
    tell(same, f"{about}run generates what the host does: {run['token_ids']} {run['text']!r} "
         f"({run['engine']['kernel_tier']} here, {host['engine']['kernel_tier']} there)")


def limited(phone, reads_per_s):
    """Linked against model order, on drives that are held to so many reads a second."""
    told = phone.json("limited")
    if phone.exit("limited") != 0:
        tell(False, f"replay under a limit: exit code {phone.exit('limited')}: {phone.said('limited')}")
        return
    rows = {row["strategy"]: row for row in told["rows"]}
    model, linked = rows["bundle"], rows["linked"]
    ms = {name: row["io_us_per_token"]["mean"] / 1e3 for name, row in rows.items()}
    kib = {name: row["bytes_read_per_token"] / row["reads_per_token"] / 1024 for name, row in rows.items()}
    for name, row in rows.items():
        print(f"        {name:16} {row['reads_per_token']:6.1f} reads/token of {kib[name]:7.1f} KiB, "
              f"{ms[name]:7.1f} ms/token: {row['reads_per_token'] / ms[name] * 1e3:.0f} reads/s")
    counts = model["reads_per_token"] / linked["reads_per_token"]
    times = ms["bundle"] / ms["linked"]
    tell(counts > 1 and kib["linked"] > kib["bundle"] and times > 1,
         f"{reads_per_s} reads/s: linked reads are fewer ({counts:.2f}x), longer ({kib['linked']:.1f} KiB, "
         f"not {kib['bundle']:.1f}) and take less time ({times:.2f}x)")
    tell(abs(times / counts - 1) < 0.1, f"{reads_per_s} reads/s: the times are as {times:.3f}, the read counts "
         f"as {counts:.3f}: {100 * (times / counts - 1):+.1f} %")


def faults(phone, host):
    """A drive with blocks that cannot be read, until it is written to."""
    for command in ("verify", "replay", "run"):
        said = phone.said(f"faulty.{command}")
        code = phone.exit(f"faulty.{command}")
        named = len(said) == 1 and "/dev/sd" in said[0]
        tell(code == 1 and named, f"EIO: {command} ends with exit code {code} and says: {' | '.join(said)}")
    healed = phone.json("healed.run") or {}
    codes = [phone.exit(f"healed.{command}") for command in ("verify", "run")]
    tell(codes == [0, 0] and healed.get("text") == host["text"],
         f"EIO: the same drive without its fault: verify and run end with {codes}, the same text")


def forbidden(phone, host):
    """kernel.io_uring_disabled is 2."""
    told = phone.json("forbidden.run") or {"engine": {"reads_through": "nothing"}, "text": None}
    through = told["engine"]["reads_through"]
    why = through.startswith("pread, because") and "EPERM" in through and "kernel.io_uring_disabled" in through
    tell(why and told["text"] == host["text"],
         f"io_uring forbidden: run reads through {through}, the same text")


def whole(phone, host):
    """A pack with predictors and the rest of the model: run, recorded, relinked on the phone, replayed, reported."""
    about = "predictors and the rest of the model in the pack: "
    commands = ["whole.run", "whole.relink", "better.verify", "better.run", "whole.replay", "whole.report"]
    codes = [phone.exit(command) for command in commands]
    tell(codes == [0] * len(commands), f"{about}{', '.join(commands)} end with exit codes {codes}")
    if any(codes):
        for command in commands:
            print("        " + "; ".join(phone.said(command)))
        return
    first, relinked, _, better, replay, _ = (phone.json(command) for command in commands)
    tell(first["token_ids"] == host["token_ids"], f"{about}{len(first['token_ids'])} tokens, those of the host")
    # By the law that relink goes by unless told otherwise: 9.64 us a read, 2,034 MiB/s.
    costs = [(told["reads_per_token"], told["bytes_read_per_token"]) for told in (first, better)]
    times = [9.64 * reads + read_bytes / (2034 * 1.048576) for reads, read_bytes in costs]
    tell(relinked["written"] and better["token_ids"] == first["token_ids"] and times[1] < times[0],
         f"{about}relinked on the phone by {relinked['seen_tokens']} tokens recorded: the same tokens, by the law "
         f"{times[0]:.0f} us/token before ({costs[0][0]:.1f} reads), {times[1]:.0f} now ({costs[1][0]:.1f} reads)")
    timeline = phone.json("timeline")
    events = timeline["traceEvents"] if isinstance(timeline, dict) else timeline or []
    page = phone.text("report.html")
    tell(len(events) > 100 and page.endswith("</html>"),
         f"{about}a timeline of {len(events)} events, a report of {len(page)} characters")
    cached = {row["cache_policy"] for row in replay["rows"]}
    tell({"decayed-frequency", "pinned"} <= cached, f"{about}replayed with the caches {sorted(cached)}")


def heat(work, phone, before, after):
    """The limit changes while replay --adapt runs."""
    told = phone.json("heat")
    if phone.exit("heat") != 0:
        tell(False, f"replay --adapt: exit code {phone.exit('heat')}: {phone.said('heat')}")
        return
    change = json.loads((work / "change.json").read_text())
    row = next(row for row in told["rows"] if row["collapse"] == "adaptive")
    gaps = [1e6 / reads / 1e6 * byte for reads, byte in (before, after)]
    print(f"        the limit goes from {before} to {after} (reads/s, bytes/s) {change['seconds']} s after the "
          f"first reads, at read {change['reads']}")
    for belief in row["beliefs"]:
        law = belief["law"]
        print(f"        {belief['seconds']:6.2f} s, batch {belief['batches']:4}: a {law['a_us']:7.1f} us, "
              f"B {law['b_mib_s']:6.1f} MiB/s, {law['combine']}; gap {belief['gap_bytes'] / 1024:.1f} KiB")
    early = [belief for belief in row["beliefs"] if belief["seconds"] <= change["seconds"]][-1]
    late = row["beliefs"][-1]
    grown, truth = late["gap_bytes"] / early["gap_bytes"], gaps[1] / gaps[0]
    # The gap is a * B, and B hardly matters while reads are what is limited: a is soon right, the gap nearly so.
    tell(late["seconds"] > change["seconds"] and grown > truth ** 0.5,
         f"adapts: the gap goes from {early['gap_bytes'] / 1024:.1f} to {late['gap_bytes'] / 1024:.1f} KiB, "
         f"{grown:.1f}x; by the limits from {gaps[0] / 1024:.1f} to {gaps[1] / 1024:.1f}, {truth:.1f}x")
    us = [1e6 / reads for reads, _ in (before, after)]
    tell(abs(late["law"]["a_us"] / us[1] - 1) < 0.25,
         f"adapts: a read is believed to take {early['law']['a_us']:.0f}, then {late['law']['a_us']:.0f} us; by "
         f"the limits {us[0]:.0f}, then {us[1]:.0f}")


def main():
    work = pathlib.Path(sys.argv[1])
    reads_per_s, *limits = (int(word) for word in sys.argv[2:])
    host = json.loads((work / "host.json").read_text())
    print("emulated: only counts, ratios and order mean anything, not speed")
    for name, places in (("4k", ("raw", "f2fs", "ext4")), ("16k", ("raw", "ext4"))):
        phone = Phone(work / name)
        tell(phone.page_kib == int(name[:-1]), f"Linux {phone.kernel} with pages of {phone.page_kib} KiB is up after "
             f"{phone.text('uptime')} s, UFS queue depth {phone.text('queue_depth')}")
        for place in places:
            everything(phone, place, host)
        if name == "4k":
            limited(phone, reads_per_s)
            faults(phone, host)
            forbidden(phone, host)
            whole(phone, json.loads((work / "host.whole.json").read_text()))
            heat(work, phone, tuple(limits[:2]), tuple(limits[2:]))
    if failed:
        print(f"{len(failed)} do not hold")
        sys.exit(1)


main()
