"""The work folder of a comparison, and what is made in it: llama.cpp, GGUF files, traces, packs. What is there already is
used again."""

import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

from machine import one_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

LLAMA_CPP = "llama-cpp-python==0.3.36"
PACKAGES = ["cmake", "gguf", "numpy"]
CMAKE = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DGGML_CCACHE=OFF", "-DLLAMA_OPENSSL=OFF"] + [
    f"-DLLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TOOLS", "EXAMPLES", "TESTS", "SERVER", "APP")]


class Failed(Exception):
    """Ends the comparison with one line."""


def note(text):
    print(f"sidebyside: {text}", file=sys.stderr, flush=True)


def call(*command, **more):
    """Runs a command that must succeed; its stdout. What it says goes into the error."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, **more)
    if done.returncode:
        raise Failed(f"{Path(str(command[0])).name} {Path(str(command[1])).name}: {one_line(done.stderr or done.stdout)}")
    return done.stdout


def memory_to_make():
    """What linking and predicting may take here, as `--memory`: three fifths of what there is."""
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') * 3 // 5 >> 20}M"


def key_of(parts):
    """A short name for what something is made from."""
    return f"{zlib.crc32(repr([str(part) for part in parts]).encode()):08x}"


class Work:
    """The work folder, and what is made in it."""

    def __init__(self, args, packs):
        self.args = args
        self.packs = packs
        self.folder = args.work.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lnp = args.lnp
        files = sorted(path for path in args.model.iterdir() if path.is_file())
        self.weights = [path for path in files if path.suffix == ".safetensors"]
        if not self.weights:
            raise Failed(f"{args.model}: no *.safetensors there")
        self.config = json.loads((args.model / "config.json").read_text())
        # Another model under the same name, or other traces, must not meet packs of before.
        sources = files + [path for path in (args.traces, args.predictors, args.text) if path]
        key = key_of((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources)
        self.made = self.folder / f"{args.model.name}-{key}"
        self.made.mkdir(exist_ok=True)
        self.python = self.folder / "venv/bin/python"
        self.failed = {}

    def model_bytes(self):
        """The model's size in f16, by the headers of its files."""
        numbers = 0
        for path in self.weights:
            with open(path, "rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            for name, told in header.items():
                count = 1
                for length in told.get("shape", [0]):
                    count *= length
                numbers += count if name != "__metadata__" else 0
        return 2 * numbers

    def make(self, name, command):
        """A file of the work folder, made by a command that writes it, unless it is there: made by the same command."""
        stem, _, end = name.rpartition(".")
        path = self.made / f"{stem}-{key_of(command[1:])}.{end}"
        if name in self.failed:
            raise self.failed[name]
        if not path.exists():
            unfinished = path.with_name("unfinished-" + path.name)
            unfinished.unlink(missing_ok=True)
            note(f"making {name}")
            try:
                call(*command, unfinished)
            except Failed as error:
                self.failed[name] = error
                raise
            unfinished.rename(path)
        return path

    def environment(self):
        """A Python with what GGUF files and llama.cpp need."""
        if not self.python.exists():
            call(sys.executable, "-m", "venv", self.folder / "venv")
        if call(self.python, "-c", "import importlib.util as u; print(bool(u.find_spec('gguf')))").strip() != "True":
            note("installing " + ", ".join(PACKAGES))
            call(self.python, "-m", "pip", "install", "-q", *PACKAGES)

    def llama_cpp(self):
        """The build folder of llama.cpp, built unless it is there: three minutes on two cores."""
        build = self.args.llama_cpp or self.folder / "llama.cpp"
        if not list(build.glob("bin/libllama.so*")):
            if self.args.llama_cpp:
                raise Failed(f"{build}: no bin/libllama.so there")
            note(f"fetching and building {LLAMA_CPP}")
            # Not `--no-binary :all:`: that would build CMake too.
            call(self.python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python",
                 "-d", self.folder, LLAMA_CPP)
            archive = next(self.folder.glob("llama_cpp_python-*.tar.gz"))
            call("tar", "xzf", archive, "-C", self.folder)
            source = next(path for path in self.folder.glob("llama_cpp_python-*") if path.is_dir()) / "vendor/llama.cpp"
            repair(source / "ggml/src/ggml-cpu/amx/mmq.cpp")
            cmake = self.folder / "venv/bin/cmake"
            call(cmake, "-S", source, "-B", build, *CMAKE)
            call("nice", "-n", "19", cmake, "--build", build, "-j", str(os.cpu_count()), "--target", "llama")
        return build.resolve()

    def llama_tokens(self):
        """Our program over llama.cpp's library."""
        build = self.llama_cpp()
        source = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", (build / "CMakeCache.txt").read_text(), re.MULTILINE)[1]
        program, code = self.folder / "llama_tokens", HERE / "llama_tokens.cpp"
        if not program.exists() or program.stat().st_mtime < code.stat().st_mtime:
            call("c++", "-O2", "-std=c++17", f"-I{source}/include", f"-I{source}/ggml/include", code, "-o", program,
                 f"-L{build}/bin", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{build}/bin")
        return program

    def gguf(self, kind):
        return self.make(f"{kind}.gguf", [self.python, HERE / "to_gguf.py", self.args.model, "--type", kind])

    def traces(self):
        """Traces of the model, those given or recorded over a text."""
        if self.args.traces:
            return self.args.traces
        return self.make("text.trace", [self.lnp, "trace", "--model", self.args.model, "--text", self.args.text, "--tokens",
                                        self.args.trace_tokens, "--inputs", self.args.trace_tokens, "-o"])

    def predictors(self):
        """Predictors for all packs; none where asked for none, or where the model has none."""
        if self.args.no_predictors or self.args.predictors:
            return self.args.predictors
        return self.make("low-rank.predictors", [self.lnp, "predict", "--model", self.args.model, "--traces", self.traces(),
                                                 "--memory", memory_to_make(), "-o"])

    def pack(self, name):
        order, more = self.packs[name]
        links = self.make(f"{order}.links", [self.lnp, "link", "--traces", self.traces(), "--order", order,
                                              "--memory", memory_to_make(), "-o"])
        predictors = self.predictors()
        more = more.split() + (["--predictors", predictors] if predictors else [])
        return self.make(f"{name}.lnp", [self.lnp, "pack", "--model", self.args.model, "--links", links, *more, "-o"])

    def bandwidth(self):
        """Bytes a second that the memory gives to as many threads as the runs have."""
        program, code = self.folder / "bandwidth", HERE / "bandwidth.c"
        if not program.exists() or program.stat().st_mtime < code.stat().st_mtime:
            call("cc", "-O3", "-march=native", "-pthread", code, "-o", program)
        return float(call(program, self.args.threads, 256, 9))


def repair(path):
    """Compilers leave out writing the AMX tiles' configuration, and repacked rows die of SIGILL (ggml-org/llama.cpp, pull
    request 26954, open in the autumn of 2026): it shall be compared at its best."""
    load = "    _tile_loadconfig(&tc);"
    path.write_text(path.read_text().replace(load, '    __asm__ volatile("" : : "r"(&tc) : "memory");\n' + load))


def law_of(path):
    """The law of a device profile: microseconds that reads and bytes of a token take."""
    text = path.read_text()
    value = lambda name: float(re.search(rf"^{name} = ([\d.e+-]+)", text, re.MULTILINE)[1])
    a, b, whole = value("a_us"), value("b_mib_s") * 1.048576, max if 'combine = "max"' in text else lambda pair: sum(pair)
    return lambda reads, bytes_: whole((reads * a, bytes_ / b))
