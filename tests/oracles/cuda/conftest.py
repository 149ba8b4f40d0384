"""CUDA's libraries without a GPU, for onnxruntime's own CUDA provider to run over: runtime.c says what they do.

The provider is the real one: it decides which operators it takes and in which types, what is copied when, and which
kernels are launched. Only the kernels do not run. So a test sees all of that, and never a right number.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GPU_IS_THERE = Path("/proc/driver/nvidia").exists()
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


class StandIn:
    """What the stand-in has seen since it was told to forget."""

    def __init__(self, runtime: ctypes.CDLL) -> None:
        self._runtime = runtime
        runtime.stand_in_copied.restype = runtime.stand_in_launched.restype = ctypes.c_long

    def forget(self) -> None:
        self._runtime.stand_in_forget()

    @property
    def copied(self) -> tuple[int, int]:
        """Bytes to the device, and back."""
        return tuple(self._runtime.stand_in_copied(kind) for kind in (HOST_TO_DEVICE, DEVICE_TO_HOST))

    @property
    def launched(self) -> int:
        """Kernels."""
        return self._runtime.stand_in_launched()

    def leave(self, n_bytes: int) -> None:
        """Have no more than this left."""
        self._runtime.stand_in_leave(ctypes.c_size_t(n_bytes))


@pytest.fixture(scope="session")
def real_gpu() -> None:
    """Skip where there is none."""
    if not GPU_IS_THERE:
        pytest.skip("there is no GPU")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> StandIn:
    """Build and load what the provider is linked with; it finds them by their names, as they are loaded already."""
    ort = pytest.importorskip("onnxruntime")
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not provider.is_file():
        pytest.skip("make test-oracles has an environment with onnxruntime-gpu")
    if GPU_IS_THERE:
        pytest.skip("there is a GPU: nothing has to stand in for it")
    folder = tmp_path_factory.mktemp("cuda")
    return StandIn({name: _load(folder, name, wanted) for name, wanted in _wanted(provider).items()}["cudart"])


def _wanted(library: Path) -> dict[str, tuple[str, set[str]]]:
    """Return CUDA's libraries that a library is linked with: the file's name, and the functions it wants of each."""
    dynamic = _output("objdump", "--private-headers", library)
    files = {name: file for file, name in re.findall(r"NEEDED\s+(lib(cu\w+)\.so\.\d+)", dynamic)}
    symbols = re.findall(r" U ((?:__)?cu\w+)(?:@lib(\w+))?", _output("nm", "--dynamic", "--undefined-only", library))
    return {
        name: (file, {symbol for symbol, where in symbols if (where or "cuda") == name}) for name, file in files.items()
    }


def _load(folder: Path, name: str, wanted: tuple[str, set[str]]) -> ctypes.CDLL:
    file, symbols = wanted
    source = (HERE / "runtime.c").read_text() if name == "cudart" else ""
    rest = sorted(symbol for symbol in symbols if not re.search(rf"\b{symbol}\(", source))
    (folder / f"{name}.c").write_text(source)
    # In a file of its own, which has not read what CUDA's headers say of the same names.
    (folder / f"{name}-rest.c").write_text(
        "".join(_HANDLE % symbol if "Create" in symbol else _NOTHING % symbol for symbol in rest)
    )
    (folder / f"{name}.map").write_text(f"{file} {{ global: *; }};\n")
    nvidia = pytest.importorskip("nvidia.cu13", reason="make test-oracles installs CUDA's headers")
    includes = [f"-I{Path(path) / 'include'}" for path in nvidia.__path__]
    _output("cc", "-shared", "-fPIC", "-w", *includes, f"-Wl,-soname,{file}", f"-Wl,--version-script={name}.map",
            "-o", file, f"{name}.c", f"{name}-rest.c", folder=folder)  # fmt: skip
    return ctypes.CDLL(str(folder / file), ctypes.RTLD_GLOBAL)


_NOTHING = "int %s(void) { return 0; }\n"
_HANDLE = "int %s(void **made) { static char handle; return *made = &handle, 0; }\n"


def _output(*command: object, folder: Path | None = None) -> str:
    return subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
