"""What the package gives, against what does not go through it: the command line (`LNP`), the second reader of packs in
`spec/`, the demo's checkpoint, and numbers computed here.

    LNP=target/release/lnp python -m unittest discover -s python/tests
"""

import importlib.util
import json
import mmap
import os
import struct
import subprocess
import tempfile
import unittest
import warnings
import zlib
from pathlib import Path

import numpy as np

import lnp

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "spec" / "golden"
LNP = os.environ.get("LNP", str(ROOT / "target" / "release" / "lnp"))

spec = importlib.util.spec_from_file_location("read_lnp", ROOT / "spec" / "read_lnp.py")
assert spec and spec.loader
second = importlib.util.module_from_spec(spec)
spec.loader.exec_module(second)


def cli(*arguments):
    """What the command line prints."""
    done = subprocess.run([LNP, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def told(*arguments):
    """The line that the command line fails with."""
    done = subprocess.run([LNP, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1, done
    return done.stderr.splitlines()[-1].removeprefix("lnp: ")


def tensors(path):
    """Tensors of a safetensors file and its metadata, read by hand."""
    data = Path(path).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    types = {"U8": "u1", "I32": "<i4", "U32": "<u4", "F16": "<f2", "F32": "<f4"}
    found = {}
    for name, tensor in header.items():
        begin, end = (8 + length + at for at in tensor["data_offsets"])
        found[name] = np.frombuffer(data[begin:end], types[tensor["dtype"]]).reshape(tensor["shape"])
    return found, metadata


def mapped(array):
    """Whether an array is bytes of a mapped file, which nobody can write to."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return isinstance(base, mmap.mmap) and not array.flags.writeable


class Files(unittest.TestCase):
    """Traces, links and packs of the demo's model, made by the command line."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        at = cls.at = Path(cls.folder.name)
        cls.profile, cls.test = at / "profile.trace", at / "test.trace"
        cli("trace", "--model", "demo", "--text", "demo/text/profile.txt", "--tokens", 512, "--inputs", 64, "-o",
            cls.profile)
        cli("trace", "--model", "demo", "--text", "demo/text/test.txt", "--tokens", 192, "--split", "test", "-o", cls.test)
        cls.links = at / "greedy.links"
        cli("link", "--traces", cls.profile, "--order", "greedy", "-o", cls.links)
        cls.pack = at / "greedy.lnp"
        cli("pack", "--model", "demo", "--links", cls.links, "--dtype", "f32", "-o", cls.pack)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()


class Traces(Files):
    def test_arrays_are_those_of_the_file(self):
        trace, (found, metadata) = lnp.Trace(self.profile), tensors(self.profile)
        self.assertEqual([trace.layers, trace.neurons, trace.tokens, trace.window],
                         [int(metadata[key]) for key in ("layers", "neurons", "tokens", "window")])
        self.assertEqual(trace.metadata, metadata)
        for layer in range(trace.layers):
            bits = found[f"layer.{layer}"]
            np.testing.assert_array_equal(trace.bits(layer), bits)
            neuron = np.arange(trace.neurons)
            np.testing.assert_array_equal(trace.active(layer), bits[:, neuron // 8] >> (neuron % 8) & 1)
            np.testing.assert_array_equal(trace.inputs(layer), found[f"inputs.{layer}"])
            self.assertTrue(mapped(trace.bits(layer)) and mapped(trace.inputs(layer)))
        np.testing.assert_array_equal(trace.token_ids, found["token_ids"])
        np.testing.assert_array_equal(trace.input_rows, found["input_rows"])
        self.assertTrue(mapped(trace.token_ids))
        self.assertIsNone(trace.predicted(0))
        self.assertIsNone(lnp.Trace(self.test).inputs(0))

    def test_what_is_not_looked_at_is_not_read(self):
        tokens, neurons = 1 << 15, 1 << 17
        data = tokens * neurons // 8
        header = json.dumps({
            "__metadata__": {"layers": "1", "neurons": str(neurons), "tokens": str(tokens), "window": "64"},
            "layer.0": {"dtype": "U8", "shape": [tokens, neurons // 8], "data_offsets": [0, data]},
        }).encode()
        path = self.at / "sparse.trace"
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + data)

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        before = resident()
        bits = lnp.Trace(path).bits(0)
        self.assertEqual(bits.nbytes, 512 << 20)
        self.assertEqual(int(bits[::4096].sum()), 0)
        self.assertLess(resident() - before, 64 << 20)

    def test_a_view_outlives_its_trace(self):
        bits = lnp.Trace(self.profile).bits(0)
        np.testing.assert_array_equal(bits, tensors(self.profile)[0]["layer.0"])

    def test_what_is_written_is_what_is_read_here_and_by_the_command_line(self):
        rng = np.random.default_rng(7)
        for tokens, neurons in [(1, 1), (5, 8), (40, 13), (70, 129)]:
            layers = [rng.random((tokens, neurons)) < 0.3 for _ in range(3)]
            path = self.at / "written.trace"
            lnp.write_trace(path, layers, model="m", corpus="c", window=tokens, token_ids=range(tokens))
            trace = lnp.Trace(path)
            for layer, active in enumerate(layers):
                np.testing.assert_array_equal(trace.active(layer), active)
            np.testing.assert_array_equal(trace.token_ids, np.arange(tokens))
            links = self.at / "written.links"
            self.assertEqual(json.loads(cli("link", "--traces", path, "--order", "frequency", "-o", links, "--json"))
                             ["profile_tokens"], tokens)
            np.testing.assert_array_equal(lnp.Links(links).active_count(1), layers[1].sum(0))

    def test_what_is_not_a_trace_is_one_line(self):
        ragged = [np.ones((3, 4)), np.ones((3, 5))]
        for layers, line in [(ragged, "layer 1 is an array of shape"), ([], "no layers"), ([np.ones(3)], "layer 0 is")]:
            with self.assertRaisesRegex(lnp.Error, line):
                lnp.write_trace(self.at / "no.trace", layers, model="m", corpus="c")
        for layers, more in [([np.ones((0, 4))], {}), ([np.ones((2, 4))], {"window": 0}),
                             ([np.ones((2, 4))], {"token_ids": [1]}), ([np.ones((2, 4))], {"token_ids": [1, -2]})]:
            with self.assertRaises(lnp.Error):
                lnp.write_trace(self.at / "no.trace", layers, model="m", corpus="c", **more)
        self.assertFalse((self.at / "no.trace").exists())


class Linking(Files):
    def test_links_are_those_of_the_command_line(self):
        for order, options in [("identity", {}), ("random", {"seed": 3}), ("frequency", {"pin": 0.2}), ("greedy", {}),
                               ("jaccard", {}), ("refined", {"law": "a_us=50,b_mib_s=900,combine=max"}), ("miss", {}),
                               ("replicas:2", {"bundle_bytes": 1536}), ("best", {})]:
            with self.subTest(order=order):
                ours, theirs = self.at / "ours.links", self.at / "theirs.links"
                links = lnp.link(self.profile, ours, order=order, **options)
                given = [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value)]
                cli("link", "--traces", self.profile, "--order", order, *given, "-o", theirs)
                self.assertEqual(ours.read_bytes(), theirs.read_bytes())
                self.assertEqual(links.placements, 2 if order == "replicas:2" else 1)

    def test_arrays_are_those_of_the_file(self):
        links, (found, metadata) = lnp.Links(self.links), tensors(self.links)
        self.assertEqual([links.order, str(links.neurons), links.model, str(links.profile_tokens)],
                         [metadata[key] for key in ("order", "neurons", "model", "profile_tokens")])
        active = lnp.Trace(self.profile)
        for layer in range(links.layers):
            for name in ("neuron_of_slot", "link_begin"):
                array = getattr(links, name)(layer)
                np.testing.assert_array_equal(array, found[f"{name}.{layer}"])
                self.assertTrue(mapped(array))
            np.testing.assert_array_equal(links.slot_of_neuron(layer)[links.neuron_of_slot(layer)],
                                          np.arange(links.neurons))
            np.testing.assert_array_equal(links.active_count(layer), active.active(layer).sum(0))

    def test_several_traces(self):
        both = lnp.link([self.profile, str(self.test)], self.at / "both.links", order="frequency")
        self.assertEqual(both.profile_tokens, 512 + 192)


class Packs(Files):
    def test_golden_packs_are_what_the_second_reader_finds(self):
        paths = sorted(GOLDEN.glob("*.lnp"))
        self.assertTrue(paths)
        for path in paths:
            with self.subTest(pack=path.name):
                pack = lnp.Pack(path)
                with open(path, "rb") as file:
                    self.assertEqual(pack.description, second.read_pack(file, False))
                    entries = {(s.kind, s.layer, s.placement): s
                               for s in second.read_section_table(file, second.read_superblock(file))}
                    for layer in range(pack.layers):
                        for placement in range(pack.placements):
                            self.compare(pack, file, entries, layer, placement)
                pack.verify()

    def compare(self, pack, file, entries, layer, placement):
        entry = entries[second.LINK_INDEX, layer, placement]
        n, k, s = struct.unpack("<II8xI", second.read_at(file, entry.offset, 20))
        s = s or n  # slots are told where there are copies
        at = entry.offset + 32
        for name, count in [("slot_of_neuron", n), ("neuron_of_slot", s), ("link_begin", k + 1), ("active_count", s)]:
            array = getattr(pack, name)(layer, placement)
            self.assertEqual(array.tolist(), second.read_u32s(file, at, count).tolist())
            self.assertTrue(mapped(array))
            at += 4 * count
        bundles = pack.bundles(layer, placement)
        self.assertTrue(mapped(bundles))
        self.assertEqual([zlib.crc32(row.tobytes()) for row in bundles], pack.bundle_checksums(layer, placement).tolist())
        side = entries.get((second.SIDE_DATA, layer, 0))
        arrays = side and struct.unpack("<I", second.read_at(file, side.offset, 4))[0] or 0
        at = side and side.offset + 16
        for bit, (name, count) in enumerate([("neuron_bias", n), ("output_bias", pack.hidden), ("up_bias", n),
                                             ("down_norm", n)]):
            array = getattr(pack, name)(layer)
            if not arrays >> bit & 1:
                self.assertIsNone(array)
                continue
            stored = np.frombuffer(second.read_at(file, at, 4 * count), "<f4")
            np.testing.assert_array_equal(array, stored)
            at += 4 * count

    def test_weights_are_the_checkpoints(self):
        pack, (checkpoint, _) = lnp.Pack(self.pack), tensors(ROOT / "demo" / "model.safetensors")
        layers = [name for name in checkpoint if name.endswith("layers.1.fc1.weight")]
        self.assertEqual(len(layers), 1, sorted(checkpoint))
        up, down = checkpoint[layers[0]], checkpoint[layers[0].replace("fc1", "fc2")]
        weights = pack.weights(1)
        self.assertEqual(weights.shape, (pack.neurons, pack.parts, pack.hidden))
        self.assertTrue(mapped(weights))
        of_neuron = weights[pack.slot_of_neuron(1)]
        np.testing.assert_array_equal(of_neuron[:, 0], up)
        np.testing.assert_array_equal(of_neuron[:, 1], down.T)

    def test_bundles_without_a_type_of_numpys(self):
        path = self.at / "q8.lnp"
        cli("pack", "--model", "demo", "--dtype", "q8_0", "-o", path)
        pack = lnp.Pack(path)
        self.assertEqual(pack.bundles(0).shape, (pack.neurons, pack.bundle_bytes))
        with self.assertRaisesRegex(lnp.Error, "q8_0"):
            pack.weights(0)


class Replaying(Files):
    def rows(self, *arguments):
        return json.loads(cli("replay", "--simulate", "--traces", self.test, "--json", *arguments))["rows"]

    def test_rows_are_those_of_the_command_line(self):
        identity = self.at / "identity.lnp"
        cli("pack", "--model", "demo", "-o", identity)
        ours = lnp.replay(self.test, packs=[identity, self.pack])
        self.assertEqual(ours, self.rows(identity, self.pack))
        law = "t0_us=4,a_us=50,b_mib_s=900,combine=max"
        ours = lnp.replay(self.test, links=self.links, bundle_bytes=4096, law=lnp.DeviceLaw.parse(law), repeats=1,
                          cache_ratio=[0.1, 0.3], cache_policies=["lru", "pinned"], warm=True, gap=16384, adapt=True,
                          tokens=50, queue_depth=8)
        theirs = self.rows("--links", self.links, "--bundle-bytes", "4K", "--law", law, "--repeats", 1, "--cache-ratio",
                           "0.1,0.3", "--cache-policies", "lru,pinned", "--warm", "--gap", 16384, "--adapt", "--tokens", 50,
                           "--queue-depth", 8)
        self.assertEqual(ours, theirs)
        self.assertGreater(len(ours), 6)

    def test_what_was_counted_is_what_the_trace_has(self):
        row = lnp.replay(self.test, links=self.links, bundle_bytes=4096, cache_ratio=0)[1]
        trace, links = lnp.Trace(self.test), lnp.Links(self.links)
        active = [trace.active(layer)[:, links.neuron_of_slot(layer)] for layer in range(trace.layers)]
        begins = sum(int(a[:, 0].sum() + (a[:, 1:] & ~a[:, :-1]).sum()) for a in active)
        self.assertAlmostEqual(row["active_bundles_per_token"] * trace.tokens, sum(int(a.sum()) for a in active))
        self.assertAlmostEqual(row["runs_per_token"] * trace.tokens, begins)

    def test_an_order_made_from_the_very_trace_is_a_warning(self):
        with self.assertWarnsRegex(UserWarning, "made from this very trace"):
            lnp.replay(self.profile, links=self.links, bundle_bytes=4096, tokens=8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lnp.replay(self.test, links=self.links, bundle_bytes=4096, tokens=8)

    def test_types_name_every_key(self):
        for row in lnp.replay(self.test, packs=self.pack, adapt=True, tokens=8):
            self.assertLessEqual(row.keys(), lnp.Row.__annotations__.keys())
            self.assertEqual(row["io_us_per_token"].keys(), lnp.Times.__annotations__.keys())
            self.assertEqual(row["layers"][0].keys(), lnp.LayerRow.__annotations__.keys())


class Laws(unittest.TestCase):
    def test_time_is_the_formula(self):
        for combine, join in [("sum", lambda a, b: a + b), ("max", max)]:
            law = lnp.DeviceLaw(9.5, 2000, combine, t0_us=3)
            for reads, size in [(1, 4096), (100, 1 << 20), (7, 1 << 26)]:
                expected = 3 + join(9.5 * reads, size / (2000 * 2**20) * 1e6)
                self.assertAlmostEqual(law.time_us(reads, size), expected)
            self.assertEqual(law.time_us(0, 0), 0)
            self.assertEqual(law.gap_bytes, int(np.ceil(9.5e-6 * 2000 * 2**20)))
            self.assertEqual(lnp.DeviceLaw.parse(str(law)), law)
            self.assertEqual(hash(lnp.DeviceLaw.parse(str(law))), hash(law))
            self.assertEqual(eval(repr(law), {"DeviceLaw": lnp.DeviceLaw}), law)
        self.assertNotEqual(lnp.DeviceLaw(1, 2), lnp.DeviceLaw(1, 3))

    def test_profiles(self):
        law = lnp.DeviceLaw.read(ROOT / "devices" / "oneplus-12.toml")
        text = (ROOT / "devices" / "oneplus-12.toml").read_text()
        self.assertIn(f"a_us = {law.a_us}", text)

    def test_what_no_device_has(self):
        for make in [lambda: lnp.DeviceLaw(-1, 2), lambda: lnp.DeviceLaw(1, 0), lambda: lnp.DeviceLaw(1, 2, "avg"),
                     lambda: lnp.DeviceLaw.parse("a_us=1")]:
            with self.assertRaises(lnp.Error):
                make()


class Errors(Files):
    def test_the_line_is_that_of_the_command_line(self):
        none, text = self.at / "none", ROOT / "README.md"
        out = self.at / "out"
        for ours, theirs in [
            (lambda: lnp.Pack(none), ("inspect", none)),
            (lambda: lnp.Pack(text), ("inspect", text)),
            (lambda: lnp.link(none, out), ("link", "--traces", none, "-o", out)),
            (lambda: lnp.link(text, out), ("link", "--traces", text, "-o", out)),
            (lambda: lnp.link(self.at, out), ("link", "--traces", self.at, "-o", out)),
            (lambda: lnp.link([self.profile], self.profile), ("link", "--traces", self.profile, "-o", self.profile)),
            (lambda: lnp.replay(self.test, links=text, bundle_bytes=1), ("replay", "--simulate", "--traces", self.test,
                                                                        "--links", text, "--bundle-bytes", 1)),
            (lambda: lnp.replay(self.test, packs=GOLDEN / "f16-gated.lnp"), ("replay", "--simulate", "--traces", self.test,
                                                                            GOLDEN / "f16-gated.lnp")),
            (lambda: lnp.replay(self.test, packs=self.pack, cache_ratio=2), ("replay", "--simulate", "--traces", self.test,
                                                                            self.pack, "--cache-ratio", 2)),
            (lambda: lnp.DeviceLaw.read(text), ("replay", "--simulate", "--traces", self.test, self.pack, "--device", text)),
        ]:
            line = told(*theirs)
            with self.subTest(line=line), self.assertRaises(lnp.Error) as error:
                ours()
            self.assertEqual(str(error.exception), line)
        self.assertFalse(out.exists())

    def test_each_invalid_golden_pack_is_refused(self):
        golden = json.loads((GOLDEN / "golden.json").read_text())["invalid"]
        for name, about in golden.items():
            with self.subTest(pack=name), self.assertRaises(lnp.Error) as error:
                lnp.Pack(GOLDEN / "invalid" / name).verify()
            self.assertTrue(str(error.exception).endswith(about["error"]), error.exception)

    def test_layers_that_are_not_there(self):
        pack, trace, links = lnp.Pack(self.pack), lnp.Trace(self.test), lnp.Links(self.links)
        for ask in [lambda: pack.bundles(pack.layers), lambda: pack.bundles(-1), lambda: pack.bundles(0, 1),
                    lambda: pack.neuron_bias(99), lambda: trace.bits(trace.layers), lambda: trace.active(-1),
                    lambda: links.neuron_of_slot(0, 1)]:
            with self.assertRaisesRegex(lnp.Error, "no (layer|placement) "):
                ask()
        with self.assertRaises(TypeError):
            trace.bits(1.5)

    def test_names_are_printed_without_control_characters(self):
        with self.assertRaises(lnp.Error) as error:
            lnp.Trace("a\nb\x1b[2J")
        self.assertTrue(str(error.exception).isprintable())

    def test_a_file_put_in_the_place_of_the_checked_one(self):
        path = self.at / "replaced.lnp"
        path.write_bytes(self.pack.read_bytes())
        places = lnp._lnp.pack_places

        def replace(given):
            found = places(given)
            other = self.at / "other"
            other.write_bytes(self.pack.read_bytes())
            os.replace(other, path)
            return found

        lnp._lnp.pack_places = replace
        try:
            with self.assertRaisesRegex(lnp.Error, "replaced while it was opened"):
                lnp.Pack(path)
        finally:
            lnp._lnp.pack_places = places


if __name__ == "__main__":
    unittest.main()
