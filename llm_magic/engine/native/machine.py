"""The processor at hand: kernels are compiled for it when they are first asked for, and run on PyTorch's threads.

A team of threads walks through a program, a list of instructions: each holds a kernel's address and what it
works on. One call from Python runs a whole step, without the interpreter's lock. Compiled code is kept in the
user's cache folder, so that only the first session waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import threading
from array import array
from pathlib import Path

import llvmlite
import torch
from llvmlite import binding, ir

from llm_magic.engine.native import attention, calls, layers, products, summary, tail
from llm_magic.engine.native.crew import Crew
from llm_magic.engine.native.emit import I32, I64, POINTER, VOID, Emitter
from llm_magic.engine.native.products import Product
from llm_magic.folders import cache_folder

# LLVM takes vpdpwssd apart for a shorter wait; here its throughput counts, which is twice as high whole
TUNING = "+fast-dpwssd"


class Machine:
    """Compiled kernels by name. One for each process: `machine()`. `without`: features of the processor not to use."""

    def __init__(self, kept_in: Path, without: frozenset[str] = frozenset()):
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        features, cpu = binding.get_host_cpu_features(), binding.get_host_cpu_name()
        for name in without:
            features[name] = False
        self._features = frozenset(name for name, is_there in features.items() if is_there)
        if platform.machine().lower() in ("x86_64", "amd64") and "f16c" not in self._features:
            raise RuntimeError("this processor does not convert half precision, and code that calls for it would abort")
        self._target = binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
            cpu=cpu, features=f"{features.flatten()},{TUNING}", opt=2, jit=True
        )
        self._has_openmp = _link_openmp()
        identity = (cpu, features.flatten(), TUNING, llvmlite.__version__, binding.llvm_version_info, self._has_openmp)
        self._kept = _ObjectFiles(kept_in, repr(identity))
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), self._target)
        self.crew = Crew(self.max_threads)
        self._lock = threading.RLock()  # an interrupt just before its release must not lock the thread out
        self._addresses: dict[str, int] = {}
        self.barrier = self._kernel("barrier", self._emit_barrier)
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._kernel("run", self._emit_team))

    def run(self, parameters: array) -> None:
        """Walk a program with as many threads as PyTorch uses."""
        self._run(parameters.buffer_info()[0])

    @property
    def max_threads(self) -> int:
        return torch.get_num_threads() if self._has_openmp else 1

    @property
    def n_threads(self) -> int:
        """How many work at present."""
        crew, n_max = self.crew, self.max_threads
        if crew.n_max != n_max:  # the user has chosen another number, which is a thread's own
            crew = self.crew = Crew(n_max)
        return min(crew.n_threads, n_max)

    # kernels' addresses

    @property
    def normalise(self) -> int:
        return self._kernel("normalise", layers.emit_normalise)

    @property
    def gate(self) -> int:
        return self._kernel("gate", layers.emit_gate)

    @property
    def summarise(self) -> int:
        return self._kernel("summarise", summary.emit_summarise)

    @property
    def merge_summaries(self) -> int:
        return self._kernel("merge_summaries", summary.emit_merge_summaries)

    @property
    def count_tail(self) -> int:
        return self._kernel("count_tail", tail.emit_count_tail)

    @property
    def merge_tails(self) -> int:
        return self._kernel("merge_tails", tail.emit_merge_tails)

    def prepare(self, at_once: int, is_shared: bool, has_floats: bool) -> int:
        name = f"prepare_{at_once}_{is_shared:d}_{has_floats:d}"
        return self._kernel(name, layers.emit_prepare, at_once, is_shared, has_floats)

    def attend(self, which: str, head_dim: int, is_cache_half: bool) -> int:
        """`attend`, `attend_chunks`, `merge_chunks` or `rotate`."""
        emit = getattr(attention, f"emit_{which}")
        return self._kernel(f"{which}_{head_dim}_{is_cache_half:d}", emit, head_dim, is_cache_half)

    def product(self, product: Product) -> int:
        return self._kernel(product.name, products.emit_product, product)

    def _kernel(self, name: str, emit, *arguments) -> int:
        """The address of a kernel; compiled, if neither this session nor an earlier one has it."""
        if (found := self._addresses.get(name)) is not None:
            return found
        with self._lock:
            if name not in self._addresses:
                code = self._kept.read(name)
                if code is None:
                    code = self._compile(name, emit, *arguments)
                    self._kept.write(name, code)
                self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
                self._engine.finalize_object()
                self._addresses[name] = self._engine.get_function_address(name)
            return self._addresses[name]

    def _compile(self, name: str, emit, *arguments) -> bytes:
        module = ir.Module(name)
        module.triple, module.features = self._target.triple, self._features
        module.data_layout = str(self._target.target_data)
        emit(module, name, *arguments)
        parsed = binding.parse_assembly(str(module))
        options = binding.create_pipeline_tuning_options(speed_level=1)
        options.loop_vectorization = options.slp_vectorization = False
        passes = binding.create_pass_builder(self._target, options)
        passes.getModulePassManager().run(parsed, passes)
        return self._target.emit_object(parsed)

    # the team

    def _emit_barrier(self, module: ir.Module, name: str) -> None:
        e = Emitter(module, name, [I64] * 4)
        if self._has_openmp:
            e.call("GOMP_barrier", VOID)
        e.finish()

    def _emit_team(self, module: ir.Module, name: str) -> None:
        e = Emitter(module, "team", [POINTER])
        parameters = e.builder.ptrtoint(e.arguments[0], I64)
        thread, n_threads = e.int(0), e.int(1)
        if self._has_openmp:
            thread, n_threads = (
                e.builder.zext(e.call(function, I32), I64) for function in ("omp_get_thread_num", "omp_get_num_threads")
            )
        program = e.load(e.at(parameters, calls.PROGRAM, 8), I64)
        with e.loop(0, e.load(e.at(parameters, calls.N_INSTRUCTIONS, 8), I64)) as i:
            instruction = e.at(program, i, 8 * calls.INSTRUCTION_WORDS)
            e.call_address(e.load(instruction, I64), parameters, instruction, thread, n_threads)
        e.finish()
        team = e.function
        e = Emitter(module, name, [POINTER])
        if self._has_openmp:
            count = e.load(e.at(e.builder.ptrtoint(e.arguments[0], I64), calls.N_THREADS, 8), I64)
            e.call("GOMP_parallel", VOID, team, e.arguments[0], e.builder.trunc(count, I32), e.int(0, I32))
        else:
            e.builder.call(team, [e.arguments[0]])
        e.finish()


class _ObjectFiles:
    """Compiled kernels on disk, one a file, each behind its SHA-256: a damaged one is made again.

    Their names hold a digest of all that the code depends on: processor, compiler, and the sources of the kernels.
    """

    def __init__(self, folder: Path, identity: str):
        self._folder = folder
        sources = sorted(Path(__file__).parent.glob("*.py"))
        digest = hashlib.sha256(identity.encode())
        for source in sources:
            digest.update(source.read_bytes())
        self._digest = digest.hexdigest()[:16]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}-{self._digest}.o"

    def read(self, name: str) -> bytes | None:
        try:
            data = self._path(name).read_bytes()
        except OSError:
            return None
        return data[32:] if data[:32] == hashlib.sha256(data[32:]).digest() else None

    def write(self, name: str, code: bytes) -> None:
        path = self._path(name)
        with contextlib.suppress(OSError):  # without room or rights it is compiled again next time
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(hashlib.sha256(code).digest() + code)
            draft.replace(path)


def machine() -> Machine | None:
    """This process's kernels, or None where machine code cannot be made (then PyTorch's products do the work)."""
    with _MAKING:
        return _make_machine()


_MAKING = threading.RLock()


@functools.cache
def _make_machine() -> Machine | None:
    if platform.system() == "Windows":  # large frames need its stack probes; nobody has run this there yet
        return None
    try:
        return Machine(cache_folder() / "kernels")
    except (OSError, RuntimeError):  # no memory that may be executed, or a processor that LLVM does not know
        return None


_OPENMP = ("gomp", "iomp", "omp.", "omp-")  # how its libraries' names go on behind "lib"


def _link_openmp() -> bool:
    """Make PyTorch's own OpenMP functions known to compiled code, so that both share one pool of threads."""
    folder = Path(torch.__file__).parent / "lib"
    folders = (folder, folder.parent.parent / "torch.libs")
    for path in (path for place in folders for path in sorted(place.glob("lib*omp*")) if path.name[3:7] in _OPENMP):
        try:
            library = ctypes.CDLL(str(path))
            for name in ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads"):
                binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
            return True
        except (OSError, AttributeError):
            continue
    return False
